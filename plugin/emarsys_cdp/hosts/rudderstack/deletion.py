"""
Deletion of users: `POST /deleteUsers`, which names people and an API Key but no destination.

The people's contacts are deleted in every space that sends with this API Key - those of their keys that nobody else
has claimed -, then the people are erased from the users table: in this order, so that a deletion that comes again still
finds the keys of those whose contacts could not be deleted. A contact that is not there counts as deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from emarsys_cdp.delivery.contact_keys import own_keys
from emarsys_cdp.delivery.deliverer import Deliverer, Parcel
from emarsys_cdp.delivery.directory import Directory
from emarsys_cdp.delivery.parcel import RowOrigin
from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.hosts.rudderstack import HOST
from emarsys_cdp.hosts.rudderstack.proxy_form import ABORTED, DELIVERED, JobAnswer, answer_of, worst
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.spaces import Spaces
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.rows import DELETE
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp_hooks import DropCall, Identifiers, Request, StopAndFix

PATIENCE: Final = 10.0
"""Seconds to wait for a contact and for the budget each; nobody waits for a deletion."""

MAX_DELETED: Final = 1000
"""Contacts of one deletion request (contact API, Delete Contacts)."""

NOBODY: Final = JobAnswer(ABORTED, "a user has neither a userId nor a value of the primary key: nobody to delete")

_log = structlog.get_logger("emarsys_cdp.rudderstack")
_canonical = msgspec.json.Encoder(order="deterministic").encode


class _Job(Struct):
    """A deletion as the host sends it."""

    userAttributes: list[dict[str, Any]]  # noqa: N815 - names as the host sends them
    config: dict[str, Any]
    destType: str = ""  # noqa: N815


class _Typed(Struct):
    destType: str = ""  # noqa: N815


_jobs = msgspec.json.Decoder(list[_Job])
_typed = msgspec.json.Decoder(list[_Typed])


def is_ours(body: bytes) -> bool:
    """Tell whether a deletion is for Emarsys only; one that cannot be read is not."""
    try:
        return {job.destType.lower() for job in _typed.decode(body)} == {"emarsys"}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False


class Deletion:
    """The deletion endpoint of one service."""

    def __init__(
        self,
        deliverer: Deliverer,
        directory: Directory,
        spaces: Spaces,
        store: Store,
        namer: Namer,
        table: UsersTable,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._deliverer = deliverer
        self._directory = directory
        self._spaces = spaces
        self._store = store
        self._namer = namer
        self._table = table
        self._metrics = metrics
        self._clock = clock

    async def delete(self, body: bytes) -> tuple[int, bytes]:
        """
        Delete people's contacts; return the HTTP status, by which the host judges all jobs, and the answer's body.

        Raises:
            DropCall: the request cannot be read.
            RetryLater: the store is out of order.

        """
        try:
            jobs = _jobs.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise DropCall(
                f"the deletion cannot be read ({error}): send an array of jobs with config and userAttributes"
            ) from error
        answers = [await self._job(job) for job in jobs]
        overall = worst(answers) if answers else JobAnswer(DELIVERED)
        return overall.status, msgspec.json.encode([_answer(one) for one in answers])

    async def _job(self, job: _Job) -> JobAnswer:
        """Return what became of one job: the worst of all its people in all its spaces."""
        try:
            spaces = await self._spaces_of(job.config)
        except StopAndFix as error:
            return JobAnswer(ABORTED, str(error))
        answers = [await self._people(space, job.userAttributes) for space in spaces]
        return worst(answers)

    async def _spaces_of(self, config: dict[str, Any]) -> list[CompiledSpace]:
        """Return the spaces that send with an API Key; one with the default document when there is none yet."""
        fingerprint = _canonical(config)
        unknown = self._spaces.get("", HOST, fingerprint, config)
        known = await self._directory.spaces(unknown.credentials)
        return [self._spaces.get(space, HOST, fingerprint, config) for space in known] or [unknown]

    async def _people(self, space: CompiledSpace, people: Sequence[dict[str, Any]]) -> JobAnswer:
        """Delete the contacts of people in one space."""
        found: dict[str, None] = {}
        answers: list[JobAnswer] = []
        known: list[Identifiers] = []
        for ids in [_identifiers(space, attributes) for attributes in people]:
            if ids.user is None and ids.key is None:
                answers.append(NOBODY)
            else:
                known.append(ids)
                await self._settle(space, ids)
                found |= dict.fromkeys(await own_keys(self._store, self._namer, space.id, ids))
        keys = list(found)
        for start in range(0, len(keys), MAX_DELETED):
            answers += await self._contacts(space, keys[start : start + MAX_DELETED])
        _log.info("contacts_deleted", space=space.id, contacts=sum(one.status == DELIVERED for one in answers))
        answer = worst(answers) if answers else JobAnswer(DELIVERED)
        if all(one.status == DELIVERED or one is NOBODY for one in answers):
            for ids in known:
                await self._erase(space, ids)
        return answer

    async def _settle(self, space: CompiledSpace, ids: Identifiers) -> None:
        """Finish a merge that somebody has left half done, so that the person has all keys."""
        for kind, value in (("user", ids.user), ("key", ids.key)):
            if value is not None:
                await self._table.find(space.id, kind, value)

    async def _erase(self, space: CompiledSpace, ids: Identifiers) -> None:
        """Erase a person: by the userId, else by the key; a key beside a userId only when it is nobody else's."""
        now = self._clock()
        if ids.user is not None:
            await self._table.erase(space.id, "user", ids.user, DELETE, now)
        if ids.key is not None:
            owner = await self._table.find(space.id, "key", ids.key)
            if ids.user is None or owner is None or owner.record.user is None:
                await self._table.erase(space.id, "key", ids.key, DELETE, now)

    async def _contacts(self, space: CompiledSpace, keys: Sequence[str]) -> list[JobAnswer]:
        request = Request("POST", "contact/delete", {"key_id": space.key_field, space.key_field: list(keys)})
        names = tuple([self._namer(space.id, "contact", key) for key in keys])
        parcel = Parcel(space.id, space.credentials, request, names, (RowOrigin(),) * len(keys))
        sent = await self._deliverer.deliver(parcel, PATIENCE)
        for one in sent:
            self._metrics.count_delivery(request.path, type(one.outcome).__name__.lower())
        return [answer_of(one) for one in sent]


def _identifiers(space: CompiledSpace, attributes: dict[str, Any]) -> Identifiers:
    """Return who a deletion is about: its attributes are those of an identify call."""
    message = {"userId": attributes.get("userId"), "traits": attributes, "context": {"traits": attributes}}
    return space.reader.read(message)


def _answer(answer: JobAnswer) -> dict[str, Any]:
    if answer.status == DELIVERED:
        return {"statusCode": DELIVERED, "status": "successful"}
    return {"statusCode": answer.status, "error": answer.error}
