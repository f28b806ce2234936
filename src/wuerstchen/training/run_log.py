"""The folder of a run:

runs/RUN/config.yaml      resolved config
runs/RUN/data.json        report of the data: images that were read and skipped
runs/RUN/log.jsonl        one line per log entry
runs/RUN/tensorboard/     the same scalars
runs/RUN/grids/           image grids of every validation
runs/RUN/checkpoints/     the newest ones, and the best
runs/RUN/finished.json    at the end of the run
"""

import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from wuerstchen.atomic_write import append_to, explain_disk_errors, write_file
from wuerstchen.parsing import ParseError, parse_object


class RunLog:
    """Writes the log of a run, in the main process only. Raises SaveError."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self.folder, self.writes, self._resumed_at = folder, writes, 0
        self._board: SummaryWriter | None = None

    def write(self, name: str, text: str, *, everywhere: bool = False) -> None:
        """Write a small file atomically; `everywhere`: also from other processes."""
        if self.writes or everywhere:
            write_file(self.folder / name, text.encode())

    def log(self, images: int, scalars: Mapping[str, float]) -> None:
        """Append an entry to the log and to TensorBoard."""
        if not self.writes:
            return
        # JSON has no numbers that are not finite.
        values = {key: value if math.isfinite(value) else None for key, value in scalars.items()}
        entry = {"images": images, "time": round(time.time(), 3), **values}
        path = self.folder / "log.jsonl"
        with explain_disk_errors(path):
            append_to(path, f"{json.dumps(entry)}\n".encode())
            # Hides entries that were written after the checkpoint.
            self._board = self._board or SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=self._resumed_at + 1
            )
            for name, value in scalars.items():
                self._board.add_scalar(name, value, images)

    def truncate(self, images: int) -> None:
        """Drop log entries after a checkpoint: that work will be repeated."""
        self._resumed_at = images
        path = self.folder / "log.jsonl"
        if self.writes and path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _is_entry_up_to(images, line)]
            self.write("log.jsonl", "".join(f"{line}\n" for line in kept))

    def save_grid(self, images: int, image: Tensor) -> None:
        """Save a (3, H, W) image in [0, 1] as PNG."""
        if self.writes:
            pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")
            write_file(self.folder / "grids" / f"{images:010d}.png", file.getvalue())

    def close(self) -> None:
        if self._board is not None:
            with explain_disk_errors(self.folder / "tensorboard"):
                self._board.close()


def _is_entry_up_to(images: int, line: str) -> bool:
    """Whether a line of the log is complete (a kill may truncate it) and at most at `images`."""
    try:
        entry = parse_object(line)
    except ParseError:
        return False
    found = entry.get("images")
    return isinstance(found, int | float) and found <= images
