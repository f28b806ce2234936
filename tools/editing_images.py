"""Makes the images of docs/editing.md with the bundled model.

.venv/bin/python tools/editing_images.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from wuerstchen import Pipeline
from wuerstchen.inference.canvas import larger_canvas

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIDE = 192
"""Pixels of an image in a grid."""

HEART, FROG = "a 3D red heart on a white background", "a 3D green frog on a blue background"
APPLES = "two 3D red apples on a yellow background"


def strengths(pipeline: Pipeline) -> list[list[Image.Image]]:
    """A heart becomes a frog: columns of rising strength, rows of rising decoder_strength."""
    heart = _one(pipeline, HEART, seed=1)
    return [
        [
            _one(pipeline, FROG, seed=5, image=heart, strength=c, decoder_strength=b)
            for c in (0, 0.3, 0.5, 0.7, 0.8, 1)
        ]
        for b in (0.3, 0.6, 1)
    ]


def masks(pipeline: Pipeline) -> list[list[Image.Image]]:
    """An image, hard and soft masks, and the results; the image on a larger canvas."""
    apples = _one(pipeline, APPLES, seed=2)
    hard = Image.new("L", apples.size)
    ImageDraw.Draw(hard).rectangle((128, 0, 255, 255), fill=255)
    round_ = Image.new("L", apples.size)
    ImageDraw.Draw(round_).ellipse((80, 80, 200, 200), fill=255)
    soft = round_.filter(ImageFilter.GaussianBlur(12))
    prompt = "a 3D green frog on a yellow background"
    row = [apples]
    for mask in (hard, soft):
        row += [mask, _one(pipeline, prompt, seed=5, image=apples, mask_image=mask)]
    return [row]


def canvas(pipeline: Pipeline) -> list[list[Image.Image]]:
    """An image, the larger canvas around it, and the result."""
    apples = _one(pipeline, APPLES, seed=2)
    larger, mask = larger_canvas(apples, right=256)
    made = _one(pipeline, APPLES, seed=5, image=larger, mask_image=mask)
    return [[apples, larger, made]]


def _one(pipeline: Pipeline, prompt: str, **arguments: object) -> Image.Image:
    (image,) = pipeline(prompt, **arguments).images  # type: ignore[arg-type]
    assert isinstance(image, Image.Image)
    return image


def _save(rows: list[list[Image.Image]], name: str) -> None:
    """As one image, with a gap of white between its parts."""
    scaled = [[part.convert("RGB").resize(_scaled(part)) for part in row] for row in rows]
    width = max(sum(part.width + 4 for part in row) for row in scaled) - 4
    whole = Image.new("RGB", (width, len(rows) * (SIDE + 4) - 4), "white")
    for index, row in enumerate(scaled):
        left = 0
        for part in row:
            whole.paste(part, (left, index * (SIDE + 4)))
            left += part.width + 4
    whole.save(FOLDER / name, quality=85, method=6)


def _scaled(image: Image.Image) -> tuple[int, int]:
    return image.width * SIDE // image.height, SIDE


def main() -> None:
    pipeline = Pipeline.from_pretrained()
    _save(strengths(pipeline), "editing-strengths.webp")
    _save(masks(pipeline), "editing-masks.webp")
    _save(canvas(pipeline), "editing-canvas.webp")


if __name__ == "__main__":
    main()
