"""`emarsys-cdp backtest`: recorded calls through one set of rules, or two side by side."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from emarsys_cdp.cli.explain_json import decision_json
from emarsys_cdp.cli.tables import plain, table_of
from emarsys_cdp.document_files import read_document
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.log import configure_logging
from emarsys_cdp.outbox.desk import SHORT
from emarsys_cdp.rules.explaining import Decision
from emarsys_cdp.rules.spans import read_span
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.backtest import Difference, Made, Run, counts, differences
from emarsys_cdp.simulation.recorded import open_calls, read_calls
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.users_view import show_time
from emarsys_cdp_hooks import DropCall

SHOWN: Final = 20
"""Differing effects that are shown with their timelines unless more are asked for."""

WRONG: Final = 10
"""Wrong lines that are told one by one; the others are counted."""


class Result(Struct, frozen=True):
    """What came out: of each run the counts, and what differs, with the timelines of both."""

    calls: int
    wrong: int
    disordered: int
    runs: dict[str, dict[str, Any]]
    differences: list[dict[str, Any]]
    total: int


@click.command("backtest")
@click.option(
    "--rules",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="A document with rules; a second one is compared with it.",
)
@click.option("--calls", "calls", required=True, type=click.Path(path_type=Path), help="NDJSON, or NDJSON.gz.")
@click.option("--until", default="30d", show_default=True, help="How long time passes after the last call.")
@click.option("--space", default="backtest", show_default=True, help="Ids of effects depend on it.")
@click.option("--limit", type=click.IntRange(0), default=SHOWN, show_default=True, help="Differing effects shown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def backtest_command(files: tuple[Path, ...], calls: Path, until: str, space: str, limit: int, as_json: bool) -> None:
    r"""
    Run recorded calls through the engine and tell what rules would have done.

    \b
      emarsys-cdp backtest --rules now.json --calls calls.ndjson.gz
      emarsys-cdp backtest --rules now.json --rules next.json --calls calls.ndjson.gz

    Each line of the file is a call, or {"message": a call}, in the order of arrival (receivedAt, else timestamp). Time
    passes as the calls say, and nothing is sent. With two documents, effects that only one of them has, or that they
    have otherwise, are shown with their timelines. With --space, the ID of the destination, ids are those of the
    service. help/explain.md says more. Exit code 1 when a document is wrong; wrong lines are told and passed over.
    """
    configure_logging("error")
    if len(files) > 2:  # noqa: PLR2004 - two are compared
        raise click.UsageError("give one or two documents by --rules")
    after = _span(until)
    manager = build_plugin_manager()
    compiler, steps = build_compiler(manager), Steps(manager)
    names = [str(path) for path in files] if len(set(files)) == len(files) else ["A", "B"]
    runs = {
        name: Run(MemoryStore(), steps, compiler, read_document(path, compiler), space)
        for name, path in zip(names, files, strict=True)
    }
    result = asyncio.run(_run(runs, calls, after, limit))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result)).decode())
    else:
        _show(result, Console(highlight=False))


def _span(text: str) -> int:
    try:
        return read_span(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--until") from error


async def _run(runs: Mapping[str, Run], path: Path, after: int, limit: int) -> Result:
    """
    Feed a file to all runs, line by line.

    Raises:
        DropCall: it cannot be read.

    """
    count, wrong = 0, 0

    def tell(number: int, reason: str) -> None:
        nonlocal wrong
        wrong += 1
        if wrong <= WRONG:
            click.echo(f"{path}, line {number}: {reason}", err=True)

    try:
        with path.open("rb") as raw, _progress(path, raw) as passed:
            for call in read_calls(open_calls(path, raw), tell):
                count += 1
                for run in runs.values():
                    await run.take(call)
                passed(count)
    except (OSError, EOFError) as error:
        raise DropCall(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if wrong > WRONG:
        click.echo(f"{path}: {wrong - WRONG} more lines are wrong", err=True)
    for run in runs.values():
        await run.finish(after)
    shown = {name: await _counted(run) for name, run in runs.items()}
    pair = list(runs.values())
    found = differences(*pair) if len(pair) > 1 else []
    told = [await _difference(one, pair) for one in found[:limit]]
    return Result(count, wrong, max(run.disordered for run in pair), shown, told, len(found))


async def _counted(run: Run) -> dict[str, Any]:
    return {
        "effects": _nested(counts(run.effects.values())),
        "instances": _nested(await run.statuses()),
        "lateStops": await run.late_stops(),
        "refused": dict(run.dropped),
    }


def _nested(counted: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (rule, what), number in sorted(counted.items()):
        found.setdefault(rule, {})[what] = number
    return found


async def _difference(one: Difference, runs: Sequence[Run]) -> dict[str, Any]:
    some = one.first or one.second
    assert some is not None  # noqa: S101 - one of them has it
    timelines = [await run.timeline(made or some) for run, made in zip(runs, (one.first, one.second), strict=True)]
    return {
        "id": one.id,
        "rule": some.rule,
        "key": some.key,
        "do": some.do,
        "options": some.options,
        "a": _made(one.first, timelines[0], some.rule),
        "b": _made(one.second, timelines[1], some.rule),
    }


def _made(made: Made | None, timeline: Sequence[Decision], rule: str) -> dict[str, Any]:
    sent = (
        None
        if made is None
        else {"at": show_time(made.at), "due": show_time(made.due), "key": made.key, "data": made.data}
    )
    return {"sent": sent, "trace": [decision_json(rule, one) for one in timeline]}


@contextmanager
def _progress(path: Path, raw: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how much of a file was read; give what tells that so many calls are through."""
    columns: Any = (TextColumn("{task.fields[calls]:,} calls"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=path.stat().st_size or 1, calls=0)

        def passed(calls: int) -> None:
            if calls % 100 == 0:
                progress.update(task, completed=raw.tell(), calls=calls)

        yield passed


def _show(result: Result, console: Console) -> None:
    """Print the counts of the runs side by side, and what differs."""
    late = f", {result.disordered} out of order" if result.disordered else ""
    console.print(f"{result.calls:,} calls, {result.wrong:,} wrong lines{late}.")
    table = table_of("rule", "what", *result.runs)
    for part in ("effects", "instances"):
        every = {(rule, what) for run in result.runs.values() for rule, of in run[part].items() for what in of}
        for rule, what in sorted(every):
            numbers = [run[part].get(rule, {}).get(what, 0) for run in result.runs.values()]
            cells = [plain(rule), plain(f"{part}: {what}"), *[plain(f"{number:,}") for number in numbers]]
            table.add_row(*cells, style="bold yellow" if len(set(numbers)) > 1 else "")
    console.print(table)
    if len(result.runs) > 1:
        _show_differences(result, console)


def _show_differences(result: Result, console: Console) -> None:
    if not result.total:
        console.print("Both send the same effects at the same times.")
        return
    console.print(f"{result.total:,} effects differ.")
    table = table_of("effect", "rule", "key", "do", *result.runs)
    for one in result.differences:
        table.add_row(
            *map(plain, (one["id"][:SHORT], one["rule"], one["key"], one["do"], _side(one["a"]), _side(one["b"])))
        )
    console.print(table)
    if result.total > len(result.differences):
        console.print(f"The first {len(result.differences)}; --limit shows more, --json all of their timelines.")


def _side(side: Mapping[str, Any]) -> str:
    """Return what one run made of an effect: when it was sent, and the way there."""
    lines = [f"{one['te']} {one['kind']} {one['mid'] or ''}".rstrip() for one in islice(side["trace"], SHOWN)]
    head = "not sent" if side["sent"] is None else f"sent {side['sent']['at']}"
    return "\n".join([head, *lines])
