"""Alphas that stand beside the tensors: in an adapter_config.json or in a file's metadata."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from wuerstchen.errors import ModelFolderError

METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's config of each network, as JSON with the network before each key."""

_UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "changed biases",
    "fan_in_fan_out": "transposed weights",
    "modules_to_save": "whole trained modules",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "trainable_token_indices": "trained tokens",
}


class Alphas:
    """Answers what the alpha of a module is, by peft's config or by kohya's metadata."""

    def __init__(self, path: Path, values: Mapping[str, object], network_alpha: object) -> None:
        """`values` may hold several configs, each key with a prefix such as `prior.`."""
        self.path = path
        self.values = values
        self.network_alpha = network_alpha
        for key, value in values.items():
            what = _UNSUPPORTED.get(key.rpartition(".")[2])
            if what is not None and value:
                raise ModelFolderError(
                    f"{path}: expected a plain LoRA, but its config says {key}: {what} cannot be "
                    "opened here; merge it with the tool that made it."
                )

    def of(self, module: str, rank: int) -> float | None:
        """The alpha of a module that the file calls `module`; None where nothing says it."""
        name = module.removeprefix("base_model.model.")
        prefix = ""
        for key in self.values:
            head, dot, last = key.rpartition(".")
            if dot and last == "lora_alpha" and name.startswith(f"{head}."):
                prefix, name = f"{head}.", name.removeprefix(f"{head}.")
                break
        alpha = self.values.get(f"{prefix}lora_alpha", self.network_alpha)
        patterns = self.values.get(f"{prefix}alpha_pattern")
        if isinstance(patterns, dict):
            for pattern, value in patterns.items():
                if self._matches(str(pattern), name):
                    alpha = value
                    break
        if alpha is None:
            return None
        try:
            number = float(alpha)  # type: ignore[arg-type]  # checked by trying
        except (TypeError, ValueError):
            raise ModelFolderError(
                f"{self.path}: expected a number for the alpha of {module}, found {alpha!r}."
            ) from None
        # With rank-stabilised LoRA the scale is alpha / sqrt(rank) (arXiv:2312.03732).
        return number * math.sqrt(rank) if self.values.get(f"{prefix}use_rslora") else number

    def _matches(self, pattern: str, name: str) -> bool:
        # peft: the last words of the name, or the whole name where the pattern begins with ^.
        try:
            return re.match(rf"(.*\.)?({pattern})$", name) is not None
        except re.error as error:
            raise ModelFolderError(
                f"{self.path}: alpha_pattern holds {pattern!r}, which is no pattern ({error})."
            ) from None


def metadata_config(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    """The configs in the metadata of a file of diffusers; empty where there are none."""
    text = metadata.get(METADATA)
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ModelFolderError(f"{path}: its metadata {METADATA} should be a JSON table.")
    return values
