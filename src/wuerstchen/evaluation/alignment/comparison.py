"""Two alignments side by side: differences prompt by prompt, with a paired bootstrap."""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from wuerstchen.evaluation.alignment.judges import TITLES
from wuerstchen.evaluation.alignment.record import Scored, by_category
from wuerstchen.evaluation.bootstrap import paired_difference
from wuerstchen.evaluation.distances.record import Setting
from wuerstchen.evaluation.metrics import fraction_estimate


class StoredPrompt(BaseModel):
    """A prompt and its scores in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    category: str
    scores: dict[str, float]


class StoredAlignment(BaseModel):
    """What `wuerstchen alignment` wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["alignment"]
    protocol: dict[str, Setting]
    drawn: dict[str, Setting]
    versions: dict[str, Setting]
    figures: dict[str, dict[str, dict[str, float]]]
    prompts: list[StoredPrompt]


def lines(records: Mapping[str, StoredAlignment]) -> Iterator[str]:
    """For the first record and each other one: difference and share of prompts that it wins."""
    (first, one), *others = records.items()
    for name, other in others:
        yield f"{name} against {first}: difference of the means [95 %], prompts won [95 %]"
        mine, theirs = _scored(one), {each.prompt: each for each in _scored(other)}
        for score in one.prompts[0].scores:
            yield TITLES.get(score, score)
            for group, members in by_category(mine).items():
                a, b = (
                    torch.tensor([each.scores[score] for each in side], dtype=torch.float64)
                    for side in (members, [theirs[each.prompt] for each in members])
                )
                yield _line(group, a, b)


def _line(group: str, a: Tensor, b: Tensor) -> str:
    found = paired_difference(a, b)
    decided = int((a != b).sum())
    row = f"  {group:34} {found.value:+8.4g} [{found.low:+.4g} to {found.high:+.4g}]"
    if not decided:
        return f"{row}  all equal  n = {found.n}"
    won = fraction_estimate(int((b > a).sum()), decided)
    share = f"{100 * won.value:.1f} % [{100 * won.low:.1f} to {100 * won.high:.1f}]"
    ties = f", {found.n - decided} equal" if found.n > decided else ""
    return f"{row}  {share}  n = {found.n}{ties}"


def _scored(record: StoredAlignment) -> list[Scored]:
    return [Scored(each.prompt, each.category, each.scores) for each in record.prompts]
