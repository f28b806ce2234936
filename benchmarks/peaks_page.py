"""docs/benchmarks/peaks.md: the peaks as a table, with what they mean."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peaks import Held, Peaks

WORDS = {
    "normal": "ours",
    "low_memory": "ours, `low_memory=True`",
    "diffusers": "diffusers' combined pipeline",
    "stage_a": "one piece",
    "stage_a_strips": "strips",
}
KINDS = {"float32": "fp32", "bfloat16": "bf16"}

INTRODUCTION = """# Peaks of memory

Written by `python -m benchmarks.peaks`. A model of the published sizes with random weights is
opened from its files and draws one image, with one guided step of Stage C and one step of Stage
B; more steps hold no more memory. Every row is a process of its own, on a CPU.

- **peak**: the most that model and image take at a time: memory of the process's own, and the
  mapped files of weights as if every page of them was resident. What the process held with all
  code loaded and no model is taken off; it is the column **code**.
- **own**: the share that belongs to no file (`RssAnon`, looked at every 5 ms). The system cannot
  take it back, as it can pages of mapped files.
- **seen**: the most that was resident by Linux's own count (`VmHWM`), less the same. It is below
  the peak by pages that were never read, such as words that are not in the text, and by pages
  that the system took back, because memory was short or they were cold.
- **of the largest**: peak over the weights of the largest part, Stage B, in the numbers in which it
  works. The promise for `low_memory` is 1.3, and activations.
"""


def page(peaks: "Peaks") -> str:
    """The whole page."""
    run = peaks.run
    images = [held for held in peaks.held if not held.mode.startswith("stage_a")]
    decodings = [held for held in peaks.held if held.mode.startswith("stage_a")]
    lines = [
        INTRODUCTION,
        f"Measured {run.date} on {run.cpu} ({run.memory_gib} GiB), torch {run.torch}, diffusers "
        f"{run.diffusers}, commit {run.commit}. GB are 10^9 bytes.",
        "",
        "## A whole image",
        "",
        "| pixels | works in | files hold | how | peak GB | own GB | seen GB | of the largest "
        "| code GB |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_image(held) for held in images),
    ]
    if decodings:
        lines += [
            "",
            "## Decoding by Stage A",
            "",
            "Strips are 128 rows of latent cells, which are 512 rows of pixels. The pipeline takes "
            "them at 2048 pixels.",
            "",
            "| pixels | works in | decoded in | peak GB | own GB | seen GB |",
            "|---|---|---|---|---|---|",
            *(_decoding(held) for held in decodings),
        ]
    return "\n".join(lines) + "\n"


def _image(held: "Held") -> str:
    return (
        f"| {held.side} | {KINDS[held.dtype]} | {KINDS[held.files]} | {WORDS[held.mode]} "
        f"| {_sizes(held)} | {held.peak / held.part:.2f} | {held.before / 1e9:.2f} |"
    )


def _decoding(held: "Held") -> str:
    return f"| {held.side} | {KINDS[held.dtype]} | {WORDS[held.mode]} | {_sizes(held)} |"


def _sizes(held: "Held") -> str:
    sizes = (held.peak, held.own - held.own_before, held.seen - held.before)
    return " | ".join(f"{size / 1e9:.2f}" for size in sizes)
