"""What an instance hears, as one descriptor."""

import os
import select
import signal
import socket
import threading

import pytest

from sarrapipe.supervisor.mailbox import Frame, FrameReader, Mailbox, News, receive_frame, send_frame


class FakeClock:
    def monotonic_s(self):
        return 100.0


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def mailbox(pair):
    reopened = []
    made = Mailbox(pair[1], lambda: reopened.append(1), FakeClock())
    made.reopened = reopened
    made.open()
    yield made
    made.close()


def readable(mailbox):
    return bool(select.select([mailbox.fileno()], [], [], 0)[0])


def test_nothing_is_no_news(mailbox):
    assert not readable(mailbox)
    assert mailbox.read() == News()
    assert not mailbox.stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_and_wakes(mailbox, number):
    os.kill(os.getpid(), number)
    assert readable(mailbox)
    assert mailbox.read() == News(stop=True)
    assert mailbox.stopping
    assert mailbox.stop_by_s is None
    assert mailbox.read() == News()  # told once


def test_the_parents_stop_carries_a_limit(mailbox, pair):
    assert send_frame(pair[0], Frame.STOP, 2500)
    assert readable(mailbox)
    assert mailbox.read().stop
    assert mailbox.stop_by_s == 102.5


def test_a_drain_has_no_limit(mailbox, pair):
    send_frame(pair[0], Frame.STOP, 0)
    mailbox.read()
    assert mailbox.stopping
    assert mailbox.stop_by_s is None


def test_deaths_and_work(mailbox, pair):
    send_frame(pair[0], Frame.DEATHS, 7)
    send_frame(pair[0], Frame.WORK)
    assert mailbox.read() == News(deaths=True, work=True)
    assert not readable(mailbox)


def test_the_parents_end_is_a_stop_and_is_told_once(mailbox, pair):
    pair[0].close()
    assert readable(mailbox)
    assert mailbox.read() == News(stop=True)
    assert not readable(mailbox)  # a loop that waits for it does not spin
    assert mailbox.read() == News()


def test_usr1_opens_the_logs_anew_in_read_not_in_the_handler(mailbox):
    os.kill(os.getpid(), signal.SIGUSR1)
    assert mailbox.reopened == []
    mailbox.read()
    assert mailbox.reopened == [1]
    assert not mailbox.stopping


def test_wait_returns_at_once_for_a_signal_noted_before(mailbox):
    os.kill(os.getpid(), signal.SIGTERM)
    assert mailbox.wait(60).stop


def test_frames_cut_anywhere_are_put_together(pair):
    reader = FrameReader(pair[1])
    send_frame(pair[0], Frame.GO, 5)
    send_frame(pair[0], Frame.STOP, 6)
    whole = pair[1].recv(100)
    for byte in whole[:17]:
        pair[0].send(bytes([byte]))
    assert reader.read() == [(Frame.GO, 5)]
    pair[0].send(whole[17:])
    assert reader.read() == [(Frame.STOP, 6)]
    assert reader.read() == []
    pair[0].close()
    assert reader.read() == []
    assert reader.ended


def test_a_reader_that_never_reads_does_not_hold_up_the_sender(pair):
    sent = 0
    while send_frame(pair[0], Frame.WORK):
        sent += 1
        assert sent < 100_000
    pair[1].close()
    assert not send_frame(pair[0], Frame.WORK)


def test_waiting_for_the_first_frame(pair):
    threading.Timer(0.05, send_frame, (pair[0], Frame.GO, 1)).start()
    assert receive_frame(pair[1]) == Frame.GO
    pair[0].close()
    assert receive_frame(pair[1]) == 0
