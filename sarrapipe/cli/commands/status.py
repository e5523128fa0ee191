"""`sarrapipe status`: how flows are, for people and for monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from sarrapipe.cli.output import print_json, print_table, rate, size
from sarrapipe.config.load import ConfigHome
from sarrapipe.supervisor.flows import find
from sarrapipe.supervisor.status import FlowStatus, read_status, worst
from sarrapipe.units import format_duration

__all__ = ["command"]

_HEADER = (
    "Flow", "State", "Run", "msg/s", "file/s", "RxB/s", "pub/s", "Messages", "Files", "RxData", "Kept",
    "Published", "Errors", "Retry", "Lag", "Note",
)  # fmt: skip
_TRANSFERS: Final = (
    "Flow", "Under way", "From", "Done", "Of", "Share", "B/s", "Streams", "Segments", "Left",
)  # fmt: skip


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, with counters and instances.")
@click.option("--full", is_flag=True, help="Show each instance as well.")
def command(names: tuple[str, ...], *, as_json: bool, full: bool) -> int:
    """Show how flows are; nobody is asked, so it answers while they hang or after they were killed.

    Exit status, for monitoring: 0 all well (or stopped on purpose), 1 something is not as it should be,
    2 something is down.
    """
    statuses = [read_status(paths) for paths in find(ConfigHome.default(), names)]
    if as_json:
        print_json(statuses)
        return worst(statuses)
    print_table(_HEADER, [_row(status) for status in statuses])
    _print_transfers(statuses)
    for status in statuses if full else ():
        click.echo("")
        _print_instances(status)
    return worst(statuses)


def _row(status: FlowStatus) -> tuple[str, ...]:
    totals, rates = status.totals, status.rates
    errors = sum(count for name, count in totals.items() if name.startswith("errors_"))
    errors += totals.get("messages_malformed", 0)
    lag_s = totals.get("gauge_lag", 0) / 1e9 / max(1, len(status.instances))
    return (
        status.flow,
        status.state,
        f"{status.running}/{status.wanted}" if status.parent_pid else "-",
        *(
            rate(rates.get(name, 0.0))
            for name in ("messages_received", "files_ok", "bytes_received", "messages_published")
        ),
        *(
            size(totals.get(name, 0))
            for name in (
                "messages_received",
                "files_ok",
                "bytes_received",
                "bytes_kept",
                "messages_published",
            )
        ),
        size(errors),
        size(totals.get("gauge_retry_waiting", 0)),
        format_duration(lag_s),
        status.note.splitlines()[0] if status.note else "",
    )


def _print_transfers(statuses: Sequence[FlowStatus]) -> None:
    rows = [
        (
            status.flow, one.target, one.source, size(one.done), size(one.size) if one.size >= 0 else "?",
            f"{one.share:.0%}", rate(one.bytes_per_s), str(one.streams),
            f"{one.segments_done}/{one.segments}",
            "?" if one.left_s is None else format_duration(one.left_s),
        )
        for status in statuses
        for one in status.transfers
    ]  # fmt: skip
    if rows:
        click.echo("")
        print_table(_TRANSFERS, rows, left=3)


def _print_instances(status: FlowStatus) -> None:
    header = (status.flow, "State", "Phase", "Pid", "CPU", "Incarnation", "Silent", "Failures", "Note")
    rows = [
        (
            f"{one.number:02d}", "hung" if one.hung else one.state, one.phase, str(one.pid or "-"),
            "-" if one.cpu is None else str(one.cpu), str(one.incarnation), format_duration(one.silent_s),
            str(one.failures), one.note,
        )
        for one in status.instances
    ]  # fmt: skip
    print_table(header, rows, left=3)
