"""From a model folder and a folder of images to figures, intervals and grids."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from wuerstchen import weights
from wuerstchen.cli.evaluate import evaluate as command
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.errors import ConfigError, DataError, ModelFolderError, SaveError
from wuerstchen.evaluation import Evaluation, evaluate, open_pipeline, prompt_grid
from wuerstchen.evaluation.report import TITLES
from wuerstchen.evaluation.retrieval import choose_queries, image_thumbnails, retrieve


@pytest.fixture
def train(data: DataConfig) -> Pairs:
    return open_pairs(data)[0]


# ── whole evaluations ──


def test_every_figure_is_in_its_interval_and_range(evaluation: Evaluation) -> None:
    assert list(evaluation.figures) == list(TITLES)
    for name, figure in evaluation.figures.items():
        assert figure.low <= figure.value <= figure.high
        assert 0 <= figure.value <= (100 if name.endswith("psnr") else 1)
    assert evaluation.figures["stage_a_psnr"].n == evaluation.settings["test_images"]
    assert evaluation.figures["text_first_five"].value >= evaluation.figures["text_nearest"].value
    assert evaluation.settings["size"] == 128


def test_stage_a_figures_are_those_of_stage_a_called_by_hand(
    evaluation: Evaluation, model: Path, data: DataConfig
) -> None:
    stage_a, (_, test, _) = weights.stage_a.load(model), open_pairs(data)
    decibels = []
    with torch.no_grad():
        for i in range(len(test)):
            image = test.image(i)[None] / 255
            error = (stage_a.decode(stage_a.encode(image)) - image).square().mean()
            decibels.append(-10 * error.log10().item())
    mean = sum(decibels) / len(decibels)
    assert evaluation.figures["stage_a_psnr"].value == pytest.approx(mean, abs=1e-3)


def test_the_same_seed_gives_the_same_figures_and_images(
    evaluation: Evaluation, model: Path, data: DataConfig
) -> None:
    again = evaluate(model, data, prompts=3)
    assert again.to_json() == evaluation.to_json()
    assert {k: v.tobytes() for k, v in again.grids.items()} == {
        k: v.tobytes() for k, v in evaluation.grids.items()
    }


def test_another_seed_uses_other_noise(
    evaluation: Evaluation, model: Path, data: DataConfig
) -> None:
    other = evaluate(model, data, prompts=0, seed=1).figures
    assert other["stage_a_psnr"] == evaluation.figures["stage_a_psnr"]
    assert other["semantics_psnr"] != evaluation.figures["semantics_psnr"]


def test_parts_that_are_not_requested_are_left_out(model: Path, data: DataConfig) -> None:
    text_only = evaluate(model, data, prompts=1, images=0)
    assert set(text_only.figures) == {"text_nearest", "text_first_five"}
    one = evaluate(model, data, prompts=0, images=1)
    assert {figure.n for figure in one.figures.values()} == {1}
    assert set(one.grids) == {"reconstructions"}


def test_images_of_every_shape_are_squares_here(model: Path, data: DataConfig) -> None:
    """A config that was trained with buckets measures as one without."""
    how = {"prompts": 0, "images": 3}
    buckets = data.model_copy(update={"buckets": True, "size": 384})
    assert evaluate(model, buckets, **how).figures == evaluate(model, data, **how).figures


def test_progress_ends_at_the_whole(model: Path, data: DataConfig) -> None:
    last: dict[str, tuple[int, int]] = {}

    def note(what: str, done: int, total: int) -> None:
        last[what] = (done, total)

    evaluate(model, data, prompts=2, images=1, progress=note)
    assert last == {"reconstructions": (1, 1), "captions": (2, 2)}


def test_a_model_without_a_compressor_is_refused(bare_model: Path, data: DataConfig) -> None:
    with pytest.raises(ModelFolderError, match="compressor"):
        evaluate(bare_model, data)


def test_data_without_a_test_image_is_refused(model: Path, data: DataConfig) -> None:
    with pytest.raises(DataError, match="test images"):
        evaluate(model, data.model_copy(update={"test_fraction": 0.0}))


def test_the_grid_of_prompts_is_what_the_pipeline_generates(model: Path) -> None:
    pipeline = open_pipeline(model)
    sheet = prompt_grid(pipeline, ["a red apple", "a green hat"], columns=2, seed=5)
    (alone,) = pipeline("a green hat", seed=6).images
    assert isinstance(alone, Image.Image)
    cell = sheet.crop((8 + 128 + 8, 8, 8 + 128 + 8 + 128, 8 + 128))
    difference = torch.tensor(list(cell.tobytes())) - torch.tensor(list(alone.tobytes()))
    assert difference.abs().max() <= 1  # batches round otherwise than single images


# ── retrieval ──


def copies(train: Pairs, shift: int) -> tuple[int, int, int]:
    """Hits at rank 1 and within five, and n, of a generator that copies a training image."""
    queries = choose_queries(train, 100, seed=0)
    groups = sorted({pair.group for pair in train})

    def generate(captions: Sequence[str], seed: int) -> Tensor:
        wanted = [caption.split()[1].strip("<>") for caption in captions]
        shifted = [groups[(groups.index(group) + shift) % len(groups)] for group in wanted]
        first = [next(i for i, p in enumerate(train) if p.group == group) for group in shifted]
        return torch.stack([train.image(i) for i in first]) / 255

    results = retrieve(queries, train, image_thumbnails(train), generate, seed=0)
    ranks = [result.rank for result in results]
    return sum(r == 1 for r in ranks), sum(r <= 5 for r in ranks), len(ranks)


def test_a_perfect_copy_is_always_its_own_nearest(train: Pairs) -> None:
    groups = len({pair.group for pair in train})
    assert copies(train, shift=0) == (groups, groups, groups)


def test_a_copy_of_another_object_is_never_the_nearest(train: Pairs) -> None:
    assert copies(train, shift=1)[0] == 0


def test_each_object_is_queried_once_by_the_first_caption_of_its_first_member(train: Pairs) -> None:
    queries = choose_queries(train, 100, seed=0)
    assert sorted(q.group for q in queries) == sorted({pair.group for pair in train})
    for query in queries:
        first = min((p for p in train if p.group == query.group), key=lambda p: p.key)
        assert query.caption == first.captions[0]


def test_the_seed_chooses_the_objects(train: Pairs) -> None:
    picks = [tuple(q.group for q in choose_queries(train, 1, seed)) for seed in range(20)]
    assert set(picks) == {(pair.group,) for pair in train}
    assert choose_queries(train, 2, seed=3) == choose_queries(train, 2, seed=3)


# ── the command ──


def run(*words: str) -> tuple[str, str]:
    """Standard output and error of the command; its errors are raised."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_the_command_writes_figures_and_grids_and_prints_a_table(
    model: Path, data: DataConfig, tmp_path: Path
) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("a red apple\n\na green hat\n", encoding="utf-8")
    out = tmp_path / "deep" / "out"
    stdout, stderr = run(
        *(str(model), f"data.path={data.path}", "data.balance_by=object", "data.test_fraction=0.3"),
        *("--prompts", "2", "--images", "1", "--prompt-file", str(lines), "--out", str(out)),
    )
    assert sorted(path.name for path in out.glob("[!.]*")) == [
        "evaluation.json",
        "neighbours.png",
        "prompts.png",
        "reconstructions.png",
    ]
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert content["figures"]["text_nearest"]["n"] == 2
    assert content["settings"]["seed"] == 0
    assert content["settings"]["decoder_timesteps"] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert stdout.count("\n") == len(content["figures"])
    assert "evaluation.json" in stderr and "evaluation.json" not in stdout
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            image.load()


def test_prompts_alone_need_no_data(model: Path, tmp_path: Path) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("a red apple\n" * 3, encoding="utf-8")
    out = tmp_path / "out"
    stdout, _ = run(str(model), "--prompt-file", str(lines), "--columns", "2", "--out", str(out))
    assert stdout == ""
    assert [path.name for path in out.glob("[!.]*")] == ["prompts.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data.path=FOLDER"),
        (["data.pth=x"], "did you mean 'path'"),
        (["data.size=100", "data.path=x"], "multiple of 128"),
        (["one", "two", "data.path=x"], "at most one model .* found 'one', 'two'"),
        (["--prompt-file", "no/such/file"], "--prompt-file: expected a text file"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(*words)
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_is_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SaveError, match="--out"):
        run("data.path=x", "--out", str(tmp_path / "file"))
