"""A certificate authority and a server certificate of our own, for a private pump's TLS listener.

The `openssl` command makes them: no library of ours handles private keys here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sarrapipe.errors import SupervisorError
from sarrapipe.pump.rabbitnode import TlsFiles

__all__ = ["ensure_certificates"]

_DAYS: Final = "3650"
_TIMEOUT_S: Final = 60
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_NAMES: Final = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"


def ensure_certificates(directory: str) -> TlsFiles:
    """Return authority, certificate and key under `directory`; make them if they are not all there.

    The certificate names localhost, 127.0.0.1 and ::1.

    Args:
        directory: Made with mode 700 if missing.

    Raises:
        SupervisorError: `openssl` is missing or refuses, with what it said.
    """
    home = Path(directory)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = TlsFiles(
        authority=str(home / "ca.pem"), certificate=str(home / "server.pem"), key=str(home / "server.key")
    )
    if all(os.path.exists(path) for path in (files.authority, files.certificate, files.key)):
        return files
    authority_key, request, extensions = str(home / "ca.key"), str(home / "server.csr"), home / "server.ext"
    extensions.write_text(f"{_NAMES}\nextendedKeyUsage=serverAuth\n", encoding="ascii")
    _openssl(
        "req", "-x509", *_KEY, "-keyout", authority_key, "-out", files.authority, "-days", _DAYS,
        "-subj", "/CN=sarrapipe private pump CA",
    )  # fmt: skip
    _openssl("req", *_KEY, "-keyout", files.key, "-out", request, "-subj", "/CN=localhost")
    _openssl(
        "x509", "-req", "-in", request, "-CA", files.authority, "-CAkey", authority_key, "-CAcreateserial",
        "-out", files.certificate, "-days", _DAYS, "-extfile", str(extensions),
    )  # fmt: skip
    return files


def _openssl(*arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise SupervisorError("openssl is missing: install the package openssl")
    done = subprocess.run(  # the umask of the child keeps its key files private from the start
        [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, umask=0o077
    )
    if done.returncode != 0:
        raise SupervisorError(f"openssl {arguments[0]}: {done.stderr.strip()[-1000:]}")
