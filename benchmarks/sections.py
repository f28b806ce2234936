"""The tables of the report: each function yields the lines of one section."""

from collections.abc import Iterable
from statistics import median

from benchmarks.figures import Backend, Figures, Seconds
from benchmarks.networks import STAGES
from benchmarks.peers import PEERS
from benchmarks.records import Times
from benchmarks.schedules import FIFTY, SIXTY, TWENTY_FIVE, TWENTY_NINE, Schedule, our_defaults
from benchmarks.tables import digits, median_and_range, rounded_up, table

NAMES = {"ours": "ours", "diffusers": "diffusers", "sd21": "SD 2.1", "sdxl": "SDXL"}
CALLS = {"stage_c": "Stage C step", "stage_b": "Stage B step", "stage_a": "Stage A decode"}


def lines_of(figures: Figures) -> list[tuple[str, str, Schedule]]:
    """The systems compared per image: label, system, schedule."""
    own = our_defaults()
    lines = [(f"ours, defaults ({own.name})", "ours", own)]
    if own.work != SIXTY.work:
        lines += [(f"ours ({SIXTY.name})", "ours", SIXTY)]
    if own.work != TWENTY_NINE.work:
        lines += [(f"ours ({TWENTY_NINE.name})", "ours", TWENTY_NINE)]
    lines += [(f"diffusers ({each.name})", "diffusers", each) for each in (SIXTY, TWENTY_NINE)]
    for system in PEERS:
        lines += [(f"{NAMES[system]} ({each.name})", system, each) for each in (FIFTY, TWENTY_FIVE)]
    return lines


def calls(figures: Figures) -> Iterable[str]:
    yield (
        "A ratio is that of the medians, rounded up; its range is over single turns, in which ours "
        "and theirs ran one after the other, so a ratio can be outside it.\n"
    )
    rows = []
    for part, side, rows_, _ in measured_steps(figures, "cpu"):
        both = [figures.samples(s, part, "step", side, rows_) for s in ("ours", "diffusers")]
        once = figures.samples("ours", part, "prepare", side, rows_)
        found = figures.ratio(part, "step", side, rows_)
        if found is None:
            continue
        rows.append(
            [
                f"{CALLS[part]}, rows: {rows_}" if part == "stage_c" else CALLS[part],
                f"{side}",
                *(median_and_range(each) for each in both),
                f"{rounded_up(found.value)} ({digits(found.low)} to {digits(found.high)})",
                median_and_range(once) if once else "-",
            ]
        )
    header = ("call", "pixels", "ours, s", "diffusers, s", "ratio (range over the turns)")
    yield from table((*header, "once per image, ours, s"), rows)


def differences(figures: Figures) -> Iterable[str]:
    yield (
        "Largest absolute difference between our output and diffusers' from the same input and "
        "weights, and the largest value in diffusers' output.\n"
    )
    rows = [
        [
            each.what,
            f"{each.side}",
            each.device,
            each.dtype,
            f"{each.largest:.2g}",
            f"{each.scale:.3g}",
        ]
        for each in figures.differences
    ]
    yield from table(("what", "pixels", "device", "type", "difference", "largest value"), rows)


def images(figures: Figures) -> Iterable[str]:
    sides = sorted({each.side for each in figures.times if each.part in (*STAGES, "unet")})
    own = our_defaults()
    rows = []
    for side in sides:
        for label, first in ((SIXTY.name, SIXTY), (TWENTY_NINE.name, TWENTY_NINE), ("", own)):
            second = first if label else SIXTY
            ours = figures.image("ours", first, side)
            theirs = figures.image("diffusers", second, side)
            if ours is None or theirs is None:
                continue
            name = label or f"defaults: {own.name} against {SIXTY.name}"
            ratio = rounded_up(ours.value / theirs.value)
            rows.append(
                [name, f"{side}", digits(ours.value), digits(theirs.value), ratio, ours.how]
            )
    yield (
        "Seconds on the CPU, without text encoder and sampler arithmetic. `composed`: the sum of "
        "measured calls. `scaled`: a call was measured at another size and scaled by its "
        "operations.\n"
    )
    yield from table(("steps", "pixels", "ours, s", "diffusers, s", "ratio", "how"), rows)


def all_images(figures: Figures) -> Iterable[str]:
    sides = sorted({each.side for each in figures.counts})
    rows = []
    for label, system, schedule in lines_of(figures):
        found = [figures.image(system, schedule, side) for side in sides]
        if any(found):
            rows.append([label, *("-" if each is None else _composed(each) for each in found)])
    yield "The same of all systems; `~` marks what was scaled by operations.\n"
    yield from table(("system (steps)", *(f"{side}" for side in sides)), rows)


def _composed(seconds: Seconds) -> str:
    return f"{'~' if seconds.how == 'scaled' else ''}{digits(seconds.value)}"


def whole_images(figures: Figures) -> Iterable[str]:
    rows = []
    for each in figures.times:
        if each.part == "whole" and each.system == "ours":
            how = Backend(each.device, each.dtype, each.mode)
            theirs = figures.samples("diffusers", "whole", each.call, each.side, each.rows, how)
            if theirs:
                ratio = rounded_up(median(each.seconds) / median(theirs))
                what = [each.call, f"{each.side}", f"{each.rows}", " ".join(how)]
                both = (median_and_range(x) for x in (each.seconds, theirs))
                rows.append([*what, *both, ratio])
    header = ("steps", "pixels", "images", "run", "ours, s", "diffusers, s", "ratio")
    yield from table(header, rows)


def memory(figures: Figures) -> Iterable[str]:
    rows = []
    for each in figures.peaks:
        more = each.peak - each.before
        rows.append(
            [NAMES[each.system], CALLS.get(each.part, "whole pipeline"), f"{each.side}"]
            + [each.device, each.dtype]
            + [f"{number / 2**30:.2f}" for number in (each.weights, more, each.peak)]
        )
    yield (
        "GiB, each in a process of its own. `more` is the peak minus the memory of the process "
        "before it built a network.\n"
    )
    header = ("system", "what", "pixels", "device", "type", "weights", "more", "peak")
    yield from table(header, rows)


def starts(figures: Figures) -> Iterable[str]:
    yield "The model bundled at the time, weights in the file cache, image saved.\n"
    rows = [
        [NAMES[each.system], each.call, f"{each.side}", median_and_range(each.seconds)]
        for each in figures.times
        if each.part == "start"
    ]
    yield from table(("system", "steps", "pixels", "s"), rows)


def operations(figures: Figures) -> Iterable[str]:
    sides = sorted({each.side for each in figures.counts})
    rows = []
    for label, system, schedule in lines_of(figures):
        found = [figures.image_flops(system, schedule, side) for side in sides]
        rows.append([label, *("-" if each is None else f"{each / 1e12:.1f}" for each in found)])
    yield (
        "TFLOP, default guidance, text encoders excluded. Matrix products, convolutions and "
        "attention count, two for a multiplication with its addition.\n"
    )
    yield from table(("system (steps)", *(f"{side}" for side in sides)), rows if sides else [])


def call_operations(figures: Figures) -> Iterable[str]:
    sides = sorted({each.side for each in figures.counts})
    keys = dict.fromkeys((e.system, e.part, e.call, e.rows) for e in figures.counts)
    rows = [
        [NAMES[system], part, call, f"{rows_}"]
        + [f"{(figures.flops(system, part, call, side, rows_) or 0) / 1e12:.4f}" for side in sides]
        for system, part, call, rows_ in keys
    ]
    yield "TFLOP. `prepare` is done once per image.\n"
    yield from table(("system", "network", "call", "rows", *(f"{s}" for s in sides)), rows)


def peers(figures: Figures) -> Iterable[str]:
    rows = []
    for each in figures.times:
        if each.system in PEERS and each.device == "cpu":
            count = figures.flops(each.system, each.part, each.call, each.side, each.rows)
            rate = "-" if count is None else f"{count / median(each.seconds) / 1e9:.0f}"
            name = "both peers" if each.part == "vae" else NAMES[each.system]
            rows.append([name, each.part, f"{each.side}", median_and_range(each.seconds), rate])
    yield from table(("system", "network", "pixels", "s", "GFLOP per s"), rows)


def measured_steps(figures: Figures, device: str) -> list[tuple[str, int, int, str]]:
    """Part, side, rows and dtype of the steps of our stages and of diffusers'."""
    found: dict[tuple[str, int, int, str], Times] = {
        (each.part, each.side, each.rows, each.dtype): each
        for each in figures.times
        if each.part in STAGES and each.device == device and each.call == "step"
    }
    return sorted(found, key=lambda key: (STAGES.index(key[0]), *key[1:]))
