"""The addresses that several workers listen on together."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

from emarsys_cdp_hooks import StopAndFix

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A machine without IPv6 has a `localhost` that cannot be listened on; the others of its addresses can."""


def spreads_connections() -> bool:
    """
    Tell whether the kernel spreads connections over sockets with the same address.

    Linux does (`SO_REUSEPORT`, socket(7)). macOS knows the option and gives all of them to one socket.
    """
    return sys.platform == "linux"


class Doors:
    """
    The addresses of *host* and *port*, reserved: nobody else gets them until `close`.

    With *spread* each worker gets sockets of its own and the kernel deals connections out between them; otherwise all
    workers accept from the same ones, and the idler is quicker. Either way the sockets belong to the parent, and so do
    the connections that wait in them: a worker that ends takes none along.

    Raises:
        StopAndFix: the host is unknown, or an address is taken.

    """

    def __init__(self, host: str, port: int, *, spread: bool) -> None:
        self._spread = spread
        self._reserved: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in dict.fromkeys(found):
                self._reserve(family, (address[0], self.port or address[1], *address[2:]))
            if not self._reserved:
                raise OSError(errno.EADDRNOTAVAIL, "not an address of this machine")
        except (OSError, UnicodeError) as error:  # the latter: no name of a machine can be like this
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error
            raise StopAndFix(f"{host}:{port} cannot be listened on: {reason}") from error

    @property
    def port(self) -> int:
        """The port, also when any free one was asked for; 0 before it is known."""
        return int(self._reserved[0].getsockname()[1]) if self._reserved else 0

    @property
    def url(self) -> str:
        """The URL of the first address."""
        host, port = self._reserved[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _reserve(self, family: int, address: tuple[Any, ...]) -> None:
        """Bind, so that a taken address is noticed, and only then allow the workers' sockets beside it."""
        try:
            one = _bound(family, address)
        except OSError as error:
            if error.errno in NOT_HERE:
                return
            raise
        self._reserved.append(one)
        if self._spread:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def open(self) -> list[socket.socket]:
        """Return sockets for one worker; it listens, they do not yet."""
        if not self._spread:
            return [one.dup() for one in self._reserved]
        return [_bound(one.family, one.getsockname(), shared=True) for one in self._reserved]

    def close(self) -> None:
        """Give the addresses back; sockets of `open` have to be closed by themselves."""
        for one in self._reserved:
            one.close()


def _bound(family: int, address: tuple[Any, ...], *, shared: bool = False) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one
