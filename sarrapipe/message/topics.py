"""Topics: the routing key of a message, and the binding keys that select them.

>>> topic(("v03",), "a#b/c*d/file.txt")
'v03.a%23b.c%22d'
>>> binding_key(("v03",), "a.b.#")
'v03.a.b.#'

The escape of `*` is that of a double quote: an upstream mistake that every peer has by now. Source: wire.md
1.6.
"""

from __future__ import annotations

from typing import Final

from sarrapipe.errors import ConfigError

__all__ = ["MAX_TOPIC_BYTES", "binding_key", "decode_topic", "topic"]

MAX_TOPIC_BYTES: Final = 255  # of an AMQP short string


def topic(prefix: tuple[str, ...], rel_path: str) -> str:
    """Return the routing key of a file: prefix and directories, without its name.

    Never fails: what does not fit into 255 bytes is cut at a character, and consumers know that a topic need
    not be complete.

    Args:
        prefix: Words of `topicPrefix`.
        rel_path: Path of the file, not escaped.
    """
    directory = rel_path.rpartition("/")[0].strip("/")
    if directory:
        if "#" in directory or "*" in directory:
            directory = directory.replace("#", "%23").replace("*", "%22")
        text = ".".join((*prefix, directory.replace("/", ".")))
    else:
        text = ".".join(prefix)
    if len(text) <= MAX_TOPIC_BYTES and text.isascii():
        return text
    cut = text.encode("utf-8", "replace")[:MAX_TOPIC_BYTES]
    return cut.decode("utf-8", "ignore")


def decode_topic(routing_key: str, prefix: tuple[str, ...] = ()) -> list[str]:
    """Return the words of a routing key after the prefix, `%23` and `%22` read as `#` and `*`.

    A directory with a dot in its name gives two words: topics do not tell (wire.md 1.6).
    """
    words = routing_key.split(".") if routing_key else []
    if tuple(words[: len(prefix)]) == prefix:
        words = words[len(prefix) :]
    return [word.replace("%23", "#").replace("%22", "*") for word in words]


def binding_key(prefix: tuple[str, ...], subtopic: str = "#") -> str:
    """Return the key that binds a queue: prefix and subtopic.

    Args:
        prefix: Words of `topicPrefix`.
        subtopic: Words with AMQP's wildcards `*` and `#`, joined by `.`.

    Raises:
        ConfigError: Longer than AMQP allows; cutting it would select other messages.
    """
    key = ".".join((*prefix, subtopic)) if subtopic else ".".join(prefix)
    size = len(key.encode("utf-8", "replace"))
    if size > MAX_TOPIC_BYTES:
        raise ConfigError(
            f"subtopic {subtopic!r:.60}: {size} bytes with its prefix, AMQP takes {MAX_TOPIC_BYTES}"
        )
    return key
