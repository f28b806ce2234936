"""The image and mask of one `wuerstchen generate`, from options and from an earlier image."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wuerstchen.cli.image_file import read_image
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError
from wuerstchen.inference.edit import Edit
from wuerstchen.inference.settings import EditSettings
from wuerstchen.terminal import warn


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """None stands for an option that was not given."""

    image: Path | None = None
    mask_image: Path | None = None
    strength: float | None = None
    decoder_strength: float | None = None
    padding_mask_crop: int | None = None

    def over(self, found: EditSettings | None) -> "EditOptions":
        """These options, completed by the settings of an earlier image; files must be given."""
        if found is None:
            return self
        _check_given("--image", self.image, found.image)
        if found.mask_image is not None:
            _check_given("--mask-image", self.mask_image, found.mask_image)
        given = {name: value for name, value in vars(self).items() if value is not None}
        numbers = ("strength", "decoder_strength", "padding_mask_crop")
        recorded = {name: getattr(found, name) for name in numbers}
        if self.decoder_strength == 0:
            del recorded["strength"]  # nothing would read what Stage C makes
        return EditOptions(**{**recorded, **given})


@dataclass(frozen=True, kw_only=True)
class OpenedEdit:
    """Files that were read, so that what cannot be read is refused before a model is opened."""

    options: EditOptions
    image: Image.Image
    mask: Image.Image | None
    digests: tuple[str, str | None]
    """SHA-256 of the image and of the mask."""

    def edit(self, model_size: int, height: int | None, width: int | None) -> Edit:
        """Raises ConfigError and SizeError for what cannot work."""
        options = self.options
        return Edit.requested(
            model_size,
            self.image,
            strength=options.strength,
            decoder_strength=options.decoder_strength,
            mask_image=self.mask,
            padding_mask_crop=options.padding_mask_crop,
            height=height,
            width=width,
        )

    def settings(self, edit: Edit) -> EditSettings:
        """What the image records."""
        options = self.options
        assert options.image is not None
        return EditSettings(
            image=options.image.name,
            image_sha256=self.digests[0],
            strength=edit.strength,
            decoder_strength=edit.decoder_strength,
            mask_image=None if options.mask_image is None else options.mask_image.name,
            mask_sha256=self.digests[1],
            padding_mask_crop=options.padding_mask_crop,
        )


def open_edit(options: EditOptions, found: EditSettings | None) -> OpenedEdit | None:
    """The files of the options, or of the same names as in an earlier image; None without any.

    Raises ConfigError for files that cannot be read, and for options that no image gives a meaning.
    """
    options = options.over(found)
    if options.image is None:
        for name, value in vars(options).items():
            if value is not None:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} is about an image to start from; pass --image too.")
        return None
    image, content = read_image(options.image, "--image")
    mask, mask_content = None, None
    if options.mask_image is not None:
        mask, mask_content = read_image(options.mask_image, "--mask-image", "black")
    digests = (_digest(content), None if mask_content is None else _digest(mask_content))
    if found is not None and digests != (found.image_sha256, found.mask_sha256):
        warn("the image or mask is another file than that of the earlier image; so is the result.")
    return OpenedEdit(options=options, image=image, mask=mask, digests=digests)


def _check_given(option: str, path: Path | None, name: str) -> None:
    if path is None:
        shown = printable(repr(name), 80)
        raise ConfigError(f"The image was made from {shown}; pass {option} with the path of it.")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
