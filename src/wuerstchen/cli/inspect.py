"""`wuerstchen inspect`: describe a model file or folder, and what fits it.

Only headers and configs are read, nothing is downloaded, and the result is printed to stdout.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wuerstchen.cli.options import Configs
from wuerstchen.display import printable

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
        typer.Option(metavar="WORD", help="Inspect NAME.WORD.safetensors, such as fp16."),
    ] = None,
    config: Configs = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
) -> None:
    """Describe a file or folder: components, generation, sizes, dtypes, licence and what fits it.

    No weight is read and nothing is downloaded. Keys identify files, not names.
    """
    from wuerstchen.lora.describe import describe_lora
    from wuerstchen.weights import describe  # torch loads here, not for --help
    from wuerstchen.weights.hub import Hub, find

    found = find(path, Hub(local_files_only=True))
    report = describe_lora(found) or describe(found, variant, config or ())
    typer.echo(json.dumps(asdict(report), indent=2, default=str) if as_json else _text(report))


def _text(report: "Report") -> str:
    lines = [
        printable(report.path),
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
        lines.append(f"  {printable(report.note)}")
    for component in report.components:
        title = component.title[0].upper() + component.title[1:]
        lines += [
            "",
            f"{title} ({printable(Path(component.path).name)})",
            *_component_rows(component),
        ]
    return "\n".join(lines)


def _component_rows(component: "ComponentReport") -> list[str]:
    sizes = ", ".join(f"{key} {_plain(value)}" for key, value in component.sizes.items())
    return _rows(
        {
            "parameters": f"{component.parameters:,}",
            "dtypes": f"{', '.join(component.dtypes) or 'none'}, {_size(component.size)}",
            "keys of": component.naming,
            "sizes": sizes,
            "fits": component.fits,
        }
    )


def _rows(values: dict[str, str]) -> list[str]:
    return [f"  {key:<12}{printable(value)}" for key, value in values.items() if value]


def _plain(value: object) -> str:
    return "/".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


def _size(count: int) -> str:
    size, units = float(count), ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.2f} {units[0]}"
