"""Ground truth of a scene, as the JSON next to its image."""

import json

from pydantic import BaseModel, ConfigDict

from wuerstchen.data.stickers.captions import Caption
from wuerstchen.data.stickers.scenes import Box, Kind, Relation, Scene


class TruthObject(BaseModel):
    """A sticker in the image."""

    model_config = ConfigDict(frozen=True)

    name: str
    style: str
    box: Box
    """Left, top, right and bottom in pixels; right and bottom are exclusive."""
    sprite: str
    """Key of the sticker in its set."""
    licence: str


class Truth(BaseModel):
    """Everything that an evaluation can ask about an image."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    objects: tuple[TruthObject, ...]
    """For a pair, `relation` is that of the first to the second."""
    background: str
    """Name of its colour."""
    count: int
    """Number of stickers in the image."""
    relation: Relation | None
    held_out: bool
    """Whether its stickers are from a test part."""
    seed: int
    index: int

    @property
    def cells(self) -> frozenset[tuple[str, str]]:
        """Pairs of object and style."""
        return frozenset((each.name, each.style) for each in self.objects)


def truth_of(scene: Scene, *, held_out: bool, seed: int, index: int) -> Truth:
    """The ground truth of a scene."""
    objects = tuple(
        TruthObject(
            name=sprite.name, style=sprite.style, box=box, sprite=sprite.key, licence=sprite.licence
        )
        for sprite, box in scene.placements()
    )
    return Truth(
        kind=scene.kind,
        objects=objects,
        background=scene.background,
        count=scene.count,
        relation=scene.relation,
        held_out=held_out,
        seed=seed,
        index=index,
    )


def to_json(truth: Truth, captions: list[Caption]) -> bytes:
    """The JSON of an image: its captions, what each of them mentions, and the ground truth.

    Training reads the fields `captions` and, for data.balance_by, `name`.
    """
    record: dict[str, object] = {
        "captions": [caption.text for caption in captions],
        "mentions": [
            {"name": each.name, "style": each.style, "background": each.background}
            for each in captions
        ],
        "name": truth.objects[0].name,
        "truth": truth.model_dump(mode="json"),
    }
    return json.dumps(record, ensure_ascii=False, sort_keys=True).encode()


def read_truth(content: bytes) -> Truth:
    """The ground truth in JSON that `to_json` wrote."""
    return Truth.model_validate(json.loads(content)["truth"])
