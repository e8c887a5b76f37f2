"""Run the command with `python -m emarsys_cdp`."""

from emarsys_cdp.cli import main

main(prog_name="emarsys-cdp")
