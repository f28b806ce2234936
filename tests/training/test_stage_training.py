"""Laws of the three stages: the codebook lives, checkpointing changes nothing, features load."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import save_file
from small_runs import config
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import Config, parse
from wuerstchen.data import Batch, Pairs, open_pairs
from wuerstchen.errors import ConfigError
from wuerstchen.models.compressor import Compressor
from wuerstchen.noise import streams_at
from wuerstchen.training.build import Files, build_stage
from wuerstchen.training.loop import Loop
from wuerstchen.training.perceptual import Vgg16Loss, pyramid_loss
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import RunName, TrainState, held_out_batch
from wuerstchen.training.stage_a import SETTLING, perplexity


@pytest.fixture(scope="module")
def splits(images: Path) -> tuple[Pairs, Pairs]:
    train, test, _ = open_pairs(config(images, Path("unused")).data)
    return train, test


def changed(settings: Config, stage: str, part: str, **changes: object) -> Config:
    values = settings.model_dump(mode="json")
    values[f"stage_{stage}"][part].update(changes)
    return parse(values, "changed")


def test_perplexity_counts_codes_in_even_use() -> None:
    assert perplexity(torch.tensor([[3, 3], [3, 3]]), 8) == 1
    assert perplexity(torch.arange(8), 8).item() == pytest.approx(8)
    share = torch.tensor([0.75, 0.25])
    expected = float((-(share * share.log()).sum()).exp())
    assert perplexity(torch.tensor([0, 0, 5, 0]), 8).item() == pytest.approx(expected)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pairs, Pairs]:
    """Smooth random colours: unlike a white background, nearly every cell is another."""
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    for index in range(8):
        cells = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        cells.resize((128, 128), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("colours")
    train, test, _ = open_pairs(config(folder, Path("unused")).data)
    return train, test


def test_the_codebook_does_not_collapse(
    textures: tuple[Pairs, Pairs], tmp_path: Path, one_thread: None
) -> None:
    """Codes begin in a heap around zero, where without a rescue nearly all would die."""
    settings = changed(
        config(tmp_path, tmp_path),
        "a",
        "training",
        images=240,
        code_reset_after=10,
        validate_every=1000,
    )
    torch.manual_seed(0)
    stage = build_stage("a", Files(settings, textures[0]))
    run_log = RunLog(tmp_path / "run", writes=True)
    run_log.write("config.yaml", "")
    loop = Loop(stage, *textures, run_log, Accelerator(cpu=True), seed=0)
    book = stage.networks()["stage_a"].get_submodule("network.codebook.embedding")
    revived: list[float] = []
    plain = stage.after_step

    def after_step(state: TrainState) -> dict[str, float]:
        if state.step == 40:
            with torch.no_grad():
                book.get_parameter("weight")[:16] = 1e3  # sixteen codes that nothing is near to
        scalars = plain(state)
        revived.append(scalars.get("revived", 0.0))
        return scalars

    stage.after_step = after_step  # type: ignore[method-assign]
    loop.run()
    assert sum(revived[: SETTLING - 1]) == 0 and revived[SETTLING - 1] == 32
    assert sum(revived[40:]) >= 16
    assert book.get_parameter("weight").abs().max() < 100
    batch = held_out_batch(textures[0], 6)
    network = stage.networks()["stage_a"].get_submodule("network").eval()
    with torch.no_grad():
        codes = network.get_submodule("codebook")(network.raw_latent(batch.images)).codes  # type: ignore[operator]
    assert perplexity(codes, 32) > 0.4 * 32  # 0.64 was measured, and 0.30 without a rescue


@pytest.mark.parametrize("name", ["b", "c"])
def test_gradient_checkpointing_changes_no_gradient(
    splits: tuple[Pairs, Pairs], images: Path, trained: Path, name: RunName
) -> None:
    found: list[list[Tensor]] = []
    settings = config(images, trained)
    batch = held_out_batch(splits[0], 2)
    for wanted in (False, True):
        changed_settings = changed(settings, name, "training", gradient_checkpointing=wanted)
        torch.manual_seed(0)
        stage = build_stage(name, Files(changed_settings, splits[0]))
        (network,) = stage.networks().values()
        with torch.no_grad():  # away from the start, where many gradients are zero
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
        torch.manual_seed(1)  # dropout
        (loss,) = stage.losses(stage.networks(), batch, streams_at(0, [0, 1]), TrainState())
        loss.value.backward()
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 10
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_part_of_the_captions_is_dropped(
    splits: tuple[Pairs, Pairs], images: Path, trained: Path
) -> None:
    settings = changed(config(images, trained), "c", "training", caption_dropout=0.5)
    stage = build_stage("c", Files(settings, splits[0]))
    shown: list[str] = []

    class Listening(nn.Module):
        def forward(self, captions: list[str], noisy: Tensor, t: Tensor) -> Tensor:
            shown.extend(captions)
            return noisy

    batch = held_out_batch(splits[0], 4)
    networks = {"stage_c": Listening()}
    for start in range(0, 100, 4):
        list(stage.losses(networks, batch, streams_at(0, range(start, start + 4)), TrainState()))
    assert 30 < shown.count("") < 70
    assert set(shown) == {"", *batch.captions}


def batch_like(batch: Batch) -> Tensor:
    return batch.images[:, :, :64, :64]


def test_vgg16_features_load_by_torchvisions_names(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    layer, before = 0, 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        if width == 0:
            layer += 1
            continue
        shapes[f"features.{layer}.weight"] = (width, before, 3, 3)
        shapes[f"features.{layer}.bias"] = (width,)
        layer, before = layer + 2, width
    rng = torch.Generator().manual_seed(0)
    stored = {key: torch.randn(shape, generator=rng) * 0.05 for key, shape in shapes.items()}
    path = tmp_path / "vgg16.safetensors"
    save_file({**stored, "classifier.0.weight": torch.zeros(2, 2)}, path)
    files = Files(config(tmp_path, tmp_path), splits[0])
    loss = Vgg16Loss(files.vgg16(str(path)))
    image = batch_like(held_out_batch(splits[0], 1))
    assert loss(image, image).item() == pytest.approx(0, abs=1e-6)
    made = (image + 0.1).requires_grad_()
    value = loss(made, image)
    value.backward()
    assert value > 0 and made.grad is not None and made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())

    first = "features.0.weight"
    for bad, words in (
        ({key: stored[key] for key in stored if key != first}, f"{first} is missing"),
        ({**stored, first: torch.zeros(1)}, f"{first} has another shape"),
        ({**stored, "features.99.weight": torch.zeros(1)}, "features.99.weight is unexpected"),
    ):
        save_file(bad, path)
        with pytest.raises(ConfigError, match=rf"vgg16_weights: .*{words}.*; name a file"):
            files.vgg16(str(path))
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="expected a safetensors file of VGG16"):
        files.vgg16(str(path))


@pytest.mark.parametrize("prefix", ["features.", "backbone."])
def test_the_compressor_starts_from_torchvisions_features(
    prefix: str, images: Path, tmp_path: Path
) -> None:
    section = config(images, tmp_path).compressor
    torch.manual_seed(1)
    source, target = Compressor(section), Compressor(section)
    path = tmp_path / "efficientnet.safetensors"
    tensors = source.backbone.state_dict()
    save_file({prefix + key: value.contiguous() for key, value in tensors.items()}, path)
    weights.load_backbone(target, path)
    assert all(
        torch.equal(value, tensors[key]) for key, value in target.backbone.state_dict().items()
    )
    wider = Compressor(section.model_copy(update={"width": 0.5}))
    with pytest.raises(ConfigError, match=r"compressor_weights: .*has another shape"):
        weights.load_backbone(wider, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        weights.load_backbone(target, tmp_path / "nowhere")


def test_the_pyramid_sees_edges_and_not_brightness() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert pyramid_loss(image + 0.3, image).item() == pytest.approx(0, abs=1e-6)
    assert pyramid_loss(image.flip(3), image) > 0.1
