"""Where a file states something about its LoRA beside the tensors: peft's config, and metadata.

peft's adapter_config.json; JSON in the metadata of the safetensors file (diffusers'
lora_adapter_metadata and others); plain keys there such as `prior.lora_alpha` and `alpha`; and
kohya's ss_network_alpha.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wuerstchen.display import printable
from wuerstchen.errors import ModelFolderError
from wuerstchen.lora.layers import PREFIXES, flat
from wuerstchen.parsing import ParseError, parse_object
from wuerstchen.weights.files import json_object

METADATA = "lora_adapter_metadata"
"""Metadata entry in which diffusers stores peft's configs as JSON, keys prefixed by network."""

Term = Literal["alpha", "rank", "alpha_pattern", "rank_pattern", "rslora"]

TERMS: Mapping[str, Term] = {
    **dict.fromkeys(("lora_alpha", "network_alpha", "alpha", "ss_network_alpha"), "alpha"),
    **dict.fromkeys(
        ("r", "rank", "lora_r", "lora_rank", "network_dim", "network_rank", "lora_dim"), "rank"
    ),
    **dict.fromkeys(("use_rslora", "rslora", "rs_lora"), "rslora"),
    "alpha_pattern": "alpha_pattern",
    "rank_pattern": "rank_pattern",
}
"""Names of each term; any may follow the prefix of a network and a dot."""

OF_A_LORA = {
    "lora_alpha",
    "network_alpha",
    "lora_rank",
    "alpha_pattern",
    "rank_pattern",
    "use_dora",
}
"""Names that show that JSON in the metadata is about a LoRA."""

UNSUPPORTED: Mapping[str, str] = {
    "use_dora": "DoRA",
    "lora_bias": "changed biases",
    "fan_in_fan_out": "transposed weights",
    "modules_to_save": "whole trained modules",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "trainable_token_indices": "trained tokens",
    "layer_replication": "replicated layers",
    "target_parameters": "changed parameters that no layer has",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "Arrow routing",
}
CHANGED_BASE = re.compile(r"(?i)pissa|olora|loftq|corda|lora_ga")
"""Values of init_lora_weights that start from a changed base, to which the LoRA is relative."""

_PEFT_KEYS = frozenset(
    re.findall(
        r"\w+",
        """
        task_type peft_type auto_mapping peft_version base_model_name_or_path revision bias
        inference_mode target_modules exclude_modules lora_dropout init_lora_weights eva_config
        layers_to_transform layers_pattern megatron_config megatron_core loftq_config corda_config
        lora_ga_config velora_config qalora_group_size runtime_config ensure_weight_tying
        """,
    )
)
"""Keys of peft's config that say how it was trained, or that the tensors show."""

_BARE = frozenset(("", "lora", "network", "adapter", "peft", "default", "config"))
"""Prefixes that name no network."""

_SUSPECT = re.compile(r"(?i)(^|[._])(lora_?)?(alphas?|ranks?|r|dora|rslora)([._]|$)|lora.*scale")
"""Metadata keys that seem to be about alpha or rank."""

_NONE = frozenset(("", "none", "null", "false", "0", "[]", "{}", "no"))


@dataclass
class Source:
    """One place that states something."""

    name: str
    """For messages."""
    strict: bool
    """Whether a value that cannot be used is an error, not a warning."""
    values: dict[str, dict[Term, object]] = field(default_factory=dict)
    """By prefix of a network, then by term."""


class SourceReader:
    """Reads what a file states; what it does not understand goes to `warn` as (where, what)."""

    def __init__(self, path: Path, warn: Callable[[str, str], None]) -> None:
        self._path = path
        self._warn = warn

    def read(
        self, config: Mapping[str, object] | None, metadata: Mapping[str, str]
    ) -> Iterator[Source]:
        """config: of adapter_config.json; raises ModelFolderError for other kinds of adapters."""
        if config is not None:
            yield self._from_json(self._path.name, config, strict=True)
        rest = dict(metadata)
        if (text := rest.pop(METADATA, None)) is not None:
            yield self._from_json(
                METADATA,
                json_object(text, f"{self._path}: {METADATA} in its metadata"),
                strict=True,
            )
        plain: dict[str, object] = {}
        for key, text in rest.items():
            kohya = key.startswith(("ss_", "sshs_", "modelspec."))
            if text.lstrip().startswith("{") and TERMS.get(key.rpartition(".")[2]) is None:
                if not kohya and (found := self._lora_json(key, text)) is not None:
                    yield self._from_json(key, found, strict=False)
            elif not kohya:
                plain[key] = text
        yield self._from_plain(plain)
        alpha = rest.get("ss_network_alpha", "")
        if alpha.strip().lower() not in _NONE:
            yield Source("ss_network_alpha", False, {"": {"alpha": alpha}})

    def _lora_json(self, key: str, text: str) -> dict[str, object] | None:
        """The JSON of a metadata entry if it is about a LoRA."""
        if not any(f'"{name}"' in text or f'.{name}"' in text for name in OF_A_LORA):
            return None
        try:
            return parse_object(text)
        except ParseError as error:
            self._warn(f"{printable(key, 80)} in its metadata", f"is not used: {error}")
            return None

    def _from_json(self, name: str, values: Mapping[str, object], *, strict: bool) -> Source:
        source = Source(name, strict)
        nested = {
            f"{outer}.{inner}": value
            for outer, within in values.items()
            if isinstance(within, dict) and flat(outer) in PREFIXES
            for inner, value in within.items()
        }
        for key, value in {**values, **nested}.items():
            prefix, _, last = key.rpartition(".")
            self._refuse(key, last, value)
            term = TERMS.get(last)
            if term is not None and value is not None:
                self._put(source, prefix, term, value)
            elif strict and last not in _PEFT_KEYS and last not in UNSUPPORTED:
                if is_set(value) and flat(key) not in PREFIXES:
                    self._warn(f"{printable(key, 80)} in {name}", "is unknown and not used")
        return source

    def _from_plain(self, metadata: Mapping[str, object]) -> Source:
        """Keys with a term each; names that only resemble one are named."""
        source = Source("its metadata", strict=False)
        for key, value in metadata.items():
            prefix, _, last = key.rpartition(".")
            self._refuse(key, last, value)
            term = TERMS.get(last)
            if term is None:
                if _SUSPECT.search(key) and last not in UNSUPPORTED:
                    shown = f"{printable(key, 80)} in its metadata"
                    self._warn(shown, f"is not understood and not used ({printable(value, 80)})")
            elif not is_set(value) and str(value).strip() != "0":
                continue
            elif term in ("alpha_pattern", "rank_pattern"):
                try:
                    self._put(source, prefix, term, parse_object(str(value)))
                except ParseError as error:
                    self._warn(f"{printable(key, 80)} in its metadata", f"is not used: {error}")
            else:
                self._put(source, prefix, term, value)
        return source

    def _put(self, source: Source, prefix: str, term: Term, value: object) -> None:
        """Keep a value under its prefix; one whose prefix names nothing here is named."""
        if flat(prefix) not in _BARE and flat(prefix) not in PREFIXES:
            shown = f"{printable(prefix, 80)}.… in {source.name}"
            self._warn(shown, "names no network of this model and is not used")
            return
        start = "" if flat(prefix) in _BARE else f"{prefix}."
        source.values.setdefault(start, {}).setdefault(term, value)

    def _refuse(self, key: str, last: str, value: object) -> None:
        if last == "peft_type" and str(value).upper() != "LORA":
            raise ModelFolderError(
                f"{self._path}: expected the peft_type LORA, found {printable(value, 80)}."
            )
        what = UNSUPPORTED.get(last) if is_set(value) else None
        if last == "init_lora_weights" and CHANGED_BASE.fullmatch(
            str(value).partition("_niter")[0]
        ):
            what = f"a LoRA relative to base weights changed by {printable(value, 40)}"
        if what is not None:
            raise ModelFolderError(
                f"{self._path}: expected a plain LoRA, found {printable(key, 80)} in its config: "
                f"{what} cannot be opened; merge it with the tool that made it."
            )


def is_set(value: object) -> bool:
    """Whether a value of JSON, or of a metadata entry, which is always text, says something."""
    if isinstance(value, str):
        return value.strip().lower() not in _NONE
    return bool(value)
