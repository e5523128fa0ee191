"""SFTP over paramiko's transport: for machines without OpenSSH's `ssh`.

Paramiko blocks, so it lives on threads: one connects and then carries what comes, another carries what goes.
Between them and the main thread is a pair of sockets, so that the link sees descriptors like any other.
Four times slower than OpenSSH's own transport (docs/explanation/pipeline.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from typing import Final

import paramiko

from sarrapipe.errors import AccessDenied, HostUntrusted, TransferError
from sarrapipe.transfer.settings import SftpSettings
from sarrapipe.transfer.sftplink import NotTakenIn
from sarrapipe.transfer.sftpplace import Place

__all__ = ["ParamikoPipe"]

_CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_PIECE_BYTES: Final = 1 << 18
_WINDOW_BYTES: Final = 8 << 20
"""Of the channel: what the server may send ahead."""
_CHANNEL_PACKET_BYTES: Final = 1 << 18
_DEFAULT_PORT: Final = 22
_USER_KNOWN_HOSTS: Final = "~/.ssh/known_hosts"
_SYSTEM_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts"
_PATIENCE_S: Final = 2.0


class _NoteDown:
    """Adds the key of a new host to the file of known hosts (`sftpHostKeys new`)."""

    def __init__(self, path: str) -> None:
        self._path = path

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


class _AnyKey:
    """Takes any key (`sftpHostKeys off`)."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client, hostname, key


class ParamikoPipe:
    """A paramiko channel behind a pair of sockets (`sftplink.SftpPipe`)."""

    def __init__(self, place: Place, settings: SftpSettings) -> None:
        self._place = place
        self._settings = settings
        self._problem: TransferError | None = None
        # Its own lines say what the errors say, with stacks.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        self._client = paramiko.SSHClient()
        ours, self._theirs = socket.socketpair()
        self.reader = ours.fileno()
        self.writer = os.dup(self.reader)  # each is watched by itself
        self._ours = ours
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name="sftp-paramiko", daemon=True)]
        self._threads[0].start()

    def established(self) -> None:
        """Nothing is kept for logging in."""

    def problem(self) -> TransferError:
        """What ended it."""
        return self._problem or TransferError(f"{self._place}: the connection was closed")

    def close(self) -> None:
        """End connection and threads."""
        if self._closed:
            return
        self._closed = True
        os.close(self.writer)
        self._ours.close()
        self._client.close()

    def gone(self) -> bool:
        """Whether the threads have ended."""
        return not any(thread.is_alive() for thread in self._threads)

    def wait(self) -> None:
        """Wait for the threads; for the end of the flow."""
        for thread in list(self._threads):
            thread.join(_PATIENCE_S)

    # ---- on the threads

    def _run(self) -> None:
        try:
            channel = self._connect()
            back = threading.Thread(target=self._send, args=(channel,), name="sftp-paramiko-out", daemon=True)
            self._threads.append(back)
            back.start()
            while data := channel.recv(_PIECE_BYTES):
                self._theirs.sendall(data)
        except TransferError as error:
            self._problem = error
        except Exception as error:  # noqa: BLE001 - top of a thread; paramiko raises bare Exceptions as well
            self._problem = TransferError(f"{self._place}: {error or type(error).__name__}")
        finally:
            with contextlib.suppress(OSError):
                self._theirs.shutdown(socket.SHUT_RDWR)
            self._client.close()
            for thread in self._threads[1:]:
                thread.join()
            self._theirs.close()

    def _send(self, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := self._theirs.recv(_PIECE_BYTES):
                channel.sendall(data)
        # The receiving thread waits in the channel: this ends it.
        self._client.close()

    def _connect(self) -> paramiko.Channel:
        self._load_host_keys()
        who = self._place.credentials
        try:
            self._client.connect(
                self._place.host,
                self._place.port or _DEFAULT_PORT,
                self._place.user or None,
                who.password or None,
                key_filename=who.key_file or None,
                allow_agent=not who.key_file and not who.password,
                look_for_keys=not who.key_file and not who.password,
                timeout=self._settings.connect_timeout_s,
                banner_timeout=self._settings.connect_timeout_s,
                auth_timeout=self._settings.connect_timeout_s,
                transport_factory=_transport,
            )
        except paramiko.BadHostKeyException as error:
            raise HostUntrusted(_untrusted(self._place, "is not the known one")) from error
        except paramiko.AuthenticationException as error:
            raise AccessDenied(f"{self._place}: Permission denied: {error}") from error
        except EOFError as error:
            raise NotTakenIn(f"{self._place}: the connection was closed") from error
        except paramiko.SSHException as error:
            if "protocol banner" in str(error):
                raise NotTakenIn(f"{self._place}: {error}") from error
            if "not found in known_hosts" in str(error):
                raise HostUntrusted(_untrusted(self._place, "is unknown")) from error
            raise
        transport = self._client.get_transport()
        assert transport is not None
        channel = transport.open_session(
            _WINDOW_BYTES, _CHANNEL_PACKET_BYTES, self._settings.connect_timeout_s
        )
        channel.invoke_subsystem("sftp")
        return channel

    def _load_host_keys(self) -> None:
        mode = self._settings.host_keys
        if mode == "off":
            self._client.set_missing_host_key_policy(_AnyKey())
            return
        own = self._settings.known_hosts or os.path.expanduser(_USER_KNOWN_HOSTS)
        for path in (own,) if self._settings.known_hosts else (own, _SYSTEM_KNOWN_HOSTS):
            with contextlib.suppress(FileNotFoundError):
                self._client.load_system_host_keys(path)
        policy = _NoteDown(own) if mode == "new" else paramiko.RejectPolicy()
        self._client.set_missing_host_key_policy(policy)


def _untrusted(place: Place, what: str) -> str:
    return f"{place}: the server's host key {what}: put it into known_hosts, or see sftpHostKeys"


def _transport(*args: object, **options: object) -> paramiko.Transport:
    """A transport that asks for the fast ciphers first."""
    transport = paramiko.Transport(*args, **options)
    known = transport.get_security_options()
    first = [cipher for cipher in _CIPHERS if cipher in known.ciphers]
    known.ciphers = (*first, *(cipher for cipher in known.ciphers if cipher not in first))
    return transport
