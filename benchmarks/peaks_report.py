"""The records of benchmarks/peaks.py, and docs/benchmarks/peaks.md, which shows them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.jobs import dtype_of
from benchmarks.records import Run

Mode = Literal["normal", "low_memory", "diffusers", "stage_a", "stage_a_strips"]


class Peak(BaseModel):
    """Memory that a process used, in bytes."""

    model_config = ConfigDict(frozen=True)
    mode: Mode
    side: int
    dtype: str
    files: str
    largest: int
    """Size of the largest file of weights."""
    before: int
    """With all code loaded, and no network."""
    seen: int
    """Peak of resident memory, `before` included. The system reclaims pages of mapped files when
    it likes, so it may be higher on another machine."""
    own_before: int
    own: int
    """Sampled peak of memory that belongs to no file, `own_before` included."""
    mapped: int
    """Files of weights mapped at the same time; all of it is resident if memory is not short."""
    seconds: float
    """From opening the files to the image."""
    finite: bool
    """Whether the image has no NaN or infinity."""

    @property
    def component(self) -> int:
        """Bytes of the largest component in its working dtype."""
        return self.largest * dtype_of(self.dtype).itemsize // dtype_of(self.files).itemsize

    @property
    def peak(self) -> int:
        """Peak bytes of model and image if the system reclaims nothing."""
        return max(self.seen - self.before, self.own - self.own_before + self.mapped)


class Peaks(BaseModel):
    """The content of peaks.json."""

    run: Run
    held: list[Peak]


LABELS = {
    "normal": "ours",
    "low_memory": "ours, `low_memory=True`",
    "diffusers": "diffusers' combined pipeline",
    "stage_a": "one piece",
    "stage_a_strips": "strips",
}
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}

INTRODUCTION = """# Peak memory

Written by `python -m benchmarks.peaks`. A model of the published sizes with random weights is
opened from its files and generates one image, with one guided step of Stage C and one step of Stage
B; more steps need no more memory. Every row is a process of its own, on a CPU.

- **peak**: the peak of model and image: the process's own memory, and the mapped files of weights
  as if every page of them was resident. What the process used with all code loaded and no model
  is subtracted; it is the column **code**.
- **own**: memory that belongs to no file (`RssAnon`, sampled every 5 ms). The system cannot
  reclaim it, unlike pages of mapped files.
- **seen**: the peak of resident memory by Linux's own count (`VmHWM`), less the same. It is below
  the peak by pages that were never read, such as tokens that are not in the text, and by pages
  that the system reclaimed, because memory was short or they were cold.
- **of the largest**: peak over the weights of the largest component, Stage B, in its working dtype.
  `low_memory` promises 1.3, plus activations.
"""


def page(peaks: Peaks) -> str:
    """The whole page."""
    run = peaks.run
    images = [each for each in peaks.held if not each.mode.startswith("stage_a")]
    decodings = [each for each in peaks.held if each.mode.startswith("stage_a")]
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
        *(_image(each) for each in images),
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
            *(_decoding(each) for each in decodings),
        ]
    return "\n".join(lines) + "\n"


def _image(each: Peak) -> str:
    return (
        f"| {each.side} | {DTYPES[each.dtype]} | {DTYPES[each.files]} | {LABELS[each.mode]} "
        f"| {_sizes(each)} | {each.peak / each.component:.2f} | {each.before / 1e9:.2f} |"
    )


def _decoding(each: Peak) -> str:
    return f"| {each.side} | {DTYPES[each.dtype]} | {LABELS[each.mode]} | {_sizes(each)} |"


def _sizes(each: Peak) -> str:
    sizes = (each.peak, each.own - each.own_before, each.seen - each.before)
    return " | ".join(f"{size / 1e9:.2f}" for size in sizes)
