"""`emarsys-cdp fake-emarsys`: a stand-in for the Emarsys API, in the foreground."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence

import click
import msgspec

from emarsys_cdp.credentials import Credentials, OAuth, parse_api_key
from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.settings import PREFIX
from emarsys_cdp.testing.fake_emarsys import FakeEmarsys, Fault
from emarsys_cdp.testing.fake_emarsys.fake import CLIENTS, EVENTS, WSSE_USERS
from emarsys_cdp.testing.fake_emarsys.options import RATE_LIMIT, TOKEN_SECONDS

DEFAULT_KEYS = (*map(":".join, CLIENTS.items()), *(f"wsse:{user}:{secret}" for user, secret in WSSE_USERS.items()))
DEFAULT_EVENTS = tuple(f"{number}={name}" for number, name in EVENTS.items())


@click.command("fake-emarsys")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=9099, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    default=DEFAULT_KEYS,
    show_default=True,
    metavar="KEY",
    help="An API Key to accept: client_id:client_secret or wsse:user:secret; several are possible.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    default=DEFAULT_EVENTS,
    show_default=True,
    metavar="ID=NAME",
    help="An external event of the account, connected to a program; several are possible.",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="ID:TYPE:NAME",
    help="A custom field, such as 7001:numeric:Points; several are possible. System fields are there.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="JSON",
    help="Something that goes wrong, see below; several are possible.",
)
@click.option(
    "--limit", default=RATE_LIMIT, show_default=True, type=click.IntRange(1), help="Requests a minute of an API user."
)
@click.option(
    "--token-seconds", default=TOKEN_SECONDS, show_default=True, type=click.IntRange(1), help="Life of access tokens."
)
@click.option("--dedupe/--no-dedupe", default=True, show_default=True, help="Take a trigger_id of an event once.")
@click.option("--interactions", is_flag=True, help="The account has the advanced features of Interactions.")
@click.option("--seed", default=0, show_default=True, help="Seed of faults with a probability.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON object instead of text.")
def fake_emarsys_command(
    host: str,
    port: int,
    api_keys: Sequence[str],
    events: Sequence[str],
    fields: Sequence[str],
    faults: Sequence[str],
    limit: int,
    token_seconds: int,
    dedupe: bool,
    interactions: bool,
    seed: int,
    as_json: bool,
) -> None:
    """
    Run a stand-in for the Emarsys API until it is interrupted. Nothing is sent to Emarsys.

    It checks credentials, limits, contacts, fields and external events as Emarsys does, keeps everything in memory,
    and shows it under /_fake. Print the addresses, point emarsys-cdp at them, send calls, and look:

    \b
      emarsys-cdp fake-emarsys --event 125=welcome
      curl http://127.0.0.1:9099/_fake/contacts
      curl http://127.0.0.1:9099/_fake/events
      curl http://127.0.0.1:9099/_fake/violations

    What goes wrong is a JSON object, here or posted to /_fake/faults while it runs:

    \b
      --fault '{"kind": "status", "status": 429, "path": "contact", "times": 2}'
      --fault '{"kind": "lost", "path": "event/*/trigger", "hold": 5}'
      --fault '{"kind": "rows", "keys": ["ada@example.com"], "code": 2010}'
      --fault '{"kind": "reset", "probability": 0.01}'

    help/testing.md has every kind of fault and every address under /_fake.

    \b
    Exit codes: 0 interrupted, 1 the port is not free, 2 used wrongly.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    credentials = [parse_api_key(key) for key in api_keys]
    emarsys = FakeEmarsys(
        host=host,
        port=port,
        oauth=_secrets(credentials, oauth=True),
        wsse=_secrets(credentials, oauth=False),
        external_events=dict(_event(text) for text in events),
        fields=[_field(text) for text in fields],
        limit=limit,
        token_seconds=token_seconds,
        dedupe=dedupe,
        interactions=interactions,
        seed=seed,
    )
    emarsys.script(*map(_fault, faults))
    _run(emarsys, credentials, as_json=as_json)


def _run(emarsys: FakeEmarsys, credentials: Sequence[Credentials], *, as_json: bool) -> None:
    """Serve until SIGINT or SIGTERM, then say in a line on stderr what happened."""
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    try:
        emarsys.start()
    except OSError as error:
        raise click.ClickException(f"cannot listen: {error.strerror}; choose another --port, 0 for any") from error
    try:
        click.echo(_as_json(emarsys, credentials) if as_json else _as_text(emarsys, credentials))
        end.wait()
    finally:
        emarsys.stop()
    counts = emarsys.counts
    click.echo(
        f"{counts.requests} requests, {counts.contacts} contacts, {counts.events} events, "
        f"{counts.violations} violations",
        err=True,
    )


def _as_json(emarsys: FakeEmarsys, credentials: Sequence[Credentials]) -> str:
    shown = {
        "url": emarsys.url,
        "api_base": emarsys.api_base,
        "token_url": emarsys.token_url,
        "control_url": emarsys.control_url,
        "api_keys": [_key(one) for one in credentials],
    }
    return msgspec.json.encode(shown).decode()


def _as_text(emarsys: FakeEmarsys, credentials: Sequence[Credentials]) -> str:
    return "\n".join(
        [
            f"FakeEmarsys listens on {emarsys.url} and shows what it got on {emarsys.control_url}",
            "",
            "For emarsys-cdp:",
            f"  export {PREFIX}API_BASE={emarsys.api_base}",
            f"  export {PREFIX}TOKEN_URL={emarsys.token_url}",
            "As API Key of a destination:",
            *(f"  {_key(one)}" for one in credentials),
        ]
    )


def _key(one: Credentials) -> str:
    """Return an API Key as it is written; the secrets of a stand-in are none."""
    if isinstance(one, OAuth):
        return f"{one.client_id}:{one.secret.reveal()}"
    return f"wsse:{one.user}:{one.secret.reveal()}"


def _secrets(credentials: Sequence[Credentials], *, oauth: bool) -> dict[str, str]:
    return {
        (one.client_id if isinstance(one, OAuth) else one.user): one.secret.reveal()
        for one in credentials
        if isinstance(one, OAuth) is oauth
    }


def _event(text: str) -> tuple[int, str]:
    number, _, name = text.partition("=")
    if not (number.isascii() and number.isdigit()) or not name:
        raise click.BadParameter(f"{text!r} is not ID=NAME, such as 125=welcome", param_hint="--event")
    return int(number), name


def _field(text: str) -> Field:
    number, _, rest = text.partition(":")
    kind, _, name = rest.partition(":")
    if not (number.isascii() and number.isdigit()) or not kind or not name:
        raise click.BadParameter(f"{text!r} is not ID:TYPE:NAME, such as 7001:numeric:Points", param_hint="--field")
    return Field(id=number, name=name, type=kind)


def _fault(text: str) -> Fault:
    try:
        return msgspec.json.decode(text, type=Fault)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint="--fault") from error
