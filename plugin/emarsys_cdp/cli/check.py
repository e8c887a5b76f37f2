"""`emarsys-cdp check`: look documents over before they are used."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emarsys_cdp.cli.tables import table_of
from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document_files import read_document
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.examples import examples_of, run_examples
from emarsys_cdp.simulation.run import Engine
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.validation import Check, compile_schema
from emarsys_cdp_hooks import InvalidDocument, Problem

WIDE = 200
"""Columns of a table that no terminal shows."""


class Report(Struct, frozen=True):
    """What was found in a file: *problems*, and *notes* of what is valid and surely not meant."""

    file: str
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()
    summary: str = ""


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of {file, problems, notes} instead of text.")
def check_command(files: tuple[Path, ...], as_json: bool) -> None:
    """
    Check documents (data maps and rules) and print every problem with its place.

    The examples of rules are run: one that comes out otherwise than it says is a problem. Notes tell of what is valid
    and surely not meant, such as a rule that can never start.

    Exit code 0 when all are right, 1 when one is not; notes do not count.
    """
    configure_logging("warning")
    manager = build_plugin_manager()
    compiler, check, steps = build_compiler(manager), compile_schema("simulation"), Steps(manager)
    reports = [_check(path, compiler, check, steps) for path in files]
    if as_json:
        report = [{"file": one.file, "problems": one.problems, "notes": one.notes} for one in reports]
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _show(reports)
    sys.exit(1 if any(one.problems for one in reports) else 0)


def _check(path: Path, compiler: Compiler, check: Check, steps: Steps) -> Report:
    try:
        document = read_document(path, compiler)
    except InvalidDocument as error:
        return Report(str(path), error.problems)
    notes = compiler.lint(document)
    examples, problems = examples_of(document, check, compiler)
    if examples:
        problems += asyncio.run(
            run_examples(lambda: Engine(MemoryStore(), steps, compiler, "check", lambda _: None), examples)
        )
    found = f"{len(document.data_maps)} data maps, {len(document.rules)} rules, {len(examples)} examples"
    return Report(str(path), tuple(problems), notes, found)


def _show(reports: Sequence[Report]) -> None:
    """Print a table of what was found, and a line for each file that is right."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    for one in reports:
        rows = [("problem", found) for found in one.problems] + [("note", found) for found in one.notes]
        if rows:
            console.print(_table(one.file, rows))
        if not one.problems:
            console.print(Text(f"{one.file}: right ({one.summary})"), soft_wrap=True)


def _table(file: str, rows: Sequence[tuple[str, Problem]]) -> Table:
    table = table_of("what", "place", "message")
    table.title, table.title_justify = Text(file), "left"
    for what, found in rows:
        style = "bold red" if what == "problem" else "yellow"
        table.add_row(Text(what, style), Text(found.place), Text(found.message))
    return table
