"""A disk, a device or an image that is gone while training: one sentence, and nothing is lost."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import small_runs
import torch
from made_data import write
from small_runs import run, start, values

from wuerstchen.config import PrepareConfig
from wuerstchen.errors import TrainingError
from wuerstchen.prepare.prepare import prepare
from wuerstchen.training.cache_latents import encode
from wuerstchen.training.checkpoints import Checkpoints, load
from wuerstchen.training.distributed import local_device
from wuerstchen.training.preflight import check_device

TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")

FULL = '''
"""Two processes save a tensor in shards; the disk of the second fills up before the second time."""
import resource, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from wuerstchen.errors import SaveError
from wuerstchen.training import checkpoints, distributed

checkpoints.FILE_SIZE = 0
mesh = init_device_mesh("cpu", (2,))
kept = checkpoints.Checkpoints(Path(sys.argv[1]), keep=2)

def tensors(value):
    # Small, then large: what fails is the second file.
    shapes = {"first": (2, 2), "second": (64, 64)}
    return {k: distribute_tensor(torch.full(s, value), mesh, [Shard(0)]) for k, s in shapes.items()}

kept.save(tensors(8.0), {"images": 8})
if dist.get_rank() == 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    kept.save(tensors(16.0), {"images": 16})
except SaveError as error:
    print(f"process {dist.get_rank()}: {error}\\n", end="", flush=True)
dist.barrier()
distributed.shut_down()
'''


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_process_stops_all_and_keeps_the_checkpoint_before(
    tmp_path: Path,
) -> None:
    script = tmp_path / "full.py"
    script.write_text(FULL)
    ended = run(tmp_path, command=(*TWO, str(script)))
    assert ended.returncode == 0, ended.stderr
    for process in (0, 1):
        [line] = [x for x in ended.stdout.splitlines() if f"process {process}: " in x]
        assert "000000000016 could not be written (File too large)" in line
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000000008"]
    newest = Checkpoints(tmp_path, keep=2).newest()
    assert newest is not None
    found = {"first": torch.zeros(2, 2), "second": torch.zeros(64, 64)}
    load(newest, found)
    assert all((tensor == 8).all() for tensor in found.values())


def saved(run_folder: Path) -> Checkpoints:
    kept = Checkpoints(run_folder, keep=2)
    for images in (8, 16):
        kept.save({"loss_weighting": torch.full((4, 4), float(images))}, {"images": images})
    return kept


def test_a_checkpoint_that_goes_while_it_is_read_is_named(tmp_path: Path) -> None:
    newest = saved(tmp_path).newest()
    assert newest is not None
    for path in newest.folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(TrainingError, match=r"000000000016: expected a complete .*delete"):
        load(newest, {"loss_weighting": torch.zeros(4, 4)})


def test_a_checkpoint_with_the_progress_of_another_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = saved(tmp_path)
    folders = [tmp_path / "checkpoints" / f"{images:012d}" for images in (8, 16)]
    progress = [folder / "progress.json" for folder in folders]
    progress[1].write_bytes(progress[0].read_bytes())
    newest = kept.newest()
    assert newest is not None and newest.folder == folders[0]
    assert "16: expected a complete" in caplog.text and "json has 8 images" in caplog.text


@pytest.fixture
def no_device() -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is a device")


@pytest.mark.usefixtures("no_device")
def test_a_device_that_is_not_there_is_no_reason_to_train_for_weeks_on_a_cpu(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(small_runs.ENVIRONMENT, "CUDA_VISIBLE_DEVICES", "0")  # as --gpu_ids 0 does
    ended = run("train", small_runs.write_config(images, tmp_path / "model"))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "CUDA_VISIBLE_DEVICES=0 asks for an accelerator, but torch" in ended.stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("no_device")
def test_encoding_wants_the_device_that_was_asked_for(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    settings = small_runs.config(images, trained)
    data = settings.data.model_copy(update={"latent_cache": str(tmp_path / "encoded")})
    with pytest.raises(TrainingError, match="CUDA_VISIBLE_DEVICES=0 asks for an accelerator"):
        encode(settings.model_copy(update={"data": data}), ["semantics"], "fp16")
    assert not (tmp_path / "encoded").exists()


def test_processes_of_a_machine_encode_on_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = []
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        devices.append(str(local_device()))
    assert devices == ["cuda:0", "cuda:1", "cuda:0"]


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("variable", "value", "asks"),
    [
        ("ACCELERATE_TORCH_DEVICE", "xpu:0", True),
        ("ACCELERATE_TORCH_DEVICE", "cpu", False),
        ("CUDA_VISIBLE_DEVICES", "-1", False),
        ("CUDA_VISIBLE_DEVICES", "", False),
    ],
)
def test_only_who_asks_for_a_device_needs_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, asks: bool
) -> None:
    for name in ("ACCELERATE_TORCH_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    if asks:
        with pytest.raises(TrainingError, match=f"{variable}={value} asks for an accelerator"):
            check_device()
    else:
        check_device()


@pytest.mark.slow
def test_a_shard_that_changes_while_it_is_read_loses_nothing(images: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in images.iterdir()}
    source = write(tmp_path / "source", dict(files))
    ready = prepare(str(source), tmp_path / "set", PrepareConfig(size=128, test_fraction=0.2))
    [shard] = (ready / "shards").iterdir()
    folder = tmp_path / "model"
    plain = values(ready, folder)
    plain["data"] = {"path": str(ready), "size": 128, "cache_gib": 0}
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(plain))
    words = ("train", config, "--stage", "a", "stage_a.training.checkpoint_every=4")
    process = start(*words, "stage_a.training.images=100000")
    checkpoints = folder / "runs" / "a" / "checkpoints"
    whole = shard.read_bytes()
    try:
        while process.poll() is None and len(list(checkpoints.glob("0*"))) < 2:
            time.sleep(0.02)
        with shard.open("r+b") as file:  # in place, as a failing disk does
            file.write(bytes(byte ^ 255 for byte in whole))
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2 and "Traceback" not in said
    assert "do not match the index" in said
    newest = Checkpoints(checkpoints.parent, keep=2).newest()
    assert newest is not None and newest.progress["images"]
    shard.write_bytes(whole)
    os.utime(shard)
    total = int(newest.progress["images"]) + 8
    again = run(*words, f"stage_a.training.images={total}")
    assert again.returncode == 0, again.stderr
    finished = json.loads((folder / "runs" / "a" / "finished.json").read_text())
    assert finished == {"images": total, "steps": total // 4}
