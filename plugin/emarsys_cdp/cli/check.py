"""`emarsys-cdp check`: look documents over before they are used."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from emarsys_cdp.document_files import read_document
from emarsys_cdp.extensions import build_plugin_manager
from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp_hooks import InvalidDocument


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of {file, problems} instead of text.")
def check_command(files: tuple[Path, ...], as_json: bool) -> None:
    """
    Check documents (data maps and rules) and print every problem with its place.

    Exit code 0 when all are right, 1 when one is not.
    """
    configure_logging("warning")
    compiler = build_compiler(build_plugin_manager())
    results = []
    for path in files:
        try:
            document = read_document(path, compiler)
        except InvalidDocument as error:
            results.append((path, error.problems, ""))
        else:
            results.append((path, (), f"{len(document.data_maps)} data maps, {len(document.rules)} rules"))
    if as_json:
        report = [
            {"file": str(path), "problems": [msgspec.to_builtins(problem) for problem in problems]}
            for path, problems, _ in results
        ]
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        for path, problems, summary in results:
            for problem in problems:
                click.echo(f"{path}: {problem}")
            if not problems:
                click.echo(f"{path}: right ({summary})")
    sys.exit(1 if any(problems for _, problems, _ in results) else 0)
