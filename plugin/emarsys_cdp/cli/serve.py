"""`emarsys-cdp serve`: run the service."""

from __future__ import annotations

import os
from pathlib import Path

import click

from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.server import make_server, tune_collector
from emarsys_cdp.service.workers import MAX_WORKERS, run_workers
from emarsys_cdp.settings import PREFIX, VARIABLES, read_settings

_EPILOG = "\b\nEnvironment:\n" + "\n".join(f"  {PREFIX}{name}\n      {text}" for name, text in VARIABLES.items())


@click.command("serve", epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=9090, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_WORKERS),
    help="Processes that answer; with several a parent keeps them running.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with the settings below; the environment wins.",
)
def serve_command(host: str, port: int, workers: int, config: Path | None) -> None:
    """
    Run the service that the host calls.

    Without a Redis URL it starts a Valkey server of its own and keeps the users table in the data directory.
    Point RudderStack's DEST_TRANSFORM_URL at it: help/rudderstack.md has every step.

    SIGTERM and Ctrl-C end it when what it has accepted is answered. With several workers, SIGHUP replaces them one
    after another without an interruption: help/operations.md.
    """
    settings = read_settings(os.environ, config)
    configure_logging(settings.log_level)
    if settings.redis_url is None:
        click.echo(f"No {PREFIX}REDIS_URL: the users table is in {settings.data_dir}/valkey", err=True)

    def tell(url: str) -> None:
        click.echo(f"emarsys-cdp listens on {url}", err=True)

    if workers > 1:
        raise SystemExit(run_workers(settings, host, port, workers, tell))
    tune_collector()
    make_server(settings, host, port, on_start=tell).run_to_end()
