"""`wuerstchen plan`: what a training will need and cost, before it starts."""

import json
from typing import Annotated

import typer

from wuerstchen.cli.options import TrainingSource
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError, TrainingError, how_to_install

EPILOG = "wuerstchen plan small --device RTX-4090 --price 0.4"


def plan(
    config: TrainingSource,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Config values, such as data.size=256."),
    ] = None,
    devices: Annotated[int, typer.Option(help="Number of accelerators.")] = 1,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A100-40GB, A100-80GB, H100, H200, L4, L40S, RTX-3090 or RTX-4090."
        ),
    ] = "A100-40GB",
    device_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory of one device, such as 24GiB; else its own."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Price of an hour of one device, in any currency.")
    ] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Shard Stages B and C by FSDP2.")
    ] = False,
    mfu: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the device's peak that is reached; else that of the published run."
        ),
    ] = None,
    grid: Annotated[
        float | None, typer.Option(help="g CO2 per kWh; else 475, the world mean.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate a training: memory, the batch that fits, hours, energy and money.

    Nothing is computed or downloaded and no weight is read: networks are built on the meta device,
    and the device need not be present. The plan goes to stdout; the exit code is 2 if a stage
    does not fit.
    """
    from wuerstchen.config import load

    settings = load(config, overrides or [])
    try:
        from wuerstchen import planning
        from wuerstchen.hardware import WORLD_GRAMS, find_device
        from wuerstchen.planning.assumptions import UTILISATION
        from wuerstchen.planning.table import lines
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"Planning needs {error.name}, which is not installed; {how_to_install('train')}."
        ) from None
    found = planning.plan(
        settings,
        planning.Assumptions(
            device=find_device(device),
            devices=devices,
            memory=None if device_memory is None else planning.parse_bytes(device_memory),
            sharded=sharded,
            utilisation=UTILISATION if mfu is None else mfu,
            grid=WORLD_GRAMS if grid is None else grid,
            price=price,
        ),
    )
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(lines(found)))
    if problems := [run.problem for run in found.runs if run.problem is not None]:
        for problem in problems[:-1]:
            typer.echo(printable(problem), err=True)
        raise ConfigError(problems[-1])  # which ends the command with a code of its own
