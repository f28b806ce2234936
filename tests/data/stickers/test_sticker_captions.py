"""Captions describe the image correctly, in many ways."""

from pathlib import Path

import pytest
from made_stickers import COLOURS, HELD_OUT, TRAIN, write_set

from wuerstchen.data.stickers import BACKGROUNDS, Composer, Mix, open_sprites
from wuerstchen.data.stickers.grammar import plural, with_article

PHRASES = {
    "to the left of": "left of",
    "left of": "left of",
    "to the right of": "right of",
    "right of": "right of",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def has(text: str, word: str) -> bool:
    return word.lower() in text.lower()


def test_every_caption_names_what_it_mentions_and_nothing_else(folder: Path) -> None:
    composer = Composer(open_sprites(folder), captions=6)
    for index in range(150):
        composed = composer[index]
        truth = composed.truth
        for caption in composed.captions:
            named = {name for name in COLOURS if has(caption.text, name)}
            assert named == ({each.name for each in truth.objects} if caption.name else set())
            assert all(has(caption.text, o.style) for o in truth.objects) == caption.style
            backgrounds = {name for name in BACKGROUNDS if has(caption.text, name)}
            assert backgrounds == ({truth.background} if caption.background else set())


def test_a_relation_is_true_from_either_side(folder: Path) -> None:
    composer = Composer(open_sprites(folder), mix=Mix(pair=1, several=0), captions=6)
    sides = set()
    for index in range(80):
        composed = composer[index]
        first, second = (each.name for each in composed.truth.objects)
        for caption in composed.captions:
            text = caption.text.lower()
            phrase = max((p for p in PHRASES if f" {p} " in text), key=len)
            before, _, _ = text.partition(f" {phrase} ")
            swapped = first not in before
            assert (second in before) == swapped
            expected = {"left of": "right of", "right of": "left of"}
            expected |= {"above": "below", "below": "above"}
            relation = composed.truth.relation
            assert relation is not None
            assert PHRASES[phrase] == (expected[relation] if swapped else relation)
            sides.add(swapped)
    assert sides == {True, False}


def test_a_count_is_a_word_or_a_figure(folder: Path) -> None:
    composer = Composer(open_sprites(folder), mix=Mix(pair=0, several=1))
    figures = {"two": 2, "three": 3, "four": 4, "2": 2, "3": 3, "4": 4}
    for index in range(60):
        composed = composer[index]
        for caption in composed.captions:
            words = caption.text.lower().replace(",", " ").replace(":", " ").split()
            assert [figures[w] for w in words if w in figures] == [composed.truth.count]


def test_style_comes_before_and_after_and_case_varies(folder: Path) -> None:
    composer = Composer(open_sprites(folder), mix=Mix(0, 0))
    scenes = [composer[index] for index in range(200)]
    captions = [(scene.truth, c.text) for scene in scenes for c in scene.captions]
    with_style = [(t, text) for t, text in captions if has(text, t.objects[0].style)]
    named = [(t.objects[0], text.lower()) for t, text in with_style if has(text, t.objects[0].name)]
    before = sum(text.index(o.style) < text.index(o.name) for o, text in named)
    assert 0.3 < before / len(named) < 0.8
    counts = [sum(map(kind, (text for _, text in captions))) for kind in (str.isupper, str.islower)]
    assert all(count > 0.03 * len(captions) for count in counts)


def test_the_first_caption_is_complete_and_not_in_upper_case(folder: Path) -> None:
    composer = Composer(open_sprites(folder))
    first = [composer[i].captions[0] for i in range(50)]
    assert all(each.name and each.style and each.background for each in first)
    assert not any(each.text.isupper() for each in first)


def test_captions_of_a_scene_differ(folder: Path) -> None:
    composer = Composer(open_sprites(folder))
    assert all(len({c.text for c in composer[i].captions}) == 4 for i in range(50))


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("cat", "a cat", "cats"),
        ("apple", "an apple", "apples"),
        ("cherry", "a cherry", "cherries"),
        ("boy", "a boy", "boys"),
        ("fox", "a fox", "foxes"),
        ("bus", "a bus", "buses"),
        ("scissors", "scissors", "scissors"),
        ("busts in silhouette", "busts in silhouette", None),
        ("face with tears of joy", "a face with tears of joy", None),
        ("woman: curly hair", "a woman: curly hair", None),
        ("keycap: 8", "a keycap: 8", None),
    ],
)
def test_articles_and_plurals(name: str, one: str, many: str | None) -> None:
    assert (with_article(name), plural(name)) == (one, many)
