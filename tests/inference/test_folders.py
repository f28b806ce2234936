"""Models opened and saved."""

import subprocess

import pytest
import torch
from generated import difference, pixels

from wuerstchen.errors import ModelFolderError, SaveError
from wuerstchen.inference.pipeline import Pipeline


def test_a_saved_pipeline_makes_the_same_images(pipeline, folder):
    again = Pipeline.from_pretrained(folder)
    assert torch.equal(pixels(again), pixels(Pipeline.from_pretrained(folder)))
    # Mapped weights are aligned differently in memory, so products may be rounded differently.
    assert difference(pixels(again), pixels(pipeline)) < 1e-5
    assert again.info == pipeline.info


def test_a_folder_without_wuerstchen_json_has_the_published_size_and_its_own_name(folder, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run(["cp", "-r", folder, bare], check=True)
    (bare / "wuerstchen.json").unlink()
    opened = Pipeline.from_pretrained(bare)
    assert opened.info.size == 1024 and opened.info.name == "bare"
    assert opened.info.defaults.decoder.steps == 6


def test_torch_dtype_is_the_dtype_of_all_networks(folder, pipeline):
    half = Pipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert difference(pixels(half).float(), pixels(pipeline)) < 0.15


@pytest.mark.parametrize("name", ["nothing", "./models/none", "/none/of/this", "a b/c"])
def test_a_missing_model_is_one_sentence_without_the_network(name):
    with pytest.raises(ModelFolderError, match="found no folder at"):
        Pipeline.from_pretrained(name)


def test_a_hub_id_that_is_not_cached_is_one_sentence(tmp_path):
    words = "found no folder 'owner/name' here, .* in the local cache of the hub"
    with pytest.raises(ModelFolderError, match=words) as caught:
        Pipeline.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_mistyped_path_never_contacts_the_hub(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(ModelFolderError, match="found no 'nope' in the folder models"):
        Pipeline.from_pretrained("models/nope")


def test_a_hub_id_that_is_cached_opens_without_the_network(folder, tmp_path, pipeline):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", folder, snapshot], check=True)
    (snapshot / "wuerstchen.json").unlink()
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    opened = Pipeline.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)
    assert opened.info.name == "owner/name"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"size": "big"}', "size cannot be used"),
        ('{"size": 100}', "size cannot be used.*multiple of 128.*100"),
        ('{"size": true}', "size cannot be used"),
        ('{"sise": 1}', "sise cannot"),
        ("{", "cannot be used: Expecting property name"),
        ('{"defaults": {"decoder_timesteps": [1]}}', "defaults.decoder_timesteps cannot be used"),
        ('{"defaults": {"decoder_timesteps": [0, 1]}}', "defaults.decoder_timesteps cannot"),
        ('{"defaults": {"decoder_timesteps": [2, 0]}}', "defaults.decoder_timesteps cannot"),
        ('{"defaults": {"decoder_guidance_scale": NaN}}', "a number that is not finite"),
    ],
)
def test_a_bad_wuerstchen_json_is_one_sentence(folder, tmp_path, text, words):
    bad = tmp_path / "bad"
    subprocess.run(["cp", "-r", folder, bad], check=True)
    (bad / "wuerstchen.json").write_text(text)
    with pytest.raises(ModelFolderError, match=words) as caught:
        Pipeline.from_pretrained(bad)
    assert str(bad / "wuerstchen.json") in str(caught.value), "the sentence names the file"
    assert "\n" not in str(caught.value)


def test_a_missing_component_is_one_sentence(folder, tmp_path):
    bad = tmp_path / "bad"
    subprocess.run(["cp", "-r", folder, bad], check=True)
    subprocess.run(["rm", "-r", bad / "prior_prior"], check=True)
    with pytest.raises(ModelFolderError, match="prior_prior"):
        Pipeline.from_pretrained(bad)


def test_components_of_different_models_are_refused(pipeline):
    with pytest.raises(ModelFolderError, match="must be equal, found 24 and 16"):
        Pipeline(
            pipeline.cascade.stage_a,
            pipeline.cascade.stage_b,
            pipeline.cascade.stage_c,
            pipeline.cascade.text_b,
            pipeline.cascade.text_b,
        )


def test_a_folder_that_cannot_be_created_is_a_save_error(pipeline, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError, match="could not be written"):
        pipeline.save_pretrained(tmp_path / "file" / "model")
