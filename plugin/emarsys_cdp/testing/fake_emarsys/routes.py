"""The endpoints of the API: path, permission and function of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys import contact_queries, contacts, events, fields, lists
from emarsys_cdp.testing.fake_emarsys.account import Account, Call
from emarsys_cdp.testing.fake_emarsys.replies import INVALID_METHOD, UNROUTED, Refusal, Reply, ok, refuse

Endpoint: TypeAlias = Callable[[Account, Call], Reply]

CUSTOMER_ID: Final = 218_000_001
"""Id of the account."""


class Route(Struct, frozen=True):
    """
    One endpoint. *path* has `{}` where it varies.

    *permission* is the name of https://dev.emarsys.com/docs/core-api-reference/ef41493bd7812-endpoint-permission-settings
    """

    method: str
    path: str
    permission: str
    endpoint: Endpoint

    def parameters(self, parts: list[str]) -> tuple[str, ...] | None:
        """Return the varying parts of a path of this route, None when it is of another."""
        pattern = self.path.split("/")
        if len(pattern) != len(parts):
            return None
        pairs = list(zip(pattern, parts, strict=True))
        if any(wanted not in ("{}", part) for wanted, part in pairs):
            return None
        return tuple(part for wanted, part in pairs if wanted == "{}")


def _settings(account: Account, call: Call) -> Reply:  # noqa: ARG001 - the signature of endpoints
    """Answer GET /settings; beyond `id` its form is not documented."""
    return ok({"id": CUSTOMER_ID, "name": "fake_emarsys", "timezone": "Europe/Vienna", "country": "Austria"})


ROUTES: Final = (
    Route("PUT", "contact", "contact.update", contacts.update_contacts),
    Route("POST", "contact", "contact.create", contacts.create_contacts),
    Route("POST", "contact/getdata", "contact.getdata", contact_queries.get_data),
    Route("POST", "contact/checkids", "contact.contactid.verify", contact_queries.check_ids),
    Route("POST", "contact/delete", "contact.delete", contact_queries.delete_contacts),
    Route("GET", "contactlist", "contactlist.list", lists.list_lists),
    Route("POST", "contactlist", "contactlist.create", lists.create_list),
    Route("POST", "contactlist/{}/add", "contactlist.contact.add", lists.add_to_list),
    Route("POST", "contactlist/{}/delete", "contactlist.contact.delete", lists.remove_from_list),
    Route("GET", "event", "externalevent.list", events.list_events),
    Route("POST", "event", "externalevent.create", events.create_event),
    Route("GET", "event/{}/usages", "externalevent.usages", events.event_usages),
    Route("POST", "event/{}/trigger", "externalevent.trigger", events.trigger_event),
    Route("GET", "field", "field.get", lambda account, _: fields.list_fields(account.fields)),
    Route(
        "GET",
        "field/translate/{}",
        "field.list",
        lambda account, call: fields.list_fields(account.fields, call.parameters[0]),
    ),
    Route(
        "GET",
        "field/choices",
        "field.multichoice.list",
        lambda account, call: fields.list_many_choices(account.fields, call.query),
    ),
    Route(
        "GET",
        "field/{}/choice",
        "field.singlechoice.get",
        lambda account, call: fields.list_choices(account.fields, call.parameters[0]),
    ),
    Route(
        "GET",
        "field/{}/choice/translate/{}",
        "field.singlechoice.trans.list",
        lambda account, call: fields.list_choices(account.fields, *call.parameters),
    ),
    Route("GET", "settings", "customer.settings", _settings),
)

PERMISSIONS: Final = tuple(route.permission for route in ROUTES)
RESOURCES: Final = frozenset(route.path.partition("/")[0] for route in ROUTES)


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """
    Return the endpoint of a request, and the varying parts of its path.

    Raises:
        Refusal: there is none.

    """
    parts = path.strip("/").split("/")
    others = False
    for route in ROUTES:
        parameters = route.parameters(parts)
        if parameters is not None and route.method == method:
            return route, parameters
        others |= parameters is not None
    raise _nothing(parts, others)


def _nothing(parts: list[str], others: bool) -> Refusal:
    if others:
        return refuse(INVALID_METHOD, "Invalid HTTP method.")
    if parts[0] in RESOURCES and len(parts) > 1:
        return lists.invalid_action(parts[1])
    return refuse(UNROUTED, "No resource requested")
