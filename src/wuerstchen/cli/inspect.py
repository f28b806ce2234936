"""`wuerstchen inspect`: what a model file or folder is and what fits it.

Only headers and configs are read, nothing is fetched, and the description goes to stdout.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wuerstchen.weights import ComponentReport, Report

EPILOG = """Examples:

[bold]wuerstchen inspect models/mine[/bold]

[bold]wuerstchen inspect model_v2_stage_b.pt --json[/bold]"""


def inspect(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A model folder, a safetensors or .pt file, or a hub id that is in the local "
            "cache already.",
        ),
    ],
    variant: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Look at NAME.WORD.safetensors, such as fp16."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object in place of lines.")
    ] = False,
) -> None:
    """Say what a file or folder is: its parts, generation, sizes, numbers, licence, what fits it.

    No weight is read and nothing is downloaded. Files are known by their keys, not their names.
    """
    from wuerstchen.lora.describe import describe_lora
    from wuerstchen.weights import describe  # torch loads here, not for --help
    from wuerstchen.weights.hub import find

    found = find(path, local_files_only=True)
    report = describe_lora(found) or describe(found, variant)
    typer.echo(json.dumps(asdict(report), indent=2, default=str) if as_json else _text(report))


def _text(report: "Report") -> str:
    lines = [
        report.path,
        *_rows(
            {
                "what": report.what,
                "generation": report.generation,
                "licence": report.licence,
                "on disk": _size(report.size),
            }
        ),
    ]
    if report.note:
        lines.append(f"  {report.note}")
    for part in report.components:
        title = part.title[0].upper() + part.title[1:]
        lines += ["", f"{title} ({Path(part.path).name})", *_part_rows(part)]
    return "\n".join(lines)


def _part_rows(part: "ComponentReport") -> list[str]:
    sizes = ", ".join(f"{key} {_plain(value)}" for key, value in part.sizes.items())
    return _rows(
        {
            "parameters": f"{part.parameters:,}",
            "numbers": f"{', '.join(part.dtypes) or 'none'}, {_size(part.size)}",
            "keys of": part.naming,
            "sizes": sizes,
            "fits": part.fits,
        }
    )


def _rows(values: dict[str, str]) -> list[str]:
    return [f"  {key:<12}{value}" for key, value in values.items() if value]


def _plain(value: object) -> str:
    return "/".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


def _size(count: int) -> str:
    size, units = float(count), ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.2f} {units[0]}"
