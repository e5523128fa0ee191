"""Names: the spellings of sr3 and v2, and options known to them that this program has not, or needs not.

Source: sr3-surface.md 2.4, 3.3 (sr3 3.03.01 has two tables of synonyms, v2 wrote snake_case).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["LATER", "NEEDLESS", "REWRITES", "SYNONYMS", "nearest", "snake_case"]

SYNONYMS: Final[Mapping[str, str]] = MappingProxyType({
    "accept_unmatch": "acceptUnmatched",
    "at": "attempts",
    "b": "broker",
    "base_dir": "baseDir",
    "basedir": "baseDir",
    "bd": "baseDir",
    "bind_queue": "queueBind",
    "blocksize": "blockSize",
    "c": "include",
    "cache": "nodupe_ttl",
    "cache_basis": "nodupe_basis",
    "caching": "nodupe_ttl",
    "cb": "callback",
    "cbp": "callback_prepend",
    "chmod": "permDefault",
    "chmod_dir": "permDirDefault",
    "chmod_log": "permLog",
    "config": "include",
    "d": "discard",
    "declare_exchange": "exchangeDeclare",
    "declare_queue": "queueDeclare",
    "default_dir_mode": "permDirDefault",
    "default_log_mode": "permLog",
    "default_mode": "permDefault",
    "dir": "directory",
    "document_root": "baseDir",
    "documentRoot": "baseDir",
    "download-and-discard": "discard",
    "e": "fileEvents",
    "events": "fileEvents",
    "ex": "exchange",
    "expiry": "expire",
    "fcb": "flowcb",
    "fcbp": "flowcb_prepend",
    "file_time_limit": "fileAgeMax",
    "flow_callback": "flowcb",
    "flow_callback_prepend": "flowcb_prepend",
    "flowCallback": "flowcb",
    "flowCallbackPrepend": "flowcb_prepend",
    "fs": "follow_symlinks",
    "h": "header",
    "heartbeat": "housekeeping",
    "instance": "instances",
    "integrity": "identity",
    "destination": "sendTo",
    "ll": "logLevel",
    "lock": "inflight",
    "log_level": "logLevel",
    "loglevel": "logLevel",
    "manager": "feeder",
    "message-ttl": "post_messageAgeMax",
    "message_ttl": "post_messageAgeMax",
    "messageTtl": "post_messageAgeMax",
    "nd": "nodupe_ttl",
    "no_duplicates": "nodupe_ttl",
    "nodupe_fileAgeMax": "fileAgeMax",
    "nodupe_fileAgeMin": "fileAgeMin",
    "o": "overwrite",
    "p": "path",
    "part_threshold": "blockSize",
    "pm": "permCopy",
    "post_base_dir": "post_baseDir",
    "post_basedir": "post_baseDir",
    "post_baseurl": "post_baseUrl",
    "post_base_url": "post_baseUrl",
    "post_document_root": "post_baseDir",
    "post_documentRoot": "post_baseDir",
    "post_topic_prefix": "post_topicPrefix",
    "post_url": "post_baseUrl",
    "preserve_mode": "permCopy",
    "preserve_time": "timeCopy",
    "pt": "timeCopy",
    "qn": "queueName",
    "queue": "queueName",
    "realpath": "realpathPost",
    "recompute_chksum": "recompute_checksum",
    "recomputeChecksum": "recompute_checksum",
    "s": "set",
    "sanity_log_dead": "runStateThreshold_hung",
    "sd": "nodupe_ttl",
    "sdb": "nodupe_basis",
    "setting": "set",
    "sub": "subtopic",
    "sum": "identity",
    "suppress_duplicates": "nodupe_ttl",
    "suppress_duplicates_basis": "nodupe_basis",
    "to": "to_clusters",
    "to_cluster": "to_clusters",
    "tp": "topicPrefix",
    "url": "post_baseUrl",
    "workers": "instances",
})  # fmt: skip


def _is_off(value: str) -> bool:
    return value.lower() in ("off", "no", "false", "0", "none")


def _bytes_ps(value: str) -> tuple[str, str]:
    return "byteRateMax", f"{value}ki" if value.isdigit() else value


def _parts(value: str) -> tuple[str, str]:
    flag, comma, size = value.partition(",")
    return "blockSize", size.strip() if comma and flag.strip() in ("i", "0") else value


# Old options whose meaning is a value, or the contrary, of another.
REWRITES: Final[Mapping[str, Callable[[str], tuple[str, str]]]] = MappingProxyType({
    "debug": lambda value: ("logLevel", "info" if _is_off(value) else "debug"),
    "kbytes_ps": _bytes_ps,
    "n": lambda value: ("download", "on" if _is_off(value) else "off"),
    "no_download": lambda value: ("download", "on" if _is_off(value) else "off"),
    "parts": _parts,
    "notify_only": lambda value: ("download", "on" if _is_off(value) else "off"),
})  # fmt: skip

# Options of sr3 and v2 that wait for other work. A line with one has no effect, and `check` says so.
LATER: Final = frozenset({
    "accel_cp_command", "accel_cp_threshold", "accel_scp_command", "accel_scp_threshold", "accel_threshold",
    "accel_wget_command", "accel_wget_threshold", "accelCpCommand", "accelFtpgetCommand",
    "accelFtpputCommand", "accelScpCommand", "accelThreshold", "accelWgetCommand", "baseUrl", "baseurl",
    "block_manifest_delete", "clean_session", "cluster_aliases", "content",
    "content_encoding", "content_max", "destfn_script", "destination_timezone", "do_data",
    "do_download", "do_get", "do_poll", "do_put", "do_send", "do_task", "download_cp_command", "dry_run",
    "exchange_split", "exchangeSplit", "flowMain", "force_polling", "fp", "ftpFilenameEncoding",
    "gateway_for", "hb_memory_baseline_file", "hb_memory_max", "hb_memory_multiplier", "httpsSafeQuote",
    "httpUserAgent", "imx", "inl", "inline", "inline_encoding", "inline_max", "inlineByteMax",
    "inlineEncoding", "inlineOnly", "log_format", "log_rotate", "logdays", "logDuplicates",
    "logEvents", "logFormat", "logJson", "logMetrics", "logRotate", "logRotate_interval", "logRotateCount",
    "logRotateInterval", "logStdout", "max_inflight_messages", "max_queued_messages", "MemoryBaseLineFile",
    "MemoryMax", "MemoryMultiplier", "messageDebugDump", "messageRateMax", "messageRateMin",
    "metrics_writeInterval", "no-import", "nodupe_driver", "on_file", "on_heartbeat", "on_housekeeping",
    "on_html_page", "on_line", "on_message", "on_msg", "on_part", "on_post", "on_report", "on_start",
    "on_stop", "on_watch", "plugin", "poll_without_vip", "pollUrl", "post_exchange_split",
    "post_exchangeSplit", "post_on_start", "post_rate_limit", "post_topic", "qos", "realpath_filter",
    "realpathFilter", "receiveMaximum", "remoteUrl", "report", "report_back", "report_broker",
    "report_daemons", "report_exchange", "retry_refilter", "retryCountMax",
    "retryEmptyBeforeExit", "runStateThreshold_cpuSlow", "runStateThreshold_disconnected",
    "runStateThreshold_idle", "runStateThreshold_lag", "runStateThreshold_reject",
    "runStateThreshold_retry", "runStateThreshold_slow", "scheduled_hour", "scheduled_interval",
    "scheduled_minute", "scheduled_time", "simulate", "simulation", "timezone",
    "v2compatRenameDoublePost", "vip", "xattr",
})  # fmt: skip

# Options that have nothing to switch here, and why.
NEEDLESS: Final[Mapping[str, str]] = MappingProxyType({
    "amqp_consumer": "the broker always pushes messages",
    "bufSize": "buffers are sized by the transfer itself",
    "bufsize": "buffers are sized by the transfer itself",
    "action": "actions are commands: sarrapipe start, stop, status ...",
    "cache_stat": "duplicates are counted by status",
    "file_total_interval": "files are counted by status",
    "from_cluster": "the option cluster says it",
    "hostname": "variables take the name of this host",
    "ls_file_index": "listings are read by themselves",
    "msg_total_interval": "messages are counted by status",
    "no": "instances are numbered by their parent",
    "nofsetstat": "a server that refuses times or modes is tolerated",
    "post_log_format": "the log has one format",
    "post_total_interval": "announcements are counted by status",
    "pump": "routing by pumps went with version 2",
    "pump_flag": "routing by pumps went with version 2",
    "reconnect": "a lost connection is always made again",
    "reset": "stored state is dropped by 'sarrapipe cleanup'",
    "retry_mode": "failed transfers are always retried, for retry_ttl",
    "save": "messages are kept in the broker's queue and the retry store",
    "restore": "messages are kept in the broker's queue and the retry store",
    "set_passwords": "accounts are made from credentials.conf",
    "sleep": "messages are pushed, so there is no pause between passes",
    "sundew_compat_regex_first_match_is_zero": "${0} is the whole match and ${1} the first group",
    "use_amqplib": "there is one client library",
    "use_pika": "there is one client library",
    "users": "accounts are made by 'sarrapipe declare'",
    "windows_run": "instances are started by their parent",
    "wololo": "there is nothing to convert here",
    "xattr_disable": "extended attributes are used where the file system has them",
})  # fmt: skip

_CAPITAL_RE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def snake_case(key: str) -> str:
    """Return `post_baseUrl` as v2 wrote it: `post_base_url`."""
    return _CAPITAL_RE.sub("_", key).lower()


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name most like `name`, regardless of case; None if none is like it."""
    spelled = {word.lower(): word for word in sorted(known, reverse=True)}
    found = difflib.get_close_matches(name.lower()[:60], spelled, n=1, cutoff=cutoff)
    return spelled[found[0]] if found else None
