"""Names of files that hold one block of a large file, as sr3 and v2 write them.

>>> block_name("a/big.bin", 1, 50 << 20)
'a/big.bin§block_0001,50.0mib_§'
>>> root_name("a/big.bin§block_0001,50.0mib_§"), root_name("a/big.bin.1000.3.560.1.d.Part")
('a/big.bin', 'a/big.bin')

What such a name says is never believed where the message says it too: sr3's rounds the size (wire.md 2.4).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["block_name", "root_name"]

_SR3: Final = re.compile(r"§block_\d{4,},[0-9.]+[a-z]+_§\Z")
_V2: Final = re.compile(r"\.\d+\.\d+\.\d+\.\d+\.[0-9a-zA-Z]\.Part\Z")
_UNITS: Final = ("kib", "mib", "gib", "tib", "pib", "eib")
_KIB: Final = 1024


def block_name(path: str, number: int, block_bytes: int) -> str:
    """Return sr3's name for a file with one block.

    Args:
        path: Of the whole file.
        number: Of the block, from 0.
        block_bytes: Size of the file's blocks, not that of a shorter last one.
    """
    return f"{path}§block_{number:04d},{_human(block_bytes)}_§"


def root_name(path: str) -> str:
    """Return the path of the file that a block file belongs to; any other path as it is."""
    if "§block_" in path:
        return _SR3.sub("", path)
    return _V2.sub("", path) if path.endswith(".Part") else path


def _human(size_bytes: int) -> str:
    """Return a size as the library humanize writes it in binary units, lower case, without the blank."""
    if size_bytes < _KIB:
        return f"{size_bytes}byte" if size_bytes == 1 else f"{size_bytes}bytes"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= _KIB
        if round(value, 1) < _KIB or unit == _UNITS[-1]:
            return f"{value:.1f}{unit}"
    raise AssertionError(size_bytes)
