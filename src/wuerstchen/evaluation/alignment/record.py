"""Scores prompt by prompt with the protocol of their measurement, as a file and as a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from wuerstchen.atomic_write import write_file
from wuerstchen.evaluation.alignment.judges import TITLES
from wuerstchen.evaluation.distances.record import Setting, versions
from wuerstchen.evaluation.metrics import Estimate, mean_estimate

FILE = "alignment.json"

ALL = "all prompts"


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of the image of one prompt."""

    prompt: str
    category: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Alignment:
    """Scores and their protocol card."""

    protocol: Mapping[str, Setting]
    """How it was measured; scores are comparable if all of it is the same."""
    drawn: Mapping[str, Setting]
    """What was measured: the images, and how a model drew them."""
    prompts: Sequence[Scored]

    def to_json(self) -> str:
        content = {
            "kind": "alignment",
            "protocol": dict(self.protocol),
            "drawn": dict(self.drawn),
            "versions": versions(),
            "figures": {
                name: {group: asdict(found) for group, found in groups.items()}
                for name, groups in self.figures().items()
            },
            "prompts": [asdict(each) for each in self.prompts],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: Path) -> Path:
        """Write alignment.json; raises SaveError."""
        path = folder / FILE
        write_file(path, self.to_json().encode())
        return path

    def figures(self) -> dict[str, dict[str, Estimate]]:
        """The mean of every score over all prompts and by category, with 95 % intervals."""
        return {
            name: {
                group: mean_estimate(torch.tensor([each.scores[name] for each in members]))
                for group, members in by_category(self.prompts).items()
            }
            for name in self.prompts[0].scores
        }

    def lines(self) -> Iterator[str]:
        """A table for people: a line for all prompts and for every category."""
        for name, groups in self.figures().items():
            yield TITLES[name]
            for group, found in groups.items():
                interval = found.interval(lambda bound: f"{bound:.4g}")
                yield f"  {group:34} {found.value:8.4g}  [{interval}]  n = {found.n}"


def by_category(prompts: Sequence[Scored]) -> dict[str, list[Scored]]:
    """All prompts, and those of every category that has a name."""
    groups = {ALL: list(prompts)}
    for each in prompts:
        if each.category:
            groups.setdefault(each.category, []).append(each)
    return groups
