"""Config of `wuerstchen prepare`: which images of a source are kept, and how they are stored."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.geometry import SIZE_STEP


class FilterConfig(Section):
    """Images outside these bounds are dropped and counted. null: no bound."""

    min_side: int | None = Field(default=None, gt=0)
    """Length of the shorter side in pixels."""
    max_side: int | None = Field(default=None, gt=0)
    """Length of the longer side in pixels."""
    max_aspect: float | None = Field(default=3.0, ge=1)
    """Aspect ratio: longer side over shorter side."""
    min_caption: int | None = Field(default=None, gt=0)
    """Characters of the longest caption that is not too long."""
    max_caption: int | None = Field(default=None, gt=0)
    """Characters per caption; longer ones are dropped, and so are images without any other."""
    min_aesthetic: float | None = None
    """Bound for the field aesthetic or AESTHETIC_SCORE."""
    max_watermark: float | None = None
    """Bound for the field pwatermark."""
    max_unsafe: float | None = None
    """Bound for the field punsafe."""
    min_similarity: float | None = None
    """Bound for the field similarity (of image and caption)."""
    missing_score: Literal["drop", "keep"] = "drop"
    """Whether to drop or keep images without a score that has a bound."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "FilterConfig":
        for what in ("side", "caption"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"filters.min_{what} must not exceed filters.max_{what}, "
                    f"found {least} and {most}"
                )
        return self


class PrepareConfig(Section):
    """How a source is turned into shards with an index."""

    size: int = Field(default=512, gt=0, multiple_of=SIZE_STEP)
    """Training size in pixels that the images are scaled down for."""
    shape: Literal["area", "square"] = "area"
    """area: keep the aspect ratio, so that both a square and the nearest shape of data.buckets can
    be cropped; square: keep only the centre."""
    caption_per_line: bool = False
    """Every line of a .txt file is a caption of its own; otherwise the file is one caption, with
    its line breaks."""
    background: str = "white"
    """Background of transparent images: a colour name or #rrggbb."""
    format: Literal["jpeg", "webp", "png"] = "jpeg"
    """Format of the stored images; png is lossless."""
    quality: int = Field(default=95, ge=1, le=100)
    """Quality of jpeg and webp."""
    shard_size: int = Field(default=1000, gt=0)
    """Images per shard for sources without tars; each tar becomes one shard."""
    duplicate_distance: int | None = Field(default=4, ge=0, le=16)
    """Images whose 64-bit perceptual hashes differ in at most this many bits are duplicates, and
    only the largest is kept; 0: only equal hashes; null: keep all."""
    balance_by: str | None = None
    """Metadata field whose values are sampled equally often in training, and held out as groups."""
    test_fraction: float = Field(default=0.05, ge=0, lt=0.5)
    """Fraction of the images held out if the data has no test split of its own."""
    filters: FilterConfig = FilterConfig()
    """Which images are dropped."""


PRESETS: dict[str, dict[str, object]] = {
    "paper": {
        "size": 512,
        "filters": {
            "min_side": 512,
            "max_side": 4096,
            "max_aspect": None,
            "min_aesthetic": 5.0,
            "max_watermark": 0.5,
            "max_unsafe": 0.99,
        },
    }
}
"""Named presets. paper: the filter in the authors' code (dome272/Wuerstchen), whose thresholds may
not be the final ones; it also drops images without a score."""
