"""Where the master is, as Redis Sentinel says: asked whenever a connection is opened, so also after a fail-over."""

from __future__ import annotations

from contextlib import closing

import hiredis
from msgspec.structs import replace

from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.store.wire import Address, Command, Reply, Wire


async def find_master(address: Address) -> Address:
    """
    Return the address of the master that *address* only names.

    The sentinels are asked one after another, and what is named is asked whether it is a master: a sentinel that was
    cut off may not know better yet. https://valkey.io/topics/sentinel-clients

    Raises:
        StoreUnavailable: no sentinel answers or knows the name, or what they name is no master.

    """
    problems: list[StoreUnavailable] = []
    for sentinel in address.sentinels:
        try:
            return await _named_by(sentinel, address)
        except StoreUnavailable as error:
            problems.append(error)
    raise problems[0]


async def _named_by(sentinel: Address, address: Address) -> Address:
    question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master)
    reply = await _ask(replace(sentinel, username=None, password=None), question)
    if isinstance(reply, hiredis.ReplyError) and sentinel.password is not None:
        reply = await _ask(sentinel, question)  # it asks for a password
    if isinstance(reply, hiredis.ReplyError):
        raise StoreUnavailable(f"the sentinel at {sentinel} refuses: {reply}")
    if reply is None:
        raise StoreUnavailable(f"the sentinel at {sentinel} knows no master {address.master}")
    named = replace(address, host=reply[0].decode(), port=int(reply[1]), sentinels=(), master="")
    role = await _ask(named, ("ROLE",))
    if isinstance(role, hiredis.ReplyError) or role[0] != b"master":
        raise StoreUnavailable(f"Redis at {named} is no master, though the sentinel at {sentinel} says so")
    return named


async def _ask(address: Address, command: Command) -> Reply:
    with closing(Wire(address)) as wire:
        (reply,) = await wire.run([command])
    return reply
