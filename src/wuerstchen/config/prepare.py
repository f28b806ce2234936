"""Keys of `wuerstchen prepare`: what is kept of a source, and how it is stored."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.geometry import SIZE_STEP


class FilterConfig(Section):
    """Images outside of these bounds are dropped and counted. null: no bound."""

    min_side: int | None = Field(default=None, gt=0)
    """Pixels of the shorter side."""
    max_side: int | None = Field(default=None, gt=0)
    """Pixels of the longer side."""
    max_aspect: float | None = Field(default=3.0, ge=1)
    """Longer side over shorter side."""
    min_caption: int | None = Field(default=None, gt=0)
    """Characters of the longest caption, among those that are not too long."""
    max_caption: int | None = Field(default=None, gt=0)
    """Characters; longer captions are left out, and the image with them if it has no other."""
    min_aesthetic: float | None = None
    """Of the field aesthetic or AESTHETIC_SCORE."""
    max_watermark: float | None = None
    """Of the field pwatermark."""
    max_unsafe: float | None = None
    """Of the field punsafe."""
    min_similarity: float | None = None
    """Of image and caption, of the field similarity."""
    missing_score: Literal["drop", "keep"] = "drop"
    """What becomes of images that lack a score which has a bound."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "FilterConfig":
        for what in ("side", "caption"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"filters.min_{what} must not be above filters.max_{what}, "
                    f"found {least} and {most}"
                )
        return self


class PrepareConfig(Section):
    """How a source becomes shards with an index."""

    size: int = Field(default=512, gt=0, multiple_of=SIZE_STEP)
    """Pixels: images are made as small as training at this size can take them."""
    shape: Literal["area", "square"] = "area"
    """area: the aspect ratio is kept, and both the square and the nearest shape of data.buckets can
    be cut from it; square: the centre alone."""
    background: str = "white"
    """What shows through transparent images: a colour name or #rrggbb."""
    format: Literal["jpeg", "webp", "png"] = "jpeg"
    """Of the stored images; png loses nothing."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of jpeg and webp."""
    shard_size: int = Field(default=1000, gt=0)
    """Images of a source without tars that go into one shard; a tar becomes a shard itself."""
    duplicate_distance: int | None = Field(default=4, ge=0, le=16)
    """Images whose 64-bit perceptual hashes differ in at most so many bits are one, of which the
    largest stays; 0: only equal hashes; null: all stay."""
    balance_by: str | None = None
    """A side field whose values take part equally often in training, and are held out as one."""
    test_fraction: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the images held out where the data names no test split of its own."""
    filters: FilterConfig = FilterConfig()
    """What is dropped."""


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
    },
}
"""Named sets of keys. paper: the filter in the authors' code (dome272/Wuerstchen), whose thresholds
may not be the final ones; images without a score are dropped there too."""
