"""Energy: from codecarbon or estimated, with its method recorded, and without network."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from wuerstchen.errors import ConfigError
from wuerstchen.hardware import watts_of
from wuerstchen.receipts import Meter, energy
from wuerstchen.receipts.carbon import grams_per_kwh
from wuerstchen.receipts.phases import read_phases

WITHOUT = """
import sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "codecarbon":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
import time
from wuerstchen.receipts import Meter
with Meter(Path(sys.argv[1]), stage="a", kind="training") as meter:
    time.sleep(0.1)
    meter.tick(images=1)
assert "codecarbon" not in sys.modules
"""


def test_without_codecarbon_energy_is_estimated_from_watts_and_seconds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT, str(tmp_path)], check=True)
    (phase,) = read_phases(tmp_path)
    work = phase.work["training"]
    assert phase.energy.startswith("estimated from") and "not installed" in phase.energy
    assert work.energy_is == "estimated" and work.kwh_measured == 0
    watts = float(phase.energy.split()[2])
    assert work.kwh == pytest.approx(watts * work.seconds / 3.6e6, rel=0.05)
    assert work.kg == pytest.approx(work.kwh * 0.475)


def test_a_tracker_that_breaks_stops_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> NoReturn:
        raise PermissionError("the counters are locked away")

    monkeypatch.setattr(energy, "_start_tracker", broken)
    with Meter(tmp_path, stage="a", kind="training"):
        pass
    assert "PermissionError: the counters are locked away" in read_phases(tmp_path)[0].energy


def test_codecarbon_is_used_offline_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    # A user's own settings for codecarbon must not send anything anywhere.
    monkeypatch.setenv("CODECARBON_SAVE_TO_API", "true")
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://example.org")

    calls: list[object] = []

    def no_network(*args: object, **named: object) -> NoReturn:
        calls.append(args)  # codecarbon would swallow the error
        raise OSError("a network call")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with Meter(tmp_path / "model", stage="a", kind="training", country="DEU") as meter:
        # codecarbon measures anew only where its last sample is older than 0.05 s.
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            sum(i * i for i in range(10_000))
        meter.tick(images=1)
    (phase,) = read_phases(tmp_path / "model")
    assert calls == []
    assert phase.energy.startswith("by codecarbon: ")
    work = phase.work["training"]
    assert work.kwh > 0 and work.kg == pytest.approx(work.kwh * phase.grams_per_kwh / 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_what_codecarbon_estimates_is_not_called_measured() -> None:
    """Its description of the processor decides, not whether it returns a number."""
    pytest.importorskip("codecarbon")
    gauge = energy.open_energy_meter(1, 475.0)
    read = gauge.read()
    gauge.close()
    readable = any(Path("/sys/class/powercap").glob("intel-rapl*/**/energy_uj"))
    if not readable:
        assert "processor estimated from its load; memory estimated" in gauge.method
        assert read.measured == 0 < read.kwh


def test_a_country_is_that_of_codecarbons_table() -> None:
    codecarbon = pytest.importorskip("codecarbon")
    table = Path(codecarbon.__file__).parent / "data/private_infra/global_energy_mix.json"
    assert grams_per_kwh("DEU") == json.loads(table.read_text())["DEU"]["carbon_intensity"]
    assert grams_per_kwh("world") == 475
    assert grams_per_kwh("FRA") < grams_per_kwh("DEU") < grams_per_kwh("POL")


def test_an_unknown_country_is_refused_with_a_suggestion() -> None:
    pytest.importorskip("codecarbon")
    with pytest.raises(ConfigError, match=r"found 'DEW'; did you mean .*DEU"):
        grams_per_kwh("DEW")


def test_an_unknown_country_stops_no_training(tmp_path: Path) -> None:
    with Meter(tmp_path, stage="a", kind="training", country="Atlantis"):
        pass
    assert read_phases(tmp_path)[0].country == "world"


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("NVIDIA A100-SXM4-80GB", 400),
        ("NVIDIA A100-PCIE-40GB", 250),
        ("NVIDIA L40", 300),
        ("NVIDIA L40S", 350),
        ("NVIDIA L4", 72),
        ("Something new", 300),
    ],
)
def test_a_gpu_has_the_watts_of_its_data_sheet(name: str, watts: float) -> None:
    assert watts_of(name) == watts
