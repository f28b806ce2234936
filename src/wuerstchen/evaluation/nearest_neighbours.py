"""Does the model draw what it is asked for? Its nearest training image is the judge.

An image drawn for a training caption should lie nearest to a training image of the same object
(RGB thumbnails, L2), where the objects are the groups that `data.balance_by` makes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wuerstchen.data import Pairs
from wuerstchen.evaluation.metrics import nearest, thumbnails

FIRST = 5
"""How many neighbours count for the more lenient figure."""

DrawCaptions = Callable[[Sequence[str], int], Tensor]
"""(captions, seed of the first) to a (B, 3, H, W) image in [0, 1] for each."""


@dataclass(frozen=True, slots=True)
class Question:
    """A caption to draw."""

    caption: str
    group: str
    index: int
    """Of the training image whose caption it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was drawn for a question, and what lies nearest to it."""

    question: Question
    image: Tensor
    """(3, H, W) in [0, 1]."""
    nearest: tuple[int, ...]
    """Indices of the first training images, the nearest first."""
    rank: int
    """Place of the first training image of the same group; 1 is the nearest."""


def choose_questions(train: Pairs, count: int, seed: int) -> list[Question]:
    """The first caption of `count` groups, or of all where there are fewer.

    Of a group the first member in the order of keys speaks. Every group is equally likely.
    """
    speakers: dict[str, Question] = {}
    for index in sorted(range(len(train)), key=lambda index: train[index].key):
        pair = train[index]
        speakers.setdefault(pair.group, Question(pair.captions[0], pair.group, index))
    groups = sorted(speakers)
    chosen = random.Random(seed).sample(groups, min(count, len(groups)))
    return [speakers[group] for group in chosen]


def small_images(train: Pairs) -> Tensor:
    """(N, 3, 32, 32) thumbnails in [0, 1] of all images."""
    return torch.cat([thumbnails(train.image(i)[None] / 255) for i in range(len(train))])


def answer(
    questions: Sequence[Question],
    train: Pairs,
    references: Tensor,
    draw: DrawCaptions,
    seed: int,
) -> list[Answer]:
    """Draw the captions, the k-th from seed + k, and look for their neighbours.

    references  (N, 3, 32, 32) thumbnails of `train`, in its order
    """
    images = draw([question.caption for question in questions], seed)
    answers = []
    for question, image, order in zip(
        questions, images, nearest(images, references).tolist(), strict=True
    ):
        rank = next(k for k, i in enumerate(order, 1) if train[i].group == question.group)
        answers.append(Answer(question, image, tuple(order[:FIRST]), rank))
    return answers
