"""Puts the service together from its settings: the one place where parts get to know each other."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from itertools import count

import httpx
import pluggy
import structlog
from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.delivery.deliverer import Deliverer
from emarsys_cdp.delivery.directory import Directory
from emarsys_cdp.delivery.leases import Leases
from emarsys_cdp.delivery.pairing import Pairings
from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.documents import Documents
from emarsys_cdp.emarsys.client import Client, open_http
from emarsys_cdp.emarsys.connection import Emarsys, connect
from emarsys_cdp.emarsys.field_types import built_in_field_types
from emarsys_cdp.emarsys.fields import load_system_fields
from emarsys_cdp.extension_kinds import builds_of
from emarsys_cdp.extensions import Steps, build_plugin_manager, has_extensions
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.hosts.rudderstack.adapter import RudderStack
from emarsys_cdp.hosts.rudderstack.deletion import Deletion
from emarsys_cdp.hosts.rudderstack.proxy import Proxy
from emarsys_cdp.merging import Merger
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.outbox.direct import Direct
from emarsys_cdp.outbox.handing import Handing
from emarsys_cdp.outbox.ingestion import Ingestion
from emarsys_cdp.outbox.names import Names
from emarsys_cdp.outbox.pinning import Pinner
from emarsys_cdp.outbox.sending import OutboxSender
from emarsys_cdp.outbox.spaces import policy_of
from emarsys_cdp.outbox.transport import Transport
from emarsys_cdp.outbox.transports import transport_of
from emarsys_cdp.pipeline import Pipeline
from emarsys_cdp.publishing import Publisher
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.secrets import Seal, derive, secret_of_directory
from emarsys_cdp.service.features import FeaturesSource
from emarsys_cdp.service.ruling import Ruling, build_ruling
from emarsys_cdp.service.sweeps import Sweeps
from emarsys_cdp.service.timers import Timers
from emarsys_cdp.service.upstream import Upstream
from emarsys_cdp.service.virtual_time import VirtualClock, VirtualTime, translated
from emarsys_cdp.settings import VIRTUAL, Settings, read_write_keys
from emarsys_cdp.shares import Shares
from emarsys_cdp.shelf import Shelf
from emarsys_cdp.spaces import SpaceLifetimes, Spaces
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import Namer, new_pid
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.sweeping import Sweeper
from emarsys_cdp.users_desk import UsersDesk
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp.validation import compile_schema

_log = structlog.get_logger("emarsys_cdp.service")

MAX_JITTER = 0.05
"""Longest wait, in seconds, before a call that another worker has overtaken is tried again."""


class World(Struct, frozen=True):
    """What the service takes from outside itself: time in ms since 1970 UTC, and chance."""

    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    first_revision: Callable[[], int] = lambda: secrets.randbits(62)
    jitter: Callable[[int], float] = lambda tries: random.uniform(0, min(MAX_JITTER, 0.001 * 2**tries))  # noqa: S311 - spreads tries, no secret
    chance: Callable[[], float] = random.random
    worker: Callable[[], str] = lambda: secrets.token_hex(8)


class Service(Struct):
    """The running parts that requests need."""

    settings: Settings
    store: Store
    rudderstack: RudderStack
    proxy: Proxy
    deletion: Deletion
    emarsys: Emarsys
    metrics: Metrics
    features: FeaturesSource
    upstream: Upstream | None
    documents: Documents
    publisher: Publisher
    users: UsersDesk
    pairings: Pairings
    sweeps: Sweeps
    outbox: OutboxSender
    timers: Timers
    shares: Shares
    clock: Callable[[], int]
    virtual: VirtualTime | None

    async def close(self) -> None:
        """Finish what is under way and close the connections to the store and the stock transformer."""
        with suppress(StoreUnavailable):
            await self.shares.leave()
        await self.pairings.finish()
        await self.store.close()
        if self.upstream is not None:
            await self.upstream.close()


def build_compiler(manager: pluggy.PluginManager) -> Compiler:
    """Return a compiler of documents that knows what is built in and what extensions add."""
    steps = Steps(manager)
    types = [*built_in_field_types(), *steps.field_types()]
    return Compiler(compile_schema("document"), load_system_fields(), types, steps.kinds())


def assemble(
    settings: Settings,
    store: Store,
    secret: str,
    http: httpx.AsyncClient,
    manager: pluggy.PluginManager,
    world: World,
) -> Service:
    """
    Return the service over a store. *http* are the connections to Emarsys.

    A virtual clock is that of calls, rules, documents and the outbox. What is about others goes by *world* all the
    same: Emarsys looks at the time of signatures, tokens and budgets, hosts deliver when they do, and the heartbeat of
    a worker that has died has to become old. Lifetimes of what is stored are the server's.
    """
    return _Assembly(settings, store, secret, http, manager, world).service()


class _Assembly:
    """The parts of a service that several others need; *real* is the world outside, *world* that of a virtual clock."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        secret: str,
        http: httpx.AsyncClient,
        manager: pluggy.PluginManager,
        world: World,
    ) -> None:
        self.settings, self.store, self.http = settings, store, http
        self.real, self.virtual = world, VirtualClock(world.clock()) if settings.clock == VIRTUAL else None
        self.world = world if self.virtual is None else replace(world, clock=self.virtual)
        self.steps, self.whole = Steps(manager), has_extensions(manager)
        self.compiler, self.metrics = build_compiler(manager), Metrics()
        self.namer = Namer(derive(secret, "identifiers"))
        self.shelf = Shelf(store, self.namer)
        self.documents = Documents(self.shelf, self.compiler, self.world.clock, settings.rules_dir)
        self.spaces, self.lifetimes = Spaces(self.compiler, self.documents), SpaceLifetimes(self.documents)
        seal = Seal(derive(secret, "seal"), world.random_bytes)
        self.emarsys = connect(settings, store, seal, http, world)
        self.directory = Directory(store, seal, self.namer)
        self.pairings = Pairings(store, self.namer, world.clock)
        self.deliverer = Deliverer(self.emarsys.sender, store, Leases(store, self.emarsys.worker, world.chance))
        self.shares = Shares(store, self.namer, self.emarsys.worker, world.clock)
        self.builds = builds_of(self.steps.kinds())

    def service(self) -> Service:
        """Return the service."""
        settings, store, namer, world = self.settings, self.store, self.namer, self.world
        ruling = self._ruling(lambda pid: rounds.forget(pid), lambda: outbox.notice())  # noqa: PLW0108 - made below
        rounds = self._rounds(ruling)
        outbox = self._outbox(ruling)
        table = UsersTable(store, namer, count(world.first_revision()), self.lifetimes)
        upstream = None if settings.upstream is None else Upstream(settings.upstream)
        return Service(
            settings,
            store,
            self._rudderstack(rounds, ruling),
            Proxy(self.deliverer, self.pairings, self.spaces, self.metrics, settings.api_base),
            Deletion(self.deliverer, self.directory, self.spaces, store, namer, table, self.metrics, world.clock),
            self.emarsys,
            self.metrics,
            FeaturesSource(upstream),
            upstream,
            self.documents,
            Publisher(self.shelf, self.documents, self.compiler, world.clock),
            UsersDesk(table, store, namer, self.documents.document, world.clock),
            self.pairings,
            self._sweeps(),
            outbox,
            ruling.timers,
            self.shares,
            world.clock,
            self._virtual_time(ruling, outbox),
        )

    def _ruling(self, forget: Callable[[str], None], posted: Callable[[], None]) -> Ruling:
        """Return what runs rules beside the calls; a publication may have everybody looked at."""
        revision, clock = self.world.first_revision(), self.world.clock
        ruling = build_ruling(
            self.store,
            self.namer,
            self.spaces,
            self.lifetimes,
            self.metrics,
            self.shares,
            revision,
            clock,
            forget,
            posted,
        )
        everything = self.documents.everything
        self.documents.follow(lambda _: None, lambda: ruling.timers.renew(one[1] for one in everything()))
        return ruling

    def _rounds(self, ruling: Ruling) -> Rounds:
        world = self.world
        return Rounds(
            self.store,
            self.namer,
            lambda: new_pid(world.random_bytes),
            world.jitter,
            world.first_revision(),
            self.lifetimes,
            ruling.timers.notice,
        )

    def _rudderstack(self, rounds: Rounds, ruling: Ruling) -> RudderStack:
        clock, metrics = self.world.clock, self.metrics
        first_seen = FirstSeen(self.store, self.namer)
        pipeline = Pipeline(
            self.steps, rounds, self.namer, self.emarsys.signer, metrics, clock, self.settings.api_base, first_seen
        )
        handing = Handing(self.store, metrics, clock, self.builds, ruling.again)
        return RudderStack(pipeline, self.spaces, self.pairings, self.directory, handing, clock, whole=self.whole)

    def _outbox(self, ruling: Ruling) -> OutboxSender:
        world, shares, transport = self.world, self.shares, self._transport()
        if self.virtual is not None:
            transport = translated(transport, self.real.clock, self.virtual)
        return OutboxSender(
            self.store,
            self.emarsys.worker,
            lambda: shares.shards,
            transport,
            self.metrics,
            world.clock,
            world.chance,
            ruling.again,
        )

    def _transport(self) -> Callable[[str], Transport]:
        """Return the ways by which effects of rules leave."""
        settings, clock, directory, builds = self.settings, self.world.clock, self.directory, self.builds
        types = {one.name: one for one in (*built_in_field_types(), *self.steps.field_types())}
        pinner = Pinner(Names(self.emarsys.sender, load_system_fields(), clock), types)
        policy = policy_of(self.documents.document)
        keys = {} if settings.ingest_write_key is None else read_write_keys(settings.ingest_write_key.reveal())
        client = Client(self.http, settings.send_seconds)
        direct = Direct(self.deliverer, directory, pinner, policy, self.pairings.contact, builds)
        ingestion = Ingestion(client, settings.ingest_url, keys, directory, pinner, policy, builds, clock)
        return transport_of(direct, ingestion, policy)

    def _sweeps(self) -> Sweeps:
        merger = Merger(self.store, self.namer, count(self.world.first_revision()), self.lifetimes)
        return Sweeps(Sweeper(self.store, merger, self.emarsys.worker), self.metrics, self.world.chance)

    def _virtual_time(self, ruling: Ruling, outbox: OutboxSender) -> VirtualTime | None:
        if self.virtual is None:
            return None
        waits = self.settings.ingest_url is not None
        return VirtualTime(self.virtual, self.store, self.namer, ruling.timers, outbox, waits=waits)


@asynccontextmanager
async def running(settings: Settings, world: World) -> AsyncIterator[Service]:
    """
    Run the service: start the embedded server when there is no Redis URL, close everything at the end.

    Raises:
        StopAndFix: the embedded server does not start, or the secret cannot be read.

    """
    async with AsyncExitStack() as stack:
        url = store_url(settings, stack)
        store = RedisStore(url)
        stack.push_async_callback(store.close)
        proxy = None if settings.http_proxy is None else settings.http_proxy.reveal()
        http = await stack.enter_async_context(open_http(proxy))
        secret = (
            settings.secret.reveal()
            if settings.secret is not None
            else secret_of_directory(settings.data_dir, world.random_bytes)
        )
        service = assemble(settings, store, secret, http, build_plugin_manager(), world)
        stack.push_async_callback(service.close)
        if service.virtual is not None:
            await service.virtual.resume()
        yield service


def store_url(settings: Settings, stack: AsyncExitStack | ExitStack) -> str:
    """Return the URL of the store; without one start the embedded server, which is stopped with *stack*."""
    if settings.redis_url is not None:
        return settings.redis_url.reveal()
    server = EmbeddedServer(settings.data_dir / "valkey")
    server.start()
    stack.callback(server.stop)
    _log.info("embedded_server_started", directory=str(settings.data_dir / "valkey"))
    return server.url
