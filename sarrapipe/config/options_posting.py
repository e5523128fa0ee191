"""Options about announcing files. Source: sr3-surface.md 2.4; wire.md 1; R9, R38, R54-R56."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sarrapipe.config.kinds import (
    block_size,
    broker_url,
    choice,
    duration,
    flag,
    identity,
    names,
    optional_directory,
    optional_text,
    pairs,
    paths,
    subset,
    template,
    topic_words,
    url_template,
)
from sarrapipe.config.option import option
from sarrapipe.config.urls import BrokerUrl
from sarrapipe.config.values import IdentityChoice

__all__ = ["FILE_EVENTS", "PostingOptions"]

_SECTION: Final = "Posting"
FILE_EVENTS: Final = ("create", "delete", "link", "mkdir", "modify", "rename", "rmdir")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class PostingOptions:
    """What a flow announces, where and how."""

    post_broker: BrokerUrl | None = option(  # noqa: RUF009 - option() makes a dataclass field
        broker_url,
        None,
        section=_SECTION,
        common=True,
        help="Broker to announce files at. Its password is in credentials.conf. Default for sarra: the "
        "feeder of admin.conf.",
    )
    post_exchange: str | None = option(
        optional_text,
        None,
        section=_SECTION,
        common=True,
        help="Exchange to announce on. Default: xs_<user of post_broker>.",
    )
    post_exchange_suffix: str | None = option(
        optional_text,
        None,
        section=_SECTION,
        help="Makes the default exchange xs_<user>_<suffix>.",
    )
    post_topic_prefix: tuple[str, ...] = option(
        topic_words,
        (),
        section=_SECTION,
        help="First words of the topic of announcements. Default: v03, or v02.post with 'post_format v02'.",
    )
    post_format: str = option(
        choice("v03", "v02"),
        "v03",
        section=_SECTION,
        common=True,
        help="Dialect of the announcements.",
    )
    post_base_url: str | None = option(
        url_template,
        None,
        section=_SECTION,
        common=True,
        help="URL that others fetch the announced files from; the announced path follows it.",
    )
    post_base_dir: str | None = option(
        optional_directory,
        None,
        section=_SECTION,
        common=True,
        help="Directory that post_baseUrl serves: this part of a file's path is not announced.",
    )
    path: tuple[str, ...] = option(
        paths,
        (),
        section=_SECTION,
        common=True,
        help="Files and directories to announce; repeatable.",
    )
    identity: IdentityChoice = option(  # noqa: RUF009 - option() makes a dataclass field
        identity,
        IdentityChoice("sha512"),
        section=_SECTION,
        common=True,
        help="How announced files are identified: sha512 (every peer understands it), md5, xxh3_128 (fast, "
        "between sarrapipe pumps, v03 only), cod,METHOD (whoever downloads computes it), random, "
        "arbitrary,VALUE, or none.",
    )
    block_size: int = option(
        block_size,
        1,
        section=_SECTION,
        common=True,
        help="Announce files that are larger than this in blocks of so many bytes, one message each, so that "
        "consumers fetch them in parallel and from several pumps. 1: every file whole. 0: automatic, a third "
        "of files above 50 MiB, a tenth above 500 MiB, 500 MiB above 5000 MiB ('defaults sr3': 50 MiB).",
    )
    blocks_manifest: str = option(
        choice("self", "full"),
        "self",
        sr3="full",
        section=_SECTION,
        help="What each message of a block says of the others. self: nothing but their number, so that "
        "blocks are announced as they are hashed. full: the digest of every one, as sr3 needs it; nothing is "
        "announced before the last block is hashed, and n blocks make n messages of n entries.",
    )
    recompute_checksum: bool = option(
        flag,
        default=False,
        key="recompute_checksum",
        section=_SECTION,
        help="A file whose bytes are not the announced ones is accepted, and announced with the identity "
        "computed here (R106).",
    )
    header: Mapping[str, str] = option(
        pairs,
        MappingProxyType({}),
        section=_SECTION,
        help="A further field KEY of announcements; repeatable.",
    )
    to_clusters: tuple[str, ...] = option(
        names,
        (),
        key="to_clusters",
        section=_SECTION,
        common=True,
        help="Clusters the announced files are for; ALL means every one (R56).",
    )
    cluster: str | None = option(
        optional_text,
        None,
        section=_SECTION,
        help="Name of this cluster: the from_cluster of what is injected here.",
    )
    source: str | None = option(
        optional_text,
        None,
        section=_SECTION,
        help="Account that what is announced comes from. Default: the user of post_broker, else of broker.",
    )
    source_from_exchange: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="The source is the <user> of the exchange xs_<user> a message came through, whatever it says.",
    )
    source_from_message: bool = option(
        flag,
        default=True,
        sr3=False,
        section=_SECTION,
        help="A source that a message names is kept, so that it survives all hops (R54).",
    )
    post_message_age_max: float = option(
        duration,
        0.0,
        section=_SECTION,
        help="Seconds after which the broker drops an announcement that waits in a queue; 0 never.",
    )
    persistent: bool = option(
        flag,
        default=True,
        section=_SECTION,
        help="Announcements survive a restart of the broker.",
    )
    topic_copy: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="Announce with the topic a message came with, instead of one made from its path.",
    )
    rename: str = option(
        template,
        "",
        section=_SECTION,
        help="Path that consumers shall give the file: the field rename of announcements. Ending in a slash, "
        "the file's name is added.",
    )
    file_events: frozenset[str] = option(
        subset(*FILE_EVENTS),
        frozenset(FILE_EVENTS),
        section=_SECTION,
        help="Events that are announced or, on reception, carried out; others are rejected.",
    )
    randomize: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="Announce the files of a directory, and the blocks of a file, in random order.",
    )
    recursive: bool = option(
        flag,
        default=True,
        section=_SECTION,
        help="Announce what lies in the directories of a path, too.",
    )
    follow_symlinks: bool = option(
        flag,
        default=False,
        key="follow_symlinks",
        section=_SECTION,
        help="Announce what a symbolic link points to, under the link's name, instead of the link.",
    )
    realpath_post: bool = option(
        flag,
        default=False,
        section=_SECTION,
        help="Announce files under their path without symbolic links.",
    )
