"""Keys of `wuerstchen prepare`: what is kept of a source, and how it is stored."""

from typing import Literal

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.geometry import SIZE_STEP


class FilterConfig(Section):
    """Images outside of these bounds are dropped and counted. null: no bound."""

    least_side: int | None = Field(default=None, gt=0)
    """Pixels of the shorter side."""
    most_side: int | None = Field(default=None, gt=0)
    """Pixels of the longer side."""
    most_aspect: float | None = Field(default=3.0, ge=1)
    """Longer side over shorter side."""
    least_caption: int | None = Field(default=None, gt=0)
    """Characters of the longest caption, among those that are not too long."""
    most_caption: int | None = Field(default=None, gt=0)
    """Characters; longer captions are left out, and the image with them if it has no other."""
    least_aesthetic: float | None = None
    """Of the field aesthetic or AESTHETIC_SCORE."""
    most_watermark: float | None = None
    """Of the field pwatermark."""
    most_unsafe: float | None = None
    """Of the field punsafe."""
    least_similarity: float | None = None
    """Of image and caption, of the field similarity."""
    without_score: Literal["drop", "keep"] = "drop"
    """What becomes of images that lack a score which has a bound."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "FilterConfig":
        for what in ("side", "caption"):
            least, most = getattr(self, f"least_{what}"), getattr(self, f"most_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"filters.least_{what} must not be above filters.most_{what}, "
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
    shard: int = Field(default=1000, gt=0)
    """Images of a source without tars that go into one shard; a tar becomes a shard itself."""
    copies: int | None = Field(default=4, ge=0, le=16)
    """Images whose 64-bit perceptual hashes differ in at most so many bits are one, of which the
    largest stays; 0: only equal hashes; null: all stay."""
    sample_by: str | None = None
    """A side field whose values take part equally often in training, and are held out as one."""
    test_share: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the images held out where the data names no test split of its own."""
    filters: FilterConfig = FilterConfig()
    """What is dropped."""


PRESETS: dict[str, dict[str, object]] = {
    "paper": {
        "size": 512,
        "filters": {
            "least_side": 512,
            "most_side": 4096,
            "most_aspect": None,
            "least_aesthetic": 5.0,
            "most_watermark": 0.5,
            "most_unsafe": 0.99,
        },
    },
}
"""Named sets of keys. paper: the filter in the authors' code (dome272/Wuerstchen), whose thresholds
may not be the final ones; images without a score are dropped there too."""
