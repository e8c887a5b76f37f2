"""What a timeline without conflicts has to end in, computed without any order: connected identifiers are one person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.model.reading import Json, event_time, first, message_id
from tests.model.rules import Rules
from tests.model.table import Call

Version = tuple[int, str]
Node = tuple[str, str]


def version_of(call: Call) -> Version:
    """Return the place of a call in the total order of calls."""
    return event_time(call.message, call.arrival), message_id(call.message)


def nodes(call: Call) -> set[Node]:
    """Return the identifiers of a call; the previousId is a device."""
    message = call.message
    named = {
        "user": message.get("userId"),
        "key": first(message, ["traits.email"]),
        "anon": message.get("anonymousId"),
        "previous": message.get("previousId"),
    }
    return {("anon" if kind == "previous" else kind, value) for kind, value in named.items() if value is not None}


def people(calls: Iterable[Call]) -> list[list[Call]]:
    """Return the calls of each person: those that are connected by identifiers."""
    groups: list[tuple[set[Node], list[Call]]] = []
    for call in calls:
        named = nodes(call)
        touched = [group for group in groups if group[0] & named]
        groups = [group for group in groups if not group[0] & named]
        together = named.union(*(group[0] for group in touched))
        groups.append((together, [each for group in touched for each in group[1]] + [call]))
    return [group[1] for group in groups]


def last(claims: Mapping[Version, Json]) -> Json:
    """Return the claim of the greatest version, None without any."""
    return claims[max(claims)] if claims else None


def person(calls: Sequence[Call], rules: Rules) -> dict[str, Json]:
    """Return the profile of a person with these calls, with its values."""
    keys = {version_of(call): key for call in calls if (key := first(call.message, rules.reader.primary_key))}
    users = {call.message["userId"] for call in calls if "userId" in call.message}
    claims = {
        row.name: {
            version_of(call): value for call in calls if (value := row.value(call.message, rules.zone)) is not None
        }
        for row in rules.data_maps
    }
    return {
        "user": min(users, default=None),
        "key": last(keys),
        "anons": sorted({call.message["anonymousId"] for call in calls if "anonymousId" in call.message}),
        "former": sorted(set(keys.values()) - {last(keys)}),
        "values": {name: last(values) for name, values in sorted(claims.items()) if values},
    }
