"""Fine-tuning: what a LoRA learns is all that changes, and every tool's file of it is the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from safetensors.torch import load_file
from small_runs import run, values, weights_of, write_images

from wuerstchen import Pipeline, weights
from wuerstchen.config import Config, PriorPreservationConfig, load, parse
from wuerstchen.errors import ConfigError, TrainingError
from wuerstchen.flops import FlopCounter
from wuerstchen.lora import read_lora
from wuerstchen.models.stage_c import StageC
from wuerstchen.noise import streams_at
from wuerstchen.receipts import Tariff, open_receipt
from wuerstchen.training import run as training_run
from wuerstchen.training.prior_preservation import generate_class
from wuerstchen.weights.hub import find

pytestmark = pytest.mark.device


def tuning(trained: Path, source: Path, output: Path, **training: object) -> Config:
    """Stage C of the small model, changed by a LoRA."""
    plain = values(source, output)
    for stage in ("stage_a", "stage_b"):
        section = plain[stage]
        assert isinstance(section, dict)
        section["training"] = {
            "images": 0,
            "batch_size": 4,
            "freeze_compressor": True,
            "crop_size": 32,
        }
        section["training"].pop("crop_size" if stage == "stage_b" else "freeze_compressor")
    section = plain["stage_c"]
    assert isinstance(section, dict)
    section["training"] |= {"lora": {"rank": 3}, "images": 48, "learning_rate": 0.05, **training}
    return parse({**plain, "base": str(trained)}, "fine-tuning")


@pytest.fixture(scope="module")
def tuned(trained: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tuned") / "model"
    return training_run.train(
        tuning(trained, images, output, lora={"rank": 3, "train_text_encoder": True})
    )


@torch.no_grad()
def said(pipeline: Pipeline) -> torch.Tensor:
    """The noise that Stages C and B see: nearer to what was learned than images of so few steps
    are."""
    stream = torch.Generator().manual_seed(3)
    x, t = torch.randn(2, 6, 3, 3, generator=stream), torch.tensor([0.3, 0.9])
    text = pipeline.cascade.encode(pipeline.cascade.text_c, ["a red disc", "a blue square"])
    c = pipeline.cascade.stage_c(x, t, pipeline.cascade.stage_c.condition(text))
    latent = torch.randn(2, 4, 32, 32, generator=stream)
    condition = pipeline.cascade.stage_b.condition(x, torch.zeros(2, 8, 16), (32, 32))
    b = pipeline.cascade.stage_b(latent, t, condition)
    return torch.cat([c.flatten(), b.flatten()])


def test_only_the_chosen_layers_change(trained: Path, tuned: Path) -> None:
    before, after = weights_of(trained), weights_of(tuned)
    lora = {name: array for name, array in after.items() if name.startswith("lora/")}
    changed = {
        name
        for name, array in after.items()
        if name not in lora and not np.array_equal(array, before[name])
    }
    assert changed and all(
        ("attention.to_" in name or "self_attn." in name) and name.endswith(".weight")
        for name in changed
    )
    assert not any(
        name.startswith(("vqgan", "decoder", "compressor", "text_e")) for name in changed
    )


@pytest.mark.parametrize(
    "file", ["stage_c-text_c.safetensors", "stage_c-text_c-diffusers.safetensors"]
)
def test_the_files_for_other_tools_are_the_fine_tuned_model(
    trained: Path, tuned: Path, file: str
) -> None:
    """Kohya's names, which ComfyUI reads, and diffusers' names."""
    base = Pipeline.from_pretrained(trained)
    expected, plain = said(Pipeline.from_pretrained(tuned)), said(base)
    base.load_lora_weights(tuned / "lora" / file)
    torch.testing.assert_close(said(base), expected, atol=1e-4, rtol=0)
    assert (expected - plain).abs().max() > 1e-3, "it learned something"


def test_peft_finds_its_folder_for_each_network(trained: Path, tuned: Path) -> None:
    pipeline = Pipeline.from_pretrained(trained)
    whole = load_file(tuned / "lora" / "stage_c-text_c.safetensors")
    halves = 0
    for network in ("stage_c", "text_c"):
        lora = read_lora(
            tuned / "lora" / f"{network}-peft",
            stage_c=pipeline.cascade.stage_c,
            stage_b=pipeline.cascade.stage_b,
            text_c=pipeline.cascade.text_c,
        )
        assert tuple(lora.layers) == (network,) and lora.ranks == (3,)
        halves += 2 * len(lora.layers[network])
    assert halves == sum(".lora_" in name for name in whole)


def test_stage_b_learns_by_lora_while_semantics_keep_their_meaning(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    plain = values(images, tmp_path / "model")
    for stage in ("stage_a", "stage_c"):
        section = plain[stage]
        assert isinstance(section, dict)
        section["training"] = {"images": 0, "batch_size": 4}
    section = plain["stage_b"]
    assert isinstance(section, dict)
    section["training"] |= {
        **{"lora": {"rank": 2, "layers": "all"}, "freeze_compressor": True, "images": 16}
    }
    assert isinstance(plain["stage_a"], dict)
    plain["stage_a"]["training"]["crop_size"] = 32
    folder = training_run.train(parse({**plain, "base": str(trained)}, "stage b"))
    before, after = weights_of(trained), weights_of(folder)
    changed = {key.split("/")[0] for key in before if not np.array_equal(before[key], after[key])}
    assert changed == {"decoder"}
    base = Pipeline.from_pretrained(trained)
    base.load_lora_weights(folder / "lora" / "stage_b.safetensors")
    expected = said(Pipeline.from_pretrained(folder))
    torch.testing.assert_close(said(base), expected, atol=1e-4, rtol=0)


def tuned_stage_a(trained: Path, source: Path, output: Path, **training: object) -> Config:
    plain = values(source, output)
    for stage in ("stage_b", "stage_c"):
        section = plain[stage]
        assert isinstance(section, dict)
        section["training"] = {"images": 0, "batch_size": 4}
    section = plain["stage_a"]
    assert isinstance(section, dict)
    section["training"] |= training
    return parse({**plain, "base": str(trained)}, "stage a")


def test_a_lora_of_stage_a_changes_its_layers_by_its_rank_and_nothing_else(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    lora = {"rank": 2, "layers": "all"}
    changes = {"lora": lora, "images": 120, "learning_rate": 0.01, "code_reset_after": 2}
    folder = training_run.train(tuned_stage_a(trained, images, tmp_path / "model", **changes))
    before, after = weights_of(trained), weights_of(folder)
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert before.keys() == after.keys()
    assert {key.split("/")[0] for key in changed} == {"vqgan"}
    for key in changed:
        delta = (after[key] - before[key]).reshape(len(after[key]), -1)
        assert key.endswith(".weight") and np.linalg.matrix_rank(delta, tol=1e-5) <= 2
    assert len(changed) > 10


def test_a_start_keeps_its_codebook_and_learns_on(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    """Codes are placed anew in a training from nothing; those of a start stay where they are."""
    changes = {"images": 120, "learning_rate": 1e-5, "code_reset_after": 1000}
    folder = training_run.train(tuned_stage_a(trained, images, tmp_path / "model", **changes))
    before, after = weights_of(trained), weights_of(folder)
    (book,) = (key for key in before if "quantize" in key and "weight" in key)
    spread = before[book].std()
    assert 0 < np.abs(after[book] - before[book]).max() < 0.01 * spread


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"lora": {"layers": "all"}}, "stage_a.training.lora needs a model to fine-tune"),
        ({"lora": {}, "init_from": "stickers"}, "Stage A has no attention; set it to 'all'"),
    ],
)
def test_a_lora_of_stage_a_that_cannot_be_is_one_sentence(
    training: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse({"stage_a": {"training": training}}, "stage a")


@pytest.mark.slow
def test_a_class_is_learned_together_with_its_subject(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    """Two trainings with the same images and noise; the one that preserves knows its class."""
    losses = []
    for name, weight in (("preserved", 20.0), ("forgotten", 1e-6)):
        preserve = {"class_prompt": "a green square", "class_images": 6, "weight": weight}
        changes = {
            "prior_preservation": preserve,
            "images": 192,
            "log_every": 1,
            "caption_dropout": 0.0,
        }
        folder = training_run.train(tuning(trained, images, tmp_path / name, **changes))
        log = (folder / "runs" / "c" / "log.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in log]
        losses.append([entry["class"] for entry in entries if "class" in entry])
    preserved, forgotten = losses
    assert preserved[0] == pytest.approx(forgotten[0], rel=1e-5), "they begin alike"
    assert sum(preserved[-16:]) < sum(forgotten[-16:])


def test_class_generation_is_in_the_receipt(trained: Path, images: Path, tmp_path: Path) -> None:
    """Twenty images more, each with 29 guided evaluations, and the training the same."""
    counts = []
    for drawn in (1, 21):
        preserve = {"class_prompt": "a green square", "class_images": drawn, "weight": 1.0}
        config = tuning(
            trained, images, tmp_path / str(drawn), prior_preservation=preserve, images=4
        )
        counts.append(open_receipt(training_run.train(config) / "runs" / "c", Tariff()).total.flops)
    one = FlopCounter()
    stage_c = weights.stage_c.load(trained)
    condition = stage_c.condition(torch.zeros(2, 8, 16))
    with one, torch.no_grad():
        stage_c(torch.zeros(2, 6, 3, 3), torch.ones(2), condition)
    assert counts[1] - counts[0] == pytest.approx(20 * 29 * one.total, rel=0.02)


@pytest.mark.slow
def test_the_shipped_configs_fine_tune_a_folder_of_photos(trained: Path, tmp_path: Path) -> None:
    """As the manual has it: images without captions for a subject, with captions for a style."""
    photos = write_images(tmp_path / "photos")
    for config, more in (
        ("lora", ["stage_c.training.images=16"]),
        (
            "subject",
            ["stage_c.training.images=8", "stage_c.training.prior_preservation.class_images=2"],
        ),
    ):
        if config == "subject":
            for text in photos.glob("*.txt"):
                text.unlink()
        output = tmp_path / config
        done = run(
            "train", config, f"base={trained}", f"data.path={photos}", f"output={output}", *more
        )
        assert done.returncode == 0, done.stderr
        assert (output / "lora" / "stage_c.safetensors").is_file() == (config == "lora")
    shutil.rmtree(photos)


def test_the_bundled_model_is_a_base_by_its_name(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `generate --model` calls it; no path into the package has to be known."""
    monkeypatch.chdir(tmp_path)
    words = [
        f"data.path={images}",
        "data.size=128",
        "stage_c.training.images=8",
        "stage_c.training.validation_images=1",
    ]
    folder = training_run.train(
        load("lora", ["base=stickers", "stage_c.training.lora.rank=2", *words])
    )
    before, after = weights_of(find(None)), weights_of(folder)
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert changed and all(key.startswith("prior_prior/") for key in changed)
    assert find("stickers") == find(None)
    (tmp_path / "stickers").mkdir()
    assert find("stickers") == Path("stickers"), "what a user has goes first"


def test_a_base_that_is_nowhere_is_one_sentence_and_no_download(
    images: Path, tmp_path: Path
) -> None:
    words = [f"data.path={images}", f"output={tmp_path / 'model'}"]
    told = {"sticker": "the bundled model, stickers", "owner/name": "wuerstchen convert owner/name"}
    for wrong, advice in told.items():
        with pytest.raises(TrainingError, match=rf"init_from is '{wrong}'.*{advice}"):
            training_run.train(load("lora", [f"base={wrong}", *words]))
    assert not (tmp_path / "model").exists()


def test_a_lora_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stage_a.training: images is 0.*set base"):
        load("lora", ["data.path=x"])
    with pytest.raises(ConfigError, match=r"stage_c.training.lora needs a model to start from"):
        load("tiny", ["stage_c.training.lora.rank=4"])


def test_a_torch_built_for_gpus_draws_the_class_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a torch names its accelerator also where none is at hand, unless it is told to look."""

    def built_for(*, check_available: bool = False) -> torch.device | None:
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", built_for)
    stage_c, text = StageC(small_networks.C), small_networks.small_text()
    wanted = PriorPreservationConfig(class_prompt="a red fox", class_images=1)
    preserved = generate_class(wanted, stage_c, text, size=128, seed=0)
    found = preserved.chosen(streams_at(0, [0, 1]), torch.device("cpu"))
    assert found.shape == (2, 16, 3, 3) and bool(found.isfinite().all())
