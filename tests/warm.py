"""The command `wuerstchen` in real processes that start in milliseconds.

A fresh interpreter spends seconds on importing torch, and the tests start the command a hundred
times. So a server imports everything once and forks a process for each command, with the arguments,
environment, folder and file descriptors of its client. Each is a process of its own: it can be
killed, stopped and waited for. What a fresh interpreter does differently (start-up, launchers, a
clean stdout) is left to the few tests that start one.

    python tests/warm.py serve SOCKET
    python tests/warm.py run SOCKET WORD...     as `wuerstchen WORD...`, for shell scripts
"""

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Self

MODULES = (
    "wuerstchen.cli",
    "wuerstchen.training.run",
    "wuerstchen.training.cache_latents",
    "wuerstchen.inference.pipeline",
    "wuerstchen.evaluation.evaluate",
    "wuerstchen.evaluation.diagnosis_report",
    "wuerstchen.planning.plan",
    "transformers.models.clip.modeling_clip",
    "accelerate",
)
"""Imported by the server, so that no command has to."""

LARGEST = 2**20
"""Bytes of a request: arguments and environment."""


def serve(path: str) -> None:
    """Fork a process for each connection, until the process that started this one is gone."""
    for name in MODULES:
        __import__(name)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:  # a lock that another thread holds would stay locked in every fork
        sys.exit(f"expected one thread after the imports, found {threads}")
    owner = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)
        server.settimeout(1.0)
        while os.getppid() == owner:
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                if os.fork() == 0:
                    server.close()
                    connection.settimeout(None)
                    _attend(connection)
                connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _attend(connection: socket.socket) -> None:
    """Run one command in a child; its process id and its exit status go back."""
    data, descriptors, _, _ = socket.recv_fds(connection, LARGEST, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(LARGEST)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        _command(request)
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # the client may be gone
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _command(request: dict[str, object]) -> None:
    """What `wuerstchen` does, in this process."""
    import traceback

    words, environment, folder = request["words"], request["environment"], request["folder"]
    assert isinstance(words, list) and isinstance(environment, dict) and isinstance(folder, str)
    code = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["wuerstchen", *words]
        if "KILL_AT" in environment:
            _kill_at(*json.loads(environment["KILL_AT"]))
        from wuerstchen.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()  # as at the end of an interpreter
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


WRITES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""Audit events that change a folder; of "open", those with a mode or flags to write."""


def _kill_at(folder: str, name: str, count: int) -> None:
    """Kill this process before the `count`-th write in `folder` after the one to a file `name`.

    name  the end of a path; empty: count from the first write
    """
    seen = not name

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen, count
        if event not in WRITES:
            return
        paths = [str(each) for each in arguments[: 2 if event == "os.rename" else 1]]
        writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)  # type: ignore[operator]
        if not writes or not any(path.startswith(folder) for path in paths):
            return
        if seen:
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        elif paths[-1].endswith(name):
            seen = True

    sys.addaudithook(hook)


@functools.cache
def server() -> "Server":
    """The server of this test process; it ends with it."""
    started = Server()
    atexit.register(started.close)
    return started


def run(
    *words: object, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    command = server().start(*words, environment=environment, folder=folder)
    stdout, stderr = command.communicate()
    assert command.returncode is not None
    return subprocess.CompletedProcess(command.args, command.returncode, stdout, stderr)


def start_together(
    count: int, *words: object, environment: Mapping[str, str] | None = None
) -> list["Command"]:
    """The command in `count` processes that find each other as those of torchrun do."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    world = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [
        server().start(
            *words,
            environment={
                **(environment or os.environ),
                **world,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
        )
        for rank in range(count)
    ]


class Server:
    """A server for as long as it is open."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="warm-")
        self.path = str(Path(self._folder.name, "socket"))
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # read at import
        self._process = subprocess.Popen([sys.executable, __file__, "serve", self.path], env=alone)
        while not Path(self.path).exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}")
            time.sleep(0.02)

    def shim(self) -> Path:
        """A folder for the PATH, with a `wuerstchen` that asks this server."""
        script = Path(self._folder.name, "bin", "wuerstchen")
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} run {self.path} "$@"\n')
        script.chmod(0o755)
        return script.parent

    def start(
        self,
        *words: object,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> "Command":
        """The command, left running, with its output kept for `Command.communicate`."""
        return Command(self.path, [*map(str, words)], environment or os.environ, folder)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class Command:
    """A command that a server runs, with the interface of subprocess.Popen."""

    def __init__(
        self,
        path: str,
        words: list[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        descriptors: tuple[int, int, int] | None = None,
    ) -> None:
        self.args = words
        self.returncode: int | None = None
        self._output: list[IO[bytes]] = []
        with contextlib.ExitStack() as files:
            if descriptors is None:
                self._output = [TemporaryFile(), TemporaryFile()]  # noqa: SIM115  # read at the end
                nothing = files.enter_context(open(os.devnull, "rb"))
                descriptors = (nothing.fileno(), *(file.fileno() for file in self._output))
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(path)
            request = {
                "words": words,
                "environment": dict(environment),
                "folder": str(folder or Path.cwd()),
            }
            data = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(self._connection, [data], descriptors)
            self._connection.sendall(data[sent:])
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        if self.returncode is None:
            self._connection.setblocking(False)
            try:
                ready = self._connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            finally:
                self._connection.setblocking(True)
            return self.wait() if ready else None
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float = 500) -> tuple[str, str]:
        """Wait for the end; what was written to stdout and stderr."""
        self._connection.settimeout(timeout)
        self.wait()
        texts = []
        for file in self._output:
            file.seek(0)
            texts.append(file.read().decode())
            file.close()
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.returncode is None:
            self.wait()


def _run(path: str, words: list[str]) -> int:
    command = Command(path, words, os.environ, descriptors=(0, 1, 2))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the terminal sends them to the command too
    return command.wait()


if __name__ == "__main__":
    verb, address, *rest = sys.argv[1:]
    if verb == "serve":
        serve(address)
    else:
        result = _run(address, rest)
        sys.exit(result if result >= 0 else 128 - result)
