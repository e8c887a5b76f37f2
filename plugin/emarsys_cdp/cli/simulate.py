"""`emarsys-cdp simulate`: what would come out of these calls."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec
from rich.console import Console
from rich.text import Text

from emarsys_cdp.cli.tables import table_of
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.settings import read_settings
from emarsys_cdp.simulation.compare import Difference, differences
from emarsys_cdp.simulation.outcome import Outcome
from emarsys_cdp.simulation.reading import Simulation, read_simulation
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.store import Store
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.validation import compile_schema
from emarsys_cdp_hooks import InvalidDocument

UNREADABLE = 2
"""Exit code for a file that cannot be run."""


@click.command("simulate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--store",
    "kind",
    type=click.Choice(["memory", "redis"]),
    default="memory",
    show_default=True,
    help="Where the users table is: in this process, or in the Redis of EMARSYS_CDP_REDIS_URL. Without one, redis is "
    "a Valkey of our own that is thrown away.",
)
@click.option("--check", is_flag=True, help="Compare with what the file expects; exit code 1 when something differs.")
def simulate_command(file: Path, kind: str, check: bool) -> None:
    """
    Run timelines of calls through the engine and print what comes out.

    The file holds documents and vectors: calls with the times at which they arrive. Each vector has a space of its own
    and begins with an empty users table; time passes as the timeline says, and nothing is sent. help/simulate.md
    describes the file and the output, a JSON array with one object for each vector. Everything else goes to standard
    error.

    Exit codes: 0 it ran, 1 --check found a difference or the store failed, 2 the file cannot be run.
    """
    configure_logging("warning")
    manager = build_plugin_manager()
    compiler = build_compiler(manager)
    try:
        simulation = read_simulation(file, compile_schema("simulation"), compiler)
    except InvalidDocument as error:
        click.echo(f"emarsys-cdp: {error}", err=True)
        sys.exit(UNREADABLE)
    for notice in simulation.notices:
        _note(f"{file}: {notice}")
    steps = Steps(manager)
    with _store(kind) as (open_store, seed):
        outcomes = asyncio.run(_run(lambda: Engine(open_store(), steps, compiler, seed, _note), simulation))
    click.echo(_json(outcomes))
    if check:
        found = [
            one
            for vector, outcome in zip(simulation.vectors, outcomes, strict=True)
            for one in differences(vector, outcome)
        ]
        _show(found, len(outcomes), Console(stderr=True, highlight=False))
        sys.exit(1 if found else 0)


async def _run(open_engine: Callable[[], Engine], simulation: Simulation) -> list[Outcome]:
    engine = open_engine()
    try:
        return [await run_vector(engine, vector, number) for number, vector in enumerate(simulation.vectors)]
    finally:
        await engine.store.close()


@contextmanager
def _store(kind: str) -> Iterator[tuple[Callable[[], Store], str]]:
    """Give a store and what names its spaces: in a Redis that others use too, nobody else may have them."""
    if kind == "memory":
        yield MemoryStore, "simulation"
        return
    url = read_settings(os.environ).redis_url
    if url is not None:
        yield (lambda: RedisStore(url.reveal())), f"simulation-{secrets.token_hex(8)}"
        return
    with TemporaryDirectory(prefix="emarsys-cdp-simulate-", ignore_cleanup_errors=True) as directory:
        server = EmbeddedServer(Path(directory))
        server.start()
        try:
            yield (lambda: RedisStore(server.url)), "simulation"
        finally:
            server.stop()


def _note(text: str) -> None:
    click.echo(text, err=True)


def _json(outcomes: Sequence[Outcome]) -> str:
    """Return the output; half of a character, which UTF-8 has no form for, is written as an escape."""
    raw = msgspec.to_builtins(outcomes)
    text = json.dumps(raw, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(raw, indent=2)
    return text


def _show(found: Sequence[Difference], vectors: int, console: Console) -> None:
    """Print what differs."""
    if not found:
        console.print(Text(f"All {vectors} vectors are as the file expects.", "bold green"))
        return
    wrong = len({one.vector for one in found})
    console.print(Text(f"{wrong} of {vectors} vectors differ from what the file expects.", "bold red"))
    table = table_of("vector", "place", "expected", "found")
    for one in found:
        shown = [Text(json.dumps(value, ensure_ascii=False)) for value in (one.expected, one.found)]
        table.add_row(Text(one.vector), Text(one.place), *shown)
    console.print(table)
