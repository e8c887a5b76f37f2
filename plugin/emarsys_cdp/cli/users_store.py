"""The users table of the settings, for commands that look at it beside a running service or without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from msgspec import Struct

from emarsys_cdp.documents import Documents
from emarsys_cdp.extensions import build_plugin_manager
from emarsys_cdp.merging import Merger
from emarsys_cdp.publishing import Publisher
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.secrets import derive, secret_of_directory
from emarsys_cdp.service.assembly import World, build_compiler
from emarsys_cdp.settings import PREFIX, Settings
from emarsys_cdp.shelf import Shelf
from emarsys_cdp.spaces import SpaceLifetimes, Spaces
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.sweeping import Sweeper
from emarsys_cdp.users_desk import UsersDesk
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp_hooks import StopAndFix


class Opened(Struct, frozen=True):
    """
    The store, opened: what answers questions about its people, what sweeps them, what publishes documents.

    *rules* gives the rules in force of a space, None when it has none.
    """

    store: Store
    desk: UsersDesk
    sweeper: Sweeper
    publisher: Publisher
    table: UsersTable
    rules: Callable[[str], RuleSet | None]


@asynccontextmanager
async def open_table(settings: Settings, looked_at: Callable[[], None] = lambda: None) -> AsyncIterator[Opened]:
    """
    Open the users table: that of the Redis URL, or of the data directory, also while a service runs there.

    *looked_at* is told of each record on the way through all of them.

    Raises:
        StopAndFix: there is none, its server does not start, or it was made with another secret.

    """
    world = World()
    async with AsyncExitStack() as stack:
        store = await _open_store(settings, stack)
        given = settings.secret
        secret = secret_of_directory(settings.data_dir, world.random_bytes) if given is None else given.reveal()
        namer, compiler = Namer(derive(secret, "identifiers")), build_compiler(build_plugin_manager())
        shelf = Shelf(store, namer)
        documents = Documents(shelf, compiler, world.clock, settings.rules_dir, records=False)
        lifetimes = SpaceLifetimes(documents)
        merger = Merger(store, namer, count(world.first_revision()), lifetimes)
        table = UsersTable(store, namer, count(world.first_revision()), lifetimes)
        if not await table.knows_secret():
            raise StopAndFix(
                f"the identifiers of this users table are not found by the secret: {PREFIX}SECRET, or the file "
                f"{settings.data_dir / 'secret'}, must be what the service has that fills it"
            )
        spaces = Spaces(compiler, documents)
        await documents.refresh()
        desk = UsersDesk(table, store, namer, documents.document, world.clock, looked_at)
        publisher = Publisher(shelf, documents, compiler, world.clock)
        sweeper = Sweeper(store, merger, world.worker())
        yield Opened(store, desk, sweeper, publisher, table, spaces.rules)


async def _open_store(settings: Settings, stack: AsyncExitStack) -> Store:
    """Connect to the server of the settings; that of a data directory is started when nobody runs it."""
    if settings.redis_url is not None:
        store = RedisStore(settings.redis_url.reveal())
        stack.push_async_callback(store.close)
        return store
    directory = settings.data_dir / "valkey"
    if not directory.is_dir() or (settings.secret is None and not (settings.data_dir / "secret").is_file()):
        raise StopAndFix(
            f"there is no users table in {settings.data_dir}: the service makes it when it starts. "
            f"Set {PREFIX}DATA_DIR to where it is, or {PREFIX}REDIS_URL and {PREFIX}SECRET"
        )
    server = EmbeddedServer(directory)
    store = RedisStore(server.url)
    stack.push_async_callback(store.close)
    try:
        await store.ping()
    except StoreUnavailable:
        server.start()
        stack.callback(server.stop)
    return store
