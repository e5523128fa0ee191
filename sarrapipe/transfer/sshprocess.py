"""SFTP over OpenSSH's own transport: `ssh -s HOST sftp`, spoken to through two pipes.

Encryption runs in that process, on another CPU, at OpenSSH's speed; its configuration, its known hosts, its
agent and its jump hosts work as people know them. A password is handed over through memory that only
processes of the same user can open: it is on no command line, in no environment and in no file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from typing import Final

from sarrapipe.errors import AccessDenied, HostUntrusted, TransferError
from sarrapipe.log import get_logger
from sarrapipe.transfer.settings import SftpSettings
from sarrapipe.transfer.sftplink import NotTakenIn
from sarrapipe.transfer.sftpplace import Place

__all__ = ["SshProcess", "can_carry", "ssh_program", "what_ssh_said"]

_log = get_logger(__name__)

_CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Put before OpenSSH's own list: with hardware AES 1.4 times as fast as its chacha20 (pipeline.md)."""
_PIPE_BYTES: Final = 1 << 20
"""What a pipe may hold without privilege (/proc/sys/fs/pipe-max-size)."""
_SAID_BYTES: Final = 8192
_SHOWN: Final = 300
_PATIENCE_S: Final = 2.0
"""Before a process that was told to end is killed, when the flow itself ends."""
_ALWAYS: Final = (
    "-T", "-x", "-a",
    "-oClearAllForwardings=yes", "-oPermitLocalCommand=no", "-oControlMaster=no", "-oControlPath=none",
    "-oCompression=no", "-oLogLevel=ERROR", "-oUpdateHostKeys=no", "-oNumberOfPasswordPrompts=1",
    f"-oCiphers={_CIPHERS}",
)  # fmt: skip
_HOST_KEYS: Final = {"strict": "yes", "new": "accept-new", "off": "no"}
_UNTRUSTED: Final = ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED")
_NOT_TAKEN_IN: Final = "kex_exchange_identification"
"""The function of OpenSSH that reads a server's first line, before anything is encrypted."""
_DENIED: Final = ("Permission denied", "Too many authentication failures")


def ssh_program() -> str | None:
    """Path of `ssh`, if it is installed."""
    return shutil.which("ssh")


def can_carry(place: Place) -> bool:
    """Whether `ssh` can be used for a server: a password needs anonymous memory (Linux)."""
    return ssh_program() is not None and (not place.credentials.password or hasattr(os, "memfd_create"))


def arguments(place: Place, settings: SftpSettings) -> list[str]:
    """The command that connects to `place`; it holds no secret."""
    who = place.credentials
    command = ["ssh", *_ALWAYS, f"-oConnectTimeout={max(round(settings.connect_timeout_s), 1)}"]
    command.append(f"-oStrictHostKeyChecking={_HOST_KEYS[settings.host_keys]}")
    if settings.host_keys == "off":
        command += ["-oUserKnownHostsFile=/dev/null", "-oGlobalKnownHostsFile=/dev/null"]
    elif settings.known_hosts is not None:
        command += [f'-oUserKnownHostsFile="{settings.known_hosts}"', "-oGlobalKnownHostsFile=/dev/null"]
    if who.key_file:
        command += ["-oIdentitiesOnly=yes", "-i", who.key_file]
    if who.password:
        command.append("-oBatchMode=no")
        first = "publickey," if who.key_file else ""
        command.append(f"-oPreferredAuthentications={first}password,keyboard-interactive")
    else:
        command.append("-oBatchMode=yes")
    if place.port:
        command.append(f"-p{place.port}")
    if place.user:
        command += ["-l", place.user]
    return [*command, "-s", "--", place.host, "sftp"]


class SshProcess:
    """An `ssh` that connects to one server (`sftplink.SftpPipe`).

    Raises:
        TransferError: It cannot be started.
    """

    def __init__(self, place: Place, settings: SftpSettings) -> None:
        self._place = place
        self._secrets: list[int] = []
        environment = dict(os.environ)
        if place.credentials.password:
            environment |= self._ask_pass(place.credentials.password)
        theirs_in, self.writer = os.pipe2(os.O_CLOEXEC)
        self.reader, theirs_out = os.pipe2(os.O_CLOEXEC)
        for fd in (theirs_in, theirs_out):
            with contextlib.suppress(OSError, AttributeError):  # less is slower, not wrong
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._process = subprocess.Popen(
                arguments(place, settings),
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=subprocess.PIPE,
                env=environment,
                process_group=0,  # Ctrl-C in a terminal is for the flow's parent, which ends all in order
            )
        except OSError as error:
            self._close_pipes()
            raise TransferError(f"cannot start ssh: {error.strerror}") from error
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._closed = False
        _let_run_anywhere(self._process.pid)

    def _ask_pass(self, password: str) -> dict[str, str]:
        """Make what `ssh` asks for a password: a script that copies it, both in anonymous memory."""
        secret = os.memfd_create("sarrapipe", os.MFD_CLOEXEC)
        os.write(secret, password.encode() + b"\n")
        making = os.memfd_create("askpass", os.MFD_CLOEXEC)
        os.write(making, f"#!/bin/sh\nexec cat /proc/{os.getpid()}/fd/{secret}\n".encode())
        # Reopened: a script that is open for writing is not executed (ETXTBSY).
        script = os.open(f"/proc/self/fd/{making}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(making)
        self._secrets = [secret, script]
        return {"SSH_ASKPASS": f"/proc/{os.getpid()}/fd/{script}", "SSH_ASKPASS_REQUIRE": "force"}

    def established(self) -> None:
        """Forget the password."""
        while self._secrets:
            os.close(self._secrets.pop())

    def problem(self) -> TransferError:
        """What `ssh` wrote before it ended."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        said = self._process.stderr.read(_SAID_BYTES) or b""
        return what_ssh_said(said.decode("utf-8", "replace"), self._place)

    def close(self) -> None:
        """End it; a pipe closed at one end makes it end as well, were the signal lost."""
        if self._closed:
            return
        self._closed = True
        self.established()
        self._close_pipes()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if self._process.poll() is None:
            self._process.terminate()

    def _close_pipes(self) -> None:
        os.close(self.reader)
        os.close(self.writer)
        self.established()

    def gone(self) -> bool:
        """Whether it has ended; takes its exit status."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait until it has ended, which it was told to do; for the end of the flow."""
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _log.warning("ssh %d to %s does not end: killed", self._process.pid, self._place)
            self._process.kill()
            self._process.wait()


def _let_run_anywhere(pid: int) -> None:
    """Undo for `ssh` what pins an instance to one CPU: it has to decrypt beside it, not in turn with it."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # it has ended already, or its parent is not ours to look at
            os.sched_setaffinity(pid, os.sched_getaffinity(os.getppid()))


def what_ssh_said(text: str, place: Place) -> TransferError:
    """Make an error of what `ssh` wrote.

    Args:
        text: Its lines.
        place: The server.

    Returns:
        `HostUntrusted`, `AccessDenied`, `NotTakenIn`, or `TransferError`.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip().strip("@")]
    if any(mark in text for mark in _UNTRUSTED):
        what = "is not the known one" if _UNTRUSTED[1] in text else "is unknown"
        return HostUntrusted(
            f"{place}: the server's host key {what}: put it into known_hosts, or see sftpHostKeys"
        )
    for line in lines:
        if any(mark in line for mark in _DENIED):
            return AccessDenied(f"{place}: {line[:_SHOWN]}")
    kind = NotTakenIn if _NOT_TAKEN_IN in text else TransferError
    said = "; ".join(lines)[-_SHOWN:] or "the connection was closed"
    return kind(f"{place}: {said}")
