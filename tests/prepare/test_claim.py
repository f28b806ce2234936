"""Laws of the output folder: one source, one config, and nothing else in it is touched."""

import json
import shutil
from pathlib import Path

import pytest
from made_data import write, write_tar
from made_sources import contents, rows, some

from wuerstchen.cli import main
from wuerstchen.config import DataConfig, FilterConfig, PrepareConfig
from wuerstchen.config.section import RENAMED
from wuerstchen.data import open_pairs
from wuerstchen.errors import DataError, SaveError
from wuerstchen.prepare.prepare import prepare

CONFIG = PrepareConfig(size=128, shard_size=2, format="png", test_fraction=0.25)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", some(4))


def test_a_finished_folder_is_left_alone_and_other_settings_are_refused(
    source: Path, tmp_path: Path
) -> None:
    out = prepare(str(source), tmp_path / "out", CONFIG)
    before = contents(out)
    prepare(str(source), out, CONFIG)
    assert contents(out) == before
    with pytest.raises(DataError, match=r"expected size=128, .* found size=256"):
        prepare(str(source), out, CONFIG.model_copy(update={"size": 256}))
    assert contents(out) == before


def test_a_set_is_of_one_source_alone(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, some(4)) for name in ("first", "second"))
    out = prepare(str(first), tmp_path / "out", CONFIG)
    with pytest.raises(DataError, match=r"expected the source .*first .* found .*second"):
        prepare(str(second), out, CONFIG)
    assert prepare(f"{first}/../first", out, CONFIG) == out


def test_a_set_is_not_written_among_its_own_images(source: Path, tmp_path: Path) -> None:
    for out in (source, source / "out", source / "more" / ".." / "out"):
        with pytest.raises(DataError, match=r"expected a folder outside .*source"):
            prepare(str(source), out, CONFIG)
    assert not (source / "out").exists()


def test_a_finished_set_says_that_its_source_has_changed(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = prepare(str(source), tmp_path / "out", CONFIG)

    def warnings() -> list[str]:
        caplog.clear()
        prepare(str(source), out, CONFIG)
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    assert warnings() == []
    write(source, some(1, first=9))
    assert warnings() == [f"{source} has changed since {out} was prepared from it."]
    shutil.rmtree(source)
    assert warnings() == []


def test_a_folder_of_other_things_is_not_touched(source: Path, tmp_path: Path) -> None:
    write(tmp_path / "out", {"precious.txt": "mine"})
    with pytest.raises(DataError, match="found other files"):
        prepare(str(source), tmp_path / "out", CONFIG)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_other_processes_wait_for_the_claim_of_the_first_and_create_no_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setattr("wuerstchen.prepare.claim.time.sleep", stop)
    with pytest.raises(TimeoutError):
        prepare(str(source), tmp_path / "out", CONFIG, rank=1, world=2)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_with_other_settings_is_refused_by_the_key(
    source: Path, tmp_path: Path
) -> None:
    nothing = CONFIG.model_copy(update={"filters": FilterConfig(min_side=5000)})
    with pytest.raises(DataError, match="found none of 4; 4 × shorter side under 5000 pixels"):
        prepare(str(source), tmp_path / "out", nothing)
    for rank in range(2):
        with pytest.raises(DataError, match=r"min_side=5000, .* found filters.min_side=None"):
            prepare(str(source), tmp_path / "out", CONFIG, rank=rank, world=2)


def test_settings_of_earlier_versions_are_read_by_their_current_names(
    source: Path, tmp_path: Path
) -> None:
    """Also those of prepared.json, whose other keys stay as they were."""
    out = prepare(str(source), tmp_path / "out", CONFIG)
    info = json.loads((out / "prepared.json").read_text())
    assert info["pictures"] == 4
    old = {new: old for old, new in RENAMED}
    for settings in (info["settings"], info["settings"]["filters"]):
        for name in list(settings):
            settings[old.get(name, name)] = settings.pop(name)
    assert {"copies", "test_share", "shard"} < set(info["settings"])
    (out / "prepared.json").write_text(json.dumps(info))
    assert prepare(str(source), out, CONFIG) == out
    with pytest.raises(DataError, match=r"expected shard_size=2, .* found shard_size=3"):
        prepare(str(source), out, CONFIG.model_copy(update={"shard_size": 3}))
    with pytest.raises(DataError, match=r"expected data\.test_fraction=0\.25"):
        open_pairs(DataConfig(path=str(out), test_fraction=0.1))


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (["file"], {}, "expected a folder, found a file"),
        (["out"], {"RANK": "2", "WORLD_SIZE": "2"}, "found '2' and '2'"),
        (["out"], {"RANK": "one"}, "found 'one' and '1'"),
        (["out", "--workers", "0"], {}, "be greater than or equal to 1"),
    ],
)
def test_arguments_that_make_no_sense_are_one_sentence(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["wuerstchen", "prepare", str(source), *words])
    monkeypatch.setattr("logging.Logger.setLevel", lambda *_: None)  # would outlast the test
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert Path("file").read_text() == "mine" and not Path("out").exists()


def test_an_empty_name_is_no_source(tmp_path: Path) -> None:
    for name in ("", " "):
        with pytest.raises(DataError, match="source is empty"):
            prepare(name, tmp_path / "out", CONFIG)


def test_a_pattern_may_not_find_the_new_set(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_tar(root / "a" / "0.tar", some(4))
    for pattern in ("**/*.tar", "{a,*}/**/*.tar", "*/*/*.tar"):
        with pytest.raises(DataError, match="expected a folder outside"):
            prepare(str(root / pattern), root / "out", CONFIG)
    assert len(rows(prepare(str(root / "*" / "*.tar"), root / "out", CONFIG))) == 4


def test_a_lock_that_the_disk_refuses_is_one_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, blocking: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("wuerstchen.prepare.claim.FileLock", refuse)
    with pytest.raises(SaveError, match=r"lock could not be written \(Permission denied\)"):
        prepare(str(source), tmp_path / "out", CONFIG)


def test_a_damaged_set_is_no_source(source: Path, tmp_path: Path) -> None:
    one = prepare(str(source), tmp_path / "one", CONFIG)
    (one / "shards/00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001\.tar: expected a shard of"):
        prepare(str(one), tmp_path / "two", CONFIG)


def test_a_field_that_no_image_has_is_refused(source: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"balance_by": "typo"})
    with pytest.raises(DataError, match=r"balance_by: .* found 'typo'; they have name, number\."):
        prepare(str(source), tmp_path / "out", config)
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_a_set_without_images_to_train_with_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "source" / "test", some(3)).parent
    write(source / "train", {"bad.png": b"x", "bad.txt": "bad"})
    prepare(str(source), tmp_path / "out", CONFIG)
    assert "has no training images: all 3 are held out" in caplog.text
