"""Page and plot of the quality study: `python -m benchmarks.studies.quality_report`."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no window, on any machine

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.records import Run
from benchmarks.studies.quality import FINE, OUT
from benchmarks.studies.quality_rows import Row, read
from wuerstchen.atomic_write import write_file

LOOKS = {
    ("ddpm", "time"): ("#000000", "s", "-"),
    ("dpm++2m-sde", "time"): ("#0072B2", "o", "-"),
    ("euler-ancestral", "time"): ("#56B4E9", "v", "-"),
    ("ddim", "time"): ("#E69F00", "^", "-"),
    ("dpm++2m", "time"): ("#D55E00", "D", "-"),
    ("dpm++2m", "tuned"): ("#D55E00", "d", "--"),
    ("heun", "time"): ("#CC79A7", "P", "-"),
}
"""Colour (Okabe and Ito, 2008), marker and line of sampler and spacing."""

INTRODUCTION = """# Quality against network evaluations

Written by `python -m benchmarks.studies.quality_report` from quality.json, which
`python -m benchmarks.studies.quality DATA` measured on an earlier bundled model (3D emoji of
128 pixels, networks that predict the noise) and the images that it was trained on and held out.

- **distance**: root mean square between the result and that of {fine} steps of dpm++2m from the
  same noise. Stochastic samplers have none, because their images differ for every number of
  steps.
- **Fréchet**: distance of features to those of the test images, and its standard deviation over
  resampled images. Features are mean and standard deviation of each channel of the compressor's
  semantics, in standard deviations of the test images; the sums are torchmetrics'. It is no FID:
  with {images} images of one small model it can rank settings, and cannot be compared with other
  papers.
- **nearest**, **five**: fraction of captions whose nearest training image shows the
  requested object, and whose nearest five do (as `wuerstchen evaluate`).
- **edges**: mean difference of neighbouring pixels, relative to the test images. PSNR rises when
  an image is blurred; edges fall.
- **evaluations**: of the network; `29 + 12` are 29 of Stage C and 12 of Stage B.
- **cost**: the evaluations of Stage C, of which those without guidance count half.

All figures are of one small model that generates its training captions at guidance 2. The released
weights were not available; their images with fewer steps have to be judged by eye. Their authors
used `ddpm`, 60 steps or the `published` 29, and 12 of Stage B.
"""


def main() -> None:
    found = read(OUT)
    rows = found.rows
    text = INTRODUCTION.format(fine=FINE, images=max(row.images for row in rows))
    parts = [text, "![Quality against evaluations](quality.png)\n"]
    for stage, title in (
        ("whole", "Both stages together"),
        ("C", "Stage C, guided at all times; Stage B as the model has it"),
        ("B", "Stage B, from the true semantics of test images"),
    ):
        chosen = [row for row in rows if row.stage == stage]
        if chosen:
            parts.append(f"## {title}\n\n{table(chosen)}")
    parts.append("## Runs\n\n" + runs(found.runs, rows))
    write_file(OUT.with_suffix(".md"), "\n".join(parts).encode())
    write_plot(rows, OUT.with_suffix(".png"))
    print(OUT.with_suffix(".md"))


def table(rows: list[Row]) -> str:
    head = "| setting | evaluations | cost | distance | Fréchet | nearest | five | PSNR | edges |"
    lines = [head, "|---|" + "---|" * 8]
    for row in rows:
        cells = [
            row.name,
            f"{row.evaluations}" if row.decoder is None else f"{row.evaluations} + {row.decoder}",
            f"{row.cost:g}",
            "-" if row.distance is None else f"{row.distance:.3f}",
            f"{row.frechet:.2f} ± {row.frechet_spread:.2f}",
            "-" if row.nearest is None else f"{row.nearest:.1%}",
            "-" if row.first_five is None else f"{row.first_five:.1%}",
            "-" if row.psnr is None else f"{row.psnr:.2f} dB",
            f"{row.edges:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def runs(known: list[Run], rows: list[Row]) -> str:
    """When and with what the rows were measured."""
    lines = []
    for index, run in enumerate(known):
        count = sum(row.run == index for row in rows)
        if count:
            lines.append(
                f"- {count} rows: {run.date}, commit {run.commit}, {run.cpu}, "
                f"threads: {run.threads}, torch {run.torch}."
            )
    if old := sum(row.run is None for row in rows):
        lines.insert(0, f"- {old} rows: before this file kept date and commit.")
    return "\n".join(lines) + "\n"


def write_plot(rows: list[Row], path: Path) -> None:
    """One plot: what falls or rises with evaluations, Stage C above and Stage B below."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    for line, stage, word in zip(axes, ("C", "B"), ("nearest", "psnr"), strict=True):
        fine = [row for row in rows if row.stage == stage and row.evaluations < FINE]
        _panel(line[0], fine, "distance", f"Stage {stage}: distance to {FINE} steps")
        _panel(line[1], fine, "frechet", f"Stage {stage}: Fréchet distance")
        last = "edges" if stage == "B" else word
        label = "edges, relative to real ones" if stage == "B" else "nearest shows the object"
        _panel(line[2], fine, last, f"Stage {stage}: {label}")
    axes[0][0].legend(fontsize=8)
    axes[1][1].legend(fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_file(path, content.getvalue())


def _panel(axes: Axes, rows: list[Row], what: str, title: str) -> None:
    for (sampler, spacing), (colour, marker, style) in LOOKS.items():
        points = [
            (row.evaluations, getattr(row, what))
            for row in rows
            if (row.sampler, row.spacing) == (sampler, spacing) and getattr(row, what) is not None
        ]
        if points:
            x, y = zip(*sorted(points), strict=True)
            label = sampler if spacing == "time" else f"{sampler}, {spacing}"
            axes.plot(x, y, style, color=colour, marker=marker, markersize=5, label=label)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("network evaluations")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([2, 3, 4, 6, 8, 12, 20, 30, 60])
    if what == "distance":
        axes.set_yscale("log")
    else:  # Heun's first points are far outside, and would flatten all other curves
        others = [getattr(row, what) for row in rows if row.sampler != "heun"]
        room = 0.15 * (max(others) - min(others))
        axes.set_ylim(min(others) - room, max(others) + room)
    axes.grid(visible=True, alpha=0.3)


if __name__ == "__main__":
    main()
