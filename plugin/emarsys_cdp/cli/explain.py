"""`emarsys-cdp explain` and `why-not`: why a rule did something for a person, or did nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import click
from msgspec import Struct

from emarsys_cdp.cli.explain_json import chain_json, doubt_json
from emarsys_cdp.cli.explain_show import show_chain, show_doubt
from emarsys_cdp.cli.output import console, json_option, print_json
from emarsys_cdp.cli.users_run import PersonCommand, of_person, one_of, run
from emarsys_cdp.cli.users_store import Opened, open_table
from emarsys_cdp.log import configure_logging
from emarsys_cdp.outbox.desk import Seen
from emarsys_cdp.outbox.order import read
from emarsys_cdp.rules.book import EMPTY, Book
from emarsys_cdp.rules.doubting import Doubt, why_not
from emarsys_cdp.rules.explaining import Chain, explain
from emarsys_cdp.rules.passing import Sight
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.service.assembly import World
from emarsys_cdp.settings import read_settings
from emarsys_cdp.store.keys import shard
from emarsys_cdp.store.outbox import EffectRef
from emarsys_cdp.users_query import WORDS
from emarsys_cdp_hooks import DropCall

T = TypeVar("T")

MAX_NAMED: Final = 20
"""Most names that an error lists."""


class Asked(Struct, frozen=True):
    """What a question is about: the rule, the rules of its space, and the person as stored."""

    rule: str
    rules: RuleSet
    book: Book
    sight: Sight
    pid: str


class Unknown(DropCall):
    """There is no such person or rule."""


_rule = click.option("--rule", metavar="RULE", required=True, help="The rule's id.")


@click.command("explain", cls=PersonCommand)
@_rule
@of_person
@json_option
def explain_command(
    rule: str, user: str | None, key: str | None, anon: str | None, space: str | None, as_json: bool
) -> None:
    r"""
    Show what a rule did for a person, and why: every decision, what comes next, what became of its effects.

    \b
      emarsys-cdp explain --rule cart --key jane@example.com
      emarsys-cdp explain --rule cart --user u1 --json

    The person's calls are folded once more, as the service does it. help/explain.md says what the words mean. Calls
    that no rule needs any more are forgotten; how far back it reaches is told. Nothing is changed.
    """
    asked, chain, effects = _use(one_of(user, key, anon), rule, space, _explain)
    if as_json:
        print_json(chain_json(asked.sight, asked.pid, rule, chain, effects))
    else:
        show_chain(rule, chain, effects, asked.sight.now, console())


@click.command("why-not", cls=PersonCommand)
@click.option("--message", metavar="ID", required=True, help="The messageId of the call.")
@_rule
@of_person
@json_option
def why_not_command(
    message: str, rule: str, user: str | None, key: str | None, anon: str | None, space: str | None, as_json: bool
) -> None:
    r"""
    Show why a call of a person did nothing for a rule: each row, its window, every comparison with the value read.

    \b
      emarsys-cdp why-not --message m-17 --rule cart --user u1

    Only calls that some rule looks at are kept, as long as a rule needs them. Exit code 1 when the call is not among
    them; why that may be is told.
    """

    async def ask(opened: Opened, asked: Asked) -> tuple[Asked, Doubt]:  # noqa: ARG001 - as for explain
        return asked, why_not(asked.rules, rule, asked.book, asked.sight, message)

    asked, doubt = _use(one_of(user, key, anon), rule, space, ask)
    if as_json:
        print_json(doubt_json(asked.sight, asked.pid, rule, message, doubt))
    else:
        show_doubt(message, doubt, console())
    sys.exit(1 if doubt.call is None else 0)


async def _explain(opened: Opened, asked: Asked) -> tuple[Asked, Chain, dict[str, Seen]]:
    chain = explain(asked.rules, asked.rule, asked.book, asked.sight)
    refs = [EffectRef(shard(one.pid), one.planned.id) for one in chain.effects]
    stored = await opened.store.read_effects(refs) if refs else []
    return asked, chain, {one.ref.id: Seen(one, read(one)) for one in stored if one is not None}


def _use(who: tuple[str, str], rule: str, space: str | None, ask: Callable[[Opened, Asked], Awaitable[T]]) -> T:
    """
    Ask something about a rule and a person.

    Raises:
        Unknown: there is no such person, or no such rule.

    """
    configure_logging("warning")
    settings = read_settings(os.environ)

    async def main() -> T:
        async with open_table(settings) as opened:
            named = space or await opened.desk.only_space()
            return await ask(opened, await _asked(opened, named, who, rule))

    return run(main)


async def _asked(opened: Opened, space: str, who: tuple[str, str], rule: str) -> Asked:
    rules = opened.rules(space)
    if rules is None or rule not in rules.gates:
        known = ", ".join(list(rules.gates)[:MAX_NAMED]) if rules is not None and rules.gates else "none"
        raise Unknown(f"space {space} has no rule with the id {rule!r}; it has: {known}")
    kind, value = who
    found = await opened.table.find(space, kind, opened.desk.normal(space, kind, value))
    if found is None:
        raise Unknown(f"nobody in space {space} has {WORDS[kind]} {value!r}")
    sight = Sight(space, found.record.key, World().clock())
    return Asked(rule, rules, found.record.book or EMPTY, sight, found.pid)
