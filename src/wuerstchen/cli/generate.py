"""`wuerstchen generate`: images for a prompt.

Progress goes to stderr; the paths of the images, and nothing else, go to stdout.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from wuerstchen.cli.options import CONFIG_HELP, PROVENANCE_HELP, at_least, tell
from wuerstchen.cli.output_path import check_free, check_target, image_path, write_image
from wuerstchen.terminal import print_path, warn

EPILOG = """Examples:

[bold]wuerstchen generate "a red apple"[/bold]

[bold]wuerstchen generate "a sleepy cat" --num-images 4 --seed 7 --out cats/[/bold]

[bold]wuerstchen generate "a green hat" --model models/mine --steps 40 --out hat.png[/bold]

[bold]wuerstchen generate "a hat in the rain" --image hat.png --strength 0.6 --out rain.png[/bold]

[bold]wuerstchen generate --from hat.png --out again.png[/bold]"""

Check = Callable[[typer.CallbackParam, int | None], int | None]


def _option(
    text: str,
    metavar: str | None = None,
    check: Check | None = None,
    *,
    panel: str | None = None,
    flag: str | None = None,
) -> OptionInfo:
    flags = (flag,) if flag else ()
    option: OptionInfo = typer.Option(
        *flags, help=text, metavar=metavar, callback=check, rich_help_panel=panel
    )
    return option


_sampling = partial(_option, panel="Sampling")
_editing = partial(_option, panel="Editing")
_model = partial(_option, panel="Model")
_files = partial(_option, panel="Files")


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help='What to show; "" generates without text.'),
    ] = None,
    negative_prompt: Annotated[str | None, _option("What to guide away from.", "TEXT")] = None,
    num_images: Annotated[
        int, _option("Number of images, with consecutive seeds.", "N", at_least(1))
    ] = 1,
    seed: Annotated[
        int | None,
        _option("Of the first image; the same seed gives the same image. -1: random."),
    ] = None,
    size: Annotated[
        str | None, _option("Pixels, multiples of 128, such as 512x768 or 512.", "WxH")
    ] = None,
    steps: Annotated[
        int | None, _sampling("Steps of Stage C, which reads the prompt.", "N", at_least(1))
    ] = None,
    sampler: Annotated[
        str | None,
        _sampling(
            "Sampler of Stage C: ddpm, ddim, ddim-published, dpm++2m, dpm++2m-sde, heun or "
            "euler-ancestral.",
            "NAME",
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        _sampling("Spacing of Stage C's steps: time, log_snr, tuned or published (29).", "NAME"),
    ] = None,
    guidance: Annotated[
        float | None, _sampling("Strength of the prompt in Stage C; 1 or less: no guidance.")
    ] = None,
    guidance_interval: Annotated[
        str | None,
        _sampling("Times that are guided, 0 (image) to 1 (noise); others cost half.", "LOW:HIGH"),
    ] = None,
    guidance_rescale: Annotated[
        float | None, _sampling("Reduces harsh colours at high guidance, 0 to 1.", "FRACTION")
    ] = None,
    guidance_end: Annotated[
        float | None, _sampling("Guidance falls linearly to this scale.", "SCALE")
    ] = None,
    decoder_steps: Annotated[
        int | None, _sampling("Steps of Stage B, which adds the details.", "N", at_least(1))
    ] = None,
    decoder_sampler: Annotated[str | None, _sampling("Sampler of Stage B.", "NAME")] = None,
    decoder_spacing: Annotated[str | None, _sampling("Spacing of Stage B's steps.", "NAME")] = None,
    decoder_guidance: Annotated[
        float | None, _sampling("Strength of semantics and prompt in Stage B.")
    ] = None,
    image: Annotated[
        Path | None, _editing("Start from this image instead of noise.", "FILE")
    ] = None,
    strength: Annotated[
        float | None,
        _editing("How far Stage C may change its content: 0 keeps it, 1 ignores it (0.8)."),
    ] = None,
    decoder_strength: Annotated[
        float | None,
        _editing("How far Stage B may change its texture: 0 keeps it, 1 ignores it (1)."),
    ] = None,
    mask_image: Annotated[
        Path | None,
        _editing("Generate only where this image is white; the rest keeps its bits.", "FILE"),
    ] = None,
    padding_mask_crop: Annotated[
        int | None,
        _editing("Work on the part around the mask, with this margin.", "PIXELS", at_least(0)),
    ] = None,
    model: Annotated[
        str | None,
        _model(
            "A model folder or file, or a model of the hub, which is downloaded. Without it: the "
            "bundled model, offline.",
            "PATH|OWNER/NAME",
        ),
    ] = None,
    prior: Annotated[
        str | None,
        _model("The prior (Stage C) of a decoder, or to replace the model's.", "PATH|OWNER/NAME"),
    ] = None,
    compressor: Annotated[
        str | None,
        _model("The compressor, for --image, if the model has none.", "PATH|OWNER/NAME"),
    ] = None,
    variant: Annotated[
        str | None, _model("Read NAME.WORD.safetensors, such as fp16.", "WORD")
    ] = None,
    config: Annotated[list[Path] | None, _model(CONFIG_HELP, "FILE", flag="--config")] = None,
    lora: Annotated[
        list[str] | None, _model("A LoRA of any tool; may be repeated.", "PATH[=WEIGHT]")
    ] = None,
    dtype: Annotated[str | None, _model("Precision: fp32, bf16 or fp16.", "KIND")] = None,
    low_memory: Annotated[
        bool, _model("Load each network only while it computes; slower.", flag="--low-memory")
    ] = False,
    out: Annotated[
        str | None,
        _files(
            "A new .png file, or a folder (one that exists, or a name ending in /). Without it: a "
            "new file here, named after the prompt.",
            "PATH",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        _files("Replace the file at --out if it exists.", flag="--overwrite"),
    ] = False,
    again: Annotated[
        Path | None,
        _files(
            "Generate an image again from the settings in it; options override them.",
            "IMAGE",
            flag="--from",
        ),
    ] = None,
    metadata: Annotated[
        bool, _files("Write the settings into the PNG.", flag="--metadata/--no-metadata")
    ] = True,
    provenance: Annotated[
        bool,
        _files(
            PROVENANCE_HELP,
            flag="--provenance/--no-provenance",
        ),
    ] = True,
) -> None:
    """Generate images for a prompt, and print their paths, one per line.

    Steps, sampler, guidance and size default to the model's own.
    """
    check_target(out, {"--from": again, "--image": image, "--mask-image": mask_image})

    from wuerstchen import noise, weights  # torch loads here, and not for --help
    from wuerstchen.cli.edit import EditOptions, open_edit
    from wuerstchen.cli.generate_images import generate_images
    from wuerstchen.cli.model import check_same, names, open_model, parse_loras
    from wuerstchen.cli.request import from_options, parse_interval
    from wuerstchen.inference.generation_plan import plan_generation
    from wuerstchen.inference.model_info import ModelInfo, info_of
    from wuerstchen.inference.png_metadata import png_with_settings
    from wuerstchen.inference.prompts import prompts_of
    from wuerstchen.inference.provenance import Provenance
    from wuerstchen.inference.settings import StageSettings

    request = from_options(
        "" if prompt is None and again is None and image is not None else prompt,
        negative_prompt,
        size,
        StageSettings(
            steps=steps,
            sampler=sampler,
            spacing=spacing,
            guidance_scale=guidance,
            guidance_interval=parse_interval(guidance_interval),
            guidance_rescale=guidance_rescale,
            guidance_end=guidance_end,
        ),
        StageSettings(
            steps=decoder_steps,
            sampler=decoder_sampler,
            spacing=decoder_spacing,
            guidance_scale=decoder_guidance,
        ),
        seed,
        num_images,
        dtype,
        again,
    )
    settings = request.settings
    target = None if out is None or num_images > 1 else Path(out)
    replaces = check_free(target, overwrite=overwrite)
    # What no model can do is refused before one is opened, and before the prompts are tokenized.
    plan_generation(ModelInfo(), prior=settings.prior, decoder=settings.decoder)
    prompts_of(settings.prompt, settings.negative_prompt, None, num_images)
    noise.check_seed(settings.seed, num_images)
    options = EditOptions(
        image=image,
        mask_image=mask_image,
        strength=strength,
        decoder_strength=decoder_strength,
        padding_mask_crop=padding_mask_crop,
    )
    opened = open_edit(options, settings.edit)
    loras = parse_loras(lora or [])
    # What this model cannot do is refused before its weights are read.
    files = weights.resolve(
        model, prior=prior, variant=variant, configs=config or (), compressor=compressor, tell=tell
    )
    info = info_of(files)
    check_same(request, info.name, loras)
    edit = None
    if opened is not None:
        edit = opened.edit(info.size, settings.height, settings.width)
    plan = plan_generation(
        info,
        height=edit.size.height if edit else settings.height,
        width=edit.size.width if edit else settings.width,
        prior=settings.prior,
        decoder=settings.decoder,
    )
    pipeline = open_model(files, request, loras, low_memory=low_memory)
    _warn(pipeline.truncation(settings.prompt))
    _warn(pipeline.truncation(settings.negative_prompt, "negative prompt"))
    if opened is not None and edit is not None:
        edit.check(pipeline.cascade)
        request = request.with_edit(opened.settings(edit))
    for made, used in generate_images(pipeline, plan, request, names(loras), edit):
        assert used.seed is not None
        path = image_path(out, used.prompt, used.seed, several=num_images > 1)
        note: Provenance | None = "generated" if edit is None else "edited"
        content = png_with_settings(made, used if metadata else None, note if provenance else None)
        print_path(write_image(path, content, replaces=replaces and path == target))


def _warn(sentence: str) -> None:
    """Print now what the pipeline would later raise as a Python warning, with file and line."""
    from wuerstchen.inference.pipeline import PromptWarning

    if sentence:
        warn(sentence)
        warnings.simplefilter("ignore", PromptWarning)
