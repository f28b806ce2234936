"""Keys of the data: where images and captions lie and how they are read."""

from pydantic import Field, model_validator

from wuerstchen.config.section import Section
from wuerstchen.geometry import SIZE_STEP


class DataConfig(Section):
    """Images with captions."""

    path: str = ""
    """A folder of images (also with metadata.jsonl or .csv), or webdataset tars ({a..b}, *)."""
    size: int = Field(default=128, gt=0)
    """Side of the square training images in pixels, a multiple of 128."""
    buckets: bool = False
    """Keep the aspect ratio: images of about size x size pixels in shapes on the grid of 128,
    every batch of one shape. Below 384 the grid has the square alone."""
    caption: str = ""
    """In place of the captions of all images, which then need none: such as `a photo of sks dog`
    for the few images of a subject."""
    background: str = "white"
    """What shows through transparent images: a colour name or #rrggbb."""
    balance_by: str | None = None
    """A side field (JSON key or metadata column) whose values take part equally often."""
    test_fraction: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the images held out where the data names no test split of its own."""
    latent_cache: str = ""
    """Folder of what `wuerstchen encode` made: images that are in it are not encoded again."""
    cache_gib: float = Field(default=2.0, ge=0)
    """GiB of decoded images kept in memory, so that small sets are decoded once."""

    @model_validator(mode="after")
    def _fits_the_grid(self) -> "DataConfig":
        if self.size % SIZE_STEP:
            raise ValueError(f"data.size must be a multiple of {SIZE_STEP}, found {self.size}")
        return self
