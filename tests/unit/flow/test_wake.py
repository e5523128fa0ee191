"""The descriptor that ends the flow's wait."""

from __future__ import annotations

import os
import select
import threading

import pytest

from sarrapipe.flow.wake import Wake


@pytest.fixture(params=["eventfd", "pipe"])
def wake(request, monkeypatch):
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd")  # as on systems without it
    made = Wake().open()
    yield made
    made.close()


def readable(wake: Wake) -> bool:
    return bool(select.select([wake.fileno()], [], [], 0)[0])


def test_set_and_clear(wake):
    assert not readable(wake)
    wake.clear()
    for _ in range(3):
        wake.set()
    assert readable(wake)
    wake.clear()
    assert not readable(wake)


def test_setting_it_never_blocks(wake):
    for _ in range(20_000):  # more than a pipe holds
        wake.set()
    wake.clear()
    while readable(wake):
        wake.clear()


def test_another_thread_ends_a_wait(wake):
    thread = threading.Thread(target=wake.set)
    thread.start()
    assert select.select([wake.fileno()], [], [], 10)[0]
    thread.join()


def test_closing_frees_the_descriptors():
    wake = Wake().open()
    fd = wake.fileno()
    wake.close()
    wake.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
