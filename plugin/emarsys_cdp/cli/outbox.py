"""`emarsys-cdp outbox`: effects of rules that wait to be sent, or could not be."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import click

from emarsys_cdp.cli.outbox_show import show_changed, show_effect, show_effects
from emarsys_cdp.cli.output import console, json_option, print_json
from emarsys_cdp.cli.users_run import run
from emarsys_cdp.cli.users_store import open_table
from emarsys_cdp.log import configure_logging
from emarsys_cdp.outbox.desk import Changed, OutboxDesk, Seen, shown
from emarsys_cdp.service.assembly import World
from emarsys_cdp.settings import read_settings

T = TypeVar("T")

LIMIT: Final = 50
"""Effects that `list` shows unless more are asked for."""

EVERYTHING: Final = 10_000_000
"""More effects than there are."""

_space = click.option("--space", metavar="ID", help="Only effects of this destination; without it those of all.")
_names = click.argument("ids", nargs=-1, metavar="[ID]...")


@click.group("outbox")
def outbox_command() -> None:
    r"""
    Look at effects of rules that wait to be sent, or could not be.

    An effect is one action of a rule for one person. help/outbox.md says what its states mean.

    \b
      emarsys-cdp outbox list                  what waits, the longest due first
      emarsys-cdp outbox list --dead           what was given up, with the reason
      emarsys-cdp outbox show 6b86b273ff34     everything about one effect
      emarsys-cdp outbox retry --all --dead    when the reason is mended
    """
    configure_logging("warning")


@outbox_command.command("list")
@click.option("--dead", is_flag=True, help="Those that were given up, instead of those that wait.")
@_space
@click.option("--limit", type=click.IntRange(1, 100_000), default=LIMIT, show_default=True, help="How many effects.")
@json_option
def list_command(dead: bool, space: str | None, limit: int, as_json: bool) -> None:
    """Show effects that wait, the longest due first; or those that are dead, the oldest first."""
    found, more = _use(lambda desk: desk.list(dead, space, limit))
    effects = [shown(one, World().clock()) for one in found]
    if as_json:
        print_json(effects)
    else:
        show_effects(effects, dead=dead, more=more, console=console())


@outbox_command.command("show")
@click.argument("name", metavar="ID")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """
    Show everything about one effect.

    Of one that waits or is dead the beginning of its id is enough. Effects that are sent, handed to the host, dead or
    withdrawn are kept for 30 days. Exit code 1 when there is none.
    """
    found = shown(_use(lambda desk: desk.find(name)), World().clock())
    if as_json:
        print_json(found)
    else:
        show_effect(found, console())


@outbox_command.command("retry")
@_names
@click.option("--all", "every", is_flag=True, help="All that are dead.")
@click.option("--dead", is_flag=True, expose_value=False, help="May be written with --all: only the dead are retried.")
@_space
@json_option
def retry_command(ids: tuple[str, ...], every: bool, space: str | None, as_json: bool) -> None:
    """
    Let dead effects wait to be sent again.

    Names of events, fields and lists are looked up anew. Exit code 1 when one of the effects is not dead.
    """
    _change(ids, every, space, as_json, True, "retried", "waits again", "wait again")


@outbox_command.command("drop")
@_names
@click.option("--all", "every", is_flag=True, help="All that wait.")
@_space
@json_option
def drop_command(ids: tuple[str, ...], every: bool, space: str | None, as_json: bool) -> None:
    """
    Give up effects that wait.

    They are dead then, and `retry` takes that back. What is being sent, or may have been taken, cannot be given up:
    exit code 1 when that is so for one of them.
    """
    _change(ids, every, space, as_json, False, "dropped", "is dead", "are dead")


def _change(
    ids: Sequence[str], every: bool, space: str | None, as_json: bool, dead: bool, word: str, one: str, many: str
) -> None:
    """Change effects by hand, those of some ids or all of a kind, and tell what was done."""
    if bool(ids) == every:
        raise click.UsageError("name effects by their ids, or write --all")

    async def change(desk: OutboxDesk) -> Changed:
        effects = await _chosen(desk, ids, dead, space)
        now = World().clock()
        return await (desk.retry(effects, now) if dead else desk.drop(effects, now))

    changed = _use(change)
    if as_json:
        print_json({word: list(changed.done), "left": changed.left})
    else:
        show_changed(changed, one if len(changed.done) == 1 else many, console())
    sys.exit(1 if changed.left else 0)


async def _chosen(desk: OutboxDesk, ids: Sequence[str], dead: bool, space: str | None) -> list[Seen]:
    if ids:
        return [await desk.find(name) for name in ids]
    return (await desk.list(dead, space, EVERYTHING))[0]


def _use(use: Callable[[OutboxDesk], Awaitable[T]]) -> T:
    """Open the store of the settings and use the outbox in it."""
    settings = read_settings(os.environ)

    async def opened() -> T:
        async with open_table(settings) as table:
            return await use(OutboxDesk(table.store))

    return run(opened)
