"""Measure inference: `python -m benchmarks.inference`, explained in docs/benchmarks/README.md."""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.accelerator import measure_accelerator
from benchmarks.flops import SIDES as FLOP_SIDES
from benchmarks.flops import measure_flops
from benchmarks.jobs import BATCHES, DTYPES, MEASURED, Job, folder_of
from benchmarks.memory import measure_memory
from benchmarks.networks import PUBLISHED, STAGES, TINY
from benchmarks.records import ROOT, Store
from benchmarks.report import SECTIONS, write_report
from benchmarks.stages import measure_peers, measure_stages
from benchmarks.start import measure_start
from benchmarks.whole import measure_whole

SIDES = (512, 1024, 1536)
QUICK_SIDES = (128, 256)


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    out = options.out or ROOT / ("runs/quick-benchmark" if options.quick else "docs/benchmarks")
    sizes = TINY if options.quick else PUBLISHED
    start = time.monotonic()
    sides = options.sizes or (QUICK_SIDES if options.quick else SIDES)
    for section in () if options.report else options.only:
        print(f"== {section}", flush=True)
        job = Job(
            store=Store(folder_of(out, section), sizes.name),
            sizes=sizes,
            sides=sides if options.sizes or options.quick or section != "flops" else FLOP_SIDES,
            repeats=1 if options.quick else options.repeats,
            resume=options.resume,
            parts=options.parts,
            dtypes=options.dtypes,
            batches=options.batches,
            measured=options.measured,
            ahead=options.ahead,
            until=start + options.seconds,
        )
        _measure(section, whole=options.whole)(job)
    print(write_report(out))


def _measure(section: str, *, whole: bool) -> Callable[[Job], None]:
    sections: dict[str, Callable[[Job], None]] = {
        "stages": measure_stages,
        "memory": measure_memory,
        "whole": partial(measure_whole, real=whole),
        "start": measure_start,
        "peers": measure_peers,
        "flops": measure_flops,
        "accelerator": measure_accelerator,
    }
    return sections[section]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument(
        "--only", type=_some(SECTIONS), default=SECTIONS, metavar="A,B", help=", ".join(SECTIONS)
    )
    parser.add_argument(
        "--parts", type=_some(STAGES), default=STAGES, metavar="A,B", help=", ".join(STAGES)
    )
    parser.add_argument("--sizes", type=_sides, metavar="512,1024", help="pixels per side")
    parser.add_argument("--repeats", type=int, default=3, help="timed turns (default 3)")
    parser.add_argument(
        "--whole", action="store_true", help="also generate whole images of 512 pixels in turns"
    )
    parser.add_argument(
        "--dtypes",
        type=_some(DTYPES),
        default=DTYPES,
        help="dtypes on the accelerator (default both)",
    )
    parser.add_argument(
        "--batches",
        type=_batches,
        default=BATCHES,
        help="batch sizes on the accelerator (default 1,4)",
    )
    parser.add_argument(
        "--measured",
        type=_some(MEASURED),
        default=MEASURED,
        metavar="A,B",
        help=f"of the accelerator: {', '.join(MEASURED)}",
    )
    parser.add_argument(
        "--ahead", type=int, default=0, help="processes that compile for it in advance"
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="after which it measures nothing more"
    )
    parser.add_argument("--resume", action="store_true", help="skip what is already in the files")
    parser.add_argument(
        "--report", action="store_true", help="only write the page and plots from the files"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks, to check that everything runs"
    )
    parser.add_argument("--out", type=Path, help="folder (default docs/benchmarks)")
    return parser


def _some(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A parser of comma-separated names, each of which must be known."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(
                f"expected some of {', '.join(known)}, found {', '.join(unknown)}"
            )
        return names

    return read


def _batches(text: str) -> tuple[int, ...]:
    batches = _numbers(text, "1,4")
    if invalid := [batch for batch in batches if batch < 1]:
        raise argparse.ArgumentTypeError(f"expected batch sizes of at least 1, found {invalid[0]}")
    return batches


def _sides(text: str) -> tuple[int, ...]:
    sides = _numbers(text, "512,1024")
    if invalid := [side for side in sides if side <= 0 or side % 128]:
        raise argparse.ArgumentTypeError(f"expected multiples of 128 pixels, found {invalid[0]}")
    return sides


def _numbers(text: str, such_as: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers such as {such_as}, found {text}"
        ) from None


if __name__ == "__main__":
    main()
