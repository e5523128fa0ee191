"""Announce files once and end: what `sarrapipe post` does, as a library call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sarrapipe.callbacks.gather_file import GatherFile
from sarrapipe.clock import SYSTEM_CLOCK, Clock
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import ConfigError
from sarrapipe.flow.components import Assembled, Place, assemble
from sarrapipe.shm.slots import Counter

__all__ = ["PostResult", "post_files"]

_PROGRESS_EVERY_S = 0.5


@dataclass(slots=True)
class PostResult:
    """What came of it.

    Attributes:
        posted: Announcements confirmed by the broker.
        errors: What could not be announced: a sentence for each, naming the path.
        seconds: How long it took.
    """

    posted: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


def post_files(
    config: FlowConfig,
    progress: Callable[[PostResult, str], None] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> PostResult:
    """Announce what `config.path` names and return when the broker has confirmed everything.

    While the broker is away it waits and tries again; nothing is given up.

    Args:
        config: Of the component post.
        progress: Called now and then with the result so far and what is waited for, if anything.
        clock: Source of time.

    Raises:
        ConfigError: There is nothing to announce, or nowhere to announce it.
    """
    if config.post_broker is None:
        raise ConfigError("post_broker is missing: say which broker to announce files at", config.file)
    if not config.path:
        raise ConfigError("nothing to announce: name files or directories, or set path", config.file)
    began_s = clock.monotonic_s()
    assembled = assemble(config, Place(), clock)
    result = PostResult()
    with assembled.closing:
        assembled.chain.call("on_start")
        next_report_s = began_s + _PROGRESS_EVERY_S
        while not assembled.flow.finished:
            assembled.flow.turn()
            if progress is not None and clock.monotonic_s() >= next_report_s:
                next_report_s = clock.monotonic_s() + _PROGRESS_EVERY_S
                result.posted = assembled.tally.slot.get(Counter.MESSAGES_PUBLISHED)
                progress(result, _waiting_for(assembled))
        result.posted = assembled.tally.slot.get(Counter.MESSAGES_PUBLISHED)
        assert isinstance(assembled.source, GatherFile)
        assembled.chain.call("on_stop")
        result.errors = assembled.source.errors + assembled.refusals
    result.seconds = clock.monotonic_s() - began_s
    return result


def _waiting_for(assembled: Assembled) -> str:
    state = assembled.broker_state()
    if state is None or state.connected or state.last_error is None:
        return ""
    return str(state.last_error)
