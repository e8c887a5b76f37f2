"""`emarsys-cdp serve`: run the service."""

from __future__ import annotations

import os
from pathlib import Path

import click

from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.server import make_server, tune_collector
from emarsys_cdp.settings import PREFIX, VARIABLES, read_settings

_EPILOG = "\b\nEnvironment:\n" + "\n".join(f"  {PREFIX}{name}\n      {text}" for name, text in VARIABLES.items())


@click.command("serve", epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=9090, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with the settings below; the environment wins.",
)
def serve_command(host: str, port: int, config: Path | None) -> None:
    """
    Run the service that the host calls.

    Without a Redis URL it starts a Valkey server of its own and keeps the users table in the data directory.
    Point RudderStack's DEST_TRANSFORM_URL at it: help/rudderstack.md has every step.
    """
    settings = read_settings(os.environ, config)
    configure_logging(settings.log_level)
    tune_collector()
    if settings.redis_url is None:
        click.echo(f"No {PREFIX}REDIS_URL: the users table is in {settings.data_dir}/valkey", err=True)
    server = make_server(
        settings, host, port, on_start=lambda url: click.echo(f"emarsys-cdp listens on {url}", err=True)
    )
    try:
        server.run()
    except SystemExit as error:  # uvicorn has codes of its own for a start that failed
        raise SystemExit(1) from error
    if not server.started:
        raise SystemExit(1)
