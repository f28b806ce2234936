"""The published repositories (decoder, prior, compressor) become a base to fine-tune."""

import json
from pathlib import Path

import numpy as np
import pytest
from published_files import COMPRESSOR, A, B, C, to_cache, two_repositories
from safetensors.torch import save_file
from small_networks import keep_from_one, randomised, small_text
from small_runs import run, weights_of, write_images

from wuerstchen import weights
from wuerstchen.cli.convert import FileFormat, convert
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC


def published(folder: Path) -> Path:
    """A hub cache with the three repositories, as small networks."""
    model = folder / "whole"
    weights.stage_a.save(model, randomised(StageA(A)))
    weights.stage_b.save(model, randomised(StageB(B)))
    stage_c = randomised(StageC(C))
    keep_from_one(stage_c.head[1])
    weights.stage_c.save(model, stage_c)
    weights.text_b.save(model, small_text(seed=1))
    weights.text_c.save(model, small_text(seed=2))
    decoder, prior = two_repositories(model, folder)
    compressor = folder / "compressor"
    compressor.mkdir()
    state = randomised(Compressor(COMPRESSOR)).state_dict()
    save_file(state, compressor / "diffusion_pytorch_model.safetensors")
    kind = {"_class_name": "EfficientNetEncoder", "c_cond": 1280, "c_latent": 16}
    (compressor / "config.json").write_text(json.dumps(kind))
    cache = folder / "hub"
    to_cache(decoder, cache, "warp-ai/wuerstchen")
    to_cache(prior, cache, "warp-ai/wuerstchen-prior")
    to_cache(compressor, cache, "warp-ai/EfficientNetEncoder")
    return cache


def test_the_published_model_is_converted_and_fine_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(published(tmp_path)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    images, base, tuned = tmp_path / "images", tmp_path / "base", tmp_path / "tuned"
    write_images(images)
    words = ("train", "lora", f"data.path={images}", "data.size=128", f"output={tuned}")

    refused = run(*words, "base=warp-ai/wuerstchen")
    assert refused.returncode == 2
    assert "wuerstchen convert warp-ai/wuerstchen models/base --to diffusers" in refused.stderr

    for name in ("wuerstchen", "EfficientNetEncoder"):
        convert(f"warp-ai/{name}", base, FileFormat.DIFFUSERS)
    done = run(*words, f"base={base}", "stage_c.training.images=16")
    assert done.returncode == 0, done.stderr

    before, after = weights_of(base), weights_of(tuned)
    assert set(before) <= set(after)
    changed = {name for name, array in before.items() if not np.array_equal(array, after[name])}
    assert changed and all(
        name.startswith("prior_prior/") and "attention.to_" in name for name in changed
    )
    done = run("merge", base, tuned, tmp_path / "between")
    assert done.returncode == 0, done.stderr
