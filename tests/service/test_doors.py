from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from emarsys_cdp.service.doors import Doors
from emarsys_cdp_hooks import StopAndFix

CONNECTIONS = 40


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close at the end of the test what was opened."""
    with ExitStack() as opened:
        yield opened


def listeners(stack: ExitStack, doors: Doors, count: int) -> list[socket.socket]:
    """Return the listening sockets of so many workers, each on one address."""
    found = [stack.enter_context(one) for _ in range(count) for one in doors.open()]
    for one in found:
        one.listen(CONNECTIONS)
        one.setblocking(False)
    return found


def connect(stack: ExitStack, doors: Doors) -> None:
    """Open some connections."""
    for _ in range(CONNECTIONS):
        stack.enter_context(closing(socket.create_connection(("127.0.0.1", doors.port))))


def accepted(listener: socket.socket) -> int:
    """Accept what waits and return how many these were."""
    number = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            number += 1
    return number


def test_connections_are_dealt_out(stack: ExitStack) -> None:
    """Each worker has its own socket on the same port, and the kernel uses all of them."""
    doors = stack.enter_context(closing(Doors("127.0.0.1", 0, spread=True)))
    one, two = listeners(stack, doors, 2)
    connect(stack, doors)
    counts = accepted(one), accepted(two)

    assert sum(counts) == CONNECTIONS
    assert min(counts) > 0


def test_a_closed_socket_gets_nothing(stack: ExitStack) -> None:
    """A worker whose socket is closed is left out; no connection is refused."""
    doors = stack.enter_context(closing(Doors("127.0.0.1", 0, spread=True)))
    one, two = listeners(stack, doors, 2)
    one.close()
    connect(stack, doors)

    assert accepted(two) == CONNECTIONS


def test_one_socket_for_all(stack: ExitStack) -> None:
    """Without spreading any worker can accept what has connected, and it outlives the worker that goes."""
    doors = stack.enter_context(closing(Doors("127.0.0.1", 0, spread=False)))
    one, two = listeners(stack, doors, 2)
    connect(stack, doors)
    one.close()

    assert accepted(two) == CONNECTIONS


@pytest.mark.parametrize("spread", [True, False])
def test_a_port_in_use_is_refused(stack: ExitStack, *, spread: bool) -> None:
    """Nobody else listens on a port of ours, whatever options they have."""
    doors = stack.enter_context(closing(Doors("127.0.0.1", 0, spread=spread)))
    listeners(stack, doors, 1)

    for other in (True, False):
        with pytest.raises(StopAndFix, match=f"127.0.0.1:{doors.port} cannot be listened on: .*in use"):
            Doors("127.0.0.1", doors.port, spread=other)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", doors.port))


@pytest.mark.parametrize("host", ["x" * 64, "192.0.2.1"])
def test_an_address_of_somebody_else_is_named(host: str) -> None:
    """A host that is unknown, or is not this machine, is refused by its name."""
    with pytest.raises(StopAndFix, match=f"{host}:9090 cannot be listened on: "):
        Doors(host, 9090, spread=True)


def test_every_address_of_a_name(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several addresses is listened on at all that there are, on one port; others are left out."""
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in ("192.0.2.1", "127.0.0.1", "127.0.0.2", "127.0.0.1")
        ],
    )
    doors = stack.enter_context(closing(Doors("several", 0, spread=True)))
    names = [one.getsockname() for one in listeners(stack, doors, 1)]

    assert names == [("127.0.0.1", doors.port), ("127.0.0.2", doors.port)]
    assert doors.url == f"http://127.0.0.1:{doors.port}"
