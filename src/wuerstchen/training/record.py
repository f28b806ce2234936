"""What a run leaves behind: config, log, scalars, grids, checkpoints; and its progress bar.

    runs/STAGE/config.yaml      resolved config
    runs/STAGE/data.json        what was read and what was skipped
    runs/STAGE/log.jsonl        one line per log entry
    runs/STAGE/tensorboard/     the same scalars
    runs/STAGE/grids/           pictures at every look
    runs/STAGE/checkpoints/     the newest two
    runs/STAGE/finished.json    once the stage is done
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from wuerstchen.errors import SaveError, TrainingError

KEPT_CHECKPOINTS = 2


class Record:
    """The folder of one stage's run. Only the first process writes."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self.folder = folder
        self.writes = writes
        self._board: SummaryWriter | None = None

    def write(self, name: str, text: str) -> None:
        """Write a small file aside and rename it."""
        if self.writes:
            with _explained(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                aside = self.folder / f"{name}.tmp"
                aside.write_text(text, encoding="utf-8")
                aside.replace(self.folder / name)

    def log(self, images: int, scalars: Mapping[str, float]) -> None:
        """Append one entry to the log and to TensorBoard."""
        if not self.writes:
            return
        entry = {"images": images, "time": round(time.time(), 3), **scalars}
        with _explained(self.folder):
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
            self._board = self._board or SummaryWriter(str(self.folder / "tensorboard"))
            for name, value in scalars.items():
                self._board.add_scalar(name, value, images)

    def forget_after(self, images: int) -> None:
        """Drop log entries of work that was lost and will be done again."""
        path = self.folder / "log.jsonl"
        if self.writes and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _images_of(line) <= images]
            self.write("log.jsonl", "".join(f"{line}\n" for line in kept))

    def grid(self, images: int, picture: Tensor) -> None:
        """Save a (3, H, W) picture in [0, 1]."""
        if self.writes:
            pixels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
            with _explained(self.folder):
                (self.folder / "grids").mkdir(parents=True, exist_ok=True)
                name = self.folder / "grids" / f"{images:010d}.png"
                aside = name.with_suffix(".png.tmp")
                Image.fromarray(np.ascontiguousarray(pixels)).save(aside, format="PNG")
                aside.replace(name)

    def save(self, images: int, state: Mapping[str, object]) -> None:
        """Write a checkpoint aside, rename it, and let the oldest go."""
        if not self.writes:
            return
        folder = self.folder / "checkpoints"
        with _explained(folder):
            aside = folder / f"{images:012d}.tmp"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            torch.save(dict(state), aside / "state.pt")
            done = folder / f"{images:012d}"
            shutil.rmtree(done, ignore_errors=True)
            aside.replace(done)
            for old in self._checkpoints()[:-KEPT_CHECKPOINTS]:
                shutil.rmtree(old)

    def newest(self) -> dict[str, object] | None:
        """The state of the newest whole checkpoint, or None for a new run."""
        found = self._checkpoints()
        if not found:
            return None
        path = found[-1] / "state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise TrainingError(
                f"{path}: expected a checkpoint, found a damaged file ({type(error).__name__}); "
                f"delete the folder {found[-1].name} to resume from the one before."
            ) from None
        assert isinstance(state, dict)
        return state

    def clear_checkpoints(self) -> None:
        """Free the disk once the stage is exported."""
        if self.writes:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _checkpoints(self) -> list[Path]:
        folder = self.folder / "checkpoints"
        return sorted(p for p in folder.glob("*") if p.is_dir() and p.name.isdecimal())


def progress_bar(*, visible: bool) -> Progress:
    """Loss, speed and time left, on stderr so that stdout stays for results."""
    return Progress(
        TextColumn("stage {task.fields[stage]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} pictures"),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[speed]:.1f} pictures/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
    )


class _explained:
    """Turns errors of the disk into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | RuntimeError) and not isinstance(error, SaveError):
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise SaveError(
                f"{self._path}: expected to write here, but {reason}; what was saved before is "
                "untouched. Make room or choose another output folder, then run the same command."
            ) from error


def _images_of(line: str) -> int:
    try:
        return int(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return -1  # half a line, as a kill leaves it, is dropped by the caller's rewrite
