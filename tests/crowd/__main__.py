"""
Kill processes in every step of the protocol while they work on the same people, and look for anything lost or double.

    python -m tests.crowd [--kills N] [--cluster] [--seed N]

Eight processes share the requests of fifty people, then of fifty others, and so on. Each is told where to die: before a
round trip to the store is sent, with a part of it sent, or when the store has it but the reply was not handled. Another
process takes its place, and what was in its hands comes again. Exit code 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.crowd.run import PROCESSES, Outcome, run
from tests.crowd.steps import POSITIONS, STEPS
from tests.support.servers import standalone, three_masters
from tests.support.verdict import progress, show_verdict


def show(found: Outcome, where: str) -> bool:
    """Print what came of it; tell whether all is well."""
    console = Console(width=100)
    hits = Table("killed in", *POSITIONS, title=f"{found.kills} kills, {where}")
    for column in hits.columns[1:]:
        column.justify = "right"
    for step in STEPS:
        hits.add_row(step, *[str(found.hits.get((step, position), 0)) for position in POSITIONS])
    console.print(hits)
    rows = [
        ("groups of fifty people", f"{found.crowds}, of which {found.peaceful} without contradictions", True),
        ("processes at once", str(PROCESSES), True),
        ("requests", str(found.requests), True),
        ("calls answered", str(found.calls), True),
        ("requests that came again after a kill", str(found.again), True),
        ("requests refused for now", str(len(found.refused)), True),
        ("seconds", f"{found.seconds:.0f}", True),
        ("steps that nobody was killed in", ", ".join(found.missed) or "none", not found.missed),
        ("lost, double, misplaced, unfinished", str(len(found.faults)), not found.faults),
    ]
    well = show_verdict(rows, console)
    for line in found.faults[:20]:
        print(line)
    return well


def main() -> None:
    """Run a crowd and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="processes to kill (default: 1,000)")
    parser.add_argument("--cluster", action="store_true", help="on a cluster of three masters")
    parser.add_argument("--seed", type=int, default=1, help="of the calls and the orders (default: 1)")
    arguments = parser.parse_args()
    with progress() as bar, tempfile.TemporaryDirectory() as directory:
        task = bar.add_task("kills", total=arguments.kills)

        def go(url: str) -> Outcome:
            return run(url, arguments.kills, seed=arguments.seed, told=lambda n: bar.update(task, completed=n))

        if arguments.cluster:
            with three_masters(Path(directory)) as cluster:
                found = go(cluster.url)
        else:
            with standalone(Path(directory) / "valkey") as url:
                found = go(url)
    sys.exit(0 if show(found, "a cluster of three masters" if arguments.cluster else "one Valkey") else 1)


if __name__ == "__main__":
    main()
