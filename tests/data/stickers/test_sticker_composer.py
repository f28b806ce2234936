"""Scenes depend on seed and index alone, and their ground truth matches the pixels."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from made_stickers import ALL, COLOURS, HELD_OUT, TRAIN, write_set
from PIL import Image

from wuerstchen.data.stickers import BACKGROUNDS, Composer, Mix, background_of, open_sprites
from wuerstchen.data.stickers.composer import VERSION
from wuerstchen.data.stickers.truth import to_json
from wuerstchen.data.stickers.writer import members
from wuerstchen.errors import DataError, SizeError

SCENES = range(40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stickers"), TRAIN, HELD_OUT)


def near(image: Image.Image, colour: tuple[int, int, int], within: float = 40) -> np.ndarray:
    """(H, W) mask of pixels of nearly this colour."""
    distance = np.asarray(image, dtype=float) - colour
    return np.linalg.norm(distance, axis=2) < within


def test_same_seed_and_index_give_same_bytes(folder: Path) -> None:
    first = Composer(open_sprites(folder), seed=7)
    again = Composer(open_sprites(folder), seed=7)
    expected = {index: list(members(first[index])) for index in SCENES}
    assert all(list(members(again[index])) == expected[index] for index in reversed(SCENES))


def test_other_seeds_and_indices_give_other_scenes(folder: Path) -> None:
    sprites = open_sprites(folder)
    one, other = Composer(sprites, seed=0), Composer(sprites, seed=1)
    images = [c[index].image.tobytes() for c in (one, other) for index in SCENES]
    assert len(set(images)) > 0.95 * len(images)


def test_scenes_change_only_with_the_version(tmp_path: Path) -> None:
    """If this fails after a change of the composer, raise `VERSION` and enter the new digest."""
    flat = [(name, "flat") for name in COLOURS]  # rectangles, the same in all versions of Pillow
    composer = Composer(open_sprites(write_set(tmp_path, flat)), seed=5)
    found = hashlib.sha256()
    for index in range(100):
        scene = composer[index]
        found.update(scene.image.tobytes() + to_json(scene.truth, scene.captions))
    assert {VERSION: found.hexdigest()[:16]} == {1: "4f712fb2fd3c64e7"}


def test_the_number_of_captions_does_not_change_the_image(folder: Path) -> None:
    sprites = open_sprites(folder)
    few, many = Composer(sprites, captions=1), Composer(sprites, captions=6)
    assert all(few[i].image.tobytes() == many[i].image.tobytes() for i in range(10))


@pytest.mark.parametrize("size", [128, 256])
def test_everything_outside_the_boxes_is_background(folder: Path, size: int) -> None:
    composer = Composer(open_sprites(folder), size)
    for index in SCENES:
        composed = composer[index]
        outside = np.ones((size, size), dtype=bool)
        for each in composed.truth.objects:
            left, top, right, bottom = each.box
            outside[top:bottom, left:right] = False
        colours = np.asarray(composed.image)[outside]
        assert (colours == BACKGROUNDS[composed.truth.background]).all()


def test_each_object_fills_its_box_from_edge_to_edge(folder: Path) -> None:
    composer = Composer(open_sprites(folder))
    for index in SCENES:
        composed = composer[index]
        for each in composed.truth.objects:
            left, top, right, bottom = each.box
            found = near(composed.image, COLOURS[each.name])[top:bottom, left:right]
            rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
            assert rows[0] <= 3 and columns[0] <= 3
            assert rows[-1] >= bottom - top - 4 and columns[-1] >= right - left - 4


def test_relations_match_the_positions_of_the_colours(folder: Path) -> None:
    composer = Composer(open_sprites(folder), mix=Mix(pair=1, several=0))
    seen = set()
    for index in SCENES:
        composed = composer[index]
        first, second = (
            np.argwhere(near(composed.image, COLOURS[each.name])).mean(0)
            for each in composed.truth.objects
        )
        down, across = second - first
        relation = composed.truth.relation
        assert relation is not None
        seen.add(relation)
        distance = {"left of": across, "right of": -across, "above": down, "below": -down}
        assert distance[relation] > composer.size / 8
    assert len(seen) == 4


def test_count_is_the_number_of_separate_spots(folder: Path) -> None:
    from scipy import ndimage

    composer = Composer(open_sprites(folder), mix=Mix(pair=0, several=1))
    for index in SCENES:
        composed = composer[index]
        spots = near(composed.image, COLOURS[composed.truth.objects[0].name])
        areas = np.bincount(ndimage.label(spots)[0].ravel())[1:]
        found = int((areas > 0.1 * areas.max()).sum())  # smoothed corners may be separate spots
        assert found == composed.truth.count == len(composed.truth.objects)
        assert len(composed.truth.cells) == 1


def test_the_background_is_recognised_from_the_image(folder: Path) -> None:
    composer = Composer(open_sprites(folder), mix=Mix(pair=0, several=0))
    composed = [composer[index] for index in range(200)]
    assert {each.truth.background for each in composed} == set(BACKGROUNDS)
    assert all(background_of(each.image) == each.truth.background for each in composed)


def test_no_sticker_is_on_a_background_of_its_colour(tmp_path: Path) -> None:
    red, COLOURS["heart"] = BACKGROUNDS["red"], BACKGROUNDS["red"]
    try:
        composer = Composer(open_sprites(write_set(tmp_path, [("heart", "flat")])))
    finally:
        del COLOURS["heart"]
    found = {composer[index].truth.background for index in SCENES}
    assert len(found) > 8 and not any(BACKGROUNDS[name] == red for name in found)


def test_held_out_cells_never_appear_in_train(folder: Path) -> None:
    composer = Composer(open_sprites(folder))
    shown = set().union(*(composer[index].truth.cells for index in range(200)))
    assert shown == set(TRAIN)
    held_out = Composer(open_sprites(folder, "test-cells"), mix=Mix(0, 0))
    assert all(held_out[i].truth.held_out for i in SCENES)
    assert set().union(*(held_out[i].truth.cells for i in SCENES)) == set(HELD_OUT)


def test_a_held_out_cell_among_the_training_stickers_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, ALL, HELD_OUT)
    with pytest.raises(DataError, match="share no pair of object and style, found 2"):
        open_sprites(tmp_path)


def test_objects_are_equally_likely_however_many_styles_they_have(tmp_path: Path) -> None:
    cells = [("cat", style) for style in ("flat", "noto", "blob")] + [("dog", "flat")]
    composer = Composer(open_sprites(write_set(tmp_path, cells)), mix=Mix(0, 0))
    dogs = sum(composer.scene(index).sprites[0].name == "dog" for index in range(1000))
    assert 440 <= dogs <= 560


def test_a_folder_without_stickers_and_a_wrong_size_are_errors(folder: Path) -> None:
    with pytest.raises(DataError, match="expected tars of stickers such as train-00000"):
        open_sprites(folder / "nothing")
    with pytest.raises(SizeError, match="multiple of 128"):
        Composer(open_sprites(folder), size=100)
