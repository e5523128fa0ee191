"""Options about which messages and files are taken. Source: sr3-surface.md 2.4; R36, R51, R82, R107."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sarrapipe.config.kinds import choice, duration, flag, names, size
from sarrapipe.config.option import option

__all__ = ["SelectionOptions"]

_SECTION: Final = "Selection"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class SelectionOptions:
    """Which messages and files are taken; accept and reject are statements (statements.py)."""

    accept_unmatched: bool = option(
        flag,
        default=True,
        section=_SECTION,
        common=True,
        help="Take what matches no accept or reject line.",
    )
    accept_schemes: tuple[str, ...] = option(
        names,
        ("http", "https", "sftp", "file"),
        sr3=("http", "https", "sftp", "file", "ftp", "ftps"),
        section=_SECTION,
        help="Schemes of base URLs that may be fetched from; +NAME adds one (ftp, ftps), -NAME removes one. "
        "A file: URL is fetched only from beneath baseDir where that is set.",
    )
    accept_size_wrong: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="Keep a file whose size is not the announced one.",
    )
    validation: str = option(
        choice("full", "headers", "none"),
        "full",
        section=_SECTION,
        help="What is checked before a file is announced again: full, its bytes against the announced "
        "identity and size; headers, its size; none, nothing (for links between trusted pumps, R107).",
    )
    file_age_min: float = option(
        duration,
        0.0,
        section=_SECTION,
        help="Seconds a file must be unchanged (by its mtime) before it is taken; 0 takes any.",
    )
    file_age_max: float = option(
        duration,
        0.0,
        section=_SECTION,
        help="Seconds after which a file (by its mtime) is too old to be taken; 0 takes any.",
    )
    file_size_max: int = option(
        size,
        0,
        section=_SECTION,
        help="Bytes above which a file is rejected (413); 0 takes any.",
    )
    nodupe_ttl: float = option(
        duration,
        0.0,
        key="nodupe_ttl",
        section=_SECTION,
        common=True,
        help="Seconds for which a file once processed is known, and its repetitions are suppressed, by all "
        "instances of the flow; 0 suppresses nothing, on means 300.",
    )
    nodupe_basis: str = option(
        choice("path", "data", "name", data_only="data"),
        "path",
        key="nodupe_basis",
        section=_SECTION,
        help="What makes two messages the same: path (path and identity), data (identity alone), or name "
        "(last part of the path, and identity).",
    )
    log_reject: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="Log rejected messages, not only count them.",
    )
