"""Sources on this machine (`file:` URLs, `baseDir`): which may be read, and how they are removed afterwards.

A message is somebody else's word: without a limit it could have this process publish any file it can read.
So a file URL is followed only beneath the directory that `baseDir` names, links resolved.
"""

from __future__ import annotations

import os

from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import UnsafePath
from sarrapipe.log import get_logger
from sarrapipe.message.model import Message

__all__ = ["check_local_source", "is_local", "local_source", "remove_local_source"]

_log = get_logger(__name__)


def is_local(message: Message) -> bool:
    """Return whether a message's data is announced as a file of this machine."""
    url = message.base_url
    return url.startswith("/") or url[:5].lower() == "file:"


def check_local_source(message: Message, config: FlowConfig) -> None:
    """Refuse a file URL that leads outside `baseDir`.

    Raises:
        UnsafePath: There is no `baseDir`, or the path, links resolved, is not beneath it.
    """
    if config.base_dir is None:
        raise UnsafePath(f"{message.base_url}: file URLs are followed only beneath baseDir, which is not set")
    root = os.path.realpath(config.base_dir).rstrip("/") + "/"
    path = os.path.realpath(_path_of(message))
    if not path.startswith(root):
        raise UnsafePath(f"{message.rel_path}: {path} is not beneath baseDir {config.base_dir}")


def local_source(message: Message, config: FlowConfig) -> str:
    """Return the path of the file of this machine that a message announces, links resolved.

    It is the announced path below `baseDir`, or what a file URL names there.

    Raises:
        UnsafePath: There is no `baseDir`, or the path, links resolved, is not beneath it.
    """
    if config.base_dir is None:
        raise UnsafePath(f"{message.rel_path}: files are sent only from beneath baseDir, which is not set")
    root = os.path.realpath(config.base_dir).rstrip("/")
    if is_local(message):
        path = os.path.realpath(_path_of(message))
    else:
        path = os.path.realpath(f"{root}/{message.rel_path.lstrip('/')}")
    if not path.startswith(root + "/"):
        raise UnsafePath(f"{message.rel_path}: {path} is not beneath baseDir {config.base_dir}")
    return path


def remove_local_source(message: Message, config: FlowConfig) -> None:
    """Remove the file a message announced (`delete on`); called after its outcome is settled.

    What cannot be removed is told and stays: the file has arrived.
    """
    try:
        check_local_source(message, config)
        os.unlink(os.path.realpath(_path_of(message)))
    except (OSError, UnsafePath) as error:
        _log.warning("source of %s stays: %s", message.rel_path, error)


def _path_of(message: Message) -> str:
    path = message.url
    if path[:5].lower() == "file:":
        path = path[5:]
        if path.startswith("//"):
            path = "/" + path[2:].partition("/")[2]
    return path
