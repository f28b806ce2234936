"""All layouts of version 2 resolve; problems are one sentence before a weight is read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from published_files import to_cache, two_repositories
from safetensors.torch import save_file
from small_networks import B, randomised

from wuerstchen import weights
from wuerstchen.errors import ModelFolderError
from wuerstchen.inference import model_info
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

DECODER, PRIOR = "warp-ai/wuerstchen", "warp-ai/wuerstchen-prior"


def states(files: weights.ModelFiles) -> dict[weights.ComponentName, dict[str, torch.Tensor]]:
    return {
        each.component: weights.tensors(each)
        for each in files.components()
        if each.component != "compressor"
    }


@pytest.fixture
def pair(whole: Path, tmp_path: Path) -> tuple[Path, Path]:
    return two_repositories(whole, tmp_path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache; a download would fail."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def sentence(**arguments: object) -> str:
    with pytest.raises(ModelFolderError) as caught:
        weights.resolve(**arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


def test_a_model_folder_is_found_with_all_its_components(whole: Path) -> None:
    files = weights.resolve(whole)
    assert files.compressor is not None and files.source == whole
    loaded = weights.stage_b.load(whole).state_dict()
    torch.testing.assert_close(weights.tensors(files.stage_b), dict(loaded), rtol=0, atol=0)


def test_the_bundled_model_is_found_and_states_its_name() -> None:
    assert model_info.info_of(weights.resolve()).name == "stickers"


def test_a_decoder_and_its_prior_are_one_model(whole: Path, pair: tuple[Path, Path]) -> None:
    decoder, prior = pair
    found = weights.resolve(decoder, prior=prior)
    torch.testing.assert_close(states(found), states(weights.resolve(whole)), rtol=0, atol=0)
    assert found.compressor is None
    assert found.text_c.tokenizer == prior / "tokenizer"
    assert weights.text_c.load(found.text_c).width == 32


def test_the_published_pair_is_found_in_the_hubs_cache_by_the_decoders_name(
    whole: Path, pair: tuple[Path, Path], offline: Path
) -> None:
    for folder, name in zip(pair, (DECODER, PRIOR), strict=True):
        to_cache(folder, offline, name)
    found = weights.resolve(DECODER, local_files_only=True)
    torch.testing.assert_close(states(found), states(weights.resolve(whole)), rtol=0, atol=0)
    assert model_info.info_of(found).name == DECODER
    again = weights.resolve(DECODER, prior=PRIOR, cache_dir=offline, local_files_only=True)
    assert again == found


@pytest.mark.parametrize("named", ["prior:\n- other/prior", "prior: other/prior"])
def test_the_decoders_card_names_its_prior(
    pair: tuple[Path, Path], offline: Path, named: str
) -> None:
    (pair[0] / "README.md").write_text(f"---\nlicense: mit\n{named}\n---\n# A decoder\n")
    to_cache(pair[0], offline, "other/decoder")
    to_cache(pair[1], offline, "other/prior")
    found = weights.resolve("other/decoder", local_files_only=True)
    assert "models--other--prior" in str(found.stage_c.weights)
    assert weights.resolve(pair[0], local_files_only=True).stage_c == found.stage_c


def test_stage_c_alone_uses_the_text_encoder_of_the_decoders_usual_prior(
    pair: tuple[Path, Path], offline: Path
) -> None:
    alone = pair[1].parent / "base"
    shutil.copytree(pair[1] / "prior", alone)
    to_cache(pair[0], offline, DECODER)
    to_cache(pair[1], offline, PRIOR)
    to_cache(alone, offline, "warp-ai/wuerstchen-prior-model-base")
    found = weights.resolve(
        DECODER, prior="warp-ai/wuerstchen-prior-model-base", local_files_only=True
    )
    assert "model-base" in str(found.stage_c.weights)
    assert "models--warp-ai--wuerstchen-prior/" in str(found.text_c.weights)
    assert weights.resolve(DECODER, prior=alone, local_files_only=True).stage_c.config is not None


def test_a_whole_model_accepts_another_stage_c(whole: Path, pair: tuple[Path, Path]) -> None:
    found = weights.resolve(whole, prior=pair[1] / "prior")
    assert found.stage_c.weights.parent == pair[1] / "prior"
    assert found.text_c.weights.parent == whole / "prior_text_encoder"


def test_a_variant_applies_to_all_components_or_the_known_ones_are_listed(folder: Path) -> None:
    known = sentence(name=folder, variant="fp16")
    assert "fp16" in known and "found the one without a variant" in known
    for path in folder.rglob("*.safetensors"):
        if path.parent.name != "compressor":
            path.rename(path.with_suffix(".bf16.safetensors"))
    found = weights.resolve(folder, variant="bf16")
    assert found.stage_c.weights.name == "diffusion_pytorch_model.bf16.safetensors"
    assert found.text_b.weights.name == "model.bf16.safetensors"
    assert "found bf16" in sentence(name=folder, variant="fp16")
    assert "pass variant='bf16'" in sentence(name=folder)


def test_a_swapped_pair_is_explained(pair: tuple[Path, Path]) -> None:
    decoder, prior = pair
    assert "is a prior" in sentence(name=prior)
    assert "is a prior" in sentence(name=prior, prior=decoder)
    assert "is a decoder" in sentence(name=decoder, prior=decoder)


def test_a_decoder_without_a_prior_needs_prior_argument(pair: tuple[Path, Path]) -> None:
    text = sentence(name=pair[0])
    assert "pass prior=" in text and str(pair[0]) in text


@pytest.mark.parametrize(
    "lost", ["prior/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"]
)
def test_an_unfinished_download_is_explained(
    pair: tuple[Path, Path], offline: Path, lost: str
) -> None:
    (pair[1] / lost).unlink()
    to_cache(pair[0], offline, DECODER)
    repository = to_cache(pair[1], offline, PRIOR)
    text = sentence(name=DECODER, local_files_only=True)
    assert lost in text and "is incomplete" in text
    (repository / "blobs" / "abc.incomplete").write_bytes(b"half")
    assert "a download did not finish (abc.incomplete)" in sentence(
        name=DECODER, local_files_only=True
    )


def test_truncated_weights_are_reported_before_any_is_read(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "prior" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} is damaged or cut off" in sentence(name=pair[0], prior=pair[1])
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in sentence(name=pair[0], prior=pair[1])


def test_a_half_trained_folder_says_which_stage_to_train(folder: Path) -> None:
    shutil.rmtree(folder / "prior_prior")
    shutil.rmtree(folder / "text_encoder")
    assert "train CONFIG --stage c" in sentence(name=folder)


def test_components_that_do_not_fit_are_reported_from_their_configs(
    whole: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    config = weights.stage_c.load(whole).config
    for update, message in (
        ({"semantic_channels": 8}, "semantic channels of Stage C and Stage B .* 8 and 16"),
        ({"text_width": 24}, "text widths of its encoder and Stage C .* 32 and 24"),
    ):
        weights.stage_c.save(tmp_path, randomised(StageC(config.model_copy(update=update))))
        with pytest.raises(ModelFolderError, match=message):
            weights.resolve(whole, prior=tmp_path / "prior_prior")
    other = B.model_copy(update={"text_width": 24})
    weights.stage_b.save(tmp_path, randomised(StageB(other)))
    with pytest.raises(ModelFolderError, match=r"encoder and Stage B .* 32 and 24"):
        weights.from_files(
            stage_a=whole,
            stage_b=tmp_path / "decoder",
            stage_c=whole,
            text_b=whole / "text_encoder",
            text_c=whole / "prior_text_encoder",
        )


def fake(path: Path, *keys: tuple[str, tuple[int, ...]]) -> Path:
    save_file({key: torch.zeros(shape) for key, shape in keys}, path)
    return path


def first_stage_c(path: Path) -> Path:
    """Just the tensors that show depth and widths of version 1."""
    sizes = [("projection.weight", (1536, 16, 1, 1)), ("cond_mapper.0.weight", (1536, 1024))]
    blocks = [(f"blocks.{3 * i}.depthwise.weight", (1,)) for i in range(32)]
    return fake(path, *sizes, *blocks)


FOREIGN = {
    "Stage B of version 1": lambda p: fake(
        p, ("in_mapper.0.weight", (8, 4)), ("clf.1.weight", (4, 4)), ("byt5_mapper.weight", (4, 4))
    ),
    "Stage C of version 1": first_stage_c,
    "the compressor of version 1": lambda p: fake(
        p, ("backbone.0.0.weight", (32, 3, 3, 3)), ("mapper.0.weight", (16, 1280, 1, 1))
    ),
    "Stage C of Stable Cascade": lambda p: fake(
        p, ("embedding.1.weight", (8, 16, 1, 1)), ("clip_txt_mapper.weight", (2048, 1280))
    ),
    "Stage B of Stable Cascade": lambda p: fake(
        p,
        ("embedding.1.weight", (8, 16, 1, 1)),
        ("clf.1.weight", (4, 4)),
        ("clip_mapper.weight", (4, 4)),
        ("effnet_mapper.0.weight", (4, 4)),
    ),
}


@pytest.mark.parametrize("title", FOREIGN)
def test_other_generations_are_named_with_what_they_need(
    whole: Path, tmp_path: Path, title: str
) -> None:
    path = FOREIGN[title](tmp_path / "model.safetensors")
    for arguments in ({"name": path}, {"name": whole, "prior": path}):
        text = sentence(**arguments)
        assert title in text and "expected version 2; it needs" in text
    assert (
        title
        in weights.describe(path).components[0].title + " of " + weights.describe(path).generation
    )


@pytest.mark.parametrize("where", ["model_index.json", "prior/config.json", "config.json"])
def test_stable_cascade_folders_are_named(tmp_path: Path, where: str) -> None:
    name = "StableCascadePriorPipeline" if "index" in where else "StableCascadeUNet"
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text(json.dumps({"_class_name": name}))
    if "prior/" in where:
        path = tmp_path / "prior" / "diffusion_pytorch_model.safetensors"
        fake(path, ("clip_txt_mapper.weight", (8, 8)))
        with pytest.raises(ModelFolderError, match="Stable Cascade"):
            weights.resolve_components(tmp_path)
    else:
        assert "Stable Cascade (version 3" in sentence(name=tmp_path)


@pytest.mark.parametrize("what", ["empty folder", "no such path", "stage c alone"])
def test_a_path_without_a_model_is_explained(tmp_path: Path, whole: Path, what: str) -> None:
    if what == "empty folder":
        assert "lacks Stage A" in sentence(name=tmp_path)
    elif what == "no such path":
        assert "found no folder at" in sentence(name=tmp_path / "none")
    else:
        assert "is a prior" in sentence(name=whole / "prior_prior")
