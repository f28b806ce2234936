"""What the small configs choose, at the size of the other tests."""

import json
from pathlib import Path

from small_runs import run, values

from wuerstchen import config


def test_a_new_model_generates_with_the_few_steps_for_its_stage_b(
    images: Path, tmp_path: Path
) -> None:
    """Muon, and Stages B and C that predict the data."""
    made = values(images, tmp_path / "model")
    made["stage_a"]["training"]["images"] = 8  # type: ignore[index]
    tiny = config.load("tiny", [f"data.path={images}"]).model_dump(mode="json")
    for stage in ("stage_b", "stage_c"):
        model, training = made[stage]["model"], made[stage]["training"]  # type: ignore[index]
        model["predicts"] = tiny[stage]["model"]["predicts"]
        for key in ("optimizer", "muon_rate", "loss_weighting", "high_noise_fraction"):
            training[key] = tiny[stage]["training"][key]
        training["images"] = 8
    source = tmp_path / "recipe.yaml"
    source.write_text(json.dumps(made))
    told = run("train", source)
    assert told.returncode == 0, told.stderr
    info = json.loads((tmp_path / "model" / "wuerstchen.json").read_text())
    assert info["defaults"]["decoder_timesteps"] == [1.0, 0.3, 0.0]
    out = tmp_path / "out.png"
    told = run("generate", "a red disc", "--model", tmp_path / "model", "--out", out)
    assert told.returncode == 0 and out.exists(), told.stderr


def test_the_small_configs_share_a_recipe_but_for_the_target_of_stage_c() -> None:
    """A wide Stage C predicts v; `paper-512` and `paper-1024` keep the published recipe."""
    new, published = config.load("tiny"), config.load("paper-512")
    small = config.load("small")
    for key in ("optimizer", "muon_rate", "high_noise_fraction"):
        assert getattr(new.stage_b.training, key) == getattr(small.stage_b.training, key)
        assert getattr(new.stage_c.training, key) == getattr(small.stage_c.training, key)
    assert new.stage_b.model.predicts == small.stage_b.model.predicts == "data"
    assert new.stage_b.training.loss_weighting == small.stage_b.training.loss_weighting
    chosen = [(each.stage_c.model, each.stage_c.training.loss_weighting) for each in (new, small)]
    assert [(model.predicts, weighting) for model, weighting in chosen] == [
        ("data", "data_uncapped"),
        ("v", "v"),
    ]
    for stage in (published.stage_b, published.stage_c):
        assert stage.model.predicts == "noise" and stage.training.optimizer == "adamw"
        assert stage.training.loss_weighting == "p2"
