"""Documents in files: which there are, which have changed, what is in one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, TypeAlias

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.model import Document
from emarsys_cdp_hooks import InvalidDocument, Problem

MAX_DOCUMENT: Final = 10 * 1024 * 1024
"""Largest document that is read, in bytes."""

Stamp: TypeAlias = tuple[int, int]
"""What changes when a file does: the time of its last change in ns, and its size."""


def read_raw(path: Path) -> Any:
    """
    Return the JSON value in a file.

    Raises:
        InvalidDocument: it cannot be read, is too large, or is no JSON.

    """
    try:
        with path.open("rb") as file:
            return decode(file.read(MAX_DOCUMENT + 1), str(path))
    except OSError as error:
        raise InvalidDocument(str(path), (Problem("file", f"cannot be read: {error.strerror}"),)) from error


def decode(content: bytes, source: str) -> Any:
    """
    Return the JSON value that the content of a file is.

    Raises:
        InvalidDocument: it is too large, or is no JSON.

    """
    if len(content) > MAX_DOCUMENT:
        raise InvalidDocument(source, (Problem("file", f"has more than {MAX_DOCUMENT // 1024**2} MB"),))
    try:
        return json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(source, (Problem("file", f"is no JSON: {error}"),)) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def read_document(path: Path, compiler: Compiler) -> Document:
    """
    Return the document in a file.

    Raises:
        InvalidDocument: it cannot be read, is no JSON, or has problems; all of them are listed.

    """
    return compiler.read(str(path), read_raw(path))


def look(directory: Path) -> dict[str, tuple[Path, Stamp]]:
    """
    Return the documents of a directory by their names, each with its stamp.

    Raises:
        OSError: the directory cannot be read.

    """
    os.listdir(directory)  # a directory that is gone is an error, not a directory without documents
    found = {path.stem: (path, stat) for path in sorted(directory.glob("*.json")) if (stat := _stat(path))}
    return {name: (path, (stat.st_mtime_ns, stat.st_size)) for name, (path, stat) in found.items()}


def _stat(path: Path) -> os.stat_result | None:
    """Return the state of a visible file; an editor's lock is none, and a file may go away meanwhile."""
    try:
        return None if path.name.startswith(".") else path.stat()
    except FileNotFoundError:
        return None
