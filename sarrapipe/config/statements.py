"""Lines that are no options: they do something, or collect (accept, subtopic, include, callback ...).

The record is what `list options` and the documentation print; evaluate.py carries them out.
Source: sr3-surface.md 2.2, 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["STATEMENTS", "Statement"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the configuration language.

    Attributes:
        key: Its name.
        syntax: What follows the name.
        help: What it does.
        flag: Whether it is a flag of the command line as well.
    """

    key: str
    syntax: str
    help: str
    flag: bool = False


_ALL: Final = (
    Statement(
        "accept", "REGEX [FILENAME]",
        "Take messages whose URL the expression matches from its start; the first accept or reject line "
        "that matches decides. Files go where directory, mirror, strip, flatten and filename above it say.",
        flag=True,
    ),
    Statement("reject", "REGEX", "Refuse messages whose URL the expression matches.", flag=True),
    Statement(
        "subtopic", "PATTERN",
        "Bind the queue to this pattern of directories below topicPrefix, at the broker and exchange above "
        "it: words separated by dots, * for one word, # for any number. None binds nothing.",
        flag=True,
    ),
    Statement("topic", "PATTERN", "Bind the queue to a whole topic pattern, topicPrefix not added."),
    Statement(
        "include", "FILE",
        "Read the lines of another file here. It is looked for beside this file, in the component's "
        "directory, in the configuration's directory and in the current one.",
    ),
    Statement("declare env", "NAME=VALUE", "Set a variable for ${NAME} in the lines below."),
    Statement("declare option", "NAME", "Allow a line NAME VALUE below, for a callback to read."),
    Statement("declare source", "USER", "This pump has the account USER, which may announce (admin.conf)."),
    Statement("declare subscriber", "USER", "This pump has the account USER, which may read (admin.conf)."),
    Statement("declare feeder", "USER", "This pump has the account USER for the use of pumps (admin.conf)."),
    Statement("declare admin", "USER", "This pump has the account USER, which administers it (admin.conf)."),
    Statement("declare exchange", "NAME", "This pump has the exchange NAME (admin.conf)."),
    Statement("callback", "NAME", "Load the callback NAME after those named above.", flag=True),
    Statement("callback_prepend", "NAME", "Load the callback NAME before those named above."),
    Statement("flowcb", "CLASS", "Load a callback by the full name of its class."),
    Statement("flowcb_prepend", "CLASS", "The same, before those named above."),
    Statement("import", "MODULE", "Import a Python module that registers transfers or identities."),
    Statement("set", "CLASS.OPTION VALUE", "Set an option of one callback class."),
)  # fmt: skip

STATEMENTS: Final = {statement.key: statement for statement in _ALL}
