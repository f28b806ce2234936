"""Every key of a config from outside is used, refused, or named as not used."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
from models_small import small_pipeline

from wuerstchen import weights
from wuerstchen.errors import ModelFolderError, UnusedWarning


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "model"
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


SCHEDULER, PRIOR = "scheduler/scheduler_config.json", "prior_scheduler/scheduler_config.json"
INDEX, TEXT, DECODER = "model_index.json", "text_encoder/config.json", "decoder/config.json"


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (SCHEDULER, {"scaler": 2.0}, "scaler is 2.0, but only 1 is implemented"),
        (PRIOR, {"scaler": 0.5}, "prior_scheduler.*scaler is 0.5"),
        (SCHEDULER, {"s": 0.01}, "s is 0.01, but only 0.008"),
        (SCHEDULER, {"s": "0.008"}, "s is '0.008'"),
        (SCHEDULER, {"prediction_type": "v_prediction"}, "only 'epsilon' is implemented"),
        (INDEX, {"latent_mean": 1.0}, "latent_mean is 1.0, but only 42 is"),
        (INDEX, {"prior_latent_std": 0.5}, "prior_latent_std is 0.5"),
        (INDEX, {"resolution_multiple": 32}, "resolution_multiple is 32, but only 42.6667"),
        (INDEX, {"latent_dim_scale": 4.0}, "latent_dim_scale is 4.0"),
        (TEXT, {"quantization_config": {"bits": 4}}, "quantization_config is"),
        (TEXT, {"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        (DECODER, {"wobble": 3}, "unknown: wobble"),
        (DECODER, {"kernel_size": 5}, "kernel_size is 5, but only 3"),
    ],
)
def test_what_is_not_implemented_is_refused(
    model: Path, file: str, changes: dict[str, object], words: str
) -> None:
    change(model / file, **changes)
    with pytest.raises(ModelFolderError, match=words):
        weights.resolve(model)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (SCHEDULER, {"clip_sample": True}, "scheduler_config.json: clip_sample unknown and not"),
        (SCHEDULER, {"_class_name": "DDIMScheduler", "beta_end": 0.1}, "a DDIMScheduler is not"),
        (INDEX, {"safety_checker": ["diffusers", "Checker"]}, "safety_checker unknown"),
        (INDEX, {"_wobble": "x" * 10_000}, "_wobble unknown"),
        (TEXT, {"wobble": 3, "rope_theta": 1.0}, "rope_theta, wobble unknown"),
        (DECODER, {"_wobble": 3}, "_wobble unknown"),
    ],
)
def test_what_is_not_used_is_named(
    model: Path, file: str, changes: dict[str, object], words: str
) -> None:
    change(model / file, **changes)
    with pytest.warns(UnusedWarning, match=words) as caught:
        weights.resolve(model)
    assert len(caught) == 1 and len(str(caught[0].message)) < 500


def test_published_configs_are_taken_without_a_word(model: Path) -> None:
    change(model / SCHEDULER, _class_name="DDPMWuerstchenScheduler", scaler=1, s=0.008)
    spaces = {"latent_mean": 42.0, "latent_std": 1.0, "resolution_multiple": 42.67}
    change(model / INDEX, **spaces, latent_dim_scale=10.67, safety_checker=[None, None])
    older = {"torch_dtype": "float32", "_name_or_path": "x", "dropout": 0.0, "top_k": 50}
    change(model / TEXT, **older, use_cache=True, projection_dim=512, architectures=["CLIPModel"])
    change(model / DECODER, _name_or_path="warp-ai/wuerstchen")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights.resolve(model)


def test_conversions_refuse_what_they_would_drop(model: Path) -> None:
    change(model / SCHEDULER, scaler=2.0)
    with pytest.raises(ModelFolderError, match="scaler is 2"):
        weights.resolve_components(model)
