"""Data only: schemas, settings forms, the catalogue of Emarsys system fields, sample calls."""

from __future__ import annotations

from importlib.resources import files


def read(name: str) -> bytes:
    """
    Return the bytes of a shipped file, by its path below this package (`schemas/document.schema.json`).

    Raises:
        FileNotFoundError: there is no such file.

    """
    return files(__name__).joinpath(name).read_bytes()
