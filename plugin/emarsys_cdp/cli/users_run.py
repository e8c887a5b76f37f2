"""What the commands of `users` have in common: naming a person, opening the table, showing that they are busy."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from emarsys_cdp.cli.users_store import open_table
from emarsys_cdp.settings import PREFIX, read_settings
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.users_desk import UsersDesk
from emarsys_cdp.users_query import WORDS
from emarsys_cdp_hooks import StopAndFix

T = TypeVar("T")

EVERY: Final = 1000
"""People after which a terminal is told how many have been looked at."""


HOW: Final = "name the person by one of --user, --key, --anon"


class PersonCommand(click.Command):
    """A command that is about a person, and says how one is named when somebody does it otherwise."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" not in error.message:
                raise
            raise click.UsageError(f"{error.message}: {HOW}", ctx) from error


def in_space(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that names the space."""
    return click.option("--space", metavar="ID", help="Destination ID of the host; needed when there are several.")(
        command
    )


def of_person(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a person and the space."""
    for kind, word in reversed(WORDS.items()):
        command = click.option(f"--{kind}", metavar="VALUE", help=f"The person's {word}.")(command)
    return in_space(command)


def one_of(user: str | None, key: str | None, anon: str | None) -> tuple[str, str]:
    """Return the kind and the value of the one identifier that was given."""
    given = [(kind, value) for kind, value in (("user", user), ("key", key), ("anon", anon)) if value is not None]
    if len(given) != 1:
        raise click.UsageError(HOW)
    return given[0]


def run(use: Callable[[], Awaitable[T]]) -> T:
    """
    Do something with the store.

    Raises:
        StopAndFix: the store is out of order; the message says where it is set.

    """

    async def main() -> T:
        return await use()

    try:
        return asyncio.run(main())
    except StoreUnavailable as error:
        raise StopAndFix(f"{error}. Does it run? {PREFIX}REDIS_URL says where it is") from error


def run_in_space(space: str | None, use: Callable[[UsersDesk, str], Awaitable[T]]) -> T:
    """Open the users table and use one space of it."""
    settings = read_settings(os.environ)

    async def opened_one() -> T:
        with looking() as looked_at:
            async with open_table(settings, looked_at) as opened:
                return await use(opened.desk, space or await opened.desk.only_space())

    return run(opened_one)


@contextmanager
def looking() -> Iterator[Callable[[], None]]:
    """Show on the terminal how many people have been looked at, if there are many; give what counts one more."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} people looked at"))
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=None)
    count = 0

    def one_more() -> None:
        nonlocal count
        count += 1
        if count % EVERY == 0 and sys.stderr.isatty():
            progress.start()
            progress.update(task, completed=count)

    try:
        yield one_more
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def sweeping(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on the terminal; give what tells how many keys of *total* were passed."""
    columns: Any = (TextColumn("sweeping"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=max(1, total))
        yield lambda passed: progress.update(task, completed=min(passed, total))
