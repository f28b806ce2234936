"""Checks of options that raise ConfigError instead of a usage error."""

from collections.abc import Callable

import typer

from wuerstchen.errors import ConfigError


def at_least(least: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """An option callback that raises ConfigError for a number below `least`; None is accepted."""

    def check(option: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and value < least:
            raise ConfigError(f"{option.opts[0]} must be at least {least}, found {value}.")
        return value

    return check
