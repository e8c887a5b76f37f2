"""How a host is set up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host.values import QUICK_PACE, Pace, Stage
from emarsys_cdp.testing.fake_host.workspace import (
    Settings,
    Workspace,
    WrongWorkspace,
    read_workspace,
    simple_workspace,
)

Destinations: TypeAlias = Mapping[str, Settings] | Sequence[Mapping[str, Json]]


class HostOptions(TypedDict, total=False):
    """
    What a host can be told, all of it optional.

    *workspace*: a workspaceConfig.json, its path, its bytes or its content, instead of destinations.
    *write_key*: of the source that is made for the destinations (`write-key`).
    *proxy*: hand requests to the transformer for sending (true), or send them by itself;
    *delivery_transformer*: the URL to hand them to, where it is another one.
    *stage*: where calls are transformed, `router` or `processor`; without it as the destination's definition says.
    *compacted*: use the compacted form where the transformer can read it (true).
    *workers*: of each destination (4; a real server has 64), *batch*: jobs of one transform request (20),
    *batching*: send jobs of the processor stage to /batch (false), *order_threshold*: jobs of one person under way
    at which the host gives their order up for a while (200; 0: never).
    *pace*: all waiting times (`QUICK_PACE`, 200 times as quick as a real server); *batch_timeout*, *min_backoff*,
    *max_backoff* and *give_up_after* change single ones, in seconds.
    *keep_alive*: use connections to the transformer again (false, as a real server).
    *host_token*: sent as the password of basic authentication.
    *clock*: the time of the world in seconds since 1970 (`time.time`), *new_id*: makes messageIds (`uuid4`),
    *first_job*: the first jobId (1).
    *host*, *port*: where the gateway listens (a free port of loopback).
    """

    workspace: Path | bytes | Mapping[str, Json] | None
    write_key: str
    proxy: bool
    delivery_transformer: str | None
    stage: Literal["router", "processor"] | None
    compacted: bool
    workers: int
    batch: int
    batching: bool
    order_threshold: int
    pace: Pace
    batch_timeout: float | None
    min_backoff: float | None
    max_backoff: float | None
    give_up_after: float | None
    keep_alive: bool
    host_token: str | None
    clock: Callable[[], float]
    new_id: Callable[[], str]
    first_job: int
    host: str
    port: int


class Setup(Struct, frozen=True, kw_only=True):
    """The options of a host with their defaults; `HostOptions` says what they mean."""

    workspace: Path | bytes | Mapping[str, Json] | None = None
    write_key: str = "write-key"
    proxy: bool = True
    delivery_transformer: str | None = None
    stage: Literal["router", "processor"] | None = None
    compacted: bool = True
    workers: int = 4
    batch: int = 20
    batching: bool = False
    order_threshold: int = 200
    pace: Pace = QUICK_PACE
    batch_timeout: float | None = None
    min_backoff: float | None = None
    max_backoff: float | None = None
    give_up_after: float | None = None
    keep_alive: bool = False
    host_token: str | None = None
    clock: Callable[[], float] = time.time
    new_id: Callable[[], str] = lambda: str(uuid4())
    first_job: int = 1
    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense."""
        if self.workers < 1 or self.batch < 1:
            raise ValueError(f"workers and batch must be 1 or more, are {self.workers} and {self.batch}")
        if self.stage not in (None, *Stage):
            raise ValueError(f"stage must be router or processor, is {self.stage!r}")

    def real_pace(self) -> Pace:
        """Return the waiting times with those that were changed."""
        names = ("batch_timeout", "min_backoff", "max_backoff", "give_up_after")
        changed = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(self.pace, **changed)

    def sources(self, destinations: Destinations | None) -> Workspace:
        """
        Return the sources and destinations.

        Raises:
            WrongWorkspace: they are given in no way or in two, cannot be read, or are not of the right form.

        """
        if (destinations is None) == (self.workspace is None):
            raise WrongWorkspace("give either destinations or a workspace")
        if destinations is not None:
            return simple_workspace(destinations, self.write_key)
        if isinstance(self.workspace, Path):
            try:
                return read_workspace(self.workspace.read_bytes())
            except OSError as error:
                raise WrongWorkspace(f"{self.workspace} cannot be read: {error.strerror}") from error
        return read_workspace(self.workspace or {})
