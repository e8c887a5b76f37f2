"""The command that writes a host's settings form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from emarsys_cdp.forms import Manifest, rudderstack, shipped

FORMS: Mapping[str, Callable[[Manifest], dict[str, str]]] = {"rudderstack": rudderstack.files}
"""Host to the texts of its files by their names."""


@click.command("manifest")
@click.argument("host", type=click.Choice(list(FORMS)))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the files into DIR, which is made if there is none. Files of the same name are overwritten.",
)
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON. Nothing else is ever printed.")
def manifest_command(host: str, out: Path | None) -> None:
    """
    Write the settings form of HOST: what a person fills in there to connect Emarsys.

    Without --out one JSON object goes to stdout: file names and what is in the files.

    rudderstack: db-config.json, ui-config.json and schema.json are the three files of a destination in
    rudder-integrations-config. workspaceConfig.json is for self-hosted RudderStack in file mode; put your API
    Key in place of client_id:client_secret.

    \b
    Examples:
      emarsys-cdp manifest rudderstack --out rudderstack
      emarsys-cdp manifest rudderstack | jq '."workspaceConfig.json"' > workspaceConfig.json

    \b
    Exit codes: 0 done, 1 a file cannot be written, 2 used wrongly.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    texts = FORMS[host](shipped())
    if out is None:
        contents = {name: json.loads(text) for name, text in texts.items()}
        click.echo(json.dumps(contents, indent=2, ensure_ascii=False))
    else:
        write(texts, out)


def write(texts: Mapping[str, str], directory: Path) -> None:
    """
    Write *texts* into *directory* and tell on stderr which.

    Raises:
        click.ClickException: a file cannot be written.

    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")
            click.echo(f"wrote {directory / name}", err=True)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: cannot be written: {error.strerror}") from error
