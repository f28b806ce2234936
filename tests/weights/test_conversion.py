"""Converting from one format to another and back gives the same bits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from published_files import COMPRESSOR, B, C, authors_state, two_repositories
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_networks import contents, randomised

from wuerstchen import weights
from wuerstchen.config import StageCModel
from wuerstchen.errors import ConfigError, ModelFolderError, SaveError
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights.convert import Target


def converted(source: Path, out: Path, to: Target, **options: object) -> list[Path]:
    path, components = weights.resolve_components(source)
    return weights.convert(components, out, to, source=path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["diffusers", "original", "single-file"])
def test_a_model_comes_back_byte_for_byte(whole: Path, tmp_path: Path, to: Target) -> None:
    there = tmp_path / ("model.safetensors" if to == "single-file" else "there")
    converted(whole, there, to)
    assert weights.resolve(there).compressor is not None
    converted(there, tmp_path / "back", "diffusers")
    assert contents(tmp_path / "back") == contents(whole)


@pytest.mark.parametrize("to", ["original", "single-file"])
def test_a_converted_model_opens_as_the_same_networks(
    whole: Path, tmp_path: Path, to: Target
) -> None:
    there = tmp_path / ("model.safetensors" if to == "single-file" else "there")
    converted(whole, there, to)
    before, after = weights.resolve(whole), weights.resolve(there)
    for old, new in zip(before.components(), after.components(), strict=True):
        torch.testing.assert_close(weights.tensors(new), weights.tensors(old), rtol=0, atol=0)
    assert weights.stage_a.config(after.stage_a) == weights.stage_a.config(before.stage_a)
    assert weights.stage_b.config(after.stage_b) == weights.stage_b.config(before.stage_b)
    captions = ["a red fox", "two blue birds"]
    with torch.no_grad():
        encoded = weights.text_c.load(after.text_c)(captions)
        assert torch.equal(encoded, weights.text_c.load(whole)(captions))


def test_the_authors_checkpoint_becomes_a_model_folder_and_comes_back(
    tmp_path: Path,
) -> None:
    stage_b, compressor = randomised(StageB(B)), randomised(Compressor(COMPRESSOR))
    state = authors_state(stage_b)
    torch.save(
        {"state_dict": state, "effnet_state_dict": authors_state(compressor)}, tmp_path / "b.pt"
    )
    written = converted(tmp_path / "b.pt", tmp_path / "model", "diffusers")
    assert sorted(path.name for path in written) == ["compressor", "decoder"]
    loaded = weights.stage_b.load(tmp_path / "model")
    assert loaded.config == B
    torch.testing.assert_close(loaded.state_dict(), stage_b.state_dict(), rtol=0, atol=0)
    converted(tmp_path / "model", tmp_path / "back", "original")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "compressor.safetensors",
        "stage_b.safetensors",
    ]
    back = load_file(tmp_path / "back" / "stage_b.safetensors")
    torch.testing.assert_close(back, state, rtol=0, atol=0)


def test_a_decoder_and_its_prior_become_one_folder(whole: Path, tmp_path: Path) -> None:
    decoder, prior = two_repositories(whole, tmp_path / "pair")
    path, components = weights.resolve_components(decoder, prior=prior)
    weights.convert(components, tmp_path / "one", "diffusers", source=path)
    joined = contents(tmp_path / "one")
    expected = {name: c for name, c in contents(whole).items() if not name.startswith("compressor")}
    assert joined == expected


def test_other_components_in_the_folder_stay(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    weights.stage_c.save(tmp_path, randomised(StageC(C), seed=9))
    with pytest.raises(SaveError, match=r"prior_prior exists already.*--overwrite"):
        converted(tmp_path / "prior_prior", folder, "diffusers")
    assert contents(folder) == before
    converted(tmp_path / "prior_prior", folder, "diffusers", overwrite=True)
    changed = {name for name, content in contents(folder).items() if before[name] != content}
    assert {name.partition("/")[0] for name in changed} == {"prior_prior"}
    torch.testing.assert_close(
        weights.stage_c.load(folder).state_dict(),
        weights.stage_c.load(tmp_path).state_dict(),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_dtype_is_rounded_once_and_integers_stay(
    whole: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    converted(whole, tmp_path / "half.safetensors", "single-file", dtype=dtype)
    half, full = weights.resolve(tmp_path / "half.safetensors"), weights.resolve(whole)
    assert weights.stored_dtype(half.stage_a) == dtype
    for name, tensor in weights.tensors(half.stage_a, dtype).items():
        own = weights.tensors(full.stage_a)[name]
        assert torch.equal(tensor, own.to(dtype) if own.is_floating_point() else own)


def test_values_too_large_for_fp16_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    network = randomised(StageC(C))
    with torch.no_grad():
        network.projection.weight[0] = 1e6
    weights.stage_c.save(tmp_path, network)
    out = tmp_path / "half.safetensors"
    with pytest.raises(SaveError, match=r"projection\.weight of Stage C .*not finite"):
        converted(tmp_path / "prior_prior", out, "single-file", dtype=torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["prior_prior"]


def test_an_original_file_includes_the_config_that_shapes_do_not_show(tmp_path: Path) -> None:
    config = StageCModel(width=30, depth=1, heads=3, text_width=12, time_width=8, dropout=0.3)
    weights.stage_c.save(tmp_path, randomised(StageC(config)))
    converted(tmp_path / "prior_prior", tmp_path / "c.safetensors", "original")
    files = weights.resolve_component(tmp_path / "c.safetensors", "stage_c")
    assert weights.stage_c.config(files) == config


def test_a_single_file_is_aligned_and_includes_the_configs(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    converted(whole, out, "single-file")
    with safe_open(out, "pt") as file:
        texts = file.metadata()
    for name in ("vqgan/config.json", "prior_text_encoder/config.json", "tokenizer/tokenizer.json"):
        assert json.loads(texts[name]) == json.loads((whole / name).read_text())
    with out.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__")
    assert size % 8 == 0
    for key, entry in header.items():
        width = {"F32": 4, "I64": 8}[entry["dtype"]]
        assert entry["data_offsets"][0] % width == 0, key


def test_an_impossible_output_path_is_refused_before_anything_is_written(
    whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for to, name, error, message in (
        ("single-file", "folder", ConfigError, r"ending in \.safetensors"),
        ("diffusers", "model.safetensors", ConfigError, "expected a folder"),
        ("original", "model.safetensors", ConfigError, "expected a folder"),
        ("diffusers", "file", ConfigError, "expected a folder"),
        ("original", "file", ConfigError, "expected a folder"),
    ):
        with pytest.raises(error, match=message):
            converted(whole, tmp_path / name, to)  # type: ignore[arg-type]
    assert contents(tmp_path) == {"file": b"mine"}


def test_damaged_components_are_not_converted(folder: Path, tmp_path: Path) -> None:
    values = json.loads((folder / "prior_prior" / "config.json").read_text())
    (folder / "prior_prior" / "config.json").write_text(json.dumps({**values, "depth": 3}))
    with pytest.raises(ModelFolderError, match="missing"):
        converted(folder, tmp_path / "out", "diffusers")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["diffusers", "original"])
def test_an_existing_card_or_tokenizer_is_not_replaced(
    whole: Path, tmp_path: Path, to: Target
) -> None:
    (whole_copy := tmp_path / "source").mkdir()
    for name, content in contents(whole).items():
        (whole_copy / name).parent.mkdir(parents=True, exist_ok=True)
        (whole_copy / name).write_bytes(content)
    (whole_copy / "README.md").write_text("its card")
    for mine in ("README.md", "tokenizer/mine.txt"):
        out = tmp_path / mine.replace("/", "-")
        (out / mine).parent.mkdir(parents=True)
        (out / mine).write_text("mine")
        if to == "original" and mine != "README.md":
            continue  # an original folder has its tokenizers as well, in the same places
        with pytest.raises(SaveError, match=r"exists already.*--overwrite"):
            converted(whole_copy, out, to)
        assert contents(out) == {mine: b"mine"}


def test_thirds_of_several_dtypes_are_refused_or_widened_on_request(
    tmp_path: Path,
) -> None:
    """The authors join q, k and v in one tensor, which has one dtype."""
    weights.stage_c.save(tmp_path, randomised(StageC(C)))
    path = tmp_path / "prior_prior/diffusion_pytorch_model.safetensors"
    state = load_file(path)
    for name in state:
        if ".to_q." in name:
            state[name] = state[name].half()
        if ".to_k." in name:
            state[name] = state[name].bfloat16()
    save_file(state, path, metadata={"format": "pt"})
    before = contents(tmp_path)
    with pytest.raises(SaveError, match=r"one dtype, found bfloat16, float16.*--dtype"):
        converted(tmp_path / "prior_prior", tmp_path / "c.safetensors", "original")
    assert contents(tmp_path) == before
    out = tmp_path / "wide.safetensors"
    converted(tmp_path / "prior_prior", out, "original", dtype=torch.float32)
    back = weights.tensors(weights.resolve_component(out, "stage_c"))
    for name, tensor in weights.tensors(
        weights.resolve_component(tmp_path / "prior_prior", "stage_c")
    ).items():
        assert torch.equal(back[name], tensor.float())


def test_values_too_large_are_found_before_the_first_component_is_written(
    whole: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for name, content in contents(whole).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    network = weights.stage_c.load(source)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = 1e6
    weights.stage_c.save(source, network)
    with pytest.raises(SaveError, match="nothing was written"):
        converted(source, tmp_path / "out", "diffusers", dtype=torch.float16)
    assert not (tmp_path / "out").exists()


def test_a_model_is_not_written_into_itself(whole: Path) -> None:
    before = contents(whole)
    for out, to in (("all.safetensors", "single-file"), ("decoder/inner", "diffusers")):
        with pytest.raises(ConfigError, match="expected a path outside"):
            converted(whole, whole / out, to)
    assert contents(whole) == before


def test_a_card_that_is_not_text_is_refused(whole: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in {**contents(whole), "README.md": b"\xff\xfe\x00"}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"README.md: expected UTF-8 text"):
        converted(source, tmp_path / "out", "diffusers")
    assert not (tmp_path / "out").exists()


def test_a_component_that_is_a_link_can_be_replaced_repeatedly(
    folder: Path, tmp_path: Path
) -> None:
    elsewhere = (folder / "prior_prior").rename(tmp_path / "elsewhere")
    (folder / "prior_prior").symlink_to(elsewhere)
    weights.stage_c.save(tmp_path, randomised(StageC(C), seed=9))
    for _ in range(3):
        converted(tmp_path / "prior_prior", folder, "diffusers", overwrite=True)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert elsewhere.is_dir(), "the link's target is not ours"


def test_a_single_file_is_the_same_each_time(whole: Path, tmp_path: Path) -> None:
    converted(whole, tmp_path / "1.safetensors", "single-file")
    converted(tmp_path / "1.safetensors", tmp_path / "2.safetensors", "single-file")
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


@pytest.mark.parametrize("place", ["prior", "prior/prior"])
def test_a_folder_never_gets_stage_c_twice(whole: Path, tmp_path: Path, place: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole / "prior_prior", out / place)
    before = contents(out)
    for to in ("diffusers", "original"):
        with pytest.raises(SaveError, match=r"has Stage C already, in .*prior; move"):
            converted(whole, out, to, overwrite=True)  # type: ignore[arg-type]
    with pytest.raises(SaveError, match="has Stage C already"):
        weights.stage_c.save(out, weights.stage_c.load(whole))
    assert contents(out) == before
    assert weights.resolve_components(out)[1].keys() == {"stage_c"}
