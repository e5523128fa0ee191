"""The JSON documents of runs, read back: for the page and for comparing two of them."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from typing import Any

from perf.compare import Run

__all__ = ["Document", "DocumentError", "read_documents", "runs_of"]

Document = dict[str, Any]


class DocumentError(ValueError):
    """A file does not hold what `perf run --json` writes."""


def read_documents(paths: Sequence[str]) -> list[Document]:
    """Read documents; a directory stands for every `*.json` in it. Of one scenario the newest stays.

    Raises:
        DocumentError: A file is none, or there are none at all.
    """
    files: list[str] = []
    for path in paths:
        files += sorted(glob.glob(os.path.join(path, "*.json"))) if os.path.isdir(path) else [path]
    found: dict[str, Document] = {}
    for file in files:
        document = _read(file)
        before = found.get(document["name"])
        if before is None or before["machine"]["time"] <= document["machine"]["time"]:
            found[document["name"]] = document
    if not found:
        raise DocumentError(f"no results in {' '.join(paths)}")
    return [found[name] for name in sorted(found)]


def runs_of(document: Document) -> list[Run]:
    """Return the runs in a document."""
    return [
        Run(
            side=each["side"],
            turn=each["turn"],
            ok=each["ok"],
            figures=each["figures"],
            wrong=tuple(each["wrong"]),
            settings=each["settings"],
            repeated=each.get("repeated", 0),
        )
        for each in document["figures"]
    ]


def _read(path: str) -> Document:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        document["name"], document["machine"]["time"], document["ratios"]
        runs_of(document)
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DocumentError(f"{path}: not what 'perf run --json' writes ({error})") from error
    assert isinstance(document, dict)
    return document
