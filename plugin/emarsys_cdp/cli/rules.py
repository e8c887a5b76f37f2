"""`emarsys-cdp rules`: look at the rules of a space, and publish its document."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from emarsys_cdp.cli.output import console, json_option
from emarsys_cdp.cli.rules_show import list_rules, show_changes, show_rule, summaries
from emarsys_cdp.cli.users_run import in_space, run
from emarsys_cdp.cli.users_store import Opened, open_table
from emarsys_cdp.document_files import MAX_DOCUMENT, decode, read_raw
from emarsys_cdp.log import configure_logging
from emarsys_cdp.publishing import Publisher, Shown, Stale
from emarsys_cdp.settings import read_settings
from emarsys_cdp.shelf import DEFAULT_NAME
from emarsys_cdp.users_desk import UnknownSpace
from emarsys_cdp_hooks import DropCall, InvalidDocument, Json

T = TypeVar("T")

MAX_NAMED: Final = 20
"""Most names that an error lists."""


class NoRule(DropCall):
    """The document has no rule of the id that was given."""


@click.group("rules")
def rules_command() -> None:
    r"""
    Look at the rules of a space, and publish its document.

    The document is that of the store of the settings: EMARSYS_CDP_REDIS_URL and EMARSYS_CDP_SECRET, or
    EMARSYS_CDP_DATA_DIR. A running service has a published one in force within a second. One in a file of
    EMARSYS_CDP_RULES_DIR is shown, and changed there. help/documents.md says what is in a document.

    \b
      emarsys-cdp rules pull -o shop.json      the document of now, with its revision
      (edit shop.json)
      emarsys-cdp check shop.json              every problem, before anybody sees it
      emarsys-cdp rules publish shop.json      refused when somebody else was faster
      emarsys-cdp rules list                   status and version of each rule
    """
    configure_logging("warning")


@rules_command.command("list")
@in_space
@json_option
def list_command(space: str | None, as_json: bool) -> None:
    """
    Show the rules of a space.

    The version of a rule goes up when its conditions or their settings change; people who are in the rule already stay
    with the version that they began with. Status, name, quiet hours and caps count at once for everybody.
    """
    space, shown = _show(space)
    if as_json:
        head = {"space": space, "revision": shown.revision, "source": shown.source}
        _print_json({**head, "rules": list(map(msgspec.to_builtins, summaries(shown)))})
    else:
        list_rules(space, shown, console())


@rules_command.command("show")
@click.argument("rule")
@in_space
@json_option
def show_command(rule: str, space: str | None, as_json: bool) -> None:
    """Show one rule by its id: its conditions, and its old versions that people may still be in."""
    space, shown = _show(space)
    rules = {one["id"]: one for one in shown.document.get("rules", ())}
    if rule not in rules:
        known = ", ".join(list(rules)[:MAX_NAMED]) or "none"
        raise NoRule(f"space {space} has no rule with the id {rule!r}; it has: {known}")
    old = [one for one in shown.versions.kept if one.rule == rule]
    if as_json:
        kept = [{"version": one.version, "since": one.since, "until": one.until, "mode": one.mode} for one in old]
        _print_json({"space": space, "revision": shown.revision, "rule": rules[rule], "kept": kept})
    else:
        show_rule(rules[rule], old, console())


@rules_command.command("publish")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@in_space
@click.option("--force", is_flag=True, help="Publish whatever somebody else has published since.")
@json_option
def publish_command(file: Path, space: str | None, force: bool, as_json: bool) -> None:
    """
    Check the document in FILE (- for standard input) and put it in force.

    When FILE has a "revision", as `pull` writes it, it is published only if that is still the one of now; so nobody's
    changes are overwritten. What changes is told rule by rule. With a problem nothing changes. Exit code 1 when it is
    refused.
    """
    raw = _read(file)

    async def publish(opened: Opened, space: str) -> tuple[str, Any]:
        expected = None if force else await _expected(opened.publisher, space, raw)
        return space, await opened.publisher.publish(space, raw, expected)

    try:
        space, receipt = _run_in_space(space, publish)
    except InvalidDocument as error:
        raise InvalidDocument(str(file), error.problems) from error
    except Stale as error:
        raise DropCall(f"{error}: `emarsys-cdp rules pull` gets it, --force overwrites it") from error
    if as_json:
        _print_json({"space": space, **msgspec.to_builtins(receipt)})
    else:
        show_changes(space, receipt, console())


@rules_command.command("pull")
@in_space
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
def pull_command(space: str | None, output: Path | None) -> None:
    """
    Print the document of a space, with its revision and the versions of its rules, as JSON.

    A space without a document has the default one, revision 0.
    """
    _, shown = _show(space)
    text = _text(shown.document) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DropCall(f"{output} cannot be written: {error.strerror}") from error


def _read(file: Path) -> Any:
    if str(file) == "-":
        return decode(sys.stdin.buffer.read(MAX_DOCUMENT + 1), "-")
    return read_raw(file)


async def _expected(publisher: Publisher, space: str, raw: Any) -> int:
    """Return the revision that a document was made from, as it says itself; else that of now."""
    revision = raw.get("revision") if isinstance(raw, dict) else None
    return revision if type(revision) is int else await publisher.revision(space)


def _show(space: str | None) -> tuple[str, Shown]:
    async def show(opened: Opened, space: str) -> tuple[str, Shown]:
        return space, await opened.publisher.show(space)

    return _run_in_space(space, show)


def _run_in_space(space: str | None, use: Callable[[Opened, str], Awaitable[T]]) -> T:
    settings = read_settings(os.environ)

    async def opened_one() -> T:
        async with open_table(settings) as opened:
            return await use(opened, space or await _only_space(opened))

    return run(opened_one)


async def _only_space(opened: Opened) -> str:
    """Return the space that has people or a document, when there is only one."""
    with_document = {one for one in await opened.publisher.spaces() if one != DEFAULT_NAME}
    spaces = sorted(with_document | set(await opened.desk.probable_spaces()))
    if len(spaces) == 1:
        return spaces[0]
    if not spaces:
        raise UnknownSpace("there is no space yet: name one by --space, the destination ID of the host")
    more = f" and {len(spaces) - MAX_NAMED} more" if len(spaces) > MAX_NAMED else ""
    raise UnknownSpace(f"there are several spaces, name one by --space: {', '.join(spaces[:MAX_NAMED])}{more}")


def _text(content: Json) -> str:
    """Return JSON for people; half of a character, which UTF-8 has no form for, is written as an escape."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, indent=2)
    return text


def _print_json(content: Json) -> None:
    click.echo(_text(content))
