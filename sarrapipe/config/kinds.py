"""The kinds of values options have: numbers, durations, flags, lists, and those of values.py.

Each kind reads the text of a line and writes it back, so that `show` prints what a file could hold.
Source: sr3-surface.md 2.4 (kinds), 3.3 (inflight, strip, identity).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from sarrapipe.config.option import Kind
from sarrapipe.config.regexes import compile_regex
from sarrapipe.config.urls import BrokerUrl, split_url
from sarrapipe.config.values import Fetching, IdentityChoice, Inflight, InflightMode, Strip
from sarrapipe.units import parse_count, parse_duration_s, parse_size

__all__ = [
    "IDENTITY_METHODS",
    "NONE_WORDS",
    "block_size",
    "broker_url",
    "choice",
    "count",
    "directory",
    "duration",
    "fetching",
    "flag",
    "identity",
    "inflight",
    "names",
    "natural",
    "octal",
    "optional_directory",
    "optional_path",
    "optional_text",
    "pairs",
    "paths",
    "queue_template",
    "scheme",
    "server_url",
    "signed_duration",
    "size",
    "strip",
    "subset",
    "template",
    "text",
    "topic_words",
    "url_template",
]

T = TypeVar("T")

NONE_WORDS: Final = frozenset({"none", "off", "false", "no"})
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0", "none"})

IDENTITY_METHODS: Final = ("none", "md5", "sha512", "xxh3_128", "random", "arbitrary", "cod")
_IDENTITY_LETTERS: Final = {
    "n": "none", "0": "random", "d": "md5", "s": "sha512", "a": "arbitrary", "z": "cod", "r": "random",
}  # fmt: skip
_SCHEMES: Final = ("WHATFN", "HEADFN", "SENDER", "NONE", "NONESENDER", "TIME")
_SCHEME_RE: Final = re.compile(rf"|{'|'.join(_SCHEMES)}|SATNET=.*|DESTFN=[^/]+")
_COD_METHODS: Final = ("md5", "sha512", "xxh3_128")


def _replace(parse: Callable[[str], T]) -> Callable[[str, T], T]:
    return lambda value, _previous: parse(value)


def _flag(value: str) -> bool:
    word = value.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{value!r} is neither on nor off")
    return word in _TRUE


def _count(value: str) -> int:
    try:
        return parse_count(value)
    except ValueError as error:
        raise ValueError(f"{value[:60]!r} is not a whole number") from error


def _natural(value: str) -> int:
    number = _count(value)
    if number < 1:
        raise ValueError(f"{value!r}: at least 1")
    return number


def _octal(value: str) -> int:
    digits = value.removeprefix("0o")
    if not re.fullmatch(r"[0-7]{1,5}", digits) or int(digits, 8) > 0o7777:
        raise ValueError(f"{value!r} is not a permission: use octal digits, such as 644 or 0775")
    return int(digits, 8)


def _signed(value: str) -> float:
    return (
        -parse_duration_s(value[1:]) if value.startswith("-") else parse_duration_s(value.removeprefix("+"))
    )


def _block_size(value: str) -> int:
    if value.lower() in NONE_WORDS:
        return 1  # no blocks
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{value[:60]!r}: use 0 (automatic), 1 (whole files) or a size, as 64MiB") from error


def _seconds(value: float) -> str:
    return f"{value:g}"


def _optional(value: str) -> str | None:
    return None if value.lower() == "none" else value


def _scheme(value: str) -> str | None:
    """Read a naming scheme; `NONE` is one of Sundew's, `None` is none (sr3-surface.md 3.3)."""
    if value == "None":
        return None
    for word in value.split(":"):
        if not _SCHEME_RE.fullmatch(word):
            raise ValueError(
                f"{word!r} is no naming scheme: use {', '.join(_SCHEMES)}, SATNET=n, DESTFN=name or None"
            )
    return value


def _some_text(value: str) -> str:
    return "" if value.lower() == "none" else value


def _name(value: str) -> str:
    if any(character.isspace() for character in value):
        raise ValueError(f"{value!r}: one word, without blanks")
    return _some_text(value)


def _on_off(value: object) -> str:
    return "on" if value else "off"


text: Final[Kind[str]] = Kind("text", "TEXT", _replace(_some_text), str)
optional_text: Final[Kind[str | None]] = Kind("text", "TEXT", _replace(_optional), lambda v: v or "None")
template: Final[Kind[str]] = Kind("text with variables", "TEXT", _replace(_some_text), str, template=True)
scheme: Final[Kind[str | None]] = Kind(
    "naming scheme", "SCHEME", _replace(_scheme), lambda v: v or "None", template=True
)
directory: Final[Kind[str]] = Kind(
    "directory with variables", "DIR", _replace(_some_text), str, template=True, path=True
)
optional_directory: Final[Kind[str | None]] = Kind(
    "directory with variables", "DIR", _replace(_optional), lambda v: v or "None", template=True, path=True
)
optional_path: Final[Kind[str | None]] = Kind(
    "file or directory", "PATH", _replace(_optional), lambda v: v or "None", path=True
)
queue_template: Final[Kind[str]] = Kind(
    "queue name with variables", "NAME", _replace(_name), str, literal=True
)
count: Final[Kind[int]] = Kind("count", "N", _replace(_count), str)
natural: Final[Kind[int]] = Kind("count from 1", "N", _replace(_natural), str)
size: Final[Kind[int]] = Kind("size", "BYTES", _replace(parse_size), str)
block_size: Final[Kind[int]] = Kind("size, 0 or 1", "BYTES", _replace(_block_size), str)
duration: Final[Kind[float]] = Kind("duration", "TIME", _replace(parse_duration_s), _seconds, bare="on")
signed_duration: Final[Kind[float]] = Kind("duration, may be negative", "TIME", _replace(_signed), _seconds)
flag: Final[Kind[bool]] = Kind("flag", "on|off", _replace(_flag), _on_off, bare="on")
octal: Final[Kind[int]] = Kind("octal permission", "OCTAL", _replace(_octal), lambda v: f"{v:o}")


def choice(*allowed: str, **synonyms: str) -> Kind[str]:
    """Return the kind of a value that is one of a few words, `synonyms` being further spellings."""

    def parse(value: str) -> str:
        word = synonyms.get(value.lower(), value.lower())
        if word not in allowed:
            raise ValueError(f"{value!r}: use one of {', '.join(allowed)}")
        return word

    return Kind("choice", "|".join(allowed), _replace(parse), str)


def _split(value: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[,|\s]+", value) if part)


def _add_path(value: str, previous: tuple[str, ...]) -> tuple[str, ...]:
    if value.lower() == "none":
        return ()
    return previous if value in previous else (*previous, value)


def _replace_words(value: str, previous: tuple[str, ...]) -> tuple[str, ...]:
    if value.lower() == "none":
        return ()
    if value.startswith("+"):
        return previous + tuple(word for word in _split(value[1:]) if word not in previous)
    if value.startswith("-"):
        return tuple(word for word in previous if word not in _split(value[1:]))
    return _split(value)


paths: Final[Kind[tuple[str, ...]]] = Kind(
    "files and directories", "PATH", _add_path, " ".join, accumulates=True, path=True
)
names: Final[Kind[tuple[str, ...]]] = Kind(
    "names", "NAME[,NAME]", _replace_words, lambda v: ",".join(v) or "none"
)


def subset(*allowed: str) -> Kind[frozenset[str]]:
    """Return the kind of a set of known words: `a,b`, `a|b`, `+x`, `-x`, `all`, `none`."""
    everything = frozenset(allowed)

    def parse(value: str, previous: frozenset[str]) -> frozenset[str]:
        sign, body = (value[0], value[1:]) if value[:1] in ("+", "-") else ("", value)
        found: set[str] = set()
        for word in _split(body):
            if word == "all":
                found |= everything
            elif word in everything:
                found.add(word)
            elif word.lower() not in NONE_WORDS:
                raise ValueError(f"{word!r}: use some of {', '.join(sorted(everything))}, all or none")
        if sign == "+":
            return previous | found
        return previous - found if sign == "-" else frozenset(found)

    def write(value: frozenset[str]) -> str:
        return "all" if value == everything else ",".join(sorted(value)) or "none"

    return Kind("set", "NAME[,NAME]", parse, write)


def _pairs(value: str, previous: Mapping[str, str]) -> Mapping[str, str]:
    if value.lower() == "none":
        return MappingProxyType({})
    key, equals, content = value.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{value!r}: write KEY=VALUE")
    return MappingProxyType({**previous, key.strip(): content.strip()})


pairs: Final[Kind[Mapping[str, str]]] = Kind(
    "KEY=VALUE, repeatable", "KEY=VALUE", _pairs,
    lambda v: " ".join(f"{key}={value}" for key, value in v.items()), accumulates=True,
)  # fmt: skip


def _topic_words(value: str) -> tuple[str, ...]:
    if value.lower() == "none":
        return ()
    found = tuple(re.split(r"[./]", value.strip("./")))
    if "" in found or any(character.isspace() for character in value):
        raise ValueError(f"{value!r} is not a topic prefix: words separated by dots, such as v02.post")
    return found


topic_words: Final[Kind[tuple[str, ...]]] = Kind("topic", "WORD.WORD", _replace(_topic_words), ".".join)


def _broker(value: str) -> BrokerUrl | None:
    return None if value.lower() == "none" else BrokerUrl.parse(value)


broker_url: Final[Kind[BrokerUrl | None]] = Kind(
    "broker URL", "amqp[s]://USER@HOST/VHOST", _replace(_broker), lambda v: str(v) if v else "None"
)


def _url(value: str) -> str | None:
    if value.lower() == "none":
        return None
    head = value.partition("${")[0]
    if "://" in head or "${" not in value:
        parts = split_url(value.replace("${", "").replace("}", "")) if "${" not in value else None
        if parts is not None and parts.password:
            raise ValueError("announced to everyone, so it may not hold a password: use credentials.conf")
    return value


url_template: Final[Kind[str | None]] = Kind(
    "URL with variables", "URL", _replace(_url), lambda v: v or "None", template=True
)


def _fetching(value: str) -> Fetching:
    word = value.lower()
    if word == "stream":
        return Fetching.STREAM
    if word in _TRUE:
        return Fetching.ON
    if word in _FALSE:
        return Fetching.OFF
    raise ValueError(f"{value!r}: use on, off or stream")


fetching: Final[Kind[Fetching]] = Kind(
    "flag", "on|off|stream", _replace(_fetching), lambda v: Fetching(v).name.lower(), bare="on"
)

_SERVER_SCHEMES: Final = ("file", "ftp", "ftps", "http", "https", "sftp")


def _server(value: str) -> str | None:
    if value.lower() == "none":
        return None
    parts = split_url(value)
    if parts.scheme not in _SERVER_SCHEMES:
        raise ValueError(f"{value!r}: send to one of {', '.join(_SERVER_SCHEMES)}")
    if parts.password:
        raise ValueError("a password stands here: move it to credentials.conf")
    return value


server_url: Final[Kind[str | None]] = Kind(
    "server URL", "SCHEME://USER@HOST[/PATH]", _replace(_server), lambda v: v or "None"
)


def _identity(value: str) -> IdentityChoice:
    method, _, rest = value.partition(",")
    method = _IDENTITY_LETTERS.get(method, method.lower())
    if method not in IDENTITY_METHODS:
        raise ValueError(f"{value!r} is not an identity method: use one of {', '.join(IDENTITY_METHODS)}")
    if method == "cod":
        rest = _IDENTITY_LETTERS.get(rest, rest.lower()) or "sha512"
        if rest not in _COD_METHODS:
            raise ValueError(f"cod,{rest}: compute on download with one of {', '.join(_COD_METHODS)}")
    elif method == "arbitrary":
        if not rest:
            raise ValueError("arbitrary needs a value: write arbitrary,VALUE")
    elif rest:
        raise ValueError(f"{method} takes no value: {rest!r}")
    return IdentityChoice(method, rest)


identity: Final[Kind[IdentityChoice]] = Kind("identity", "METHOD[,VALUE]", _replace(_identity), str)


def _inflight(value: str) -> Inflight:
    word = value.lower()
    if word in NONE_WORDS:
        return Inflight(InflightMode.NONE)
    if word == "native":
        return Inflight(InflightMode.HIDDEN)
    if "\0" in value or value == ".." or value.startswith("../") or "/../" in value:
        raise ValueError(f"{value!r} leaves the target's directory")
    if value == ".":
        return Inflight(InflightMode.PREFIX, ".")
    if value.startswith("/") or value.endswith("/"):
        return Inflight(InflightMode.DIRECTORY, value.rstrip("/") or "/")
    if value[:1].isdigit():
        return Inflight(InflightMode.AGE, age_s=parse_duration_s(value))
    if "/" in value:
        raise ValueError(f"{value!r}: a directory ends in a slash, a suffix holds none")
    if not value.startswith("."):
        raise ValueError(f"{value!r}: use native, none, a .suffix, '.', a directory/ or a duration")
    return Inflight(InflightMode.SUFFIX, value)


def _inflight_text(value: Inflight) -> str:
    if value.mode in (InflightMode.NONE, InflightMode.HIDDEN):
        return str(value.mode.value)
    if value.mode is InflightMode.AGE:
        return _seconds(value.age_s)
    return value.text.rstrip("/") + "/" if value.mode is InflightMode.DIRECTORY else value.text


inflight: Final[Kind[Inflight]] = Kind(
    "inflight", "native|.SUFFIX|.|DIR/|TIME|none", _replace(_inflight), _inflight_text
)


def _strip(value: str) -> Strip:
    if value.lower() in NONE_WORDS:
        return Strip()
    if re.fullmatch(r"\d{1,4}", value, re.ASCII):
        return Strip(count=int(value))
    compile_regex(value)
    return Strip(pattern=value)


strip: Final[Kind[Strip]] = Kind("number or regular expression", "N|REGEX", _replace(_strip), str)
