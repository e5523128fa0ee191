"""Filter: which items are worked on, and where each goes.

Pure but for the clock: an item either leaves with its `target`, or with a report that says why it goes no
further. The checks that cost least come first. Safety (paths, sizes, control characters) is not optional;
`validation` relaxes only what is compared with the data later on.

Source: C, Flow Algorithm (filter); R36, R51, R82, R104; codes of wire.md 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sarrapipe.clock import Clock
from sarrapipe.config.masks import MaskMatch, match_text
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.placement import Placer
from sarrapipe.errors import SarrapipeError, TooLarge, Unsupported
from sarrapipe.flow.blocks import check_block, own_name, placed_path
from sarrapipe.message import safety
from sarrapipe.message.model import FileOp, Message
from sarrapipe.message.worklist import Report, WorkItem, Worklist

__all__ = ["OLD_PATH", "OLD_TARGET", "Filter", "removal_of_old_name"]

OLD_TARGET: Final = "_old_target"
"""Local field: where the old name of a renamed file is here; "" if it is not ours."""
OLD_PATH: Final = "_old_path"
"""Local field: the old name of a renamed file, relative to its base URL; "" if it is not ours."""

_NO_MASK: Final = 404
_EVENT_NOT_WANTED: Final = 202
_TOO_OLD: Final = 504
_FILE_TOO_OLD: Final = 410
_FILE_TOO_YOUNG: Final = 425
_OF_THE_DATA: Final = ("size", "identity", "mtime", "atime", "mode", "rename", "retrievePath", "content")
"""Fields that say nothing of a name that is gone."""


class Filter:
    """The accept and reject lines of a flow, its limits, and its placement of files.

    Args:
        config: The flow's configuration.
        clock: Source of time.
        count_error: Told of each error, for the counters.
        receives: Whether items come from others: then what they claim is checked, and they get a target.
    """

    def __init__(
        self,
        config: FlowConfig,
        clock: Clock,
        count_error: Callable[[SarrapipeError], None],
        *,
        receives: bool,
    ) -> None:
        self._config = config
        self._clock = clock
        self._count_error = count_error
        self._receives = receives
        self._placer = Placer(config)
        self._ages = bool(config.message_age_max or config.file_age_min or config.file_age_max)
        self._schemes = frozenset(config.accept_schemes)

    def apply(self, items: list[WorkItem]) -> Worklist:
        """Sort items into accepted (`incoming`), `rejected`, and `failed` (to be tried again later)."""
        worklist = Worklist()
        now_ns = self._clock.wall_ns()
        for item in items:
            try:
                report = self._judge(item, now_ns)
            except SarrapipeError as error:
                self._count_error(error)
                report = Report(error.code, str(error))
            if report is None:
                worklist.incoming.append(item)
                continue
            item.report = report
            (worklist.failed if report.code == _FILE_TOO_YOUNG else worklist.rejected).append(item)
        return worklist

    def _judge(self, item: WorkItem, now_ns: int) -> Report | None:
        """Return None to accept, having set the target."""
        config = self._config
        message = item.message
        if self._receives:
            safety.check(message, self._schemes)
        if self._ages and (report := self._judge_age(item, now_ns)) is not None:
            return report
        size = message.size
        if size is not None and config.file_size_max and size > config.file_size_max:
            raise TooLarge(f"{size} bytes exceed fileSizeMax {config.file_size_max}")
        match = config.masks.match(match_text(message))
        operation = message.file_op if self._receives and "fileOp" in message else None
        if operation is not None:
            event = _event_of(operation)
            if event not in config.file_events:
                return Report(_EVENT_NOT_WANTED, f"event {event} is not in fileEvents")
            if operation.rename is not None:
                return self._judge_rename(item, match, operation, now_ns)
        if not match.accepted:
            return Report(_NO_MASK, _refusal(match))
        if self._receives:
            return self._place(item, match, now_ns)
        return None

    def _place(self, item: WorkItem, match: MaskMatch, now_ns: int) -> Report | None:
        """Choose the target; that of a block is its file's."""
        config, message = self._config, item.message
        blocks = message.blocks if "blocks" in message.fields else None
        if blocks is None or not config.download:
            item.target = self._placer.target(message, match, now_ns)
            return None
        if config.send_to is not None and blocks.count > 1:
            raise Unsupported(
                f"block {blocks.number} of {blocks.count}: blocks cannot be sent; let this flow take files "
                "that are announced whole (a subscriber with reassemble on puts them together)"
            )
        check_block(blocks, config)
        root = self._placer.place(placed_path(message), message, match, now_ns)
        item.target = own_name(root, blocks, config)
        return None

    def _judge_rename(
        self, item: WorkItem, match: MaskMatch, operation: FileOp, now_ns: int
    ) -> Report | None:
        """Decide by which of the names are accepted (wire.md 1.4).

        Both: the file is renamed. Only the new one: it is fetched. Only the old one: it is removed, here and,
        since it is no longer to be had from here, at the next hop. Neither: rejected.
        """
        old, old_target = self._old_name(item.message, now_ns)
        if match.accepted:
            item.target = self._placer.target(item.message, match, now_ns)
            item[OLD_TARGET] = old_target
            item[OLD_PATH] = old
            return None
        if not old_target:
            return Report(_NO_MASK, _refusal(match))
        item.message = removal_of_old_name(item.message, operation, old)
        item.target = old_target
        return None

    def _old_name(self, message: Message, now_ns: int) -> tuple[str, str]:
        """Return the old name of a rename, and where it is here: "" where it is not what this flow takes."""
        base_path = message.base_url.partition("://")[2].partition("/")[2]
        old = safety.old_rel_path(message, [self._config.base_dir or "", "/" + base_path])
        if old is None:
            return "", ""
        match = self._config.masks.match(match_text({**message, "relPath": old}))
        if not match.accepted:
            return "", ""
        return old, self._placer.place(old, message, match, now_ns)

    def _judge_age(self, item: WorkItem, now_ns: int) -> Report | None:
        config = self._config
        message = item.message
        age_s = (now_ns - message.pub_time_ns) / 1e9
        if config.message_age_max and age_s > config.message_age_max:
            return Report(
                _TOO_OLD, f"announced {age_s:.0f} s ago, messageAgeMax is {config.message_age_max:g} s"
            )
        mtime_ns = message.mtime_ns
        if mtime_ns is None:
            return None
        file_age_s = (now_ns - mtime_ns) / 1e9
        if config.file_age_max and file_age_s > config.file_age_max:
            return Report(
                _FILE_TOO_OLD, f"file is {file_age_s:.0f} s old, fileAgeMax {config.file_age_max:g} s"
            )
        if config.file_age_min and file_age_s < config.file_age_min:
            return Report(
                _FILE_TOO_YOUNG, f"file is {file_age_s:.0f} s old, fileAgeMin {config.file_age_min:g} s"
            )
        return None


def removal_of_old_name(message: Message, operation: FileOp, old: str) -> Message:
    """Return what is announced of a rename whose new name is not to be had from here: its old name is gone.

    Args:
        message: The rename.
        operation: Its operation.
        old: Its old name, relative to its base URL.
    """
    gone = {"remove": "", "directory": ""} if operation.directory else {"remove": ""}
    return message.replace(relPath=old, fileOp=gone, **dict.fromkeys(_OF_THE_DATA))


def _refusal(match: MaskMatch) -> str:
    return "no accept line matches" if match.mask is None else f"refused by {match.mask.origin}"


def _event_of(operation: FileOp) -> str:
    """Return the name in `fileEvents` of an operation (sr3-surface.md 2.4)."""
    if operation.remove:
        return "rmdir" if operation.directory else "delete"
    if operation.rename is not None:
        return "rename"
    if operation.link is not None or operation.hlink is not None:
        return "link"
    return "mkdir" if operation.directory else "modify"
