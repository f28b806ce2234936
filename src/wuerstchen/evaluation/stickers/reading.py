"""What the judge reads off a scene, and whether it is what the prompt asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from wuerstchen.data.stickers import Relation, Truth
from wuerstchen.evaluation.stickers.crop_features import SIDE, FeatureNetwork
from wuerstchen.evaluation.stickers.features import features_of
from wuerstchen.evaluation.stickers.judge import Judge, Names, object_of
from wuerstchen.evaluation.stickers.segmentation import Segments, centre, crop, segment


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which criteria of its prompt an image meets; None for what was not asked for."""

    background: bool
    count: bool
    object: bool | None = None
    """Of a single sticker."""
    first_five: bool | None = None
    """Whether its object is among the judge's first five."""
    style: bool | None = None
    relation: bool | None = None
    objects: bool | None = None
    """Whether both objects of a pair are right."""

    @property
    def both(self) -> bool | None:
        """Whether object and style are right."""
        return None if self.object is None or self.style is None else self.object and self.style


def read(
    network: FeatureNetwork, judge: Judge, images: Sequence[Image.Image], truths: Sequence[Truth]
) -> list[Verdict]:
    """The verdict on each image, drawn for or composed with the truth at the same place."""
    segments = [segment(image) for image in images]
    boxes = [_boxes(found, truth) for found, truth in zip(segments, truths, strict=True)]
    crops = [
        crop(image, box, SIDE) for image, own in zip(images, boxes, strict=True) for box in own
    ]
    features = iter(features_of(network, crops)) if crops else iter(())
    verdicts = []
    for found, own, truth in zip(segments, boxes, truths, strict=True):
        names = [names_by_object(judge, next(features), truth) for _ in own]
        verdicts.append(_verdict(judge, found, own, names, truth))
    return verdicts


def names_by_object(judge: Judge, features: Tensor, truth: Truth) -> list[Names]:
    """Of a crop with (F,) features, by the heads that lack each object of the truth in turn."""
    cells = [(each.name, each.style) for each in truth.objects]
    return [judge.names(features[None], cell)[0] for cell in cells]


def _boxes(found: Segments, truth: Truth) -> list[tuple[int, int, int, int]]:
    """The crops that are to be named: everything for one sticker, the largest two for a pair."""
    if truth.kind == "pair":
        return list(found.boxes[:2])
    return [found.whole] if truth.kind == "one" and found.whole else []


def _verdict(
    judge: Judge,
    found: Segments,
    boxes: Sequence[tuple[int, int, int, int]],
    names: Sequence[Sequence[Names]],
    truth: Truth,
) -> Verdict:
    """`names` of each box, by the heads for each object."""
    background = found.background == truth.background
    count = len(found.boxes) == truth.count
    wanted = [object_of(each.name) for each in truth.objects]
    if truth.kind == "one":
        return Verdict(
            background,
            count,
            object=bool(names) and names[0][0].object == wanted[0],
            first_five=bool(names) and wanted[0] in names[0][0].objects,
            style=bool(names) and names[0][0].style == truth.objects[0].style,
        )
    if truth.kind == "several":
        return Verdict(background, count)
    if len(boxes) < 2:
        return Verdict(background, count, relation=False, objects=False)
    fits = [
        [judge.similarity(each, name) for each, name in zip(own, wanted, strict=True)]
        for own in names
    ]
    order = (0, 1) if fits[0][0] + fits[1][1] >= fits[0][1] + fits[1][0] else (1, 0)
    first, second = (boxes[k] for k in order)
    return Verdict(
        background,
        count,
        relation=relation_of(first, second) == truth.relation,
        objects=all(names[k][j].object == wanted[j] for j, k in enumerate(order)),
    )


def relation_of(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> Relation:
    """Of the first box to the second, along the axis on which their centres are further apart."""
    (x1, y1), (x2, y2) = centre(first), centre(second)
    if abs(x1 - x2) >= abs(y1 - y2):
        return "left of" if x1 < x2 else "right of"
    return "above" if y1 < y2 else "below"
