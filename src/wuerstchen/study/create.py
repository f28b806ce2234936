"""Make the folder of a study: blinded names, no metadata, the key apart."""

import hashlib
import io
import os
import random
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wuerstchen import marks, owned
from wuerstchen.atomic_write import explain_disk_errors
from wuerstchen.data.prompts import Prompt
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.evaluation.inputs import Progress, no_progress
from wuerstchen.study.design import Design
from wuerstchen.study.folder import IMAGES, KEY, STUDY, Key, KeyImage, KeyPair, Pair, Study
from wuerstchen.study.sources import Shown, fitted

QUESTION = "Which image do you prefer for this prompt?"
TITLE = "Comparing images"


@dataclass(frozen=True, slots=True)
class Wording:
    """What raters read."""

    title: str = TITLE
    question: str = QUESTION


def check_new(folder: Path) -> None:
    """Refuse a folder that is not empty: a study and its votes are never replaced."""
    if not owned.is_empty(folder):
        what = "a study" if (folder / STUDY).is_file() else "other files"
        raise SaveError(
            f"{folder}: expected a new or empty folder, found {what}; nothing there is replaced, "
            "so choose another folder."
        )


def create_study(
    out: Path,
    systems: Mapping[str, Iterator[Shown]],
    sources: Mapping[str, str],
    prompts: Sequence[Prompt],
    design: Design,
    *,
    size: int | None = None,
    seed: int = 0,
    wording: Wording | None = None,
    progress: Progress = no_progress,
) -> Study:
    """Write a study; it appears under its name when it is complete.

    systems  for each name the images of all prompts, in their order
    sources  where the images of each system come from, for the key

    Raises SaveError, and ConfigError for images of different sizes.
    """
    check_new(out)
    out = out.absolute()  # "." has no name
    above = [folder for folder in out.parents if not folder.exists()]
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        with explain_disk_errors(out):
            (temporary / IMAGES).mkdir(parents=True)
            marks.make_mark(temporary, "report")
            study = _write(
                temporary, systems, sources, prompts, design, size, seed, wording, progress
            )
            if out.is_dir():  # kept, as someone may be in it; what makes it a study comes last
                for path in sorted(temporary.iterdir(), key=lambda path: path.name == STUDY):
                    path.rename(out / path.name)
            else:
                temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # not empty: the study is there
            for folder in above:
                folder.rmdir()
    return study


def _write(
    folder: Path,
    systems: Mapping[str, Iterator[Shown]],
    sources: Mapping[str, str],
    prompts: Sequence[Prompt],
    design: Design,
    size: int | None,
    seed: int,
    wording: Wording | None,
    progress: Progress,
) -> Study:
    images: dict[str, KeyImage] = {}
    shapes: dict[int, tuple[int, int]] = {}
    names: dict[tuple[str, int], str] = {}
    wanted = {(s, pair.prompt) for pair in design.pairs for s in (pair.a, pair.b) if s}
    empty = {pair.prompt for pair in design.pairs if not pair.b}
    for system, shown in systems.items():
        count = 0
        for index, each in enumerate(shown):
            count += 1
            progress(system, count, len(prompts))
            image = fitted(each.image, size, shapes.get(index))
            shapes[index] = image.size
            if (system, index) in wanted:
                names[system, index] = _save(folder, image, images, system, each.source)
            if index in empty and ("", index) not in names:
                scrambled = _scrambled(image, seed + index)
                names["", index] = _save(folder, scrambled, images, "", each.source)
        if count != len(prompts):
            raise ConfigError(f"Expected {len(prompts)} images of {system}, found {count}.")
    study, pairs = _pairs(names, prompts, design, random.Random(seed), wording or Wording())
    data = study.model_dump_json(indent=1).encode()
    key = Key(
        study_sha256=hashlib.sha256(data).hexdigest(),
        seed=seed,
        systems=dict(sources),
        images=dict(sorted(images.items())),
        pairs=pairs,
    )
    _write_synced(folder / KEY, key.model_dump_json(indent=1).encode())
    _write_synced(folder / STUDY, data)
    return study


def _pairs(
    names: Mapping[tuple[str, int], str],
    prompts: Sequence[Prompt],
    design: Design,
    rng: random.Random,
    wording: Wording,
) -> tuple[Study, dict[str, KeyPair]]:
    ids = [secrets.token_hex(8) for _ in design.pairs]
    pairs, key = [], {}
    for number, planned in enumerate(design.pairs):
        first, second = names[planned.a, planned.prompt], names[planned.b, planned.prompt]
        both = (first, second) if rng.random() < 0.5 else (second, first)
        prompt = prompts[planned.prompt]
        pairs.append(Pair(id=ids[number], prompt=prompt.text, images=both))
        key[ids[number]] = KeyPair(
            kind=planned.kind, item=ids[planned.first], category=prompt.category
        )
    rng.shuffle(pairs)  # the order in which they were made tells repeats and catch pairs apart
    study = Study(
        id=secrets.token_hex(8),
        title=wording.title,
        question=wording.question,
        pairs=pairs,
        parts=[
            [ids[index] for index in sorted(part, key=ids.__getitem__)] for part in design.parts
        ],
    )
    return study, dict(sorted(key.items()))


def _save(
    folder: Path, image: Image.Image, images: dict[str, KeyImage], system: str, source: str
) -> str:
    """Store an image under a random name, as a PNG of its pixels alone."""
    content = io.BytesIO()
    Image.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(content, "PNG")
    name, data = secrets.token_hex(8), content.getvalue()
    path = folder / IMAGES / f"{name}.png"
    _write_synced(path, data)
    os.utime(path, (0, 0))  # the order of writing would tell the systems apart
    digest = hashlib.sha256(data).hexdigest()
    images[name] = KeyImage(system=system, source=source, sha256=digest)
    return name


def _scrambled(image: Image.Image, seed: int) -> Image.Image:
    """The pixels of an image in random order: the same colours, and nothing to see."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    order = np.random.default_rng(seed).permutation(len(pixels))
    return Image.frombytes("RGB", image.size, pixels[order].tobytes())


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
