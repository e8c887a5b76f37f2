"""What a condition asks of a call: the facts that it reads, and the compiled form that the engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from emarsys_cdp_hooks import Value

Values: TypeAlias = Mapping[str, Value]
"""Values of data maps by their names, as their types read them; what is not there is left out."""

NOTHING: Values = {}


class Facts(Struct, gc=False):
    """
    What a criterion may read at one call.

    *event*: what the call carries. *time*: when it happened (ms since 1970 UTC). *profile*: the last known values of
    the person in event-time order, those of this call included; *before*: the same without this call. *instance*: the
    captured variables. *sync*: data maps whose first sync of the space was still under way when the call arrived.
    """

    event: Values
    time: int
    profile: Values = NOTHING
    before: Values = NOTHING
    instance: Values = NOTHING
    sync: tuple[str, ...] = ()


class Leaf(Struct, frozen=True):
    """One comparison of a criterion as it came out: its text, the value that was read, and whether it holds."""

    text: str
    value: Value
    holds: bool


class Criterion(Struct, frozen=True):
    """
    A compiled criterion. All of it is pure.

    *holds* decides. *might* is quicker and knows only what the call carries and when it happened: it is False only
    where *holds* is False whatever is known beside. *leaves* lists every comparison with the value read. *keys*: a data
    map and texts, when the criterion can only hold for calls that carry one of these texts in it (for the index); None:
    there are none. *maps* are those read from the call, *profile_maps* those whose history has to be known,
    *variables* the captured ones. *text* is the short form, for people. *rest* is what *might* asks beside the *keys*;
    None: nothing.
    """

    holds: Callable[[Facts], bool]
    might: Callable[[Values, int], bool]
    leaves: Callable[[Facts], tuple[Leaf, ...]]
    text: str = ""
    keys: tuple[str, frozenset[str]] | None = None
    maps: frozenset[str] = frozenset()
    profile_maps: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    rest: Callable[[Values, int], bool] | None = None


def _always(_: object, __: object = None) -> bool:
    return True


ALWAYS = Criterion(_always, _always, lambda _: ())
"""The criterion of a condition without one."""
