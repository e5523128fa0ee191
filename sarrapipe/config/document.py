"""Writes docs/reference/options.md from the declarations; a test checks that the page is up to date.

python -m sarrapipe.config.document > docs/reference/options.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.model import option_specs
from sarrapipe.config.option import OptionSpec
from sarrapipe.config.statements import STATEMENTS
from sarrapipe.config.synonyms import LATER, NEEDLESS, REWRITES, SYNONYMS

__all__ = ["reference"]

_HEAD = """\
# Options

<!-- Made by `python -m sarrapipe.config.document`; a test fails when it is not. Edit the declarations. -->

Every option of the configuration files, in one list. A line is a name and a value; `#` begins a comment only
as the first character of a line. Lines are read from top to bottom: `accept` and `reject` take the placement
(`directory`, `mirror`, `strip`, `flatten`, `filename`) that stands above them, `subtopic` takes the `broker`,
`exchange` and `topicPrefix` above it. Files are read in the order admin.conf, default.conf, the component's
defaults, component/config.conf. The command line wins over all of them: what it sets once, files do not
change; a list it gives replaces theirs; its `--accept` and `--reject` are looked at first (`--reject` before
`--accept`).

Each option is a flag as well: `post_baseUrl` is `--post-base-url` or `--post_baseUrl`, a switch also has
`--no-...`. Old spellings are accepted: all in snake_case (`post_base_url`), and those listed at the end.

Sizes are bytes: `500k`, `8M` are powers of 1000, `8Mi` or `8MB` of 1024. Durations are seconds: `90`, `30s`,
`5m`, `2h`, `1d`, `1w`, `1h30m`; `off` is 0. Permissions are octal. Switches are `on` or `off`; the bare name
is `on`.
"""

_VARIABLES = """\
## Variables

Replaced when the configuration is read: `${NAME}` of `declare env` or of the environment; `${BROKER_USER}`,
`${POST_BROKER_USER}`; `${COMPONENT}` or `${PROGRAM}`, `${CONFIG}`; `${HOSTNAME}`, `${USER}`; `${RAND8}` and
`${RANDID}`, which stay the same for a flow on a host; `${QUEUESHARE}`; `${BD}` (baseDir), `${PBD}`
(post_baseDir), and any option by its name.

Replaced for each message, in `directory`, `filename`, `rename`, `post_baseUrl` and `post_baseDir`:
`${SOURCE}`; `${BUP}` or `${baseUrlPath}`, the path of its base URL, and `${BUPL}` or `${baseUrlPathLast}`,
the last part of that; `${1}` ... the groups of the accept line's expression and `${0}` the whole match; the
present time as `${%Y%m%d}` (strftime), with an offset as `${%o-1h%Y%m%d}`, or in the old form `${YYYYMMDD}`,
`${YYYY}`, `${MM}`, `${DD}`, `${HH}`, `${JJJ}`, with an offset as `${YYYYMMDD-1D}`; parts of a bulletin's name
`${T1}` `${T2}` `${A1}` `${A2}` `${ii}` `${CCCC}` `${YY}` `${GG}` `${Gg}` `${BBB}` and of its reception
`${RYYYY}` `${RMM}` `${RDD}` `${RHH}` `${RMN}` `${RSS}`. **Times are UTC**; sr3 uses local time.

A variable without a value is an error, where sr3 leaves its text in place.
"""


def reference() -> str:
    """Return the text of the page."""
    return "\n".join([_HEAD, *_options(), _VARIABLES, *_statements(), *_old_names()])


def _options() -> Iterator[str]:
    section = ""
    for spec in option_specs():
        if spec.section != section:
            section = spec.section
            yield f"## {section}\n"
        yield _option(spec)


def _option(spec: OptionSpec) -> str:
    facts = [f"{spec.kind.name} `{spec.kind.metavar}`", f"default {_value(spec, spec.default)}"]
    if spec.sr3 != spec.default:
        facts.append(f"under `defaults sr3` {_value(spec, spec.sr3)}")
    for name, component in COMPONENTS.items():
        if spec.attribute in component.defaults:
            facts.append(f"in {name} {_value(spec, component.defaults[spec.attribute])}")
    return f"**`{spec.key}`** ({', '.join(facts)}; `{spec.flag}`)\n: {spec.help}\n"


def _value(spec: OptionSpec, value: object) -> str:
    text = spec.kind.format(value)
    return f"`{text}`" if text and text != "None" else "none"


def _statements() -> Iterator[str]:
    yield "## Statements\n"
    for statement in STATEMENTS.values():
        yield f"**`{statement.key} {statement.syntax}`**\n: {statement.help}\n"


def _old_names() -> Iterator[str]:
    yield "## Old names\n"
    yield ", ".join(f"`{old}` ({new})" for old, new in sorted(SYNONYMS.items())) + ".\n"
    yield "Written in another way: " + ", ".join(f"`{name}`" for name in sorted(REWRITES)) + ".\n"
    yield "Known, and not supported yet (`check` warns of a line that has no effect):"
    yield ", ".join(f"`{name}`" for name in sorted(LATER, key=lambda name: (name.lower(), name))) + ".\n"
    yield "Nothing to switch here:\n"
    yield "\n".join(f"- `{name}`: {reason}" for name, reason in sorted(NEEDLESS.items())) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
