"""The authors' own files: identified by their keys, opened without a config."""

from pathlib import Path

import pytest
import torch
from published_files import COMPRESSOR, A, B, C, authors_state, published_list
from safetensors.torch import save_file
from small_networks import randomised

from wuerstchen import weights
from wuerstchen.config import CompressorModel, StageAModel, StageBModel, StageCModel
from wuerstchen.errors import ModelFolderError
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights.component import published_tensors
from wuerstchen.weights.headers import Header, TensorInfo
from wuerstchen.weights.identify import identify
from wuerstchen.weights.infer_config import infer_config
from wuerstchen.weights.original import to_original

FULL = [
    ("stage_a", StageAModel(), StageA),
    ("stage_b", StageBModel(), StageB),
    ("stage_c", StageCModel(), StageC),
]
SMALL = [
    (weights.stage_a, A, StageA),
    (weights.stage_b, B, StageB),
    (weights.stage_c, C, StageC),
    (weights.compressor, COMPRESSOR, Compressor),
]


@pytest.mark.parametrize(("name", "config", "kind"), FULL)
def test_full_size_networks_have_the_keys_of_the_authors_files(name, config, kind) -> None:
    with torch.device("meta"):
        network = kind(config)
    shapes = {key: tuple(t.shape) for key, t in authors_state(network).items()}
    assert shapes == published_list(name)


@pytest.mark.parametrize(("name", "config", "kind"), FULL)
def test_the_sizes_of_the_published_files_follow_from_their_shapes(name, config, kind) -> None:
    stored = {key: TensorInfo(torch.float32, shape) for key, shape in published_list(name).items()}
    [found] = identify(Header(Path("x.pt"), "pt", stored, {})).values()
    assert (found.component, found.generation, found.naming) == (name, "v2", "original")
    assert infer_config(Path("x.pt"), name, type(config), found.tensors) == config


def test_the_sizes_of_the_published_compressor_follow_from_its_shapes() -> None:
    lines = (Path(__file__).parents[1] / "reference" / "compressor_keys.txt").read_text()
    stored = {}
    for line in lines.splitlines():
        key, _, shape = line.partition(" ")
        stored[key] = TensorInfo(torch.float32, tuple(int(n) for n in shape[1:-1].split(",") if n))
    found = infer_config(Path("x"), "compressor", CompressorModel, stored)
    assert found == CompressorModel(affine=False)


@pytest.mark.parametrize("kind_of_file", ["nested pt", "bare pt", "safetensors"])
@pytest.mark.parametrize(("component", "config", "kind"), SMALL)
def test_an_original_file_opens_as_the_network_it_holds(
    tmp_path: Path, component, config, kind, kind_of_file: str
) -> None:
    network = randomised(kind(config))
    state = authors_state(network)
    path = tmp_path / "some.weights"
    if kind_of_file == "safetensors":
        save_file(state, path)
    else:
        nested = {"state_dict": state, "iter": 7, "metrics": {"ema_loss": 0.1}}
        torch.save(state if kind_of_file == "bare pt" else nested, path)
    loaded = component.load(weights.resolve_component(path, component.name), mmap=True)
    if component is weights.compressor:  # several depths make the same blocks
        config = config.model_copy(update={"depth": loaded.config.depth})
    assert loaded.config == config and not loaded.training
    assert list(loaded.state_dict()) == list(network.state_dict())
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])


def test_queries_keys_and_values_keep_their_order_whatever_order_a_file_has(tmp_path: Path) -> None:
    network = randomised(StageC(C))
    weights.stage_c.save(tmp_path, network)  # safetensors sort: keys, queries, values
    files = weights.resolve_component(tmp_path, "stage_c")
    rows = to_original(published_tensors(files))
    joined = {key: torch.cat(tensors) for key, tensors in rows.items()}
    torch.testing.assert_close(joined, authors_state(network), rtol=0, atol=0)


def test_the_ema_weights_of_a_checkpoint_are_preferred(tmp_path: Path) -> None:
    raw, ema = randomised(StageC(C), seed=1), randomised(StageC(C), seed=2)
    state = {"state_dict": authors_state(raw), "ema_state_dict": authors_state(ema)}
    torch.save({**state, "optimizer_state_dict": {"state": {"a": torch.zeros(3)}}}, tmp_path / "c")
    loaded = weights.stage_c.load(weights.resolve_component(tmp_path / "c", "stage_c"), mmap=True)
    torch.testing.assert_close(loaded.state_dict(), ema.state_dict(), rtol=0, atol=0)


def test_stage_bs_checkpoint_includes_the_compressor(tmp_path: Path, whole: Path) -> None:
    stage_b, compressor = randomised(StageB(B)), randomised(Compressor(COMPRESSOR))
    torch.save(
        {"state_dict": authors_state(stage_b), "effnet_state_dict": authors_state(compressor)},
        tmp_path / "b.pt",
    )
    files = weights.from_files(
        stage_a=whole / "vqgan",
        stage_b=tmp_path / "b.pt",
        stage_c=whole / "prior_prior",
        text_b=whole / "text_encoder",
        text_c=whole / "prior_text_encoder",
    )
    assert files.compressor is not None
    assert files.name == "b"
    loaded = weights.compressor.load(files.compressor, mmap=True)
    assert loaded.config.affine is False
    torch.testing.assert_close(loaded.state_dict(), compressor.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(
        weights.stage_b.load(files.stage_b).state_dict(), stage_b.state_dict(), rtol=0, atol=0
    )


def test_the_compressors_own_repository_is_opened(tmp_path: Path) -> None:
    compressor = randomised(Compressor(COMPRESSOR))
    save_file(compressor.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"_class_name": "EfficientNetEncoder", "c_cond": 1280, "c_latent": 16}'
    )
    loaded = weights.compressor.load(weights.resolve_component(tmp_path, "compressor"), mmap=True)
    torch.testing.assert_close(loaded.state_dict(), compressor.state_dict(), rtol=0, atol=0)


def test_a_head_count_that_shapes_do_not_show_is_not_guessed(tmp_path: Path) -> None:
    config = C.model_copy(update={"width": 96, "heads": 2})
    save_file(authors_state(StageC(config)), tmp_path / "c.safetensors")
    files = weights.resolve_component(tmp_path / "c.safetensors", "stage_c")
    with pytest.raises(ModelFolderError, match=r"width 96.*64 wide.*does not divide"):
        weights.stage_c.config(files)


def test_python_objects_in_a_pt_file_are_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "sprung"), "w"))  # type: ignore[return-value]

    torch.save({"state_dict": authors_state(StageC(C)), "config": Trap()}, tmp_path / "c.pt")
    with pytest.raises(ModelFolderError, match=r"Python objects.*safetensors"):
        weights.resolve_component(tmp_path / "c.pt", "stage_c")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("fraction", [0.3, 0.99])
def test_a_cut_off_pt_file_is_one_sentence(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "c.pt"
    torch.save({"state_dict": authors_state(StageC(C))}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(ModelFolderError, match=r"c\.pt is damaged or cut off") as caught:
        weights.resolve_component(path, "stage_c")
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_of_an_original_file_is_named(tmp_path: Path) -> None:
    state = authors_state(StageC(C))
    state.pop("blocks.2.attention.attn.in_proj_bias")
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(ModelFolderError, match=r"1 missing \(blocks\.2\.attention\.attn\.in_proj_"):
        weights.stage_c.empty(weights.resolve_component(tmp_path / "c.safetensors", "stage_c"))
