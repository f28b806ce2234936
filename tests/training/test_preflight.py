"""Models that a training cannot start from are rejected before the first stage is trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_runs import values

from wuerstchen import weights
from wuerstchen.config import Config, parse
from wuerstchen.errors import ModelFolderError, TrainingError
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import small_text_encoder
from wuerstchen.training import run as training_run

Values = dict[str, object]


def settings(images: Path, output: Path, changes: dict[str, object]) -> Config:
    """The small config with `a.b` set to other values."""
    plain = values(images, output)
    for key, value in changes.items():
        *path, last = key.split(".")
        section: Values = plain
        for word in path:
            inner = section.setdefault(word, {})
            assert isinstance(inner, dict)
            section = inner
        section[last] = value
    return parse(plain, "refused starts")


def model(folder: Path, changes: dict[str, object]) -> Path:
    """A whole model with random weights."""
    config = settings(folder, folder, changes)
    weights.stage_a.save(folder, StageA(config.stage_a.model))
    weights.compressor.save(folder, Compressor(config.compressor))
    weights.stage_b.save(folder, StageB(config.stage_b.model))
    weights.stage_c.save(folder, StageC(config.stage_c.model))
    text = small_text_encoder(config.text, ["a red disc"])
    weights.text_b.save(folder, text)
    weights.text_c.save(folder, text)
    weights.write_index(folder)
    return folder


def widths(name: str, value: int, *keys: str) -> dict[str, object]:
    return dict.fromkeys([f"stage_b.model.{name}", f"stage_c.model.{name}", *keys], value)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole models that differ in sizes, parts of other generations, and a text encoder alone."""
    root = tmp_path_factory.mktemp("models")
    model(root / "wide", widths("semantic_channels", 8, "compressor.channels"))
    long = model(root / "long", widths("text_width", 32, "text.width"))
    (root / "text").mkdir()
    for part in ("prior_text_encoder", "prior_tokenizer"):
        for path in (long / part).iterdir():
            (root / "text" / path.name).write_bytes(path.read_bytes())
    c3 = {"embedding.1.weight": (8, 16, 1, 1), "clip_txt_mapper.weight": (8, 8)}
    b1 = {"in_mapper.0.weight": (8, 4), "clf.1.weight": (4, 4)}
    for name, shapes in (("c3", c3), ("b1", b1)):
        tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
        save_file(tensors, root / f"{name}.safetensors")
    model(root / "mixed", {})
    put = root / "mixed" / "prior_prior" / "diffusion_pytorch_model.safetensors"
    put.write_bytes((root / "c3.safetensors").read_bytes())
    (root / "cascade").mkdir()
    index = {"_class_name": "StableCascadePriorPipeline"}
    (root / "cascade" / "model_index.json").write_text(json.dumps(index))
    half = model(root / "half", {})
    (half / "compressor" / "config.json").unlink()
    return root


REFUSED = {
    "a folder of Stable Cascade": ("base", "cascade", "Stable Cascade .* expected version 2"),
    "a Stage C of Stable Cascade inside": ("base", "mixed", "contains Stage C of Stable Cascade"),
    "a file of Stable Cascade": (
        "stage_c.training.init_from",
        "c3.safetensors",
        "of Stable Cascade",
    ),
    "a file of version 1": ("stage_b.training.init_from", "b1.safetensors", "Stage B of version 1"),
    "a file": (
        "stage_a.training.init_from",
        "mixed/vqgan/diffusion_pytorch_model.safetensors",
        "expected a model folder, found a file; .*wuerstchen convert",
    ),
    "half a model": ("base", "half", "lacks the compressor"),
    "text of Stable Cascade": ("text.pretrained", "c3.safetensors", "of Stable Cascade"),
    "a model as text": ("text.pretrained", "wide", "expected the folder of a CLIP text model"),
    "Stage C of other semantics": (
        "stage_c.training.init_from",
        "wide",
        "semantic channels of the compressor and Stage C must be equal, found 6 and 8",
    ),
    "Stage B of other semantics": (
        "stage_b.training.init_from",
        "wide",
        "semantic channels of the compressor and Stage C must be equal, found 8 and 6",
    ),
    "Stage C of wider text": (
        "stage_c.training.init_from",
        "long",
        "of width 16, but .* of width 32",
    ),
    "wider text": ("text.pretrained", "text", "encoder and Stage C .* found 32 and 16"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_any_work(
    models: Path, images: Path, tmp_path: Path, what: str
) -> None:
    key, name, words = REFUSED[what]
    config = settings(images, tmp_path / "none", {key: str(models / name)})
    with pytest.raises((ModelFolderError, TrainingError), match=words):
        training_run.train(config)
    assert not (tmp_path / "none").exists()


def test_text_of_stage_b_has_its_width_too(models: Path, images: Path, tmp_path: Path) -> None:
    text = {"text.pretrained_b": str(models / "text"), "stage_b.training.text_conditioning": True}
    with pytest.raises(TrainingError, match=r"encoder and Stage B .* found 32 and 16"):
        training_run.train(settings(images, tmp_path / "none", text))


@pytest.mark.parametrize("name", ["wide", "long"])
def test_a_whole_model_of_other_sizes_than_the_config_is_a_start(
    models: Path, images: Path, tmp_path: Path, name: str
) -> None:
    """Its sizes are its own, whatever the config says of a model from scratch."""
    short = {f"stage_{stage}.training.images": 0 for stage in "ab"}
    short |= {"stage_c.training.images": 4, "stage_b.training.text_conditioning": True}
    config = settings(images, tmp_path / "model", {**short, "base": str(models / name)})
    folder = training_run.train(config)
    weights.check_fit(weights.resolve(folder))
