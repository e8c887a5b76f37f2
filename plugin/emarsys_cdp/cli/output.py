"""What the commands that look into a store have in common: text for people, or JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec
from rich.console import Console


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that asks for JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def print_json(value: Any) -> None:
    """Print a value, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def console() -> Console:
    """Return a console that leaves numbers and paths as they are."""
    return Console(highlight=False)
