"""What a run leaves behind: config, log, scalars, grids, checkpoints; and its progress bar.

runs/STAGE/config.yaml      resolved config
runs/STAGE/data.json        what was read and what was skipped
runs/STAGE/log.jsonl        one line per log entry
runs/STAGE/tensorboard/     the same scalars
runs/STAGE/grids/           pictures at every look
runs/STAGE/checkpoints/     the newest two
runs/STAGE/finished.json    once the stage is done
"""

import io
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from wuerstchen.aside import explained, write_file
from wuerstchen.errors import TrainingError
from wuerstchen.weights.files import replacing

KEPT_CHECKPOINTS = 2


class Record:
    """The folder of one stage's run. Only the first process writes; it raises SaveError."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self.folder = folder
        self.writes = writes
        self._board: SummaryWriter | None = None
        self._resumed_at = 0

    def write(self, name: str, text: str) -> None:
        """Write a small file aside and rename it."""
        if self.writes:
            write_file(self.folder / name, text.encode())

    def log(self, images: int, scalars: Mapping[str, float]) -> None:
        """Append one entry to the log and to TensorBoard."""
        if not self.writes:
            return
        entry = {"images": images, "time": round(time.time(), 3), **scalars}
        path = self.folder / "log.jsonl"
        with explained(path):
            with path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
            # What a lost part of the run has written after the checkpoint is hidden.
            self._board = self._board or SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self._resumed_at + 1
            )
            for name, value in scalars.items():
                self._board.add_scalar(name, value, images)

    def resume_at(self, images: int) -> None:
        """Drop log entries of work that was lost and will be done again."""
        self._resumed_at = images
        path = self.folder / "log.jsonl"
        if self.writes and path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _is_entry_until(images, line)]
            self.write("log.jsonl", "".join(f"{line}\n" for line in kept))

    def grid(self, images: int, picture: Tensor) -> None:
        """Save a (3, H, W) picture in [0, 1]."""
        if self.writes:
            pixels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")
            write_file(self.folder / "grids" / f"{images:010d}.png", file.getvalue())

    def save(self, images: int, state: Mapping[str, object]) -> None:
        """Write a checkpoint aside, rename it, and let the oldest go."""
        if not self.writes:
            return
        folder = self.folder / "checkpoints"
        with replacing(folder / f"{images:012d}") as (aside,):
            _save_state(aside / "state.pt", state)
        old = self._checkpoints()[:-KEPT_CHECKPOINTS]
        for path in (*old, *folder.glob(".*")):  # hidden: left by a process that was killed
            shutil.rmtree(path, ignore_errors=True)

    def newest(self) -> dict[str, object] | None:
        """The state of the newest whole checkpoint, or None for a new run."""
        found = self._checkpoints()
        if not found:
            return None
        path = found[-1] / "state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises whatever its bytes lead to
            raise TrainingError(
                f"{path}: expected a checkpoint, found a damaged file ({type(error).__name__}); "
                f"delete the folder {found[-1]} to resume from the one before."
            ) from None
        assert isinstance(state, dict)
        return state

    def clear_checkpoints(self) -> None:
        """Free the disk once the stage is exported."""
        if self.writes:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        """Let TensorBoard write what it still holds back."""
        if self._board is not None:
            with explained(self.folder / "tensorboard"):
                self._board.close()

    def _checkpoints(self) -> list[Path]:
        folder = self.folder / "checkpoints"
        return sorted(p for p in folder.glob("*") if p.is_dir() and p.name.isdecimal())


def _save_state(path: Path, state: Mapping[str, object]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(dict(state), file)
    except RuntimeError as error:
        # torch hides why a write failed: at a full disk the reason is in what it was doing.
        cause = error.__context__
        raise cause if isinstance(cause, OSError) else OSError(str(error)) from error


def _is_entry_until(images: int, line: str) -> bool:
    """Whether a line of the log is whole (a kill may leave half of one) and still holds."""
    try:
        return bool(json.loads(line)["images"] <= images)
    except (ValueError, KeyError, TypeError):
        return False
