"""`emarsys-cdp fake-host`: a stand-in for a RudderStack server, in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Literal

import click
import uvloop

from emarsys_cdp.settings import PREFIX
from emarsys_cdp.testing.fake_host import REAL_PACE, AsyncFakeHost, HostOptions

TOKEN = f"{PREFIX}HOST_TOKEN"
SHOWN_BREACHES = 20


@click.command("fake-host")
@click.option(
    "--transformer", required=True, metavar="URL", help="The transformer, for instance http://127.0.0.1:9090."
)
@click.option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="workspaceConfig.json, as `emarsys-cdp manifest rudderstack` makes it.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option("--proxy/--no-proxy", default=True, show_default=True, help="Let the transformer send, or send itself.")
@click.option(
    "--stage",
    type=click.Choice(["router", "processor"]),
    help="Where calls are transformed; default: what the destination's definition says.",
)
@click.option("--compacted/--plain", default=True, show_default=True, help="Form of the transform requests.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1), help="Workers of each destination.")
@click.option("--batch", default=20, show_default=True, type=click.IntRange(1), help="Jobs of a transform request.")
@click.option(
    "--speed",
    default=200.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="How many times quicker than a real server it waits; 1 is as slow.",
)
@click.option("--batch-timeout", type=float, metavar="SECONDS", help="Wait so long for more jobs; a real server: 5.")
@click.option("--min-backoff", type=float, metavar="SECONDS", help="Before the second try; a real server: 10.")
@click.option("--max-backoff", type=float, metavar="SECONDS", help="Between later tries; a real server: 300.")
@click.option("--give-up-after", type=float, metavar="SECONDS", help="Of 5xx answers; a real server: 10800.")
@click.option("--keep-alive", is_flag=True, help="Use connections to the transformer again; a real server does not.")
def fake_host_command(
    transformer: str, config: Path, stage: Literal["router", "processor"] | None, speed: float, **given: object
) -> None:
    """
    Run a stand-in for a RudderStack server.

    It takes calls as RudderStack does, has the transformer transform them, and delivers what comes back: in batches,
    several at a time, in order for each person, with back-off, and with all the ways in which a real server loses
    calls. So it shows whether a transformer would get along with a real one.

    Calls go to POST /v1/identify, /v1/track and so on, or /v1/batch, with a write key of FILE as user name. Another
    process can ask what became of them: GET /_fake/jobs (?state=aborted), /_fake/counts, /_fake/breaches,
    /_fake/deliveries and /_fake/overtakings. Ctrl-C ends it.

    Where the transformer wants a token, put it into EMARSYS_CDP_HOST_TOKEN.

    \b
    Example:
      emarsys-cdp manifest rudderstack --out rudderstack
      emarsys-cdp serve &
      emarsys-cdp fake-host --transformer http://127.0.0.1:9090 --config rudderstack/workspaceConfig.json &
      curl -u write-key: http://127.0.0.1:8080/v1/identify -d '{"userId": "u-1", "traits": {"email": "a@b.de"}}'
      curl http://127.0.0.1:8080/_fake/jobs

    \b
    Exit codes: 0 done, 1 the transformer broke a rule of the host (stderr says which), 2 used wrongly.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    options: HostOptions = {
        "workspace": config,
        "stage": stage,
        "pace": REAL_PACE.scaled(1 / speed),
        "host_token": os.environ.get(TOKEN) or None,
        **given,  # type: ignore[typeddict-item]  # the other options have the names of HostOptions
    }
    host = AsyncFakeHost(transformer, **options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(host))
    _report(host)
    sys.exit(1 if host.breaches else 0)


async def _run(host: AsyncFakeHost) -> None:
    """Run until a signal comes."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with host:
        click.echo(f"fake-host listens on {host.url}", err=True)
        await stop.wait()


def _report(host: AsyncFakeHost) -> None:
    shown = ", ".join(f"{number} {name}" for name, number in host.counts().items() if number)
    click.echo(shown or "no calls", err=True)
    for breach in host.breaches[:SHOWN_BREACHES]:
        click.echo(f"emarsys-cdp: {breach}", err=True)
