"""Options about fetching files and putting them in place. Source: sr3-surface.md 2.4; R104-R107."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sarrapipe.config.kinds import (
    choice,
    count,
    directory,
    duration,
    fetching,
    flag,
    inflight,
    natural,
    octal,
    optional_path,
    scheme,
    signed_duration,
    size,
    strip,
    text,
)
from sarrapipe.config.option import option
from sarrapipe.config.values import Fetching, Inflight, InflightMode, Strip

__all__ = ["PlacementOptions", "TransferOptions"]

_PLACEMENT: Final = "Placement"
_TRANSFER: Final = "Transfer"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class PlacementOptions:
    """Where a file goes. Each accept line takes the values that stand above it."""

    directory: str = option(
        directory,
        "",
        section=_PLACEMENT,
        common=True,
        help="Directory that files are put under, may hold variables. Default: post_baseDir, else the "
        "directory the command is given in. Holds for the accept lines below it.",
    )
    mirror: bool = option(
        flag,
        default=True,
        section=_PLACEMENT,
        common=True,
        help="Keep the directories of the announced path; off puts all files into one directory.",
    )
    strip: Strip = option(  # noqa: RUF009 - option() makes a dataclass field
        strip,
        Strip(),
        section=_PLACEMENT,
        common=True,
        help="Drop this many leading directories of the announced path, or what an expression matches.",
    )
    flatten: str = option(
        text,
        "/",
        section=_PLACEMENT,
        help="Character that joins the parts of the announced path to one file name; / leaves them apart.",
    )
    filename: str | None = option(
        scheme,
        None,
        section=_PLACEMENT,
        help="Naming scheme: WHATFN, HEADFN, SENDER, NONE, NONESENDER, TIME, SATNET=n or DESTFN=name, joined "
        "by colons; None keeps the announced name.",
    )
    base_dir: str | None = option(
        optional_path,
        None,
        section=_PLACEMENT,
        help="Directory that announced local paths (file: URLs) begin with: it is cut from the path of a "
        "received message, and files are read only from beneath it.",
    )
    base_url_rel_path: bool = option(
        flag,
        default=False,
        key="baseUrl_relPath",
        section=_PLACEMENT,
        help="Put the path of the base URL before the announced path.",
    )
    var_time_offset: float = option(
        signed_duration,
        0.0,
        section=_PLACEMENT,
        help="Seconds added to the present time (UTC) in variables such as ${%Y%m%d}.",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class TransferOptions:
    """How files are fetched."""

    download: Fetching = option(  # noqa: RUF009 - option() makes a dataclass field
        fetching,
        Fetching.OFF,
        section=_TRANSFER,
        help="Fetch the files that messages announce. With sendTo: on sends files of this machine; stream "
        "fetches each from where it is announced and sends it at once, without storing it here.",
    )
    inflight: Inflight = option(  # noqa: RUF009 - option() makes a dataclass field
        inflight,
        Inflight(InflightMode.HIDDEN),
        sr3=Inflight(InflightMode.NONE),
        section=_TRANSFER,
        help="How a file under way is told from a whole one: native (in a hidden directory), a suffix such "
        "as .tmp, '.' (hidden name), dir/ (in that directory), or none (in place, seen unfinished).",
    )
    overwrite: bool = option(
        flag,
        default=True,
        section=_TRANSFER,
        help="Replace a file that exists; off leaves it when its bytes are the announced ones (204).",
    )
    delete: bool = option(
        flag,
        default=False,
        section=_TRANSFER,
        help="Remove the file at its source after it was fetched and announced (file: URLs).",
    )
    discard: bool = option(
        flag,
        default=False,
        section=_TRANSFER,
        help="Fetch and verify, then remove: for tests of a source.",
    )
    attempts: int = option(
        natural,
        3,
        section=_TRANSFER,
        help="Times a transfer is tried before it waits in the retry store, or is given up if the source has "
        "no such file.",
    )
    timeout: float = option(
        duration,
        300.0,
        section=_TRANSFER,
        help="Seconds without a byte after which a transfer has failed.",
    )
    retry_ttl: float = option(
        duration,
        172800.0,
        key="retry_ttl",
        section=_TRANSFER,
        help="Seconds for which a failed transfer or post is retried, then it is rejected and counted; 0 for "
        "ever. Default two days.",
    )
    byte_rate_max: int = option(
        size,
        0,
        section=_TRANSFER,
        help="Bytes per second of all transfers of the flow together (under 'defaults sr3': of each "
        "instance); 0 without limit.",
    )
    streams: int = option(
        natural,
        16,
        section=_TRANSFER,
        help="Transfers that one instance has under way, ranges of large files included.",
    )
    streams_start: int = option(
        natural,
        4,
        section=_TRANSFER,
        help="Ranges of large files that an instance begins to fetch from a server at a time; more are "
        "tried, up to 'streams', and kept while they gain. With the value of 'streams' the number is fixed.",
    )
    streams_per_host: int = option(
        count,
        0,
        section=_TRANSFER,
        help="Transfers that the flow has under way with one server, shared equally among its 'instances', "
        "one each at least; 0: as many as 'streams' of each instance.",
    )
    streams_flow: int = option(
        count,
        0,
        section=_TRANSFER,
        help="Transfers that the flow has under way, shared equally among its 'instances', one each at "
        "least; 0: as many as 'streams' of each instance.",
    )
    segment_size: int = option(
        size,
        0,
        section=_TRANSFER,
        help="Bytes of the ranges a large file is fetched in; 0 chooses by size: at least 8 MiB.",
    )
    reassemble: bool = option(
        flag,
        default=True,
        sr3=False,
        section=_TRANSFER,
        help="What becomes of a file announced in blocks: on, it is put together and announced when it is "
        "whole; off, each block becomes a file of its own, announced as a block (movers of a shared-broker "
        "pump, which hold different blocks).",
    )
    inplace: bool = option(
        flag,
        default=False,
        section=_TRANSFER,
        help="Write a new version of a file announced in blocks into the one in place, instead of beside it: "
        "only the blocks that changed are written, without room for a second file. Until it is whole readers "
        "see blocks of both versions.",
    )
    segment_at: int = option(
        size,
        0,
        section=_TRANSFER,
        help="Announce files larger than this as blocks of this size (callback segment_at, loaded by this "
        "option), although their source announced them whole, so that every mover of the exchange they are "
        "announced on takes part; 0 leaves them whole.",
    )
    block_size_max: int = option(
        size,
        0,
        section=_TRANSFER,
        help="Reject announced blocks larger than this (413); 0 without limit.",
    )
    block_timeout: float = option(
        duration,
        3600.0,
        section=_TRANSFER,
        help="Seconds after the last new block of a file until the missing ones are asked of the sources "
        "that hold the whole file; after as long again, or where there is none, the file is given up.",
    )
    staging: str = option(
        choice("auto", "none", "slots"),
        "auto",
        section=_TRANSFER,
        help="How received bytes get into files: none, straight; slots, through shared memory, from where a "
        "thread writes and hashes them, so that a slow file system does not hold up what else is received; "
        "auto, whatever was measured to be faster (none).",
    )
    staging_bytes: int = option(
        size,
        64 << 20,
        section=_TRANSFER,
        help="Bytes of shared memory that all instances of a flow stage in together, at least 1 MiB; memory "
        "is held while it is in use. Transfers that find no room pause.",
    )
    max_inflight_bytes: int = option(
        size,
        1 << 30,
        section=_TRANSFER,
        help="Bytes of files that one instance has admitted and not finished; beyond that the queue keeps "
        "the messages. One file is always admitted.",
    )
    durability: str = option(
        choice("process", "host"),
        "process",
        section=_TRANSFER,
        help="What an acknowledged file survives: process, the death of every process; host, loss of power "
        "as well (files are synced, in groups, before they are announced).",
    )
    perm_copy: bool = option(
        flag,
        default=True,
        section=_TRANSFER,
        help="Announce, and give to fetched files, the permissions.",
    )
    time_copy: bool = option(
        flag,
        default=True,
        section=_TRANSFER,
        help="Announce, and give to fetched files, the modification time.",
    )
    perm_default: int = option(
        octal,
        0,
        section=_TRANSFER,
        help="Permissions of files that are announced without any; 0 leaves them to the umask.",
    )
    perm_dir_default: int = option(
        octal,
        0o775,
        section=_TRANSFER,
        help="Permissions, less the umask, of directories made on the way of fetched files.",
    )
