"""FTP where the server does not answer."""

from __future__ import annotations

import socket
import time

import pytest
import servers

from sarrapipe.errors import SourceGone, TransferError
from sarrapipe.transfer.engine import TransferEngine, TransferSettings
from sarrapipe.transfer.remotecall import CallDone, Operation, RemoteCall


@pytest.mark.parametrize("operation", [Operation.REMOVE, Operation.REMOVE_DIRECTORY])
def test_what_could_not_be_asked_for_is_not_gone(operation: Operation) -> None:
    """A removal ends well where the name is gone already; a server out of reach does not say that it is."""
    engine = TransferEngine(TransferSettings())
    engine.open()
    with socket.socket() as nobody:  # bound and not listening: refused, and no other takes the port
        nobody.bind(("127.0.0.1", 0))
        call = RemoteCall(
            url=f"ftp://127.0.0.1:{nobody.getsockname()[1]}/f", operation=operation, token=operation
        )
        try:
            assert engine.submit([call]) == 1
            ended: list[object] = []
            deadline = time.monotonic() + 30 * servers.MS
            while not ended:
                assert time.monotonic() < deadline, "no end"
                ended += engine.poll(1)
        finally:
            engine.close()
    [done] = ended
    assert isinstance(done, CallDone)
    assert isinstance(done.error, TransferError)
    assert not isinstance(done.error, SourceGone)
