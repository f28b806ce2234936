"""Scores on stickers: an oracle is near the ceiling, a model that ignores its text at chance."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_stickers import HELD_OUT, TRAIN, write_set
from PIL import Image
from torch import Tensor

from wuerstchen.data.stickers import BACKGROUNDS, Composer, Mix, Truth, open_sprites
from wuerstchen.data.stickers.sprites import image_of
from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.mind import mind
from wuerstchen.evaluation.stickers import FILES, Examiner, build_examiner, score, scoring
from wuerstchen.evaluation.stickers.features import features_of, kept_features
from wuerstchen.evaluation.stickers.judge import Judge, Names
from wuerstchen.evaluation.stickers.nearest import nearest
from wuerstchen.evaluation.stickers.network import SIDE, FeatureNetwork, last_layer
from wuerstchen.evaluation.stickers.prompts import SETS, scenes
from wuerstchen.evaluation.stickers.scores import Scores
from wuerstchen.evaluation.stickers.segmentation import centre, segment

SIZE, COUNT = 128, 40


class Pixels:
    """In place of the feature network: pixels show shape and colour of the made stickers."""

    def __init__(self, device: torch.device | str) -> None:
        del device

    def __call__(self, crops: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(crops, 22).flatten(1)


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


@pytest.fixture(scope="module")
def examiner(stickers: Path) -> Examiner:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wuerstchen.evaluation.stickers.scoring.FeatureNetwork", Pixels)
        return build_examiner(stickers)


def truths_by_prompt(stickers: Path, judge: Judge) -> dict[str, Truth]:
    asked = [
        scene
        for name in SETS
        for scene in scenes(stickers, name, COUNT, SIZE, seed=0, knows=judge.knows)
    ]
    return {scene.captions[0].text: scene.truth for scene in asked}


def drawing(stickers: Path, truth: Truth) -> Image.Image:
    """What the truth says, at places of our own: cells of 64 pixels, or all of the image."""
    sprites = {
        s.key: s for part in ("train", "test-cells") for s in open_sprites(stickers, part).all
    }
    canvas = Image.new("RGBA", (SIZE, SIZE), BACKGROUNDS[truth.background])
    places = {
        "left of": [(0, 32), (64, 32)],
        "right of": [(64, 32), (0, 32)],
        "above": [(32, 0), (32, 64)],
        "below": [(32, 64), (32, 0)],
        None: [(0, 0), (64, 64), (0, 64), (64, 0)],
    }[truth.relation]
    for each, (x, y) in zip(truth.objects, places, strict=False):
        image = image_of(sprites[each.sprite])
        scale = 50 / max(image.size)
        small = image.resize((round(image.width * scale), round(image.height * scale)))
        canvas.alpha_composite(small, (x + 7, y + 7))
    return canvas.convert("RGB")


def scored(stickers: Path, examiner: Examiner, draw: scoring.Draw) -> Scores:
    return score(draw, stickers, examiner, size=SIZE, count=COUNT)


@pytest.fixture(scope="module")
def oracle(stickers: Path, examiner: Examiner) -> Callable[[Sequence[str], int], list[Image.Image]]:
    truths = truths_by_prompt(stickers, examiner.judge)
    return lambda prompts, seed: [drawing(stickers, truths[prompt]) for prompt in prompts]


@pytest.fixture(scope="module")
def of_oracle(stickers: Path, examiner: Examiner, oracle: scoring.Draw) -> Scores:
    return scored(stickers, examiner, oracle)


def test_an_oracle_is_near_the_ceiling_of_every_score(of_oracle: Scores) -> None:
    for name, each in of_oracle.scores.items():
        assert each.drawn.value >= each.real.value - 0.15, name
    for name in ("background", "count", "relation", "object_first_five"):
        assert of_oracle.scores[name].drawn.value >= 0.9, name
    assert of_oracle.scores["object"].real.value > 0.8  # this set is easy to name


def test_a_model_that_ignores_its_text_scores_at_chance(
    stickers: Path, examiner: Examiner, oracle: scoring.Draw
) -> None:
    """It draws scenes of the right kind, but for prompts of its own."""
    own = {
        mix: Composer(open_sprites(stickers, "train"), SIZE, seed=77, mix=mix)
        for mix in (Mix(0, 0), Mix(0, 1), Mix(1, 0))
    }
    mix = Mix()
    kinds = iter([Mix(0, 0), Mix(0, 0), Mix(0, 1), Mix(1, 0)])

    def deaf(prompts: Sequence[str], seed: int) -> list[Image.Image]:
        nonlocal mix
        mix = next(kinds) if seed == 0 else mix
        return [own[mix][seed + k].image for k in range(len(prompts))]

    found = scored(stickers, examiner, deaf).scores
    chance = {"object": 1 / 5, "style": 1 / 3, "background": 1 / 12, "count": 1 / 3}
    for name, expected in chance.items():
        assert found[name].drawn.low <= expected + 0.05, name
        assert found[name].drawn.value < found[name].real.value / 2 + 0.1, name
    assert found["relation"].drawn.low <= 1 / 4 + 0.1
    assert found["two_objects"].drawn.low <= 1 / 10


def test_a_judge_that_calls_everything_noto_is_caught(
    stickers: Path, examiner: Examiner, oracle: scoring.Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Judge.names

    def partial(self: Judge, features: Tensor, cell: tuple[str, str]) -> list[Names]:
        return [Names(n.objects, "noto", n.scores) for n in honest(self, features, cell)]

    monkeypatch.setattr(Judge, "names", partial)
    found = scored(stickers, examiner, oracle)
    of_real = found.scores["style"].real
    assert of_real.low < 1 / 3 + 0.05 and of_real.high < 0.6
    row = next(row for row in found.rows() if row[0] == "Training cells: style")
    assert row[3] == f"{100 * of_real.value:.1f}"  # in the table


def test_a_picture_is_judged_by_heads_that_have_not_seen_its_sticker(examiner: Examiner) -> None:
    sprites = examiner.training
    features = torch.randn(1, len(sprites), 30, generator=torch.Generator().manual_seed(0))
    damaged = features.clone()
    damaged[:, 3] += 100
    cell, other = ((s.name, s.style) for s in (sprites[3], sprites[4]))
    one, two = Judge(sprites, features), Judge(sprites, damaged)
    query = torch.randn(1, 30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        one.names(query, cell)[0].scores, two.names(query, cell)[0].scores, rtol=0, atol=0
    )
    assert not torch.equal(one.names(query, other)[0].scores, two.names(query, other)[0].scores)


def test_outcomes_of_held_out_cells_add_up_to_the_scores(of_oracle: Scores) -> None:
    counts = of_oracle.outcomes["drawn"]
    assert sum(counts.values()) == COUNT
    right = counts["both right"] + counts["object only"]
    assert of_oracle.scores["held_out_object"].drawn.value == right / COUNT
    assert of_oracle.scores["held_out_both"].drawn.value == counts["both right"] / COUNT


def test_json_and_page_hold_what_is_printed(of_oracle: Scores, tmp_path: Path) -> None:
    paths = of_oracle.save(tmp_path, {"model": "oracle <1>", "count": COUNT})
    assert [path.name for path in paths] == list(FILES)
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    assert content["scores"]["style"]["drawn"]["value"] == of_oracle.scores["style"].drawn.value
    page = paths[1].read_text(encoding="utf-8")
    assert "oracle &lt;1&gt;" in page and "Held-out cells: style" in page
    assert "Held-out cells: style" in "\n".join(of_oracle.lines())


def test_stickers_are_found_where_they_were_placed(stickers: Path) -> None:
    composer = Composer(open_sprites(stickers, "train"), 256, seed=3, mix=Mix(0.4, 0.4))
    for index in range(40):
        scene = composer[index]
        found = segment(scene.image)
        assert found.background == scene.truth.background
        assert len(found.boxes) == scene.truth.count
        placed = sorted(centre(each.box) for each in scene.truth.objects)
        for (x, y), (u, v) in zip(sorted(map(centre, found.boxes)), placed, strict=True):
            assert abs(x - u) <= 3 and abs(y - v) <= 3


def test_a_blank_image_has_no_sticker() -> None:
    found = segment(Image.new("RGB", (128, 128), BACKGROUNDS["cyan"]))
    assert found.background == "cyan" and found.boxes == () and found.whole is None


def test_mind_of_one_feature_is_the_squared_wasserstein_distance() -> None:
    a, b = torch.tensor([[3.0], [1.0], [2.0]]), torch.tensor([[4.0], [0.0], [7.0]])
    assert mind(a, b) == pytest.approx(((1 - 0) ** 2 + (2 - 4) ** 2 + (3 - 7) ** 2) / 3)


def test_mind_of_a_shift_is_its_squared_length_for_sets_of_any_size() -> None:
    rng = torch.Generator().manual_seed(0)
    a, shift = torch.randn(60, 20, generator=rng), torch.randn(20, generator=rng)
    expected = pytest.approx(float(shift.square().sum()), rel=0.1)  # of 1,024 directions
    assert mind(a, a) == 0
    assert mind(a, a + shift) == expected
    assert mind(a, (a + shift).repeat(2, 1)) == pytest.approx(float(shift.square().sum()), rel=0.15)
    with pytest.raises(DataError, match="needs images on each side"):
        mind(a, a[:0])


def test_a_copy_is_its_own_nearest() -> None:
    references = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    indices, likeness = nearest(references[[7, 2]], references)
    assert indices == [7, 2] and likeness == pytest.approx([1, 1], abs=1e-5)


def test_features_of_other_stickers_are_refused(examiner: Examiner, tmp_path: Path) -> None:
    path, sprites = tmp_path / "kept.safetensors", examiner.training
    features = torch.rand(2, len(sprites), 5).half()
    assert torch.equal(kept_features(path, sprites, lambda: features), features)
    again = kept_features(path, sprites, lambda: pytest.fail("they are in the file"))
    assert torch.equal(again, features)
    with pytest.raises(DataError, match="those of others"):
        kept_features(path, sprites[1:], lambda: features)
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="expected features of stickers"):
        kept_features(path, sprites, lambda: features)


def test_the_feature_network_tells_colours_and_shapes_apart() -> None:
    network = FeatureNetwork()
    crops = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    features = features_of(network, crops)
    assert last_layer(features).shape == (2, 1280)
    assert features.isfinite().all() and not torch.allclose(features[0], features[1])
