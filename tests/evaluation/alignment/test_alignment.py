"""`wuerstchen alignment`: scores of a small CLIP by hand, pairs, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import bootstrap
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from wuerstchen.cli import main
from wuerstchen.data.prompts import Prompt, read_prompts
from wuerstchen.evaluation.alignment.record import Alignment, Scored
from wuerstchen.evaluation.bootstrap import paired_difference

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "A", "photo", "depicts", "a", "red", "green", "apple"]
WORDS += ["hat"]
PROMPTS = {"a red apple": "colour", "a green hat": "colour", "hat": "", "apple": "object"}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP with a tokenizer of twelve words, as transformers saves them."""
    folder = tmp_path_factory.mktemp("clip")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2}
    text = size | {"vocab_size": len(WORDS), "max_position_embeddings": 8}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    image = size | {"image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text, vision_config=image, projection_dim=12)
        model = CLIPModel(config).requires_grad_(False)
        model.visual_projection.weight.neg_()  # with this seed, images then agree with texts
        model.save_pretrained(folder)
    tokens = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, "<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.tsv"
    rows = ["Prompt\tCategory", *(f"{text}\t{group}" for text, group in PROMPTS.items())]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_lists_are_read_in_the_forms_in_which_they_are_published(tmp_path: Path) -> None:
    """PartiPrompts, DrawBench and GenEval name their columns differently."""
    forms = {
        "parti.tsv": "Prompt\tCategory\tChallenge\na hat\tAbstract\tBasic\n",
        "drawbench.csv": "Prompts,Category\na hat,Abstract\n",
        "geneval.jsonl": '{"tag": "Abstract", "prompt": "a hat", "include": []}\n',
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_prompts(tmp_path / name) == [Prompt("a hat", "Abstract")]


def drawn(folder: Path, count: int = len(PROMPTS)) -> Path:
    """Images 8.png, 9.png, 10.png, ..., of the side that the network takes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{8 + k}.png")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wuerstchen", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def cosine(model: CLIPModel, path: Path, text: str) -> float:
    """Of the embeddings, from the parts of the network."""
    ids = [2, *(WORDS.index(word) for word in text.split()), 3]
    pixels = (np.asarray(Image.open(path)) / 255 - MEAN) / STD
    with torch.inference_mode():
        image = model.visual_projection(
            model.vision_model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[1]
        )
        words = model.text_projection(model.text_model(torch.tensor([ids]))[1])
    return float(torch.nn.functional.cosine_similarity(image, words))


def test_scores_are_those_of_the_two_definitions_and_of_pickscore(
    clip: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = drawn(tmp_path / "images")
    model = CLIPModel.from_pretrained(clip).requires_grad_(False)
    for judge in ("clip", "pickscore"):
        out = tmp_path / judge
        verb = ("alignment", prompts, images, "--judge", f"{judge}={clip}", "--out", out)
        assert run(monkeypatch, *verb) == 0
        found = json.loads((out / "alignment.json").read_text(encoding="utf-8"))["prompts"]
        assert [each["prompt"] for each in found] == list(PROMPTS)
        for k, each in enumerate(found):  # 10.png is the third
            path, text = images / f"{8 + k}.png", each["prompt"]
            plain = cosine(model, path, text)
            expected = {"pickscore": float(model.logit_scale.exp()) * plain}
            if judge == "clip":
                prefixed = cosine(model, path, f"A photo depicts {text}")
                expected = {"clipscore": 2.5 * max(prefixed, 0), "clipscore_100": 100 * plain}
            assert plain > 0.01
            assert each["scores"] == pytest.approx(expected, abs=1e-4)


def test_means_are_of_all_prompts_and_of_every_category(
    clip: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, out = drawn(tmp_path / "images"), tmp_path / "out"
    verb = ("alignment", prompts, images, "--judge", f"pickscore={clip}", "--out", out)
    assert run(monkeypatch, *verb) == 0
    written = json.loads((out / "alignment.json").read_text(encoding="utf-8"))
    scores = np.array([each["scores"]["pickscore"] for each in written["prompts"]])
    groups = written["figures"]["pickscore"]
    assert groups.keys() == {"all prompts", "colour", "object"}
    assert groups["all prompts"]["value"] == pytest.approx(scores.mean())
    assert groups["colour"]["value"] == pytest.approx(scores[:2].mean())
    assert groups["object"]["n"] == 1
    card = written["protocol"]
    assert (card["judge"], card["prompts"], card["images_per_prompt"]) == ("pickscore", 4, 1)
    assert len(card["judge_weights"]) == len(card["prompts_sha256"]) == 64
    assert card["normalisation"].startswith("mean 0.48145466, 0.4578275, 0.40821073; deviation")
    assert "PickScore, logit" in capsys.readouterr().out


def test_tokenizer_normalisation_and_categories_are_part_of_the_protocol(
    clip: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, copy = drawn(tmp_path / "images"), tmp_path / "clip"
    shutil.copytree(clip, copy)

    def card(name: str) -> dict[str, object]:
        out = tmp_path / name
        verb = ("alignment", prompts, images, "--judge", f"clip={copy}", "--out", out)
        assert run(monkeypatch, *verb) == 0
        found: dict[str, object] = json.loads((out / "alignment.json").read_text())["protocol"]
        return found

    def changed(name: str) -> set[str]:
        nonlocal before
        was, before = before, card(name)
        return {key for key in before if before[key] != was[key]}

    before = card("first")
    (copy / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    assert changed("mean") == {"normalisation"}
    words = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(words.replace('"hat"', '"cap"'))
    assert changed("words") == {"tokenizer_sha256"}
    prompts.write_text(prompts.read_text().replace("\tobject", "\tthing"))
    assert changed("categories") == {"categories_sha256"}


def test_the_paired_interval_is_that_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=80)
    b = a + rng.normal(0.3, 0.5, size=80)
    found = paired_difference(torch.from_numpy(a), torch.from_numpy(b))
    theirs = bootstrap((b - a,), np.mean, method="percentile", rng=rng).confidence_interval
    assert found.value == pytest.approx((b - a).mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    # Pairs share what is hard about a prompt, so that their interval is narrower.
    assert found.high - found.low < 2 * 1.96 * (a.var() / 80 + b.var() / 80) ** 0.5


def result(folder: Path, scores: list[float], **other: object) -> Path:
    card = {"judge": "clip", "prompts": len(scores)} | other
    prompts = [
        Scored(f"prompt {k}", "even" if k % 2 == 0 else "", {"clipscore": score})
        for k, score in enumerate(scores)
    ]
    return Alignment(card, {}, prompts).save(folder)  # type: ignore[arg-type]


def test_two_results_are_compared_prompt_by_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=40)
    one = result(tmp_path / "a", hard.tolist())
    other = result(tmp_path / "b", [*(hard[:30] + 0.25), *(hard[30:36] - 0.25), *hard[36:]])
    assert run(monkeypatch, "compare", one, other) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    row = next(row for row in rows if row[:2] == ["all", "prompts"])
    assert row[2] == "+0.15" and row[-2:] == ["4", "equal"]
    assert "83.3 %" in printed  # 30 of 36 that are not equal
    assert any(row[0] == "even" for row in rows)


def test_the_categories_of_the_first_result_group_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of earlier versions do not state a hash of their categories."""
    one, other = result(tmp_path / "a", [0.0, 0.5, 1.0]), result(tmp_path / "b", [1.0, 0.5, 3.0])
    other.write_text(other.read_text().replace('"even"', '"uneven"'))
    assert run(monkeypatch, "compare", one, other) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(row for row in rows if row[0] == "even")
    assert row[1] == "+1.5"  # of prompts 0 and 2


def test_results_that_are_not_alike_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (
        result(tmp_path / "a", [1.0, 2.0]),
        result(tmp_path / "b", [1.0], judge="pickscore"),
    )
    assert run(monkeypatch, "compare", one, other) == 2
    assert "judge is clip in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ("one image less", "expected 4 images, one for each prompt in their order, found 3"),
        ("another caption", "expected image 9.png to be of the prompt a green hat, found the"),
        ("a double", "expected each prompt once, found twice: hat; remove one"),
        ("no judge", "--judge: expected clip=PATH or pickscore=PATH, found ''"),
        ("no tokenizer", "expected the tokenizer of a CLIP"),
        ("both", "found both; name one"),
    ],
)
def test_what_cannot_be_scored_is_one_clear_sentence(
    spoil: str,
    expected: str,
    clip: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = drawn(tmp_path / "images", 3 if spoil == "one image less" else 4)
    judge = "" if spoil == "no judge" else f"clip={clip}"
    more: tuple[str, ...] = ()
    if spoil == "another caption":
        (images / "9.txt").write_text("a red hat")
    elif spoil == "a double":
        prompts.write_text(prompts.read_text() + "hat\t\n")
    elif spoil == "no tokenizer":
        bare = tmp_path / "bare"
        bare.mkdir()
        for name in ("config.json", "model.safetensors"):
            (bare / name).write_bytes((clip / name).read_bytes())
        judge = f"clip={bare}"
    elif spoil == "both":
        more = ("--model", "stickers")
    verb = ("alignment", prompts, images, "--judge", judge, "--out", tmp_path / "out", *more)
    assert run(monkeypatch, *verb) == 2
    told = capsys.readouterr()
    assert expected in told.err and "Traceback" not in told.err and not told.out
