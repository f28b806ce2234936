"""Image quality against network evaluations, on the bundled model.

    python -m benchmarks.studies.quality DATA

DATA is a folder or tar of captioned images, split as in the model's training. Stage C is judged
by the images that all stages generate for training captions; Stage B by what it generates from the
true semantics of test images. Each row is written as soon as it is measured; existing rows are
skipped.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from benchmarks.records import ROOT, this_run
from benchmarks.studies.quality_measure import DETERMINISTIC, STOCHASTIC, Setting, Study, measure
from benchmarks.studies.quality_rows import read, write
from wuerstchen.diffusion import TIMES, Guidance, published_times, uniform_times
from wuerstchen.inference.sampling import SamplingPlan

OUT = ROOT / "docs/benchmarks/quality.json"
FINE = 500
"""Steps of the reference solution."""


def settings(study: Study) -> Iterator[Setting]:
    """All settings of single stages, the reference solutions first.

    Stage C is guided at all times, so that only the sampler differs.
    """
    guidance = Guidance(study.own.prior.guidance.scale)
    for stage, counts in (("C", (4, 6, 8, 10, 12, 16, 20, 30, 60)), ("B", (2, 3, 4, 6, 8, 12))):
        how = guidance if stage == "C" else Guidance()
        yield _even(stage, "dpm++2m", "log_snr", FINE, how)
        for sampler, count in product((*STOCHASTIC, *DETERMINISTIC), counts):
            # All spacings for the original sampler and the best of the others.
            wide = sampler in ("ddpm", "dpm++2m", "dpm++2m-sde")
            steps = (count + 1) // 2 if sampler == "heun" else count
            if sampler == "heun" and count % 2 == 0 and count - 1 in counts:
                continue  # the same number of steps as before
            for spacing in ("time", "log_snr", "tuned") if wide else ("time",):
                if steps > 1:
                    yield _even(stage, sampler, spacing, steps, how)
        if stage == "C":
            for sampler in ("ddpm", "dpm++2m"):
                sampling = SamplingPlan(times=published_times(), sampler=sampler, guidance=how)
                yield Setting("C", f"{sampler} published 29", "published", sampling)


def whole(study: Study) -> Iterator[Setting]:
    """Settings of both stages together: first the baseline, then cheaper ones."""
    scale = study.own.prior.guidance.scale
    old = SamplingPlan(times=uniform_times(60), guidance=Guidance(scale))
    yield Setting("whole", "60 + 12 ddpm", "time", old, SamplingPlan(times=uniform_times(12)))
    yield Setting("whole", "the model's own", "tuned", study.own.prior, study.own.decoder)
    for c, b, low in (
        (29, 12, 0.0),
        (12, 6, 0.0),
        (12, 6, 0.25),
        (12, 6, 0.5),
        (8, 4, 0.25),
        (6, 3, 0.25),
        (4, 2, 0.25),
    ):
        for sampler, spacing in (
            ("ddpm", "time"),
            ("dpm++2m", "time"),
            ("dpm++2m", "tuned"),
            ("dpm++2m-sde", "time"),
        ):
            guidance = Guidance(scale, interval=(low, 1.0))
            prior = SamplingPlan(times=TIMES[spacing](c), sampler=sampler, guidance=guidance)
            decoder = SamplingPlan(times=TIMES[spacing](b), sampler=sampler)
            name = f"{c} + {b} {sampler} {spacing}, guided from {low:g}"
            yield Setting("whole", name, spacing, prior, decoder)


def _even(stage: str, sampler: str, spacing: str, steps: int, guidance: Guidance) -> Setting:
    sampling = SamplingPlan(times=TIMES[spacing](steps), sampler=sampler, guidance=guidance)
    return Setting(stage, f"{sampler} {spacing} {steps}", spacing, sampling)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.quality", description=__doc__
    )
    parser.add_argument("data", help="captioned images, as data.path of a config")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--stages", default="C,B,whole")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    study = Study(options.data, options.images)
    found = read(options.out)
    found.runs.append(this_run("the bundled model"))
    known = {(row.stage, row.name) for row in found.rows}
    for setting in (*settings(study), *whole(study)):
        fine = len(setting.sampling.times) == FINE + 1
        if setting.stage not in options.stages.split(","):
            continue
        if (setting.stage, setting.name) in known and not fine:
            continue
        row = measure(study, setting).model_copy(update={"run": len(found.runs) - 1})
        if (setting.stage, setting.name) not in known:
            found.rows.append(row)
            write(options.out, found)
        print(row, flush=True)


if __name__ == "__main__":
    main()
