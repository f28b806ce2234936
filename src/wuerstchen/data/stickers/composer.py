"""Image, captions and ground truth of a scene, determined by a seed and an index."""

from dataclasses import asdict, dataclass
from typing import final

from PIL import Image

from wuerstchen.data.stickers.backgrounds import BACKGROUNDS
from wuerstchen.data.stickers.captions import Caption, captions_of
from wuerstchen.data.stickers.random_choices import RandomChoices
from wuerstchen.data.stickers.scenes import Mix, Scene, random_scene
from wuerstchen.data.stickers.sprites import Sprites, image_of
from wuerstchen.data.stickers.truth import Truth, truth_of
from wuerstchen.geometry import check_size

VERSION = 1
"""Of the scenes. Raise it with every change of layouts, kinds, backgrounds, drawing, grammar or
random choices: digests have it, so that no run resumes with other scenes than it started with."""

CAPTIONS = 4
"""Captions per scene."""

_IMAGE_STREAM, _CAPTION_STREAM = 0, 1
"""Separate random streams, so that the number of captions does not change the image."""


@dataclass(frozen=True)
class Composed:
    """A scene, ready for training."""

    image: Image.Image
    """RGB, size x size pixels."""
    captions: list[Caption]
    truth: Truth


@final
class Composer:
    """An endless sequence of scenes with random access."""

    def __init__(
        self,
        sprites: Sprites,
        size: int = 128,
        seed: int = 0,
        mix: Mix | None = None,
        captions: int = CAPTIONS,
    ) -> None:
        """
        size      side of the images in pixels, a multiple of 128
        mix       fractions of the kinds of scenes
        captions  captions per scene

        Raises SizeError for other sizes.
        """
        check_size(size, size)
        self.sprites, self.size, self.seed = sprites, size, seed
        self._mix, self._captions = mix or Mix(), captions

    def __getitem__(self, index: int) -> Composed:
        """The scene with this index, 0 or more."""
        scene = self.scene(index)
        held_out = self.sprites.part != "train"
        truth = truth_of(scene, held_out=held_out, seed=self.seed, index=index)
        return Composed(render(scene, self.size), self._caption(scene, index), truth)

    def scene(self, index: int) -> Scene:
        """The layout of the image with this index."""
        rng = RandomChoices(self.seed, index, _IMAGE_STREAM)
        return random_scene(self.sprites, self.size, self._mix, rng)

    def captions(self, index: int) -> list[Caption]:
        """The captions of the image with this index."""
        return self._caption(self.scene(index), index)

    def image(self, index: int) -> Image.Image:
        """The image with this index, RGB."""
        return render(self.scene(index), self.size)

    def settings(self) -> dict[str, object]:
        """Everything but the stickers that the scenes depend on."""
        return {
            "version": VERSION,
            "part": self.sprites.part,
            "size": self.size,
            "seed": self.seed,
            "mix": asdict(self._mix),
            "captions": self._captions,
        }

    def _caption(self, scene: Scene, index: int) -> list[Caption]:
        rng = RandomChoices(self.seed, index, _CAPTION_STREAM)
        return captions_of(scene, self._captions, rng)


def render(scene: Scene, size: int) -> Image.Image:
    """The scene in RGB, `size` x `size` pixels."""
    canvas = Image.new("RGBA", (size, size), BACKGROUNDS[scene.background])
    for sprite, (left, top, right, bottom) in scene.placements():
        # Premultiplied, so that colours of transparent pixels do not bleed into the edges.
        premultiplied = image_of(sprite).convert("RGBa")
        scaled = premultiplied.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        canvas.alpha_composite(scaled.convert("RGBA"), (left, top))
    return canvas.convert("RGB")
