"""Runs of seconds: eight made images, networks of width 8 to 16, and the command that trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import warm
from PIL import Image
from safetensors.numpy import load_file

from wuerstchen.config import Config, parse

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 60),
}
SIDE = 128


def write_images(folder: Path) -> Path:
    """A soft disc and a soft square in four colours, and one file that is no image."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    distances = {"disc": np.hypot(rows, columns), "square": np.maximum(abs(rows), abs(columns))}
    for shape, distance in distances.items():
        inside = (1 / (1 + np.exp(30 * (distance - 0.6))))[..., None]
        shade = 0.6 + 0.4 * rows[..., None]
        for colour, rgb in COLOURS.items():
            pixels = 255 * (1 - inside) + np.array(rgb) * shade * inside
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / f"{colour} {shape}.png")
            (folder / f"{colour} {shape}.txt").write_text(f"a {colour} {shape}")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "broken.txt").write_text("a broken image")
    return folder


def values(images: Path, output: Path) -> dict[str, object]:
    """A config as YAML would have it; Stage A passes the step at which codes are placed."""
    training = {
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "ema_decay": 0.9,
        "checkpoint_every": 16,
        "validate_every": 48,
        "validation_images": 2,
    }
    return {
        "name": "made",
        "output": str(output),
        "data": {"path": str(images), "size": SIDE, "test_fraction": 0.2},
        "text": {"vocab_size": 540, "max_length": 8, "width": 16, "depth": 1, "heads": 2},
        "compressor": {"channels": 6, "width": 0.25, "depth": 0.1},
        "stage_a": {
            "model": {"width": 16, "depth": 1, "codebook": 32},
            "training": {
                **training,
                "images": 96,
                "crop_size": 32,
                "discriminator_width": 8,
                "discriminator_depth": 2,
                "adversarial_start": 64,
            },
        },
        "stage_b": {
            "model": {
                "widths": [8, 16],
                "blocks": [1, 1],
                "heads": [0, 2],
                "semantics": [False, True],
                "semantic_channels": 6,
                "condition_width": 16,
                "text_width": 16,
                "time_width": 8,
            },
            "training": {**training, "images": 96, "text_conditioning": False},
        },
        "stage_c": {
            "model": {
                "semantic_channels": 6,
                "width": 16,
                "depth": 1,
                "heads": 2,
                "text_width": 16,
                "time_width": 8,
            },
            "training": {**training, "images": 96},
        },
    }


def config(images: Path, output: Path) -> Config:
    return parse(values(images, output), "small runs")


def write_config(images: Path, output: Path) -> Path:
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(values(images, output)))  # JSON is YAML too
    return path


COMMAND = (sys.executable, "-m", "wuerstchen")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def run(*words: object, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: a warm one, or what `command` starts."""
    if not command:
        return warm.run(*words, environment=ENVIRONMENT)
    return subprocess.run(
        [*command, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=500
    )


def run_together(count: int, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in `count` processes, what they write in the order of their ranks."""
    commands = warm.start_together(count, *words, environment=ENVIRONMENT)
    outputs = [command.communicate() for command in commands]
    codes = [command.returncode for command in commands]
    code = next((code for code in codes if code), 0)
    stdout, stderr = ("".join(texts) for texts in zip(*outputs, strict=True))
    return subprocess.CompletedProcess([*map(str, words)], code or 0, stdout, stderr)


def start(*words: object) -> warm.Command:
    """The command, left running."""
    return warm.server().start(*words, environment=ENVIRONMENT)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """Every exported tensor of a model folder."""
    return {
        f"{path.relative_to(folder)}: {name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
