"""
Send many calls through the whole way while everything breaks, and compare what is left with what has to be.

    python -m tests.soak [--calls N] [--no-proxy] [--seed N]

A fake host hands calls to a service with two workers and an embedded Valkey, which delivers them to a fake Emarsys.
Emarsys fails in every way it can, workers and Valkey are killed. Exit code 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from tests.soak.run import Outcome, soak
from tests.support.verdict import progress, show_verdict


def show(found: Outcome, *, proxy: bool) -> bool:
    """Print what came of a soak; tell whether all is well."""
    unexplained = set(found.wrong) - (frozenset() if proxy else found.explained)
    refused = [breach for breach in found.breaches if "truncated" not in breach]
    rows = [
        ("jobs", str(found.jobs), True),
        ("seconds", f"{found.seconds:.0f}", True),
        ("states", ", ".join(f"{name} {number}" for name, number in found.states.items() if number), True),
        ("faults of Emarsys", ", ".join(f"{name} {number}" for name, number in sorted(found.faults.items())), True),
        ("killed", ", ".join(f"{name} {number}" for name, number in found.kills.items()), True),
        ("requests to Emarsys", str(found.requests), True),
        ("contacts that differ", f"{len(found.wrong)}, of which {len(unexplained)} without an overtaking at the host",
         not unexplained),
        ("calls aborted", str(len(found.aborted)), not found.aborted),
        ("events lost", str(len(found.lost)), not found.lost),
        ("events accepted twice", f"{len(found.twice)} (known repetitions: {found.repeats})", not found.twice),
        ("over a limit of Emarsys", str(len(found.violations)), not found.violations),
        ("answers broken off by a kill", str(len(found.breaches) - len(refused)), True),
        ("answers the host would not take", str(len(refused)), not refused),
    ]  # fmt: skip
    title = f"soak, delivery {'by the proxy' if proxy else 'by the host itself'}"
    well = show_verdict(rows, Console(width=120), title)
    for line in [*found.aborted[:5], *found.violations[:5], *refused[:5]]:
        print(line)
    for address in sorted(unexplained)[:5]:
        print(address, "has", found.wrong[address][0], "and should have", found.wrong[address][1])
    return well


def main() -> None:
    """Run a soak and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--calls", type=int, default=200_000, help="calls to send (default: 200,000)")
    parser.add_argument("--no-proxy", action="store_true", help="the host sends the requests by itself")
    parser.add_argument("--seed", type=int, default=1, help="of the calls, the faults and the kills (default: 1)")
    arguments = parser.parse_args()
    with progress() as bar, tempfile.TemporaryDirectory() as directory:
        task = bar.add_task("jobs done", total=arguments.calls)
        found = soak(
            arguments.calls,
            Path(directory) / "soak",
            proxy=not arguments.no_proxy,
            seed=arguments.seed,
            told=lambda done: bar.update(task, completed=done),
        )
    sys.exit(0 if show(found, proxy=not arguments.no_proxy) else 1)


if __name__ == "__main__":
    main()
