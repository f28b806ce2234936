"""PNG files that record how their image was made, in two text chunks without paths.

`parameters` has the form of AUTOMATIC1111's web UI; `wuerstchen` is JSON with all settings. A third
chunk says that a model made the image.
"""

import io
import json
import re
import warnings
from importlib.metadata import version
from pathlib import Path

from PIL import Image, PngImagePlugin
from pydantic import ValidationError
from pydantic_core import to_json

from wuerstchen.atomic_write import write_file
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError, UnusedWarning
from wuerstchen.inference.provenance import Provenance, xmp
from wuerstchen.inference.settings import (
    JSON_NAMES,
    EditSettings,
    GenerationSettings,
    StageSettings,
    first_error,
)
from wuerstchen.parsing import check_regular, parse_json

PARAMETERS, OWN = "parameters", "wuerstchen"
"""Keys of the two chunks."""

XMP = "XML:com.adobe.xmp"
"""Key of the chunk with an XMP packet (XMP specification, part 3)."""

REQUIRED = (
    *("prompt", "negative_prompt", "seed", "width", "height", "model"),
    *("prior_timesteps", "prior_guidance_scale", "decoder_timesteps", "decoder_guidance_scale"),
)
"""Keys that every image has."""

KNOWN = frozenset(GenerationSettings.model_fields) | {
    *("prior_num_inference_steps", "num_inference_steps"),  # implied by the times
    *(name for stage in JSON_NAMES.values() for name in stage.values()),
}

FIRST_VERSION: dict[str, object] = {
    "prior_sampler": "ddpm",
    "prior_guidance_interval": (0.0, 1.0),
    "prior_guidance_rescale": 0.0,
    "decoder_sampler": "ddpm",
}
"""What the first version did, which did not record it."""


def save_png(
    path: Path,
    image: Image.Image,
    settings: GenerationSettings | None,
    provenance: Provenance | None = "generated",
) -> None:
    """Write a PNG, with its settings and the note of its provenance unless they are None.

    Raises SaveError if that fails; an existing file is then untouched.
    """
    write_file(path, png_with_settings(image, settings, provenance))


def png_with_settings(
    image: Image.Image,
    settings: GenerationSettings | None,
    provenance: Provenance | None = "generated",
) -> bytes:
    """The content of such a file."""
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_text(PARAMETERS, parameters(settings))
        own = {
            **settings.model_dump(),
            "version": version("wuerstchen"),
            "prior_num_inference_steps": _steps(settings.prior),
            "num_inference_steps": _steps(settings.decoder),
        }
        if settings.edit is None:
            del own["edit"]
        chunks.add_text(OWN, json.dumps(own, ensure_ascii=False))
    if provenance is not None:
        chunks.add_itxt(XMP, xmp(provenance))
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=chunks)
    return content.getvalue()


def read_settings(path: Path) -> GenerationSettings:
    """The settings in an image, with a value for every key in `REQUIRED`; warns of unknown keys.

    Raises ConfigError for a file that is not one of our images, or that lost its settings.
    """
    try:
        check_regular(path)
        with Image.open(path) as image:
            text = image.info.get(OWN)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "no image"
        raise ConfigError(
            f"Expected a PNG that `wuerstchen generate` made, found {str(path)!r} ({reason})."
        ) from None
    if not isinstance(text, str):
        raise ConfigError(
            f"{path}: expected an image with its settings (a chunk {OWN!r}), found none; it was "
            "made or saved again by another program, or generated with --no-metadata."
        )
    try:
        return _parsed(text)
    except ValueError as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            problem = ": ".join(first_error(error, "the chunk")[:2])
        problem = printable(problem, 400)
        raise ConfigError(f"{path}: the settings in it cannot be used: {problem}.") from None


def parameters(settings: GenerationSettings) -> str:
    """Prompt, negative prompt and one line of pairs, as A1111 writes them."""
    pairs = {
        "Steps": _steps(settings.prior),
        "Sampler": settings.prior.sampler,
        "CFG scale": settings.prior.guidance_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": settings.model,
        "Decoder steps": _steps(settings.decoder),
        "Decoder sampler": settings.decoder.sampler,
        "Decoder CFG scale": settings.decoder.guidance_scale,
        **({} if settings.edit is None else _edit_pairs(settings.edit)),
        "Version": f"wuerstchen {version('wuerstchen')}",
    }
    lines = [settings.prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items()))
    return "\n".join(lines)


def _parsed(text: str) -> GenerationSettings:
    values = parse_json(text)
    if isinstance(values, dict):
        if missing := [key for key in REQUIRED if values.get(key) is None]:
            raise ValueError(f"{missing[0]}: Field required")
        if unknown := values.keys() - KNOWN:
            listed = printable(", ".join(sorted(unknown)), 200)
            sentence = f"Unknown settings of the image are not used: {listed}."
            warnings.warn(sentence, UnusedWarning, stacklevel=3)
        values = FIRST_VERSION | values
    return GenerationSettings.model_validate_json(to_json(values))  # strict, as JSON


def _edit_pairs(edit: EditSettings) -> dict[str, object]:
    return {
        "Denoising strength": edit.strength,
        "Decoder denoising strength": edit.decoder_strength,
    }


def _steps(stage: StageSettings) -> int:
    return len(stage.timesteps or ()) - 1


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value
