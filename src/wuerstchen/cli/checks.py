"""Checks of options, so that a bad number is one sentence as all other bad values are."""

from collections.abc import Callable

import typer

from wuerstchen.errors import ConfigError


def at_least(least: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """A callback of an option: ConfigError for a number below `least`; None passes."""

    def check(option: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and value < least:
            raise ConfigError(f"{option.opts[0]} must be at least {least}, found {value}.")
        return value

    return check
