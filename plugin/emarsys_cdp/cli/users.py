"""`emarsys-cdp users`: look at the users table, and erase people from it."""

from __future__ import annotations

import os
import sys
from typing import Final

import click
import msgspec
from rich.console import Console

from emarsys_cdp.cli.output import console, json_option, print_json
from emarsys_cdp.cli.users_run import PersonCommand, in_space, of_person, one_of, run, run_in_space, sweeping
from emarsys_cdp.cli.users_show import show_people, show_removed, show_swept, show_user
from emarsys_cdp.cli.users_store import open_table
from emarsys_cdp.log import configure_logging
from emarsys_cdp.settings import read_settings
from emarsys_cdp.sweeping import Swept
from emarsys_cdp.users_desk import DELETE, SUPPRESS, Removed, UsersDesk
from emarsys_cdp.users_query import WORDS
from emarsys_cdp_hooks import DropCall, Json

LIMIT: Final = 20
"""People that `list` shows unless more are asked for."""


class Nobody(DropCall):
    """Nobody has the identifier that was given."""


class NotConfirmed(DropCall):
    """Something else was typed than what confirms."""


_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group("users")
def users_command() -> None:
    r"""
    Look at the users table, and erase people from it.

    The table is that of the settings: EMARSYS_CDP_REDIS_URL and EMARSYS_CDP_SECRET, or EMARSYS_CDP_DATA_DIR. The
    service may run meanwhile. help/users-table.md says what is in it.

    \b
      emarsys-cdp users list                            who called last
      emarsys-cdp users show --key jane@example.com     one person, by any identifier
      emarsys-cdp users export > users.ndjson           everybody, one JSON object a line
      emarsys-cdp users erase --user u1                 asks before it does
    """
    configure_logging("warning")


@users_command.command("show", cls=PersonCommand)
@of_person
@json_option
def show_command(user: str | None, key: str | None, anon: str | None, space: str | None, as_json: bool) -> None:
    """
    Show whose an identifier is.

    A shared device, an erased or suppressed person are shown as such. Exit code 1 when nobody has it.
    """
    kind, value = one_of(user, key, anon)

    async def show(desk: UsersDesk, space: str) -> dict[str, Json]:
        found = await desk.show(space, kind, value)
        if found is None:
            raise Nobody(f"nobody in space {space} has {WORDS[kind]} {value!r}")
        return found

    found = run_in_space(space, show)
    if as_json:
        print_json(found)
    else:
        show_user(found, kind, value, console())


@users_command.command("list")
@in_space
@click.option("--limit", type=click.IntRange(1, 10_000), default=LIMIT, show_default=True, help="How many people.")
@json_option
def list_command(space: str | None, limit: int, as_json: bool) -> None:
    """Show the people that were seen last; `export` gives all."""
    people, total = run_in_space(space, lambda desk, name: desk.newest(name, limit))
    if as_json:
        print_json(people)
    else:
        show_people(people, total, console())


@users_command.command("export")
@in_space
def export_command(space: str | None) -> None:
    """
    Print the users table, one JSON object a line.

    People come as `show --json` prints them, in no order; {"redirect", "to"} tells where a merged one has gone. Rows of
    shared devices and of erased people hold no identifier in the clear, so they are not in it.
    """

    async def export(desk: UsersDesk, space: str) -> None:
        async for one in desk.everything(space):
            sys.stdout.buffer.write(msgspec.json.encode(one) + b"\n")
        sys.stdout.buffer.flush()

    run_in_space(space, export)


@users_command.command("erase", cls=PersonCommand)
@of_person
@_yes
@json_option
def erase_command(
    user: str | None, key: str | None, anon: str | None, space: str | None, yes: bool, as_json: bool
) -> None:
    """
    Erase a person, by any identifier.

    All of the person's identifiers, keys and values go. Calls that happened before now are dropped for ever, so a
    replay does not bring the person back; a later call begins anew. The contact in Emarsys stays: its keys are printed.
    """
    _remove(one_of(user, key, anon), space, DELETE, yes, as_json)


@users_command.command("suppress", cls=PersonCommand)
@of_person
@_yes
@json_option
def suppress_command(
    user: str | None, key: str | None, anon: str | None, space: str | None, yes: bool, as_json: bool
) -> None:
    """
    Erase a person and drop all further calls.

    Every call with one of the person's identifiers is dropped, until `unsuppress`.
    """
    _remove(one_of(user, key, anon), space, SUPPRESS, yes, as_json)


@users_command.command("unsuppress", cls=PersonCommand)
@of_person
@json_option
def unsuppress_command(user: str | None, key: str | None, anon: str | None, space: str | None, as_json: bool) -> None:
    """
    Take calls of a suppressed person again.

    The person begins anew; what was erased stays erased. Exit code 1 when the person is not suppressed.
    """
    kind, value = one_of(user, key, anon)

    async def unsuppress(desk: UsersDesk, space: str) -> None:
        if not await desk.unsuppress(space, kind, value):
            raise Nobody(f"{WORDS[kind]} {value!r} is not suppressed in space {space}")

    run_in_space(space, unsuppress)
    if as_json:
        print_json({"unsuppressed": True})
    else:
        click.echo(f"Calls with {WORDS[kind]} {value} are taken again.")


@users_command.command("sweep")
@click.option(
    "--keys-per-second",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Go no faster than this, to leave the server to others; 0: as fast as it goes.",
)
@json_option
def sweep_command(keys_per_second: int, as_json: bool) -> None:
    """
    Free the memory of people who are gone.

    A person who has not called for long disappears. The rows of the identifiers are left, in every space; they count as
    absent, and take memory. A sweep removes them, and finishes merges and erasures that a crash has left half done. The
    service does the same by itself about every six hours: by hand it is needed only to see the memory free now.

    It may be ended at any moment; what was done stays done. Exit code 1 when another sweep is under way.
    """
    settings = read_settings(os.environ)

    async def sweep() -> Swept:
        async with open_table(settings) as opened:
            with sweeping(await opened.store.size()) as passed:
                return await opened.sweeper.run(keys_per_second, lambda so_far: passed(so_far.keys))

    swept = run(sweep)
    if as_json:
        print_json(msgspec.to_builtins(swept))
    else:
        show_swept(swept, console())


def _remove(who: tuple[str, str], space: str | None, mode: str, yes: bool, as_json: bool) -> None:
    kind, value = who

    async def remove(desk: UsersDesk, space: str) -> Removed:
        found = await desk.show(space, kind, value)
        if not yes:
            _confirm(found, kind, value, mode)
        return await desk.erase(space, kind, value, mode)

    removed = run_in_space(space, remove)
    if as_json:
        print_json(msgspec.to_builtins(removed))
    else:
        show_removed(removed, console())


def _confirm(found: dict[str, Json] | None, kind: str, value: str, mode: str) -> None:
    """Show who it is and have the identifier typed once more."""
    console = Console(stderr=True, highlight=False)
    if found is None:
        console.print(f"Nobody has this {WORDS[kind]} now; its calls will be dropped all the same.")
    else:
        show_user(found, kind, value, console)
    verb = "erase" if mode == DELETE else "suppress"
    typed = click.prompt(f"Type the {WORDS[kind]} once more to {verb}", err=True)
    if typed.strip() != value.strip():
        raise NotConfirmed("that is another one: nothing was changed")
