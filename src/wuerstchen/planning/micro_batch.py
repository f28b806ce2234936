"""The largest micro-batch that fits, and how often it is repeated."""

from dataclasses import dataclass

from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import Memory, Spread, step_memory
from wuerstchen.planning.outline import Outline


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """How a device works through its share of a batch."""

    micro: int
    accumulate: int
    memory: Memory


def largest_micro(
    outline: Outline, setting: Setting, spread: Spread, share: int, room: int
) -> MicroBatches:
    """Of the micro-batches that divide `share`, the largest that takes at most `room` bytes.

    None is larger than the recipe's `accumulate` leaves it. Where none fits it is a single image.
    """

    def at(micro: int) -> MicroBatches:
        parts = share // micro
        return MicroBatches(micro, parts, step_memory(outline, setting, spread, micro, parts))

    most = share // outline.recipe.gradient_accumulation
    sizes = [size for size in range(1, most + 1) if share % size == 0]
    found = at(sizes[-1])
    if found.memory.total <= room:  # so it is with small networks, and no other is looked at
        return found
    found = at(1)
    low, high = 0, len(sizes) - 1  # sizes[low] is found, sizes[high] takes too much
    while high - low > 1:
        middle = (low + high) // 2
        tried = at(sizes[middle])
        if tried.memory.total <= room:
            low, found = middle, tried
        else:
            high = middle
    return found
