"""Every layout of the same model opens as the same model, and what is not opened is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published_files import authors_state, two_repositories
from safetensors.torch import load_file, save_file
from small_networks import C, randomised

from wuerstchen import weights
from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights.left_out import left_out
from wuerstchen.weights.scan import scan

REQUIRED = ("stage_a", "stage_b", "stage_c", "text_b", "text_c")


def states(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of all components that generate."""
    _, components = weights.resolve_components(path)
    return {name: weights.tensors(files) for name, files in components.items() if name in REQUIRED}


def both(whole: Path, folder: Path) -> Path:
    """The decoder and the prior of the hub in one folder; both have a `text_encoder`."""
    decoder, prior = two_repositories(whole, folder / "pair")
    shutil.copytree(decoder, folder / "both")
    shutil.copytree(prior / "prior", folder / "both" / "prior")
    (folder / "both" / "model_index.json").unlink()
    return folder / "both"


def own_text(whole: Path, folder: Path) -> Path:
    path = both(whole, folder)
    for name in ("prior_text_encoder", "prior_tokenizer"):
        shutil.copytree(whole / name, path / name)
    return path


def prior_inside(whole: Path, folder: Path) -> Path:
    """A whole prior of the hub in the folder `prior` of a decoder."""
    decoder, prior = two_repositories(whole, folder / "pair")
    shutil.copytree(prior, decoder / "prior")
    return decoder


def file_beside_folders(whole: Path, folder: Path) -> Path:
    path = Path(shutil.copytree(whole, folder / "model"))
    shutil.move(
        path / "prior_prior" / "diffusion_pytorch_model.safetensors", path / "c.safetensors"
    )
    shutil.move(path / "prior_prior" / "config.json", path / "c.json")
    return path


def sharded(whole: Path, folder: Path) -> Path:
    path = Path(shutil.copytree(whole, folder / "model"))
    shard(path / "prior_prior")
    return path


def shard(folder: Path) -> None:
    """Store the weights in two files, as diffusers does above `max_shard_size`."""
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {key: names[number % 2] for number, key in enumerate(tensors)}
    for name in names:
        save_file({key: tensors[key] for key in tensors if weight_map[key] == name}, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{file.name}.index.json").write_text(json.dumps(index))


LAYOUTS: list[Callable[[Path, Path], Path]] = [
    own_text,
    prior_inside,
    file_beside_folders,
    sharded,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_model(
    whole: Path, tmp_path: Path, layout: Callable[[Path, Path], Path]
) -> None:
    path = layout(whole, tmp_path)
    expected = states(whole)
    torch.testing.assert_close(states(path), expected, rtol=0, atol=0)
    assert all(weights.resolve(path).components())
    assert weights.describe(path).what == "a whole model"
    for name in REQUIRED:
        getattr(weights, name).load(path)
    _, components = weights.resolve_components(path)
    weights.convert(components, tmp_path / "out", "diffusers", source=path)
    torch.testing.assert_close(states(tmp_path / "out"), expected, rtol=0, atol=0)
    if layout is own_text:
        weights.merge(components, components, tmp_path / "merged", 0.5, source=path)
        torch.testing.assert_close(states(tmp_path / "merged"), expected, rtol=0, atol=0)


def test_a_shared_text_encoder_is_that_of_both_stages(whole: Path, tmp_path: Path) -> None:
    path = both(whole, tmp_path)
    found, expected = states(path), states(whole)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["text_c"], expected["text_b"], rtol=0, atol=0)
    torch.testing.assert_close(found["stage_c"], expected["stage_c"], rtol=0, atol=0)


@pytest.mark.parametrize(("fits", "lacks"), [("text_b", "text_c"), ("text_c", "text_b")])
def test_a_text_encoder_belongs_to_the_stage_of_its_width(
    whole: Path, tmp_path: Path, fits: str, lacks: str
) -> None:
    path = both(whole, tmp_path)
    config, key = ("prior", "c_cond") if fits == "text_b" else ("decoder", "clip_embd")
    values = json.loads((path / config / "config.json").read_text())
    (path / config / "config.json").write_text(json.dumps({**values, key: 48}))
    assert fits in scan(path).components and lacks not in scan(path).components
    with pytest.raises(ModelFolderError, match="fits the other stage alone; put it into"):
        weights.resolve(path)


@pytest.mark.parametrize("extra", ["prior", "loose"])
def test_a_component_found_twice_is_named_or_refused(
    whole: Path, tmp_path: Path, extra: str
) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "model"))
    if extra == "prior":
        shutil.copytree(path / "prior_prior", path / "prior")
        with pytest.raises(ModelFolderError, match="Stage C twice, in prior_prior and prior"):
            weights.resolve(path)
        return
    shutil.copy(
        path / "prior_prior" / "diffusion_pytorch_model.safetensors", path / "c.safetensors"
    )
    assert weights.resolve(path).stage_c.weights.parent.name == "prior_prior"
    assert "c.safetensors" in weights.describe(path).note


def test_what_is_not_carried_over_is_named(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "model"))
    assert left_out(path, weights.resolve_components(path)[1]) == []
    for name in ("runs/c/log.jsonl", "feature_extractor/preprocessor_config.json", ".cache/x"):
        (path / name).parent.mkdir(parents=True)
        (path / name).touch()
    (path / "vqgan" / "diffusion_pytorch_model.fp16.safetensors").touch()
    (path / "samples.png").touch()
    assert left_out(path, weights.resolve_components(path)[1]) == [
        "feature_extractor/",
        "runs/",
        "samples.png",
        "vqgan/diffusion_pytorch_model.fp16.safetensors",
    ]


def test_networks_in_a_file_that_are_not_carried_over_are_named(tmp_path: Path) -> None:
    state = authors_state(randomised(StageC(WIDE_HEADS)))
    contents = {
        "state_dict": state,
        "ema_state_dict": state,
        "optimizer_state_dict": {"m": torch.ones(1)},
    }
    torch.save(contents, tmp_path / "c.pt")
    _, components = weights.resolve_components(tmp_path / "c.pt")
    assert components["stage_c"].prefix == "ema_state_dict."
    assert left_out(tmp_path / "c.pt", components) == [
        f"{len(state)} tensors of state_dict.",
        "optimizer_state_dict of the training",
    ]


WIDE_HEADS = C.model_copy(update={"width": 64, "heads": 1})


BAD_SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        lambda f: (f / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink(),
        "lacks diffusion_pytorch_model-00002-of-00002.safetensors",
    ),
    "outside": (lambda f: edit_map(f, lambda m: {**m, "a": "../x.safetensors"}), "in its folder"),
    "absolute": (lambda f: edit_map(f, lambda m: {**m, "a": "/x.safetensors"}), "in its folder"),
    "no file": (lambda f: edit_map(f, lambda m: {**m, "a": 3}), "in its folder"),
    "no map": (lambda f: edit_map(f, lambda _: {}), "expected a weight_map"),
    "a list": (lambda f: edit_map(f, list), "expected a weight_map"),
    "unknown tensor": (
        lambda f: edit_map(f, lambda m: {**m, "a": next(iter(m.values()))}),
        "which it lacks",
    ),
    "unnamed tensor": (lambda f: edit_map(f, lambda m: dict(list(m.items())[1:])), "does not say"),
}


def edit_map(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "weight_map": change(values["weight_map"])}))


@pytest.mark.parametrize("kind", BAD_SHARDS)
def test_shards_that_disagree_with_their_index_are_refused(
    whole: Path, tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(whole / "prior_prior", tmp_path / "prior"))
    shard(folder)
    damage, message = BAD_SHARDS[kind]
    damage(folder)
    with pytest.raises(ModelFolderError, match=message) as caught:
        weights.stage_c.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("place", ["config.json", "c.json", "named", "folder"])
def test_a_torch_file_of_unusual_width_opens_with_its_config(
    whole: Path, tmp_path: Path, place: str
) -> None:
    stage_c = randomised(StageC(C))  # width 16, which heads of width 64 do not divide
    path = tmp_path / "own" / "c.pt"
    path.parent.mkdir()
    torch.save(authors_state(stage_c), path)
    with pytest.raises(ModelFolderError, match=r"put its config\.json next to it or name"):
        weights.describe(path)
    name = {"named": "sizes.json", "folder": "config.json"}.get(place, place)
    config = path.with_name(name)
    shutil.copy(whole / "prior_prior" / "config.json", config)
    source = path.parent if place == "folder" else path
    configs = (config,) if place == "named" else ()
    assert weights.describe(source, configs=configs).components[0].sizes["width"] == 16
    _, components = weights.resolve_components(source, configs=configs)
    loaded = weights.stage_c.load(components["stage_c"])
    torch.testing.assert_close(loaded.state_dict(), stage_c.state_dict(), rtol=0, atol=0)
    assert weights.resolve(whole, prior=source, configs=configs).stage_c.weights == path
    assert left_out(source, components) == []


def test_a_config_next_to_a_file_may_be_of_something_else(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save(authors_state(randomised(StageC(WIDE_HEADS))), path)
    for text in ("[]", "{", '{"_class_name": "UNet2DModel"}', (whole / DECODER).read_text()):
        (tmp_path / "config.json").write_text(text)
        assert weights.resolve_components(path)[1]["stage_c"].config is None
    with pytest.raises(ConfigError, match="describes Stage B, but the model has Stage C"):
        weights.resolve_components(path, configs=[tmp_path / "config.json"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="whose _class_name is one of"):
        weights.resolve_components(path, configs=[tmp_path / "config.json"])


DECODER = "decoder/config.json"


def test_channels_of_semantics_that_no_level_reads_are_not_compared(folder: Path) -> None:
    """The test model of diffusers; its list of heads has more entries than it has levels, too."""
    values = json.loads((folder / DECODER).read_text())
    unread = {"inject_effnet": [False, False], "effnet_embd": 7, "nhead": [-1, 2, 20, 20]}
    (folder / DECODER).write_text(json.dumps({**values, **unread}))
    weights.check_fit(scan_model(folder))
    (folder / DECODER).write_text(json.dumps({**values, "effnet_embd": 7}))
    with pytest.raises(ModelFolderError, match="semantic channels of Stage C and Stage B"):
        weights.check_fit(scan_model(folder))


def scan_model(folder: Path) -> weights.ModelFiles:
    return weights.ModelFiles(name="model", source=folder, **scan(folder).components)  # type: ignore[arg-type]


def test_another_layout_is_never_advised_to_be_trained(whole: Path, tmp_path: Path) -> None:
    decoder, prior = two_repositories(whole, tmp_path)
    assert weights.stage_c.load(prior).config == C
    for folder, name in ((prior, "stage_b"), (decoder, "stage_c"), (prior / "prior", "stage_a")):
        with pytest.raises(ModelFolderError, match="name another path") as caught:
            getattr(weights, name).load(folder)
        assert "train" not in str(caught.value)


@pytest.mark.parametrize("opens", [weights.resolve, weights.resolve_components])
def test_a_card_of_a_local_decoder_never_causes_a_download(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: Callable[..., object]
) -> None:
    decoder, _ = two_repositories(whole, tmp_path)
    (decoder / "README.md").write_text("---\nprior: someone/prior\n---\n")
    asked: list[bool] = []

    def snapshot(*_: object, local_files_only: bool, **__: object) -> str:
        asked.append(local_files_only)
        raise OSError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    if opens is weights.resolve:
        with pytest.raises(ModelFolderError, match="prior someone/prior, which is not on this"):
            opens(decoder)
    else:
        opens(decoder)
    assert asked == [True]
