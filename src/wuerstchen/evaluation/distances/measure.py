"""Measure all distances between real and drawn images, with the protocol of the measurement."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances import kid as kernel
from wuerstchen.evaluation.distances import manifolds, mind
from wuerstchen.evaluation.distances.features import Extracted, extract
from wuerstchen.evaluation.distances.frechet import frechet_distance
from wuerstchen.evaluation.distances.images import BACKGROUND, ImageSet, prompts_digest
from wuerstchen.evaluation.distances.inception_score import SPLITS, inception_score
from wuerstchen.evaluation.distances.networks import FeatureNetwork
from wuerstchen.evaluation.distances.preparation import FILTERS, SIZE_FILTER, Preparation
from wuerstchen.evaluation.distances.record import Record, Setting
from wuerstchen.evaluation.distances.spread import Spread
from wuerstchen.evaluation.inputs import Progress, no_progress

LEAST = manifolds.DENSITY_K + 1
"""Images on each side that all the figures need."""


@dataclass(frozen=True)
class Measurement:
    """A record, and what a reader of it should know."""

    record: Record
    remarks: tuple[str, ...]


def measure(
    real: ImageSet,
    drawn: ImageSet,
    network: FeatureNetwork,
    preparation: Preparation,
    *,
    about: Mapping[str, Setting],
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    keep: Path | None = None,
    progress: Progress = no_progress,
) -> Measurement:
    """All distances between two sets of images.

    about    what is known of the drawn ones, such as the model and its sampler
    prompts  that the drawn images are of; None: not known
    seed     of KID's subsets and MIND's projections
    keep     a folder for features, from which an interrupted measurement goes on

    Raises DataError for fewer than `LEAST` images on a side, before any is read.
    """
    if min(len(real), len(drawn)) < LEAST:
        raise DataError(
            f"Distances need at least {LEAST} images on each side, found {len(real)} real and "
            f"{len(drawn)} drawn ones; a covariance of full rank takes one image more than the "
            "network has features."
        )
    seconds: dict[str, float] = {}
    found: dict[str, Extracted] = {}
    for name, images in (("real", real), ("drawn", drawn)):
        start, total = time.perf_counter(), len(images)
        progress(name, 0, total)

        def advance(done: int, name: str = name, total: int = total) -> None:
            progress(name, done, total)

        found[name] = extract(images, network, preparation, keep, advance)
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    figures = _figures(found["real"], found["drawn"], network, seed)
    seconds["distances"] = time.perf_counter() - start
    protocol = _protocol(found["real"], len(drawn), network, preparation, seed)
    protocol |= {
        "prompts": None if prompts is None else len(prompts),
        "prompts_sha256": None if prompts is None else prompts_digest(prompts),
    }
    described = {**about, "images": found["drawn"].digest, "image_sizes": found["drawn"].sizes}
    record = Record(protocol, described, figures, seconds)
    remarks = _remarks(found["real"], found["drawn"], preparation)
    if prompts is not None and (doubles := len(prompts) - len(set(prompts))):
        remarks.append(f"{doubles} of the {len(prompts)} prompts are repeated.")
    return Measurement(record, tuple(remarks))


def _figures(
    real: Extracted, drawn: Extracted, network: FeatureNetwork, seed: int
) -> dict[str, Spread]:
    a, b = real.features, drawn.features
    figures = {
        "frechet": Spread(frechet_distance(a, b)),
        "kid": kernel.kid(a, b, seed),
        "mind": Spread(mind.mind(a, b, seed)),
    }
    shared = manifolds.overlap(a, b)
    figures |= {name: Spread(value) for name, value in shared._asdict().items()}
    if network.scores is not None:
        figures["inception_score"] = inception_score(network.scores(b))
        figures["inception_score_of_real"] = inception_score(network.scores(a))
    return figures


def _protocol(
    real: Extracted, drawn: int, network: FeatureNetwork, preparation: Preparation, seed: int
) -> dict[str, Setting]:
    return {
        "n_real": len(real.features),
        "n_drawn": drawn,
        "real_images": real.digest,
        "real_image_sizes": real.sizes,
        "features": network.name,
        "feature_weights": network.weights,
        "layer": network.layer,
        "normalisation": network.normalisation,
        "side": network.side,
        "size": preparation.size,
        "size_filter": None if preparation.size is None else SIZE_FILTER,
        "filter": FILTERS[preparation.resize],
        "crop": preparation.crop,
        "background": BACKGROUND,
        "covariance": "divided by n - 1",
        "kid_kernel": "(x y / dimensions + 1) ** 3",
        "kid_subsets": kernel.SUBSETS,
        "kid_subset_size": kernel.subset_size(min(len(real.features), drawn)),
        "mind_projections": mind.PROJECTIONS,
        "precision_k": manifolds.PRECISION_K,
        "density_k": manifolds.DENSITY_K,
        "inception_score_splits": None if network.scores is None else SPLITS,
        "seed": seed,
    }


def _remarks(real: Extracted, drawn: Extracted, preparation: Preparation) -> list[str]:
    remarks = []
    n, dims = min(len(real.features), len(drawn.features)), real.features.shape[1]
    if n <= dims:
        remarks.append(
            f"{n} images are too few for a covariance of {dims} features, which takes "
            f"{dims + 1}: the Fréchet distance is too large, and comparable only for the same "
            "number of images; KID and MIND suffer less."
        )
    if real.sizes != drawn.sizes and preparation.size is None:
        remarks.append(
            f"The real images have {real.sizes} pixels and the drawn ones {drawn.sizes}, which "
            "features can tell apart; --size N brings all to N x N first."
        )
    return remarks
