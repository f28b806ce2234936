"""The Markdown page and plots of the measurements, from their JSON files alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import accelerator_page, plots, sections
from benchmarks.figures import Figures
from benchmarks.goals import judge
from benchmarks.records import Results, read
from benchmarks.tables import table
from wuerstchen.atomic_write import write_file

SECTIONS = ("stages", "memory", "whole", "start", "peers", "flops", "accelerator")
PAGE = "inference.md"


def write_report(out: Path) -> Path:
    """Read the JSON files in `out`, and write the page and the plots next to them."""
    found = {section: read(out / f"{section}.json") for section in SECTIONS}
    figures = Figures(list(found.values()))
    written = plots.write_plots(figures, out)
    page = out / PAGE
    write_file(page, "\n".join(_page(found, figures, written, out)).encode())
    return page


def _page(
    found: Mapping[str, Results], figures: Figures, paths: Sequence[Path], out: Path
) -> Iterable[str]:
    yield "# Inference, measured\n"
    yield (
        "Written by `python -m benchmarks.inference`; [README.md](README.md) explains how to run "
        "and read it. Every time is a median, followed by minimum and maximum.\n"
    )
    yield from _runs(found)
    yield "## Goals\n"
    header = ("figure", "goal", "measured", "reached")
    yield from table(header, [list(row) for row in judge(figures)])
    yield from _profiles(out)
    for title, lines in (
        ("One call, ours against diffusers", sections.calls(figures)),
        ("Equal output", sections.differences(figures)),
        ("Whole images, composed of measured calls", sections.images(figures)),
        ("Whole images, all systems", sections.all_images(figures)),
        ("Whole images, generated", sections.whole_images(figures)),
        ("Peak memory", sections.memory(figures)),
        ("From the start of the process to the image", sections.starts(figures)),
        ("Operations per image", sections.operations(figures)),
        ("Operations per call", sections.call_operations(figures)),
        ("Seconds per call of the peers", sections.peers(figures)),
        ("On an accelerator", accelerator_page.accelerator(figures)),
    ):
        yield f"## {title}\n"
        yield from lines
    for path in paths:
        yield f"![{path.stem.replace('-', ' ')}]({path.name})\n"


def _runs(found: Mapping[str, Results]) -> Iterable[str]:
    rows = [
        [
            section,
            each.date,
            each.commit,
            each.networks,
            each.cpu,
            f"{each.threads}",
            f"{each.memory_gib:g} GiB",
            each.accelerator or "none",
            f"{each.python}, {each.torch}, {each.diffusers}",
        ]
        for section, results in found.items()
        for each in results.runs
    ]
    yield "## Machine and versions\n"
    yield "`+`: with changes that were committed later.\n"
    header = ("section", "date", "commit", "networks", "CPU", "threads", "memory", "accelerator")
    yield from table((*header, "Python, torch, diffusers"), rows)


def _profiles(out: Path) -> Iterable[str]:
    found = sorted(out.glob("profile-*.txt"))
    if found:
        links = ", ".join(f"[{path.stem.removeprefix('profile-')}]({path.name})" for path in found)
        yield f"Where the time goes, by operator: {links}.\n"
