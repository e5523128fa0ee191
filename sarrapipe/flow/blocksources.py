"""Where the blocks of one file come from: its sources one after the other, each in one version only.

Blocks that are ranges of a whole file make one file only if they are of one version of it. The ledger pins
the version that the first response of each source named, for every instance: what another one got from
elsewhere in time is fetched anew, not mixed in. A block that cannot be had from one source is asked of every
other that holds the whole file before it is given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarrapipe.errors import SourceChanged
from sarrapipe.flow.blocks import BlockSource
from sarrapipe.ledger import blocks as ledger_blocks
from sarrapipe.ledger.ledger import Decisions
from sarrapipe.ledger.records import ASSEMBLING

if TYPE_CHECKING:
    from sarrapipe.flow.blockparts import BlockFetch, Part

__all__ = ["elsewhere", "learn_version", "other_versions"]


def elsewhere(decide: Decisions, fetch: BlockFetch, part: Part) -> BlockSource | None:
    """Return a source that was not tried for a block; None if there is none left.

    Args:
        decide: The open transaction.
        fetch: The file.
        part: The block; its present source is noted as tried.
    """
    part.tried.add(part.source.url)
    row = decide.row(fetch.claim)
    if row is None:
        return None
    for url in ledger_blocks.ranged_sources(decide.tables, fetch.claim.generation):
        if url not in part.tried:
            return BlockSource(
                url=url,
                url_is_escaped=False,
                offset=part.number * fetch.plan.segment_bytes,
                length=part.source.length,
                whole_size=row.size if row.size >= 0 else None,
                ranged=True,
            )
    return None


def learn_version(decide: Decisions, fetch: BlockFetch, source: BlockSource) -> None:
    """Ask once which version of a source a sibling pinned, so that the server is asked for that one."""
    url = source.url
    if not source.ranged or url in fetch.asked_versions:
        return
    fetch.asked_versions.add(url)
    etag = decide.pinned(fetch.claim, url)
    if etag and url not in fetch.validators:
        fetch.validators[url] = etag
        fetch.pinned.add(url)


def other_versions(decide: Decisions, fetch: BlockFetch) -> list[tuple[Part, SourceChanged]]:
    """Pin the versions that came, before any block of them is marked.

    Returns:
        Written blocks that are of another version than a sibling pinned, taken out of `fetch.done`.
    """
    new = {p.source.url for p, _ in fetch.done if p.source.ranged} & fetch.validators.keys() - fetch.pinned
    row = decide.row(fetch.claim) if new else None
    if row is None or row.phase != ASSEMBLING:
        return []  # somebody else's now, as the marks will tell
    changed = set()
    for url in sorted(new):
        if not decide.pin(fetch.claim, fetch.validators[url], url):
            changed.add(url)
            fetch.validators[url] = decide.pinned(fetch.claim, url)
        fetch.pinned.add(url)
    wrong = [part for part, _ in fetch.done if part.source.ranged and part.source.url in changed]
    fetch.done = [entry for entry in fetch.done if entry[0] not in wrong]
    return [
        (part, SourceChanged(f"{part.source.url}: another version answers than to a sibling"))
        for part in wrong
    ]
