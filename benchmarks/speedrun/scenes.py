"""Scenes of stickers in memory, composed by forked processes.

N scenes of S x S pixels. Processes are forked before anything touches a GPU; they write pixels into
one anonymous shared map and captions into JSON files.
"""

import json
import mmap
import random
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wuerstchen.data import Pair
from wuerstchen.data.stickers import Composer, Part, open_sprites
from wuerstchen.data.stickers.source import SceneSource
from wuerstchen.data.stickers.sprites import decode_all

CHUNK = 250
"""Scenes that a process composes at a time."""


class Scenes:
    """N composed scenes; use them after `wait`."""

    split = "train"

    def __init__(
        self, folder: Path, part: Part, stickers: Path, size: int, count: int, seed: int
    ) -> None:
        """folder: receives the captions"""
        self.size, self.count = size, count
        self._folder = folder / f"captions-{part}"
        self._folder.mkdir(parents=True, exist_ok=True)
        for of_an_earlier_run in self._folder.iterdir():
            of_an_earlier_run.unlink()  # its images are not in memory
        self._shared = mmap.mmap(-1, count * size * size * 3)
        pixels = np.frombuffer(self._shared, dtype=np.uint8)
        self.pixels = torch.from_numpy(pixels.reshape(count, size, size, 3))
        """(N, S, S, 3) levels from 0 to 255."""
        self._source = SceneSource(Composer(open_sprites(stickers, part), size, seed), count)
        self._captions: list[tuple[str, ...]] = []
        context = get_context("fork")
        self._next: Synchronized[int] = context.Value("i", 0)
        self._chunks = -(-count // CHUNK)
        self._processes: list[BaseProcess] = []

    def start(self, processes: int) -> None:
        """Compose in the background; call it before CUDA is initialised."""
        decode_all(self._source.composer.sprites)  # once, shared by all forks
        context = get_context("fork")
        for _ in range(processes):
            process = context.Process(target=self._compose, daemon=True)
            process.start()
            self._processes.append(process)

    def wait(self) -> None:
        """Return when all scenes are complete; raises RuntimeError if a process died."""
        for process in self._processes:
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"a composing process ended with {process.exitcode}")
        self._processes.clear()
        paths = map(self._path, range(self._chunks))
        chunks = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        self._captions = [tuple(captions) for chunk in chunks for captions in chunk]

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> Pair:
        return Pair(str(index), self._captions[index], str(index), None)

    def image(self, index: int) -> Tensor:
        """(3, S, S) levels."""
        return self.pixels[index].permute(2, 0, 1)

    def with_most_common_shape(self, count: int) -> list[int]:
        return list(range(min(count, len(self))))

    def captions_of(self, indices: Sequence[int], choose: random.Random) -> list[str]:
        """A random caption of each scene."""
        return [choose.choice(self._captions[index]) for index in indices]

    def all_captions(self) -> list[str]:
        """Every caption once."""
        return sorted({caption for captions in self._captions for caption in captions})

    def _compose(self) -> None:
        torch.set_num_threads(1)
        while True:
            with self._next.get_lock():
                chunk = self._next.value
                self._next.value += 1
            if chunk >= self._chunks:
                return
            captions = []
            for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, self.count)):
                self.pixels[index] = self._source.image(index).permute(1, 2, 0)
                captions.append(self._source[index].captions)
            self._path(chunk).write_text(json.dumps(captions), encoding="utf-8")

    def _path(self, chunk: int) -> Path:
        return self._folder / f"{chunk:06d}.json"
