"""The alphas and ranks that a file states beside the tensors of its LoRA.

What is stated and cannot be used is named in a warning.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from wuerstchen.display import printable
from wuerstchen.errors import ModelFolderError
from wuerstchen.lora.keys import is_bounded
from wuerstchen.lora.layers import PREFIXES, Target, flat
from wuerstchen.lora.sources import Source, SourceReader, Term, is_set


class Stated:
    """All that a file states; `warnings` fills while it is asked."""

    def __init__(
        self, path: Path, config: Mapping[str, object] | None, metadata: Mapping[str, str]
    ):
        """config: of adapter_config.json at `path`. Raises ModelFolderError for other adapters."""
        self._path = path
        self._warned: dict[str, str] = {}
        self._matched: set[tuple[str, str]] = set()
        found = SourceReader(path, self._warn).read(config, metadata)
        self._sources = [source for source in found if source.values]

    def alpha(self, module: str, target: Target, rank: int, tensor: float | None) -> float | None:
        """The alpha of a module by its name in the file, `tensor` first; None where none is stated.

        Ranks are compared, since alpha / rank is what counts.
        """
        stated: float | None = None
        for source in self._sources:
            found = self._of(source, module, target, rank)
            if found is not None and source.name != "ss_network_alpha":
                if tensor is not None and not math.isclose(found, tensor, rel_tol=1e-4):
                    self._warn(
                        source.name,
                        f"states an alpha of {found:g} for {module}, which has a tensor with "
                        f"{tensor:g}; the tensor counts",
                    )
            if stated is None:
                stated = found
        return stated if tensor is None else tensor

    def warnings(self) -> list[str]:
        """A sentence for each thing that was stated and not used."""
        for source in self._sources:
            for prefix, values in source.values.items():
                for term in ("alpha_pattern", "rank_pattern"):
                    patterns = values.get(term)
                    for pattern in patterns if isinstance(patterns, dict) else ():
                        if (f"{source.name}{prefix}{term}", str(pattern)) not in self._matched:
                            where = f"{term} of {source.name}: {printable(repr(pattern), 80)}"
                            self._warn(where, "matches no layer and is not used")
        return [f"{self._path}: {where} {what}." for where, what in self._warned.items()]

    def _of(self, source: Source, module: str, target: Target, rank: int) -> float | None:
        """The alpha that one source states."""
        name = module.removeprefix("base_model.model.")
        found = self._lookup(source, name, target, "alpha")
        stated_rank = self._lookup(source, name, target, "rank")
        if stated_rank is not None and self._number(source, "rank", stated_rank, module) != rank:
            self._warn(
                source.name,
                f"states a rank of {printable(stated_rank, 40)}, but {module} has {rank}; the "
                "rank of the tensors counts",
            )
        if found is None:
            return None
        number = self._number(source, "alpha", found, module)
        if number is None:
            return None
        # With rank-stabilised LoRA the scale is alpha / sqrt(rank) (arXiv:2312.03732).
        stable = self._lookup(source, name, target, "rslora")
        return number * math.sqrt(rank) if is_set(stable) else number

    def _lookup(self, source: Source, name: str, target: Target, term: Term) -> object:
        """The value of a term for a layer: by pattern, by its network's prefix, or for all."""
        found: object = None
        for prefix, values in source.values.items():
            if prefix and not name.startswith(prefix):
                if PREFIXES.get(flat(prefix.rstrip("."))) != target.network:
                    continue
            if term in ("alpha", "rank"):
                patterns = values.get("alpha_pattern" if term == "alpha" else "rank_pattern")
                for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
                    if self._matches(str(pattern), name.removeprefix(prefix), target.published):
                        self._matched.add((f"{source.name}{prefix}{term}_pattern", str(pattern)))
                        return value
            if term in values and (prefix or found is None):
                found = values[term]
        return found

    def _number(self, source: Source, term: str, value: object, module: str) -> float | None:
        try:
            number = float(value)  # type: ignore[arg-type]  # checked by trying
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if source.strict and term == "alpha" and math.isnan(number):
            raise ModelFolderError(
                f"{self._path}: expected a number for the alpha of {module}, found "
                f"{printable(repr(value), 80)}."
            )
        if source.strict or (math.isfinite(number) and number > 0):
            return number
        self._warn(
            f"{term} in {source.name}",
            f"is {printable(repr(value), 80)}, which is not a positive number, and is not used",
        )
        return None

    def _matches(self, pattern: str, *names: str) -> bool:
        # As in peft: the end of the name, or the whole name where the pattern starts with ^.
        if not is_bounded(pattern):
            raise ModelFolderError(
                f"{self._path}: alpha_pattern or rank_pattern has {printable(pattern, 80)!r}, "
                "which is too complex to match; name the layers one by one."
            )
        try:
            return any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)
        except (re.error, OverflowError, RecursionError) as error:
            raise ModelFolderError(
                f"{self._path}: alpha_pattern or rank_pattern has {pattern!r}, which is not a "
                f"pattern ({error})."
            ) from None

    def _warn(self, where: str, what: str) -> None:
        self._warned.setdefault(where, what)
