"""Each stage is blamed for what it does, and for nothing else."""

import json
import re
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import typer
from models_small import CHANNELS, small_pipeline, stir
from PIL import Image
from typer.testing import CliRunner

from wuerstchen import Pipeline, weights
from wuerstchen.cli.diagnose import diagnose as command
from wuerstchen.config import CompressorModel, DataConfig
from wuerstchen.data import open_pairs
from wuerstchen.errors import ConfigError, DataError, ModelFolderError, SaveError
from wuerstchen.evaluation.advice import Lost, Symptoms, advise, lost
from wuerstchen.evaluation.chain import Chain
from wuerstchen.evaluation.denoising import TIMES, guess_errors
from wuerstchen.evaluation.diagnose import diagnose
from wuerstchen.evaluation.diagnosis import Diagnosis
from wuerstchen.evaluation.diagnosis_page import page, save
from wuerstchen.evaluation.diagnosis_tables import lines
from wuerstchen.evaluation.distances import frechet, gap
from wuerstchen.evaluation.frequency_bands import BANDS, band_powers, contrast_powers
from wuerstchen.evaluation.metrics import mean_figure
from wuerstchen.evaluation.nearest_neighbours import choose_questions
from wuerstchen.evaluation.report import Evaluation
from wuerstchen.inference.generation_plan import plan
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.receipts.phases import read_phases

BUNDLED = Path(str(files("wuerstchen"))) / "bundled" / "emoji"
SUBJECTS = ("red apple", "blue car", "green tree", "yellow sun", "black cat", "white egg")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    shutil.copytree(BUNDLED, folder)
    return folder


@pytest.fixture(scope="module")
def own_data(good: Path, tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Images that the model drew itself: data that all of its stages are right for."""
    folder = tmp_path_factory.mktemp("drawn")
    captions = [f"a 3D emoji of a {subject}" for subject in SUBJECTS]
    rows = []
    for split, seed in (("train", 0), ("test", 100)):
        drawn = Pipeline.from_pretrained(good)(captions, seed=seed).images
        for subject, caption, image in zip(SUBJECTS, captions, drawn, strict=True):
            assert isinstance(image, Image.Image)
            name = f"{subject} {split}.png"
            image.save(folder / name)
            rows.append({"file_name": name, "text": caption, "name": subject, "split": split})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return DataConfig(path=str(folder), balance_by="name")


def spoiled(good: Path, folder: Path, stage: str) -> Path:
    """The good model with one stage as it is before it has learned anything."""
    shutil.copytree(good, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if stage == "a":
            stage_a = weights.stage_a.load(folder)
            stir(stage_a.up_blocks)
            weights.stage_a.save(folder, stage_a)
        elif stage == "b":
            weights.stage_b.save(folder, StageB(weights.stage_b.load(folder).config))
        else:
            weights.stage_c.save(folder, StageC(weights.stage_c.load(folder).config))
    return folder


# ── whole diagnoses ──


@pytest.mark.parametrize("stage", ["a", "b", "c"])
def test_the_stage_that_was_spoiled_is_the_one_that_limits(
    stage: str, good: Path, own_data: DataConfig, tmp_path: Path
) -> None:
    found = diagnose(spoiled(good, tmp_path / stage, stage), own_data, images=6)
    assert found.verdict.limits == stage, "\n".join(lines(found))
    assert f"Stage {stage.upper()} limits" in found.verdict.sentences[0]


def test_a_model_on_images_that_it_drew_loses_no_object(good: Path, own_data: DataConfig) -> None:
    found = diagnose(good, own_data, images=6)
    assert not any(each.sure for each in found.following.lost)
    assert "recognised" not in found.verdict.sentences[0]
    assert "followed from text" not in found.verdict.sentences[0]
    assert found.detail.psnr[0].value > 25


# ── a small model that has learned nothing ──


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_pipeline().save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        compressor = Compressor(CompressorModel(channels=CHANNELS, width=0.25, depth=0.1))
        stir(compressor)
    weights.compressor.save(folder, compressor)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for colour in ("red", "lime", "blue", "black"):
        for k in range(3):
            image = Image.new("RGB", (140, 140), colour)
            image.paste("white", (10 * k, 20, 10 * k + 30, 50))
            image.save(folder / f"{colour}-{k}.png")
            rows.append({"file_name": f"{colour}-{k}.png", "text": f"a <{colour}> sheet"})
            rows[-1]["object"] = colour
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return DataConfig(path=str(folder), balance_by="object", test_fraction=0.3)


@pytest.fixture(scope="module")
def found(model: Path, data: DataConfig) -> Diagnosis:
    return diagnose(model, data, images=3)


def test_shares_add_up_to_one_and_bands_to_the_whole_error(found: Diagnosis) -> None:
    detail = found.detail
    assert sum(detail.shares) == pytest.approx(1)
    whole_a, whole_b = (sum(detail.errors[way].values()) for way in ("stage_a", "stage_b"))
    assert detail.shares[0] == pytest.approx(whole_a / whole_b)
    for band in BANDS:
        ratio = detail.errors["stage_a"][band] / detail.errors["stage_b"][band]
        assert detail.band_shares[band] == pytest.approx(ratio)
    assert found.following.shares is not None
    assert sum(found.following.shares) == pytest.approx(1)
    missed = 1 - found.following.ways[2].value
    assert sum(each.share for each in found.following.lost) == pytest.approx(missed)


def test_errors_are_those_of_the_stages_called_by_hand(
    found: Diagnosis, model: Path, data: DataConfig
) -> None:
    stage_a, (_, test, _) = weights.stage_a.load(model), open_pairs(data)
    squares = []
    with torch.no_grad():
        for i in (0, len(test) // 3, 2 * len(test) // 3):
            image = test.image(i)[None] / 255
            squares.append((stage_a.decode(stage_a.encode(image)) - image).square().mean().item())
    assert found.detail.psnr[0].n == 3
    assert sum(found.detail.errors["stage_a"].values()) == pytest.approx(sum(squares) / 3, rel=1e-4)


def test_all_three_stages_draw_what_the_pipeline_draws(model: Path, data: DataConfig) -> None:
    pipeline, (_, test, _) = Pipeline.from_pretrained(model), open_pairs(data)
    compressor = weights.compressor.load(model).eval()
    sent = Chain(pipeline, compressor, plan(pipeline.info)).send(test, [0, 1], seed=5, show=2)
    drawn = pipeline([test[i].captions[0] for i in (0, 1)], seed=5, output_type="pt").images
    assert isinstance(drawn, torch.Tensor)
    torch.testing.assert_close(torch.stack([row.ways[2] for row in sent.shown]), drawn)


def test_the_same_seed_gives_the_same_figures_and_another_one_others(
    found: Diagnosis, model: Path, data: DataConfig
) -> None:
    assert diagnose(model, data, images=3).to_json() == found.to_json()
    other = diagnose(model, data, images=3, seed=1)
    assert other.detail.errors["stage_a"] == found.detail.errors["stage_a"]
    assert other.detail.errors["stage_b"] != found.detail.errors["stage_b"]
    assert other.denoising.held_out_b != found.denoising.held_out_b


def test_a_model_that_has_learned_nothing_is_told_to_begin_with_stage_a(found: Diagnosis) -> None:
    assert found.verdict.limits == "a"
    assert sum("has learned little" in each for each in found.verdict.sentences) == 2


def test_a_question_knows_the_image_whose_caption_it_is(data: DataConfig) -> None:
    train, _, _ = open_pairs(data)
    for seed in range(5):
        for question in choose_questions(train, 3, seed):
            pair = train[question.index]
            assert (pair.captions[0], pair.group) == (question.caption, question.group)


def test_data_without_a_test_image_is_refused(model: Path, data: DataConfig) -> None:
    with pytest.raises(DataError, match="test images"):
        diagnose(model, data.model_copy(update={"test_fraction": 0.0}))


def test_a_model_without_a_compressor_is_refused(tmp_path: Path, data: DataConfig) -> None:
    small_pipeline().save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match="compressor"):
        diagnose(tmp_path, data)


# ── files and the command ──


def test_the_page_needs_no_other_file_and_shows_captions_as_text(found: Diagnosis) -> None:
    text = page(found).decode()
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', text)
    assert len(sources) == 4 * len(found.shown)
    assert set(sources) == {"data:image/png;base64,"}
    colours = {row.caption for row in found.shown}
    assert all(caption.replace("<", "&lt;").replace(">", "&gt;") in text for caption in colours)
    assert not any(caption in text for caption in colours)


def test_files_are_replaced_whole_and_hold_the_figures(found: Diagnosis, tmp_path: Path) -> None:
    (tmp_path / "diagnosis.json").write_text("old", encoding="utf-8")
    save(found, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["diagnosis.html", "diagnosis.json", "diagnosis.png"]
    content = json.loads((tmp_path / "diagnosis.json").read_text(encoding="utf-8"))
    assert content["verdict"]["limits"] == found.verdict.limits
    assert len(content["denoising"]["held_out_c"]) == len(TIMES)
    assert len(content["semantics"]["drawn"]["mean"]) == CHANNELS
    with Image.open(tmp_path / "diagnosis.png") as image:
        image.load()
        assert image.width > 4 * 128 and image.height > 3 * 128


def run(*words: str) -> tuple[str, str]:
    """Standard output and error of the command; its errors are raised."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_the_command_prints_the_verdict_first_and_writes_three_files(
    found: Diagnosis, model: Path, data: DataConfig, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    stdout, stderr = run(
        *(str(model), f"data.path={data.path}", "data.balance_by=object", "data.test_fraction=0.3"),
        *("--images", "3", "--out", str(out)),
    )
    assert stdout.splitlines() == list(lines(found))
    assert stdout.startswith(found.verdict.sentences[0])
    assert len(list(out.iterdir())) == 3
    assert "diagnosis.html" in stderr


def test_a_diagnosis_counts_in_the_receipt_of_a_model_that_was_trained_here(
    model: Path, data: DataConfig, tmp_path: Path
) -> None:
    settings = [f"data.path={data.path}", "data.balance_by=object", "data.test_fraction=0.3"]
    words = [*settings, "--images", "1", "--out", str(tmp_path / "out")]
    run(str(model), *words)
    assert not (model / "receipt.json").exists(), "none was trained here"
    trained = Path(shutil.copytree(model, tmp_path / "trained"))
    (trained / "runs").mkdir()
    run(str(trained), *words)
    (phase,) = read_phases(trained)
    assert (phase.stage, phase.kind, phase.end) == ("model", "evaluation", "done")
    assert (trained / "receipt.html").is_file()


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["--out", "out"], ConfigError, "data.path=FOLDER"),
        (["data.pth=x"], ConfigError, "did you mean 'path'"),
        (["one", "two", "data.path=x"], ConfigError, "at most one model"),
        (["data.path=x", "--images", "0"], ConfigError, "--images must be at least 1"),
        (["data.path=x", "--out", "file"], SaveError, "--out"),
    ],
)
def test_bad_words_are_refused_before_any_work(
    words: list[str],
    error: type[Exception],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(error, match=says):
        run(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ── sums ──


def test_a_wave_has_its_power_in_the_band_of_its_length() -> None:
    columns = torch.arange(128.0)
    for length, band in ((128, "low"), (32, "middle"), (4, "high")):
        wave = torch.sin(2 * torch.pi * columns / length).expand(1, 3, 128, 128)
        powers = dict(zip(BANDS, band_powers(wave)[0].tolist(), strict=True))
        assert powers.pop(band) == pytest.approx(0.5, abs=1e-6)  # the mean square of any sine
        assert max(powers.values()) < 1e-9


def test_bands_add_up_to_the_mean_square_and_contrast_leaves_brightness_out() -> None:
    image = torch.rand(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    square = image.double().square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(band_powers(image).sum(dim=1), square)
    torch.testing.assert_close(contrast_powers(image + 0.3), contrast_powers(image))


def test_the_distance_of_gaussians_is_that_of_the_formula() -> None:
    """One feature: the square of the difference of means plus that of the deviations."""
    a = torch.tensor([[-1.0], [1.0]]) * 2 + 5
    b = torch.tensor([[-1.0], [1.0]]) * 0.5 + 1
    assert frechet(a, b) == pytest.approx((5 - 1) ** 2 + (2 - 0.5) ** 2)


def test_the_distance_does_not_depend_on_the_axes() -> None:
    stream = torch.Generator().manual_seed(0)
    a, b = (torch.randn(50, 6, generator=stream) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=stream))[0]
    assert frechet(a @ turn, 2 * b @ turn) == pytest.approx(frechet(a, 2 * b), rel=1e-4)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("count", [8, 200])
def test_sets_of_one_distribution_lie_as_far_apart_as_chance_and_others_further(
    count: int,
) -> None:
    stream = torch.Generator().manual_seed(0)
    a, b = (torch.randn(count, 6, 3, 3, generator=stream) for _ in range(2))
    assert 0.5 < gap(a, b, seed=0).times_chance < 2
    assert gap(a, b + 3, seed=0).times_chance > 3
    assert gap(a, 2 * b, seed=0).contrast == pytest.approx(2, rel=0.15)


def test_no_linear_guess_of_the_noise_beats_the_one_that_is_compared_with() -> None:
    stream = torch.Generator().manual_seed(0)
    data = 0.7 * torch.randn(200_000, generator=stream, dtype=torch.float64)
    noise = torch.randn(200_000, generator=stream, dtype=torch.float64)
    for t, guess in zip(TIMES, guess_errors(torch.tensor([0.49])), strict=True):
        share = float(torch.cos(torch.tensor((t + 0.008) / 1.008 * torch.pi / 2)) ** 2)
        state = share**0.5 * data + (1 - share) ** 0.5 * noise
        slope = (state @ noise) / (state @ state)
        assert guess == pytest.approx(float((noise - slope * state).square().mean()), abs=0.01)


def test_a_stage_is_surely_to_blame_only_for_more_than_chance() -> None:
    assert lost([True] * 4 + [False], [True] * 4 + [False]) == Lost(0.0, False)
    assert lost([True] * 10, [False] * 5 + [True] * 5) == Lost(0.5, True)
    assert lost([True] * 100, [False] + [True] * 99) == Lost(0.01, False)
    assert lost([True, False], [False, True]) == Lost(0.0, False)


HEALTHY = Symptoms(
    psnr_a=32.0,
    psnr_b=28.0,
    share_a=0.3,
    contrast_a=1.0,
    contrast_b=0.98,
    followed=(1.0, 0.98, 0.96),
    lost=(Lost(0.0, False), Lost(0.02, False), Lost(0.02, False)),
    captions=100,
    times_chance=1.2,
    contrast=1.0,
    overfit_b=1.05,
    overfit_c=1.1,
    learned_b=0.2,
    learned_c=0.3,
    new_b=0.21,
    new_c=0.33,
)


def test_a_model_without_symptoms_is_told_that_no_stage_stands_out() -> None:
    verdict = advise(HEALTHY)
    assert verdict.limits == "" and len(verdict.sentences) == 1
    assert "objects of captions stay what they are." in verdict.sentences[0]


@pytest.mark.parametrize(
    ("captions", "says"),
    [
        (1, "stay what they are as far as 1 caption shows."),
        (20, "stay what they are as far as 20 captions show."),
        (72, "stay what they are as far as 72 captions show."),
        (73, "stay what they are."),  # 3.84 / (73 + 3.84) is 5.0 %
    ],
)
def test_few_captions_are_not_said_to_show_that_objects_stay(captions: int, says: str) -> None:
    assert says in advise(replace(HEALTHY, captions=captions)).sentences[0]


def test_a_single_image_has_no_interval() -> None:
    one, two = mean_figure(torch.tensor([20.0])), mean_figure(torch.tensor([20.0, 20.0]))
    assert one.interval("{:.2f}".format) == "-"
    assert two.interval("{:.2f}".format) == "20.00 to 20.00"
    (line,) = Evaluation({}, {"stage_a_psnr": one}).lines()
    assert line.endswith("20.00 dB  -  n = 1")


@pytest.mark.parametrize("psnr_b", [28.0, 20.0])
def test_a_loss_of_objects_that_may_be_chance_is_neither_blamed_nor_denied(psnr_b: float) -> None:
    unsure = (Lost(0.0, False), Lost(0.02, False), Lost(0.25, False))
    verdict = advise(replace(HEALTHY, lost=unsure, psnr_b=psnr_b))
    assert verdict.limits == ("" if psnr_b == 28.0 else "b")
    assert (
        "too few captions were drawn to tell whether Stage C loses objects"
        in (verdict.sentences[0])
    )


@pytest.mark.parametrize(
    ("changes", "limits", "says"),
    [
        ({"psnr_a": 15.0}, "a", "15.0 dB"),
        ({"psnr_b": 20.0, "share_a": 0.7}, "a", "brings 70%"),
        ({"psnr_b": 20.0, "share_a": 0.2}, "b", "adds 80%"),
        ({"times_chance": 9.0}, "c", "9.0 times"),
        (
            {
                "followed": (1.0, 0.91, 0.34),
                "lost": (Lost(0.0, False), Lost(0.09, True), Lost(0.57, True)),
            },
            "c",
            "34% of captions are followed from text, against 91% from the true semantics",
        ),
        (
            {
                "followed": (1.0, 0.5, 0.4),
                "lost": (Lost(0.0, False), Lost(0.5, True), Lost(0.1, True)),
            },
            "b",
            "50% of the objects",
        ),
    ],
)
def test_each_symptom_leads_to_its_stage(
    changes: dict[str, object], limits: str, says: str
) -> None:
    verdict = advise(replace(HEALTHY, **changes))  # type: ignore[arg-type]
    assert verdict.limits == limits
    assert says in verdict.sentences[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"contrast": 1.5}, "lower the guidance"),
        ({"contrast": 0.5}, "raise the guidance"),
        ({"contrast_b": 0.7}, "Stage B blurs"),
        ({"overfit_c": 2.0}, "Stage C knows its training images by heart"),
        (
            {"overfit_c": 5.0, "new_c": 0.99},
            "5.00 times as large on held-out ones, hardly better than",
        ),
        ({"overfit_b": 2.0}, "Stage B knows its training images by heart"),
        ({"learned_c": 0.99}, "Stage C has learned little"),
    ],
)
def test_what_does_not_limit_is_a_note_behind_the_verdict(
    changes: dict[str, object], says: str
) -> None:
    verdict = advise(replace(HEALTHY, **changes))  # type: ignore[arg-type]
    assert verdict.limits == ""
    assert len(verdict.sentences) == 2 and says in verdict.sentences[1]
