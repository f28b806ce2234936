"""Laws of merging: the ends are the models, the middle is their mean, others are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_networks import contents, randomised
from typer.testing import CliRunner

from wuerstchen import weights
from wuerstchen.cli import app
from wuerstchen.errors import ConfigError, ModelFolderError, SaveError
from wuerstchen.models.stage_c import StageC
from wuerstchen.receipts import Receipt, Tariff, add_receipts, open_receipt, update_receipts
from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.phases import Kind, Phase, append_phases, read_phases


def merged(first: Path, second: Path, out: Path, fraction: float, **options: bool) -> list[Path]:
    path, components = weights.resolve_components(first)
    return weights.merge(
        components, weights.resolve_components(second)[1], out, fraction, source=path, **options
    )


@pytest.fixture
def other(whole: Path, tmp_path: Path) -> Path:
    """The same model with another Stage C."""
    folder = Path(shutil.copytree(whole, tmp_path / "other"))
    own = weights.stage_c.load(folder).config
    weights.stage_c.save(folder, randomised(StageC(own), seed=9))
    return folder


def test_the_ends_are_the_models(whole: Path, other: Path, tmp_path: Path) -> None:
    merged(whole, other, tmp_path / "0", 0.0)
    assert contents(tmp_path / "0") == contents(whole)
    merged(whole, other, tmp_path / "1", 1.0)
    torch.testing.assert_close(
        weights.stage_c.load(tmp_path / "1").state_dict(),
        weights.stage_c.load(other).state_dict(),
        rtol=1e-6,
        atol=1e-6,
    )


def test_between_them_every_weight_is_interpolated(
    whole: Path, other: Path, tmp_path: Path
) -> None:
    merged(whole, other, tmp_path / "out", 0.3)
    found = weights.stage_c.load(tmp_path / "out").state_dict()
    first, second = (weights.stage_c.load(each).state_dict() for each in (whole, other))
    for name, tensor in found.items():
        expected = (0.7 * first[name].double() + 0.3 * second[name].double()).float()
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
    assert contents(tmp_path / "out").keys() == contents(whole).keys()


def test_a_single_component_is_merged_into_a_model_and_the_rest_stays(
    whole: Path, other: Path, tmp_path: Path
) -> None:
    merged(whole, other / "prior_prior", tmp_path / "out", 1.0)
    before, after = contents(whole), contents(tmp_path / "out")
    changed = {name.partition("/")[0] for name in before if before[name] != after[name]}
    assert changed == {"prior_prior"}


def test_other_sizes_tokenizers_and_invalid_fractions_are_refused(
    whole: Path, other: Path, tmp_path: Path
) -> None:
    own = weights.stage_c.load(whole).config
    weights.stage_c.save(tmp_path, StageC(own.model_copy(update={"depth": own.depth + 1})))
    with pytest.raises(ModelFolderError, match=r"Stage C of the same sizes .* instead of none"):
        merged(whole, tmp_path / "prior_prior", tmp_path / "out", 0.5)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            merged(whole, other, tmp_path / "out", fraction)
    with pytest.raises(ConfigError, match="expected a path outside"):
        merged(whole, other, whole / "merged", 0.5)
    path = other / "prior_tokenizer/tokenizer.json"
    state = json.loads(path.read_text())
    state["model"]["merges"] = state["model"]["merges"][:-1]
    path.write_text(json.dumps(state))
    with pytest.raises(ModelFolderError, match="with the tokenizer of"):
        merged(whole, other, tmp_path / "out", 0.5)
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_a_model_merges_with_its_own_continuation(whole: Path, other: Path, tmp_path: Path) -> None:
    """A tokenizer is saved with the settings of its last call; its tokens are the same."""
    encoder = weights.text_c.load(other)
    encoder(["a red fox"])
    weights.text_c.save(other, encoder)
    encoder = weights.text_c.load(other)
    for parameter in encoder.model.parameters():
        parameter.mul_(1.5)
    weights.text_c.save(other, encoder)
    file = "prior_tokenizer/tokenizer_config.json"
    assert (other / file).read_text() != (whole / file).read_text()
    merged(whole, other, tmp_path / "out", 1.0)
    found = weights.text_c.load(tmp_path / "out").model.state_dict()
    torch.testing.assert_close(found, encoder.model.state_dict())


def test_a_tokenizer_in_the_older_format_is_the_same(
    whole: Path, other: Path, tmp_path: Path
) -> None:
    path = other / "prior_tokenizer/tokenizer.json"
    model = json.loads(path.read_text())["model"]
    path.unlink()
    path.with_name("vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    path.with_name("merges.txt").write_text("\n".join(lines), encoding="utf-8")
    assert len(merged(whole, other, tmp_path / "out", 0.5)) == len(
        merged(whole, whole, tmp_path / "same", 0.5)
    )


def test_existing_files_stay_unless_overwriting_is_allowed(
    whole: Path, other: Path, tmp_path: Path
) -> None:
    merged(whole, other, tmp_path / "out", 0.5)
    before = contents(tmp_path / "out")
    with pytest.raises(SaveError, match=r"exists already.*--overwrite"):
        merged(whole, other, tmp_path / "out", 0.2)
    assert contents(tmp_path / "out") == before
    merged(whole, other, tmp_path / "out", 0.2, overwrite=True)
    assert contents(tmp_path / "out") != before


# Receipts


def sums(folder: Path) -> dict[tuple[str, str], int]:
    receipt = Receipt.model_validate_json((folder / "receipt.json").read_bytes())
    return {(line.stage, line.kind): line.amounts.images for line in receipt.lines}


def merge(*arguments: Path | str) -> None:
    done = CliRunner().invoke(app, ["merge", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def work(name: str, kind: Kind, images: int, stage: str = "c", **changes: object) -> Phase:
    amounts = Amounts(seconds=1, device_seconds=1, images=images)
    return Phase.model_validate(
        {
            **{"id": name, "started": f"2026-01-01T00:00:{name}", "end": "done", "stage": stage},
            **{"kind": kind, "work": {kind: amounts}, "devices": 1, "device": "Abacus"},
            **{"energy": "", "country": "world", "grams_per_kwh": 400, "code": "", "config": ""},
            **{"data": "", **changes},
        }
    )


@pytest.fixture
def measured(whole: Path, other: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two models with ledgers: both trained Stage C from its start, on one prepared set."""
    first = Path(shutil.copytree(whole, tmp_path / "first"))
    data = work("01", "preparation", 40, stage="data")
    lost = work("02", "training", 7, at=0, end="stopped")
    append_phases(first, [data, lost, work("03", "training", 100, at=0)])
    append_phases(other, [data, work("04", "training", 1000, at=0)])
    for folder in (first, other):
        update_receipts(folder)
    return first, other


def test_a_merged_model_includes_both_costs_and_counts_shared_ones_once(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    first, other = measured
    merge(first, other, tmp_path / "out")
    expected = {
        ("data", "preparation"): 40,
        ("c", "training"): 1100,
        ("c", "failed attempts"): 7,
    }
    assert sums(tmp_path / "out") == expected
    both = [open_receipt(folder, Tariff()) for folder in measured]
    assert sums(tmp_path / "out") == {
        (line.stage, line.kind): line.amounts.images
        for line in add_receipts("both", both, Tariff()).lines
    }
    merge(first, other / "prior_prior", tmp_path / "out", "--overwrite")
    assert sums(tmp_path / "out") == expected, "a second time adds nothing"
    merge(tmp_path / "out", first, tmp_path / "next")
    assert sums(tmp_path / "next") == expected


def test_a_model_that_is_merged_into_a_trained_one_leaves_that_its_own_costs(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    first, other = measured
    out = Path(shutil.copytree(first, tmp_path / "copy"))
    merge(first, other, out, "--overwrite")
    assert sums(out)[("c", "training")] == 1100
    own = {phase.id for phase in read_phases(out) if not phase.origin}
    assert own == {"01", "02", "03"}
    assert sums(other)[("c", "training")] == 1000


def test_a_receipt_without_its_ledger_is_merged_too(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    first, other = measured
    shutil.rmtree(other / "runs")
    merge(first, other, tmp_path / "out")
    assert sums(tmp_path / "out")[("c", "training")] == 1100


def test_a_run_of_a_merged_model_keeps_only_its_own_costs(
    measured: tuple[Path, Path], tmp_path: Path
) -> None:
    first, other = measured
    (first / "runs" / "c").mkdir()
    out = Path(shutil.copytree(first, tmp_path / "copy"))
    merge(first, other, out, "--overwrite")
    assert sums(out / "runs" / "c") == {("c", "training"): 100, ("c", "failed attempts"): 7}


def test_models_that_were_never_measured_have_no_receipt(
    whole: Path, other: Path, tmp_path: Path
) -> None:
    merge(whole, other, tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()
    assert not (tmp_path / "out" / "receipt.json").exists()


def test_a_converted_folder_keeps_its_costs(measured: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["convert", str(measured[1]), str(tmp_path / "out"), "--to", "diffusers"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert sums(tmp_path / "out") == sums(measured[1])
