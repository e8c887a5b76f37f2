"""The command `emarsys-cdp`."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from emarsys_cdp import __version__
from emarsys_cdp.cli.account import account_command
from emarsys_cdp.cli.backtest import backtest_command
from emarsys_cdp.cli.check import check_command
from emarsys_cdp.cli.demo import demo_command
from emarsys_cdp.cli.explain import explain_command, why_not_command
from emarsys_cdp.cli.fake_emarsys import fake_emarsys_command
from emarsys_cdp.cli.fake_host import fake_host_command
from emarsys_cdp.cli.manifest import manifest_command
from emarsys_cdp.cli.outbox import outbox_command
from emarsys_cdp.cli.rules import rules_command
from emarsys_cdp.cli.serve import serve_command
from emarsys_cdp.cli.simulate import simulate_command
from emarsys_cdp.cli.users import users_command
from emarsys_cdp_hooks import EmarsysCdpError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that takes no more."""


class Commands(click.Group):
    """A group whose commands end with one clear line when something is wrong: exit code 1, usage errors 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except EmarsysCdpError as error:
            click.echo(f"emarsys-cdp: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            if error.errno not in FULL:
                raise
            click.echo(f"emarsys-cdp: the output cannot be written: {error.strerror}", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it would fail again
            sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emarsys-cdp")
def main() -> None:
    """
    Send what your customer data platform collects to SAP Emarsys.

    See it work in ten seconds, with nothing to set up:

        emarsys-cdp demo

    Then run it in front of RudderStack's transformer:

        emarsys-cdp serve
    """


for command in (demo_command, serve_command, check_command, manifest_command, fake_emarsys_command, fake_host_command):
    main.add_command(command)
main.add_command(account_command)
main.add_command(backtest_command)
main.add_command(explain_command)
main.add_command(why_not_command)
main.add_command(rules_command)
main.add_command(simulate_command)
main.add_command(users_command)
main.add_command(outbox_command)
