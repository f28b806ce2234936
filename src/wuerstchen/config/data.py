"""Config of the training data: where it is and how it is read."""

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.geometry import SIZE_STEP

MAX_SCENES = 10_000_000
"""More would need too much memory for their order alone."""


_NOT_OF_SCENES = {
    "caption": "captions",
    "caption_per_line": "captions",
    "background": "backgrounds",
    "test_fraction": "held-out scenes",
}
"""Keys without an effect on composed scenes, and what scenes have in their place."""


class DataConfig(Section):
    """Images with captions."""

    path: str = ""
    """A folder of images (optionally with metadata.jsonl or .csv), a prepared set, or webdataset
    tars ({a..b}, *)."""
    scenes: int = Field(default=0, ge=0, le=MAX_SCENES)
    """Train on this many scenes composed of the stickers in `path`, a folder that `wuerstchen
    stickers build` wrote; 0: train on the images in `path`."""
    size: int = Field(default=128, gt=0)
    """Side of the square training images in pixels, a multiple of 128."""
    buckets: bool = False
    """Keep aspect ratios: images of about size x size pixels on a grid of 128, one shape per batch.
    Below 384 the only shape is the square."""
    caption: str = ""
    """One caption for all images, which then need none of their own; for example `a photo of sks
    dog` for a few images of one subject."""
    caption_per_line: bool = False
    """Every line of a .txt file is a caption of its own; otherwise the file is one caption, with
    its line breaks."""
    background: str = "white"
    """Background of transparent images: a colour name or #rrggbb."""
    balance_by: str | None = None
    """Metadata field (JSON key or column) whose values are sampled equally often."""
    test_fraction: float = Field(default=0.05, ge=0, lt=0.5)
    """Fraction of the images held out if the data has no test split of its own."""
    latent_cache: str = ""
    """Folder written by `wuerstchen encode`; images stored there are not encoded again."""
    cache_gib: float = Field(default=2.0, ge=0)
    """Memory for decoded images in GiB, so that small sets are decoded only once."""

    @model_validator(mode="after")
    def _fits_the_grid(self) -> "DataConfig":
        if self.size % SIZE_STEP:
            raise ValueError(f"data.size must be a multiple of {SIZE_STEP}, found {self.size}")
        return self

    @model_validator(mode="after")
    def _scenes_have_their_own(self) -> "DataConfig":
        values = vars(self)
        for key, own in _NOT_OF_SCENES.items() if self.scenes else ():
            default = type(self).model_fields[key].default
            if values[key] != default:
                raise ValueError(
                    f"data.{key} must be {_text(default)} with data.scenes={self.scenes}, which "
                    f"has {own} of its own, found {_text(values[key])}; leave it out"
                )
        return self


def _text(value: str | float) -> str:
    """As it is written in a config."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
