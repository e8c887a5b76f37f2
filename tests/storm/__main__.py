"""
Kill workers at random while timers fire, and compare what Emarsys got with what it gets when nobody dies.

    python -m tests.storm [--kills N] [--transport host|direct|both] [--cluster] [--troubles] [--seed N]

People live through stories of half a minute: carts, sign-ups, stops on another device, addresses that are told late. A
fake host hands their calls to four workers; one after the other is killed by SIGKILL, and another one takes its place.
What comes of the rules is compared, person by person, with a simulation, and with a run in which nobody is killed. With
--troubles Emarsys fails as well: 429, 5xx, answers that are lost after the request was done. Exit code 1 when anything
is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from tests.storm.run import DIRECT, EVERY, HOST, Outcome, Storm
from tests.support.servers import standalone, three_masters
from tests.support.verdict import progress, show_verdict

PEOPLE_A_SECOND = 3
CALM_SPREAD = 20.0
"""Where nobody is killed people begin within so many seconds."""


def show(calm: Outcome, found: Outcome, title: str) -> bool:
    """Print what came of it; tell whether all is well."""
    troubles = ", ".join(f"{name} {number}" for name, number in sorted(found.troubles.items())) or "none"
    differ = [number for number in found.ids.keys() & calm.ids.keys() if found.ids[number] != calm.ids[number]]
    rows = [
        ("workers killed", str(found.kills), True),
        ("people", f"{found.people}, of which {found.late} not judged: their calls were late", True),
        ("seconds", f"{found.seconds:.0f}, and {calm.seconds:.0f} without kills", True),
        ("requests to Emarsys", str(found.requests), True),
        ("troubles of Emarsys", troubles, True),
        ("triggers wanted, received", f"{found.wanted}, {found.received}", True),
        ("people who got something else than simulated", str(len(found.faults)), not found.faults),
        ("... of the run without kills", str(len(calm.faults)), not calm.faults),
        ("people who got other trigger ids without kills", str(len(differ)), not differ),
        ("triggers accepted twice", str(found.double), not found.double),
        ("repetitions known by their trigger id", f"{found.repeated}, one id came {found.most} times at most", True),
        ("effects that wait or were given up, faults in the log", str(len(found.errors)), not found.errors),
    ]  # fmt: skip
    well = show_verdict(rows, Console(width=120), title)
    for line in [*found.faults[:5], *calm.faults[:5], *found.errors[:5]]:
        print(line)
    return well


@contextmanager
def _store(directory: Path, *, cluster: bool) -> Iterator[str]:
    """Run a store of its own and give its URL."""
    directory.mkdir()
    if cluster:
        with three_masters(directory) as masters:
            yield masters.url
    else:
        with standalone(directory / "valkey") as url:
            yield url


def main() -> None:
    """Run a storm and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="workers to kill (default: 500)")
    parser.add_argument("--transport", choices=(DIRECT, HOST, "both"), default="both", help="(default: both)")
    parser.add_argument("--cluster", action="store_true", help="on a cluster of three masters")
    parser.add_argument("--troubles", action="store_true", help="Emarsys fails as well")
    parser.add_argument("--seed", type=int, default=1, help="of the people and the kills (default: 1)")
    arguments = parser.parse_args()
    spread = max(10.0, arguments.kills * EVERY)
    transports = (DIRECT, HOST) if arguments.transport == "both" else (arguments.transport,)
    with progress() as bar, tempfile.TemporaryDirectory() as name:
        task = bar.add_task("kills", total=arguments.kills)

        def go(where: str, kills: int, spread_seconds: float, *, troubles: bool) -> Outcome:
            directory = Path(name) / where
            with _store(directory, cluster=arguments.cluster) as url:
                return Storm(
                    url,
                    directory / "storm",
                    people=int(PEOPLE_A_SECOND * spread),
                    kills=kills,
                    spread=spread_seconds,
                    transports=transports,
                    seed=arguments.seed,
                    troubles=troubles,
                    told=lambda done: bar.update(task, completed=done),
                ).run()

        calm = go("calm", 0, CALM_SPREAD, troubles=False)
        found = go("killed", arguments.kills, spread, troubles=arguments.troubles)
    where = "a cluster of three masters" if arguments.cluster else "one Valkey"
    sys.exit(0 if show(calm, found, f"transport {' and '.join(transports)}, {where}") else 1)


if __name__ == "__main__":
    main()
