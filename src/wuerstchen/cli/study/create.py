"""`wuerstchen study create`: a blind study from folders of images or models."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli.options import number, progress_bars, tell
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.terminal import print_path

if TYPE_CHECKING:
    from wuerstchen.data.prompts import Prompt
    from wuerstchen.study.sources import Shown

EPILOG = "wuerstchen study create mystudy ours=images/ours theirs=images/theirs"

_QUESTION = "Which image do you prefer for this prompt?"


def create(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=SOURCE...",
            help="Two or more systems: a folder of images, a model folder or a Hub id.",
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompt list: .txt, .csv, .tsv or .jsonl, maybe with categories. By default the "
            "prompts are in .txt files next to the images.",
        ),
    ] = None,
    comparisons: Annotated[
        int | None,
        number(1, "Different comparisons (default: each prompt with every two systems)."),
    ] = None,
    per_rater: Annotated[
        int | None, number(1, "Comparisons that one rater sees (default: all).")
    ] = None,
    catch: Annotated[
        int, number(0, "Catch pairs of each rater: an image and its pixels in random order.")
    ] = 3,
    repeats: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Share of comparisons that are shown twice."
        ),
    ] = 0.1,
    size: Annotated[
        int | None, number(16, "Resize and crop all images to squares of this side.")
    ] = None,
    seed: Annotated[int, number(0, "Of the choice of pairs, and the first of the images.")] = 0,
    title: Annotated[str, typer.Option(help="What raters read at the start.")] = "Comparing images",
    question: Annotated[str, typer.Option(help="What raters are asked.")] = _QUESTION,
) -> None:
    """Create a study: pairs of images under random names, without metadata.

    Images of the same name in each folder have the same prompt. Models generate an image for each
    prompt, all with the same seeds. Show the study with `wuerstchen study serve`.
    """
    from wuerstchen import overlap
    from wuerstchen.data.prompts import read_prompts
    from wuerstchen.study import sources as found
    from wuerstchen.study.create import Wording, check_new, create_study
    from wuerstchen.study.design import plan

    named = _split(systems)
    check_new(out)
    overlap.check_apart(named, out)
    files = {
        name: found.image_files(Path(source))
        for name, source in named.items()
        if found.is_image_folder(source)
    }
    names = found.check_same_names(files) if files else []
    given = read_prompts(prompts) if prompts is not None else None
    texts = _prompts(names, [Path(named[name]) for name in files], given)
    design = plan(
        list(named),
        len(texts),
        comparisons=comparisons,
        per_rater=per_rater,
        catch=catch,
        repeats=repeats,
        seed=seed,
    )
    images = {
        name: found.open_images([files[name][each] for each in names])
        if name in files
        else _generated(source, texts, seed)
        for name, source in named.items()
    }
    try:
        with progress_bars() as progress:
            create_study(
                out,
                images,
                named,
                texts,
                design,
                size=size,
                seed=seed,
                wording=Wording(title, question),
                progress=progress,
            )
    except KeyboardInterrupt:
        raise SaveError(
            f"Interrupted; nothing was left in {out}. Run the same command again."
        ) from None
    kinds = [pair.kind for pair in design.pairs]
    tell(
        f"Comparisons: {kinds.count('comparison'):,}, repeats: {kinds.count('repeat'):,}, catch "
        f"pairs: {kinds.count('catch'):,}, parts for raters: {len(design.parts):,}."
    )
    print_path(out)


def _split(systems: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for each in systems:
        name, equals, source = each.partition("=")
        if not (equals and name.strip() and source):
            raise ConfigError(f"Expected NAME=SOURCE, found {each!r}; name each system.")
        if name in named:
            raise ConfigError(f"Expected a different name for each system, found {name!r} twice.")
        named[name] = source
    if len(named) < 2:
        raise ConfigError(f"Expected two or more systems to compare, found {len(named)}.")
    return named


def _prompts(
    names: Sequence[str], folders: Sequence[Path], given: "Sequence[Prompt] | None"
) -> "Sequence[Prompt]":
    from wuerstchen.study.sources import prompts_of

    if given is None and not folders:
        raise ConfigError("Expected --prompts for models to draw, found none; name a prompt list.")
    if given is None:
        return prompts_of(names, folders)
    if folders and len(names) != len(given):
        raise ConfigError(
            f"Expected as many images in each folder as prompts in --prompts, found {len(names):,} "
            f"in {folders[0]} and {len(given):,} prompts; image k in the order of names belongs "
            "to prompt k."
        )
    return given


def _generated(source: str, prompts: "Sequence[Prompt]", seed: int) -> "Iterator[Shown]":
    """The images of a model, which is opened when its first image is needed."""
    from wuerstchen import weights
    from wuerstchen.evaluation.inputs import drawing, open_pipeline
    from wuerstchen.study.sources import generate_images

    draw = drawing(open_pipeline(weights.find(source)))
    yield from generate_images(draw, [prompt.text for prompt in prompts], seed)
