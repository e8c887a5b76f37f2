"""
The order of jobs that share a key, as a RudderStack router keeps it (reference 1.6, eventorder.go). Pure.

A job that failed and is to be tried again holds all later jobs of its key back. Once it is aborted, they go one at a
time until one succeeds. A key with too many jobs under way loses its order for a while.
"""

from __future__ import annotations

import heapq

from msgspec import Struct

from emarsys_cdp.testing.fake_host.jobs import Place, Record


class _Key(Struct):
    """
    What is known of one key.

    *inside* are the jobs under way, *one_by_one* those of them since a failed job was aborted (null: any number may
    go), *held* those that wait, by their place. The key has no order until *unordered_until*.
    """

    failed: Record | None = None
    inside: set[int] = set()
    one_by_one: set[int] | None = None
    held: list[tuple[Place, int, Record]] = []
    unordered_until: float = 0.0

    def is_unused(self, now: float) -> bool:
        """Tell whether nothing needs to be remembered."""
        remembers = self.failed is not None or self.one_by_one is not None or now < self.unordered_until
        return not (remembers or self.inside or self.held)


class Barrier:
    """
    Says which jobs of a destination may go.

    A key with *threshold* jobs under way (0: any number) is without order for *order_off* seconds.
    """

    def __init__(self, threshold: int, order_off: float) -> None:
        self._threshold = threshold
        self._order_off = order_off
        self._keys: dict[str, _Key] = {}

    def enter(self, record: Record, now: float) -> bool:
        """Let a job in, or keep it until `released` gives it back."""
        key = self._keys.setdefault(record.order_key, _Key())
        if self._enter(key, record, now):
            return True
        heapq.heappush(key.held, (record.place, record.id, record))
        return False

    def _enter(self, key: _Key, record: Record, now: float) -> bool:
        if now < key.unordered_until:
            return True
        if self._threshold and record.id not in key.inside and len(key.inside) >= self._threshold:
            key.failed, key.one_by_one, key.unordered_until = None, None, now + self._order_off
            key.inside.clear()
            return True
        alone = key.one_by_one is None or not key.one_by_one - {record.id}
        if not alone or key.failed not in (None, record):
            return False
        key.inside.add(record.id)
        if key.one_by_one is not None:
            key.one_by_one.add(record.id)
        return True

    def is_unordered(self, record: Record, now: float) -> bool:
        """Tell whether a job's key is without order."""
        key = self._keys.get(record.order_key)
        return key is not None and now < key.unordered_until

    def blocker(self, record: Record, now: float) -> Record | None:
        """Return the failed job for which a job that was let in has to wait after all."""
        key = self._keys.get(record.order_key)
        if key is None or key.failed is None or now < key.unordered_until or record.place <= key.failed.place:
            return None
        return key.failed

    def back(self, record: Record) -> None:
        """Take a job that was let in back among those that wait."""
        key = self._keys.setdefault(record.order_key, _Key())
        self._leave(key, record)
        heapq.heappush(key.held, (record.place, record.id, record))

    def failed(self, record: Record, now: float) -> None:
        """Note that a job is to be tried again: it holds the later ones of its key back."""
        key = self._keys.setdefault(record.order_key, _Key())
        if now < key.unordered_until:
            return
        self._leave(key, record)
        key.one_by_one = None
        if key.failed is None:
            key.failed = record

    def finished(self, record: Record, *, aborted: bool) -> None:
        """Note that a job has ended."""
        key = self._keys.setdefault(record.order_key, _Key())
        self._leave(key, record)
        if key.failed not in (None, record):
            return
        key.one_by_one = set() if aborted and key.failed is record else None
        key.failed = None

    def released(self, order_key: str, now: float) -> list[Record]:
        """Return the waiting jobs of a key that are let in now, in their order."""
        key, free = self._keys.get(order_key), []
        while key is not None and key.held and self._enter(key, key.held[0][2], now):
            free.append(heapq.heappop(key.held)[2])
        if key is not None and key.is_unused(now):
            del self._keys[order_key]
        return free

    @staticmethod
    def _leave(key: _Key, record: Record) -> None:
        key.inside.discard(record.id)
        if key.one_by_one is not None:
            key.one_by_one.discard(record.id)
