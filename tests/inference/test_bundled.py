"""The bundled model: small enough, attributed, and obedient (tests/cli has its command)."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from wuerstchen import Pipeline
from wuerstchen.data.stickers import background_of
from wuerstchen.inference.sampling import SamplingPlan

FOLDER = Path(str(files("wuerstchen"))) / "bundled" / "stickers"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_pretrained()


def test_it_has_at_most_60_megabytes() -> None:
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert 1e5 < total <= 60e6


def test_its_licence_names_every_author_whose_pictures_it_learned_from() -> None:
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    for author in ("Microsoft Corporation", "Google Inc.", "Twitter, Inc", "Emoji One"):
        assert author in licence
    for terms in ("Permission is hereby granted", "Apache License", "licenses/by/4.0/legalcode"):
        assert terms in licence


def test_its_semantics_are_at_least_16_times_smaller_per_side(pipeline: Pipeline) -> None:
    side = pipeline.info.size
    text = pipeline.cascade.encode(pipeline.cascade.text_c, ["a flat panda on green"])
    semantics = pipeline.cascade.semantics_from_text(
        text, torch.randn_like, (side, side), SamplingPlan(times=[1.0, 0.0])
    )
    assert side >= 128 and side / max(semantics.shape[2:]) >= 16


def test_the_background_is_the_one_that_the_prompt_names(pipeline: Pipeline) -> None:
    colours = ("red", "yellow", "black")
    drawn = pipeline(
        [f"a 3D panda on a {colour} background" for colour in colours],
        seed=1,
        prior_num_inference_steps=6,
    ).images
    assert tuple(background_of(image) for image in drawn) == colours
    assert all(np.asarray(image).std() > 10 for image in drawn), "an even colour is no image"
