"""Feature networks: the numbers of other implementations, and weights that do not fit."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
)

from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.evaluation.distances.inception_weights import load_inception
from wuerstchen.evaluation.distances.networks import FeatureNetwork, open_network
from wuerstchen.evaluation.distances.preparation import Preparation
from wuerstchen.models.inception import Inception2015

CPU = torch.device("cpu")
BLOCKS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1} | {
    "num_attention_heads": 2
}
PUBLISHED = {
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "siglip": ([0.5] * 3, [0.5] * 3),
    "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
"""Mean and deviation in the preprocessor_config.json of the published networks."""

PICTURE = BLOCKS | {"image_size": 32, "patch_size": 8}


def fill(network: nn.Module) -> None:
    """Weights that any implementation can be given: drawn in the order of the keys."""
    rng = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        drawn = torch.rand(tensor.shape, generator=rng)
        if name.endswith(("running_var", "bn.weight")):
            drawn = 0.5 + drawn
        elif tensor.ndim > 1:
            drawn = (drawn - 0.5) * (24 / tensor[0].numel()) ** 0.5
        else:
            drawn = 0.2 * (drawn - 0.5)
        tensor.copy_(drawn)


@pytest.fixture(scope="module")
def inception() -> Inception2015:
    network = Inception2015().requires_grad_(False)
    fill(network)
    return network.eval()


@pytest.fixture(scope="module")
def pattern() -> Tensor:
    """(1, 3, 299, 299) pixels from 0 to 255."""
    y, x = torch.meshgrid(torch.arange(299), torch.arange(299), indexing="ij")
    return torch.stack([(3 * x + y) % 256, (x + 5 * y) % 256, (x * y) // 7 % 256])[None].float()


def test_inception_computes_what_torch_fidelity_computes(
    inception: Inception2015, pattern: Tensor
) -> None:
    """Features and scores of torch-fidelity 0.4.0 with these weights, noted down."""
    found = inception((((pattern - 128) / 128) + 1) / 2)  # it scales pixels a little differently
    scores = inception.scores(found)
    every = [2.527964, 10.890572, 0.165743, 0.987858, 2.686496, 0.695222, 0.0, 0.063604]
    assert found[0, ::256].tolist() == pytest.approx(every, abs=1e-3)
    assert float(found.mean()) == pytest.approx(2.898280, abs=1e-4)
    some = [-9.8482, 6.04864, -6.38781, 6.96418, -8.74608, 0.45421]
    assert scores[0, ::168].tolist() == pytest.approx(some, abs=1e-3)


def test_an_early_file_of_torch_is_read_without_counters(
    inception: Inception2015, tmp_path: Path
) -> None:
    """pytorch-fid's file is of 2018, before torch wrote archives."""
    weights = {k: v for k, v in inception.state_dict().items() if "num_batches" not in k}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = load_inception(tmp_path / "old.pth").state_dict()
    assert found.keys() == inception.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def _early(path: Path) -> None:
    torch.save({"conv": torch.ones(3)}, path, _use_new_zipfile_serialization=False)


def _objects(path: Path) -> None:
    torch.save({"conv": Path("x")}, path)


WRONG: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "other keys": (
        "a.safetensors",
        lambda path: save_file({"layer1.weight": torch.ones(2)}, path),
        r"expected Conv2d_1a_3x3\.conv\.weight, found layer1\.weight",
    ),
    "another shape": (
        "b.safetensors",
        lambda path: save_file({"Conv2d_1a_3x3.conv.weight": torch.ones(2)}, path),
        r"expected Conv2d_1a_3x3\.conv\.weight of \[32, 3, 3, 3\], found \[2\]",
    ),
    "cut off": ("c.safetensors", lambda path: _cut(path), "damaged or cut off"),
    "too small": ("d.pth", _early, r"expected at least 92,000,000 bytes .* found \d"),
    "objects": ("e.pth", _objects, "Python objects"),
    "a folder": ("f", Path.mkdir, "found a folder; name the file"),
}


def _cut(path: Path) -> None:
    save_file({"layer1.weight": torch.ones(200)}, path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_do_not_fit_are_named(case: str, tmp_path: Path) -> None:
    name, write, expected = WRONG[case]
    write(tmp_path / name)
    with pytest.raises(ModelFolderError, match=expected):
        load_inception(tmp_path / name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random networks of transformers, as it saves them."""
    root = tmp_path_factory.mktemp("networks")
    text = BLOCKS | {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "clip": CLIPModel(
                CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=12)
            ),
            "siglip": SiglipModel(SiglipConfig(text_config=text, vision_config=PICTURE)),
            "dinov2": Dinov2Model(Dinov2Config(**PICTURE)),
        }
    for name, model in models.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in models}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return Image.fromarray(pixels)


def ours(network: FeatureNetwork, image: Image.Image) -> Tensor:
    return network.features(Preparation()(image, network.side)[None])


@pytest.mark.parametrize(("kind", "width"), [("clip", 12), ("siglip", 16), ("dinov2", 16)])
def test_features_are_those_of_transformers(
    kind: str, width: int, folders: dict[str, Path], photo: Image.Image
) -> None:
    network = open_network(f"{kind}={folders[kind]}", CPU)
    mean, std = PUBLISHED[kind]
    normalised = (np.asarray(photo) / 255 - mean) / std
    pixels = torch.from_numpy(normalised).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        if kind == "dinov2":
            expected = Dinov2Model.from_pretrained(folders[kind])(pixels).last_hidden_state[:, 0]
        else:
            model = {"clip": CLIPModel, "siglip": SiglipModel}[kind].from_pretrained(folders[kind])
            expected = model.vision_model(pixels).pooler_output
            if kind == "clip":
                expected = model.visual_projection(expected)
    assert ours(network, photo).shape == (1, width)
    torch.testing.assert_close(ours(network, photo), expected, atol=1e-5, rtol=1e-4)


def test_another_preprocessing_in_the_folder_counts(
    folders: dict[str, Path], photo: Image.Image, tmp_path: Path
) -> None:
    copy = tmp_path / "clip"
    copy.mkdir()
    for file in folders["clip"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = open_network(f"clip={copy}", CPU)
    stated = '{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "crop_size": {"height": 32}}'
    (copy / "preprocessor_config.json").write_text(stated)
    after = open_network(f"clip={copy}", CPU)
    assert before.weights == after.weights
    assert before.normalisation.startswith("mean 0.48145466, 0.4578275, 0.40821073; deviation 0.2")
    assert after.normalisation == "mean 0.0, 0.0, 0.0; deviation 1.0, 1.0, 1.0"
    assert not torch.allclose(ours(before, photo), ours(after, photo))
    (copy / "preprocessor_config.json").write_text('{"image_mean": 3}')
    with pytest.raises(ModelFolderError, match="expected three numbers for image_mean, found 3"):
        open_network(f"clip={copy}", CPU)


def test_a_folder_of_another_network_or_without_a_weight_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelFolderError, match="expected model_type 'clip', found 'dinov2'"):
        open_network(f"clip={folders['dinov2']}", CPU)
    config = (folders["clip"] / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(ModelFolderError, match=r"config\.json and model\.safetensors, found:"):
        open_network(f"clip={tmp_path}", CPU)
    save_file({"other": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFolderError, match=r"logit_scale is missing \(found other\)"):
        open_network(f"clip={tmp_path}", CPU)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vgg", "expected lite0, inception, clip, siglip, dinov2, found 'vgg'"),
        ("clip", r"clip needs weights.* pass clip=PATH"),
        ("inception", r"the file pt_inception-2015-12-05-6726825d\.pth"),
        ("lite0=x", "takes no path"),
    ],
)
def test_a_network_that_is_not_known_or_has_no_weights_is_a_clear_error(
    text: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_network(text, CPU)


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ModelFolderError, match=re.escape("'./nowhere.pth'")):
        open_network("inception=./nowhere.pth", CPU)
