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
from emarsys_cdp.document.model import Document
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
from emarsys_cdp.outbox.requests import Builds
from emarsys_cdp.outbox.sending import OutboxSender
from emarsys_cdp.outbox.spaces import policy_of
from emarsys_cdp.outbox.transport import Transport
from emarsys_cdp.outbox.transports import transport_of
from emarsys_cdp.pipeline import Pipeline
from emarsys_cdp.publishing import Publisher
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.secrets import Seal, derive, secret_of_directory
from emarsys_cdp.service.features import FeaturesSource
from emarsys_cdp.service.ruling import build_ruling
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
    real, virtual = world, VirtualClock(world.clock()) if settings.clock == VIRTUAL else None
    world = world if virtual is None else replace(world, clock=virtual)
    compiler = build_compiler(manager)
    namer, metrics = Namer(derive(secret, "identifiers")), Metrics()
    shelf = Shelf(store, namer)
    documents = Documents(shelf, compiler, world.clock, settings.rules_dir)
    spaces, lifetimes = Spaces(compiler, documents), SpaceLifetimes(documents)
    seal = Seal(derive(secret, "seal"), world.random_bytes)
    emarsys = connect(settings, store, seal, http, real)
    shares = Shares(store, namer, emarsys.worker, real.clock)
    ruling = build_ruling(
        store,
        namer,
        spaces,
        lifetimes,
        metrics,
        shares,
        world.first_revision(),
        world.clock,
        forget=lambda pid: rounds.forget(pid),  # noqa: PLW0108 - made below
        posted=lambda: outbox.notice(),  # noqa: PLW0108 - made below
    )
    documents.follow(lambda _: None, lambda: ruling.timers.renew(one[1] for one in documents.everything()))
    rounds = Rounds(
        store,
        namer,
        lambda: new_pid(world.random_bytes),
        world.jitter,
        world.first_revision(),
        lifetimes,
        ruling.timers.notice,
    )
    pipeline = Pipeline(
        Steps(manager),
        rounds,
        namer,
        emarsys.signer,
        metrics,
        world.clock,
        settings.api_base,
        FirstSeen(store, namer),
    )
    upstream = None if settings.upstream is None else Upstream(settings.upstream)
    pairings, directory = Pairings(store, namer, real.clock), Directory(store, seal, namer)
    builds = builds_of(Steps(manager).kinds())
    handing = Handing(store, metrics, world.clock, builds, ruling.again)
    rudderstack = RudderStack(
        pipeline, spaces, pairings, directory, handing, world.clock, whole=has_extensions(manager)
    )
    deliverer = Deliverer(emarsys.sender, store, Leases(store, emarsys.worker, world.chance))
    proxy = Proxy(deliverer, pairings, spaces, metrics, settings.api_base)
    table = UsersTable(store, namer, count(world.first_revision()), lifetimes)
    transport = _transport(
        settings, emarsys, http, deliverer, directory, pairings, documents.document, manager, builds, world
    )
    if virtual is not None:
        transport = translated(transport, real.clock, virtual)
    outbox = OutboxSender(
        store,
        emarsys.worker,
        lambda: shares.shards,
        transport,
        metrics,
        world.clock,
        world.chance,
        ruling.again,
    )
    deletion = Deletion(deliverer, directory, spaces, store, namer, table, metrics, world.clock)
    users = UsersDesk(table, store, namer, documents.document, world.clock)
    return Service(
        settings,
        store,
        rudderstack,
        proxy,
        deletion,
        emarsys,
        metrics,
        FeaturesSource(upstream),
        upstream,
        documents,
        Publisher(shelf, documents, compiler, world.clock),
        users,
        pairings,
        _sweeps(store, Merger(store, namer, count(world.first_revision()), lifetimes), emarsys.worker, metrics, world),
        outbox,
        ruling.timers,
        shares,
        world.clock,
        None
        if virtual is None
        else VirtualTime(virtual, store, namer, ruling.timers, outbox, waits=settings.ingest_url is not None),
    )


def _transport(
    settings: Settings,
    emarsys: Emarsys,
    http: httpx.AsyncClient,
    deliverer: Deliverer,
    directory: Directory,
    pairings: Pairings,
    document: Callable[[str], Document | None],
    manager: pluggy.PluginManager,
    builds: Builds,
    world: World,
) -> Callable[[str], Transport]:
    """Return the ways by which effects of rules leave."""
    types = {one.name: one for one in (*built_in_field_types(), *Steps(manager).field_types())}
    pinner = Pinner(Names(emarsys.sender, load_system_fields(), world.clock), types)
    policy = policy_of(document)
    keys = {} if settings.ingest_write_key is None else read_write_keys(settings.ingest_write_key.reveal())
    client = Client(http, settings.send_seconds)
    direct = Direct(deliverer, directory, pinner, policy, pairings.contact, builds)
    ingestion = Ingestion(client, settings.ingest_url, keys, directory, pinner, policy, builds, world.clock)
    return transport_of(direct, ingestion, policy)


def _sweeps(store: Store, merger: Merger, worker: str, metrics: Metrics, world: World) -> Sweeps:
    return Sweeps(Sweeper(store, merger, worker), metrics, world.chance)


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
