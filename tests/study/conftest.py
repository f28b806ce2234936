"""Studies and servers that several tests share."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_study import Serve, make_study


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of six comparisons, one repeat and two catch pairs; not to be changed."""
    return make_study(tmp_path_factory.mktemp("made"), "--catch", "2", "--repeats", "0.2")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start `wuerstchen study serve` as a process; the process and the links that it printed."""
    started: list[subprocess.Popen[str]] = []

    def start(
        study: Path, raters: int = 1, *options: str
    ) -> tuple[subprocess.Popen[str], list[str]]:
        words = [sys.executable, "-m", "wuerstchen", "study", "serve", str(study), "--port", "0"]
        process = subprocess.Popen(
            [*words, "--raters", str(raters), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        limit = threading.Timer(120, process.kill)
        limit.start()
        links = [process.stdout.readline().strip() for _ in range(raters)]
        limit.cancel()
        if not all(links):
            pytest.fail(process.communicate()[1])
        return process, links

    yield start
    for process in started:
        process.kill()
        process.communicate()
