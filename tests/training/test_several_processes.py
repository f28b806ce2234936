"""Two processes train the model that one trains."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import config, run, weights_of

import wuerstchen.config
from wuerstchen.training import road

LAUNCH = (
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    *("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--main_process_port", "0", "-m", "wuerstchen"),
)


@pytest.mark.parametrize(
    ("stage", "images", "tolerance"),
    [
        pytest.param("a", 88, 1e-4, marks=pytest.mark.slow),  # 20 steps, codes placed, 2 steps
        pytest.param("b", 16, 1e-4, marks=pytest.mark.slow),
        ("c", 24, 1e-5),
    ],
)
def test_two_processes_train_the_same_model(
    trained: Path, pictures: Path, tmp_path: Path, stage: str, images: int, tolerance: float
) -> None:
    folders = []
    for name in ("one", "two"):
        folder = Path(shutil.copytree(trained, tmp_path / name))
        for later in "abc"["abc".index(stage) :]:
            shutil.rmtree(folder / "runs" / later)
        folders.append(folder)
    changes = [f"stage_{stage}.training.images={images}", f"stage_{stage}.training.warmup=20"]
    if stage != "a":  # the processes' dropout is not that of one
        changes.append(f"stage_{stage}.model.dropout=0.0")
    source = tmp_path / "config.yaml"
    source.write_text(wuerstchen.config.dump(config(pictures, folders[1])))
    road.train(
        wuerstchen.config.load(str(source), [*changes, f"output={folders[0]}"]),
        stage,  # type: ignore[arg-type]
    )
    done = run("train", source, "--stage", stage, *changes, command=LAUNCH)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folders[1]}\n", "the first process alone talks"
    one, two, start = weights_of(folders[0]), weights_of(folders[1]), weights_of(trained)
    assert any((one[key] != start[key]).any() for key in one)
    for key in one:
        np.testing.assert_allclose(two[key], one[key], atol=tolerance, rtol=tolerance, err_msg=key)
