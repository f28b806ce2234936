"""The compressor's rehearsal comes once, and before Stage B."""

from pathlib import Path

from wuerstchen.config import load
from wuerstchen.training import road


def test_it_comes_before_stage_b_and_never_after(tmp_path: Path) -> None:
    config = load("tiny", [f"output={tmp_path}"])
    assert road._steps(config, None) == ["a", "b-rehearsal", "b", "c"]
    assert road._steps(config, "b") == ["b-rehearsal", "b"]
    done = tmp_path / "runs" / "b" / "finished.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert road._steps(config, None) == ["a", "b", "c"]
