"""`emarsys-cdp account`: what an API Key can do."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path
from typing import Final

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emarsys_cdp.credentials import FORMS, Credentials, parse_api_key
from emarsys_cdp.emarsys.account_check import check_account
from emarsys_cdp.emarsys.account_report import WHERE, Report
from emarsys_cdp.emarsys.client import open_http
from emarsys_cdp.emarsys.connection import connect
from emarsys_cdp.log import configure_logging
from emarsys_cdp.secrets import Seal
from emarsys_cdp.service.assembly import World
from emarsys_cdp.settings import PREFIX, Settings, read_settings
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp_hooks import StopAndFix

VARIABLE: Final = f"{PREFIX}API_KEY"
MAX_KEY: Final = 4096
"""Characters of an API Key that are read."""

_HEADLINES: Final = {
    "works": ("This API Key works.", "bold green"),
    "incomplete": ("Emarsys takes this API Key, but something is wrong.", "bold yellow"),
    "refused": ("This API Key does not work: Emarsys refuses it.", "bold red"),
    "unknown": ("Whether this API Key works cannot be told.", "bold red"),
}
_STYLES: Final = {
    "on": "green",
    "off": "red",
    "unknown": "yellow",
    "not tried": "dim",
    "error": "red",
    "warning": "yellow",
}


@click.group("account")
def account_command() -> None:
    """Look at the Emarsys account behind an API Key."""


@account_command.command("check")
@click.option(
    "--api-key-file",
    metavar="FILE",
    help=f"File that holds the API Key and nothing else; - for standard input. Default: {VARIABLE}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="")
def check_command(api_key_file: str | None, as_json: bool, extra: tuple[str, ...]) -> None:
    """
    Tell whether an API Key works, and what to do if it does not.

    Fetches an access token, asks Emarsys five questions that change nothing, and prints what the key may do, the
    limit of its API user, what the account has, and whether this machine's clock is right.

    The key comes from the environment, from a file or from a hidden prompt, never from the command line, where others
    on the machine could read it:

    \b
      EMARSYS_CDP_API_KEY=client_id:client_secret emarsys-cdp account check
      emarsys-cdp account check --api-key-file /run/secrets/emarsys
      pass show emarsys | emarsys-cdp account check --api-key-file -

    \b
    Exit codes: 0 the key works, 1 something is wrong, 2 used wrongly: no key, or one of no known form.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    if extra:
        raise click.UsageError(f"the API Key is not taken from the command line: set {VARIABLE}, or --api-key-file")
    configure_logging("warning")
    settings = read_settings(os.environ)
    try:
        credentials = parse_api_key(_key(settings, api_key_file))
    except StopAndFix as error:
        raise click.UsageError(str(error)) from None
    report = asyncio.run(_check(settings, credentials))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        show(report, Console(highlight=False))
    sys.exit(0 if report.result == "works" else 1)


def _key(settings: Settings, file: str | None) -> str:
    """
    Return the API Key; what the person wrote on the command line is not repeated, since it may be the key itself.

    Raises:
        click.UsageError: there is none.

    """
    if file is not None:
        return _read(file)
    if settings.api_key is not None:
        return settings.api_key.reveal()
    if sys.stdin is not None and sys.stdin.isatty():
        text: str = click.prompt("API Key", hide_input=True, err=True)
        return text
    raise click.UsageError(f"there is no API Key: set {VARIABLE}, or --api-key-file (- for standard input)")


def _read(file: str) -> str:
    try:
        if file == "-":
            text = sys.stdin.read(MAX_KEY)
        else:
            with Path(file).open(encoding="utf-8-sig") as opened:
                text = opened.read(MAX_KEY)
    except OSError as error:
        raise click.UsageError(f"the file of --api-key-file cannot be read: {error.strerror}") from None
    except ValueError:
        raise click.UsageError(f"the file of --api-key-file holds no API Key: write {FORMS}") from None
    if not text.strip():
        raise click.UsageError(f"the file of --api-key-file is empty: write {FORMS}")
    return text


async def _check(settings: Settings, credentials: Credentials) -> Report:
    """Ask Emarsys, with nothing shared: tokens and budgets are forgotten at the end."""
    world = World()
    seal = Seal(secrets.token_bytes(32), world.random_bytes)
    proxy = None if settings.http_proxy is None else settings.http_proxy.reveal()
    async with open_http(proxy) as http:
        emarsys = connect(settings, MemoryStore(), seal, http, world)
        return await check_account(emarsys, credentials, world.clock)


def show(report: Report, console: Console) -> None:
    """Print the answer, what to do, and what was found out; nothing is cut off at 80 columns."""
    words, style = _HEADLINES[report.result]
    console.print(Text(words, style))
    if report.findings:
        console.print(_findings(report))
    console.print(_facts(report))
    if any(one.state in ("on", "off") for one in report.permissions):
        console.print(_permissions(report))
        console.print(Text(f"Permissions to write would only show by writing: look at them {WHERE}.", "dim"))


def _findings(report: Report) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in report.findings:
        table.add_row()
        next_step = Text.assemble("\n", ("next: ", "bold"), finding.next_step)
        table.add_row(Text(finding.level, _STYLES[finding.level]), Text(finding.what) + next_step)
    return table


def _facts(report: Report) -> Table:
    """Return what is known of the account and the way there."""
    counts, customer, rate = report.counts, report.customer, report.rate_limit
    fields = f"{counts.system_fields} of the system, {counts.own_fields} of the account's own"
    rows: dict[str, str | None] = {
        "API": f"{report.api}, {report.authentication}",
        "API user": report.user,
        "access token": {True: "fetched", False: "none", None: None}[report.token_fetched],
        "account": None if customer is None else f"{customer.id} {customer.name}",
        "clock": _clock(report.clock_ahead_seconds),
        "rate limit": None if rate is None else _rate(rate.limit, rate.left),
        "fields": None if counts.system_fields is None else fields,
        "external events": _number(counts.external_events),
        "contact lists": _number(counts.contact_lists),
    }
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row()
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, Text(value))
    return table


def _permissions(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("permission", no_wrap=True)
    table.add_column("switched on", no_wrap=True)
    table.add_column("what emarsys-cdp does with it", overflow="fold")
    for one in report.permissions:
        table.add_row(one.name, Text(one.state, _STYLES[one.state]), one.purpose)
    return table


def _clock(ahead: int | None) -> str | None:
    if ahead is None:
        return None
    return f"{abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} Emarsys" if ahead else "right"


def _rate(limit: int, left: int | None) -> str:
    return f"{limit} requests a minute" + ("" if left is None else f", {left} left")


def _number(count: int | None) -> str | None:
    return None if count is None else str(count)
