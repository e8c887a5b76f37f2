"""The example of help/testing.md: the real service between a FakeHost and a FakeEmarsys."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emarsys_cdp.testing import FakeEmarsys

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LISTENS = "emarsys-cdp listens on "
LONGEST = 60


@contextmanager
def serving(directory: Path, emarsys: FakeEmarsys) -> Iterator[str]:
    """Run the service in front of *emarsys*; yields its URL."""
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "EMARSYS_CDP_DATA_DIR": str(directory / "data"),
            "EMARSYS_CDP_API_BASE": emarsys.api_base,
            "EMARSYS_CDP_TOKEN_URL": emarsys.token_url,
            "EMARSYS_CDP_LOG_LEVEL": "error",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        yield next(line.removeprefix(LISTENS).strip() for line in lines if line.startswith(LISTENS))
    finally:
        process.terminate()
        process.communicate(timeout=LONGEST)


def test_the_example_of_the_help_runs(root: Path, tmp_path: Path) -> None:
    """Its calls are delivered and filtered as it says, and the contact is at Emarsys."""
    page = (root / "plugin/emarsys_cdp/help/testing.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page.partition("\n## FakeHost\n")[2], re.DOTALL)
    assert "http://127.0.0.1:9090" in example
    with FakeEmarsys() as emarsys, serving(tmp_path, emarsys) as url:
        code = example.replace("http://127.0.0.1:9090", url)
        exec(compile(code, "help/testing.md", "exec"), {})  # noqa: S102 - our own documentation

        assert emarsys.contact("3", "ada@example.com") == {"3": "ada@example.com"}
        assert emarsys.violations == ()
