"""Variables that neither a line nor a message decides: host, user, component, and numbers made once."""

from __future__ import annotations

import hashlib

from sarrapipe.config.substitute import Environment

__all__ = ["static_variable"]


def static_variable(name: str, environment: Environment, component: str, config: str) -> str | None:
    """Return what `${name}` stands for everywhere in a configuration; None if it is none of these.

    `${RANDID}` and `${RAND8}` are made of host, user and flow, not drawn: every instance and every start of a
    flow on this host gets the same ones, as sr3 has it by writing them to a file (wire.md 4).
    """
    match name:
        case "HOSTNAME":
            return environment.hostname
        case "USER":
            return environment.user
        case "PROGRAM" | "COMPONENT":
            return component or None
        case "CONFIG":
            return config or "command-line"
        case "RAND8":
            return f"{_number(environment, component, config) % 100_000_000:08d}"
        case "RANDID":
            return f"{_number(environment, component, config) % 65536:04x}"
        case _:
            return None


def _number(environment: Environment, component: str, config: str) -> int:
    text = "\0".join((environment.seed, environment.hostname, environment.user, component, config))
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest())
