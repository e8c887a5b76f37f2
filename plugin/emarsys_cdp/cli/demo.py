"""`emarsys-cdp demo`: see it work, with nothing to set up."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click
import msgspec
from rich.console import Console

from emarsys_cdp.demo.run import run
from emarsys_cdp.demo.show import show
from emarsys_cdp.log import configure_logging


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object {calls, users, requests, fired}.")
def demo_command(as_json: bool) -> None:
    """
    Send a day of calls through the real service and show what comes out.

    Starts the service and its embedded Valkey on this machine, posts thirteen calls of four people as RudderStack
    sends them, and prints the calls, the users table and the Emarsys requests. Then two days pass in a moment, and a
    rule fires. Nothing is sent to Emarsys, only to a stand-in of the demonstration's own. Everything is stopped and
    removed at the end.

    Exit code 0 when a RudderStack server would accept every answer, else 1.
    """
    signal.signal(signal.SIGTERM, _stop)
    configure_logging("error")
    result = run()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result)).decode())
    else:
        show(result, Console(highlight=False))


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    """Leave by the way that stops and removes everything."""
    sys.exit(128 + number)
