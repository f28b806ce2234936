"""Train one small Stage B with one objective and score what it generates.

    python -m benchmarks.studies.stage_b_targets --data DATA --name data --head data \\
        --weight plain --times normal:1:1.5 --images 12800

Stage A and the compressor are frozen; their encodings are cached in OUT/encoded. The scores are
written to OUT/NAME.json, the weights to OUT/NAME.safetensors and a sample grid to OUT/NAME.png:
real images, Stage A's reconstructions, and the samples of each of `SAMPLERS` from true semantics.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch
from safetensors.torch import save_file

from benchmarks.studies.stage_b_targets.encoded import EncodedSplit, load_or_encode
from benchmarks.studies.stage_b_targets.network import Network, StudyConfig
from benchmarks.studies.stage_b_targets.objective import HEADS, WEIGHTS, Objective
from benchmarks.studies.stage_b_targets.scores import image_scores, save_grid
from benchmarks.studies.stage_b_targets.train import sample, train
from wuerstchen import weights
from wuerstchen.models.stage_a import StageA

SAMPLERS = {
    "1": ("ddpm", "time", 1),
    "3": ("ddpm", "time", 3),
    "12": ("ddpm", "time", 12),
    "dpm 6": ("dpm++2m", "tuned", 6),
}
"""Sampler, spacing of the times and number of steps."""

GRID_COLUMNS = 12

LOG_EVERY = 50
"""Steps per printed line, and in the reported final loss."""


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(options.threads)
    objective = Objective(
        options.head, options.weight, options.times, options.divisor_weight, options.noise_only
    )
    config = StudyConfig.model_validate(vars(options))
    model = Path(weights.find(options.model))
    train_set, test_set = load_or_encode(model, options.data, options.size, options.out / "encoded")
    scale = float(train_set.latents.std()) if options.unit_variance else 1.0
    network = Network(config, train_set.semantics.shape[1], fixed_divisor=objective.head == "fixed")
    if config.whiten:
        network.whiten(train_set.semantics)
    start, losses = perf_counter(), []
    for loss in train(network, objective, config, train_set, train_set.latents / scale):
        losses.append(loss)
        if len(losses) % LOG_EVERY == 0:
            speed = len(losses) * config.batch / (perf_counter() - start)
            recent = sum(losses[-LOG_EVERY:]) / LOG_EVERY
            print(f"{len(losses)} {recent:.4f} {speed:.0f} images/s", flush=True)
    record = {
        "objective": asdict(objective),
        "config": config.model_dump(),
        "seconds": perf_counter() - start,
        "loss": sum(losses[-LOG_EVERY:]) / len(losses[-LOG_EVERY:]),
        "latent_scale": scale,
        "data": options.data,
    }
    save_file(dict(network.state_dict()), options.out / f"{options.name}.safetensors")
    stage_a = weights.stage_a.load(model)
    grid = options.out / f"{options.name}.png"
    test_set = test_set.first(options.test_images)
    scores = _evaluate(network, objective, stage_a, test_set, scale, grid)
    record["scores"] = scores
    (options.out / f"{options.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    for name, values in scores.items():
        print(f"{name:8}", *(f"{key} {value:7.3f}" for key, value in values.items()))


@torch.no_grad()
def _evaluate(
    network: Network,
    objective: Objective,
    stage_a: StageA,
    test_set: EncodedSplit,
    scale: float,
    grid: Path,
) -> dict[str, dict[str, float]]:
    """Scores of Stage A alone and of each sampler; also writes the sample grid."""
    real = test_set.images.float() / 255
    rows = [real, stage_a.decode(test_set.latents)]
    scores = {"stage a": image_scores(rows[1], real)}
    side = test_set.latents.shape[-1]
    for name, sampler in SAMPLERS.items():
        latents = sample(network, objective, test_set.semantics, side, *sampler)
        generated = stage_a.decode(latents * scale)
        scores[name] = image_scores(generated, real)
        rows.append(generated)
    save_grid(grid, [row[:GRID_COLUMNS] for row in rows])
    return scores


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.stage_b_targets",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--name", required=True, help="name of the output files")
    add("--out", type=Path, default=Path("outputs/stage_b_targets"), help="output folder")
    add("--model", default="stickers", help="model whose Stage A and compressor are used")
    add("--data", required=True, help="the images")
    add("--size", type=int, default=128, help="side of the images in pixels")
    add("--head", choices=HEADS, required=True, help="what the head's output means")
    add("--weight", choices=WEIGHTS, required=True, help="loss weight over time")
    add("--times", default="published", help="published, shift:K or normal:MEAN:STD")
    add("--divisor-weight", type=float, default=0.0, help="loss weight of the published head's b")
    add("--noise-only", type=float, default=0.0, help="fraction of images trained at t = 1")
    add("--unit-variance", action="store_true", help="scale the latents to unit variance")
    add("--test-images", type=int, default=64, help="held-out images in the scores")
    add("--threads", type=int, default=1, help="CPU threads")
    for name, field in StudyConfig.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(field.default, bool):
            add(flag, action="store_true", help=field.description)
        elif isinstance(field.default, tuple):
            add(flag, type=int, nargs="+", default=field.default, help=field.description)
        else:
            add(flag, type=type(field.default), default=field.default, help=field.description)
    return parser.parse_args()


if __name__ == "__main__":
    main()
