"""Accept and reject lines: which messages a flow takes, and where their files go.

Each line keeps the placement (directory, mirror, strip, flatten, filename) that stood above it; the first
line whose expression matches decides, else `acceptUnmatched`. Expressions are matched from the start of
baseUrl, a slash and relPath. Source: sr3-surface.md 3.3; R36, R51.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sarrapipe.config.regexes import compile_regex
from sarrapipe.config.substitute import Template
from sarrapipe.config.values import Origin, Strip

__all__ = ["Mask", "MaskMatch", "Masks", "PlacementRule", "match_text"]

_EVERYTHING: Final = frozenset({".*", "^.*", ".*$", "^.*$", ".+", "^.+$"})


@dataclass(frozen=True, slots=True)
class PlacementRule:
    """Where files go: what an accept line captures.

    Attributes:
        directory: Absolute directory, may hold variables that a message decides.
        mirror: Keep the directories of the announced path.
        strip: Leading part of the announced path to drop.
        flatten: Joins the parts of the path to one file name; `/` does not.
        filename: Naming scheme, None to keep the announced name.
        plain_head: The directory with its slash, where the announced path goes under it as it is; else None.
        strip_regex: What `strip` cuts out, compiled; None where it is a number.
    """

    directory: Template
    mirror: bool
    strip: Strip
    flatten: str
    filename: Template | None
    plain_head: str | None = field(init=False, compare=False, repr=False)
    strip_regex: re.Pattern[str] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        plain = self.mirror and self.strip == Strip() and self.flatten == "/" and self.filename is None
        constant = self.directory.constant
        head = constant.rstrip("/") + "/" if plain and constant is not None else None
        object.__setattr__(self, "plain_head", head)
        # Announced paths have no leading slash here, though expressions for v2 are written with one.
        pattern = self.strip.pattern.removeprefix("/")
        object.__setattr__(self, "strip_regex", compile_regex(pattern) if pattern else None)


@dataclass(frozen=True, slots=True)
class Mask:
    """One accept or reject line.

    Attributes:
        accept: Whether it takes or refuses.
        regex: The compiled expression.
        rule: The placement captured.
        arguments: Further words of the line, for callbacks.
        origin: The line.
    """

    accept: bool
    regex: re.Pattern[str]
    rule: PlacementRule
    arguments: tuple[str, ...] = ()
    origin: Origin = field(default=Origin(""), compare=False)

    def __str__(self) -> str:
        return f"{'accept' if self.accept else 'reject'} {self.regex.pattern} ({self.origin})"

    @property
    def rule_uses_groups(self) -> bool:
        """Whether the placement needs the groups of the expression."""
        rule = self.rule
        return rule.directory.uses_groups or (rule.filename is not None and rule.filename.uses_groups)


@dataclass(frozen=True, slots=True)
class MaskMatch:
    """What the masks say of one message.

    Attributes:
        accepted: Whether to take it.
        mask: The line that decided; None if no line matched.
        rule: The placement that holds.
        groups: The whole match, then the expression's groups; empty unless the placement uses them.
    """

    accepted: bool
    mask: Mask | None
    rule: PlacementRule
    groups: tuple[str, ...] = ()


def match_text(message: Mapping[str, object]) -> str:
    """Return what masks are matched against: baseUrl, one slash, relPath."""
    base, path = str(message["baseUrl"]), str(message["relPath"])
    if base.endswith("/"):
        return base + path.lstrip("/")
    return base + path if path.startswith("/") else f"{base}/{path}"


class Masks:
    """All accept and reject lines of a flow, in order.

    Args:
        masks: The lines.
        accept_unmatched: What becomes of a message that no line matches.
        default_rule: Placement for those.
    """

    __slots__ = ("_plan", "_unmatched", "accept_unmatched", "default_rule", "masks")

    def __init__(
        self, masks: tuple[Mask, ...], default_rule: PlacementRule, *, accept_unmatched: bool
    ) -> None:
        self.masks = masks
        self.accept_unmatched = accept_unmatched
        self.default_rule = default_rule
        self._unmatched = MaskMatch(accept_unmatched, None, default_rule)
        self._plan = [
            (
                None if mask.regex.pattern in _EVERYTHING and not mask.rule_uses_groups else mask.regex.match,
                MaskMatch(mask.accept, mask, mask.rule),
                mask.rule_uses_groups and mask.accept,
            )
            for mask in masks
        ]

    def match(self, url_path: str) -> MaskMatch:
        """Return what the first line that matches says of a message.

        Args:
            url_path: What `match_text` gives.
        """
        for match, outcome, with_groups in self._plan:
            if match is None:
                return outcome
            found = match(url_path)
            if found is None:
                continue
            if with_groups:
                groups = (found.group(0), *(group or "" for group in found.groups()))
                return MaskMatch(outcome.accepted, outcome.mask, outcome.rule, groups)
            return outcome
        return self._unmatched

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and other.__reduce__() == self.__reduce__()

    __hash__ = None  # type: ignore[assignment]  # compared, never a key

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.masks, self.default_rule, self.accept_unmatched)

    def __repr__(self) -> str:
        return f"Masks({self.masks!r}, {self.default_rule!r}, accept_unmatched={self.accept_unmatched})"


def _rebuild(masks: tuple[Mask, ...], default_rule: PlacementRule, accept_unmatched: bool) -> Masks:  # noqa: FBT001 - pickle passes positions
    return Masks(masks, default_rule, accept_unmatched=accept_unmatched)
