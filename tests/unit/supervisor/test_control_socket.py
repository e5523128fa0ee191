"""The control socket, with a server turned by a thread."""

import os
import selectors
import socket
import threading

import pytest

from sarrapipe.errors import SupervisorError
from sarrapipe.supervisor.control import ControlServer, request
from sarrapipe.supervisor.wire import pack


class Turning:
    """A control server whose selector is turned by a thread."""

    def __init__(self, path):
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.asked = []
        self.late = []
        self.server = ControlServer(path, self.selector, self.handle)
        self.ours, self.theirs = socket.socketpair()
        self.selector.register(self.ours, selectors.EVENT_READ, None)

    def handle(self, client, asked):
        self.asked.append(asked)
        if asked["do"] == "wait":
            self.late.append(client)
        elif asked["do"] == "refuse":
            client.refuse("cannot", 78)
        else:
            for waiting in self.late:
                waiting.reply(ok=True, late=True)
            client.reply(ok=True, got=asked)

    def turn(self):
        while True:
            for key, _events in self.selector.select():
                if key.data is None:
                    return
                key.data()

    def __enter__(self):
        self.server.open()
        self.thread = threading.Thread(target=self.turn)
        self.thread.start()
        return self

    def __exit__(self, *_info):
        self.theirs.send(b"x")
        self.thread.join()
        self.server.close()
        self.selector.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def turning(tmp_path):
    with Turning(str(tmp_path / "control")) as made:
        yield made


def test_ask_and_answer(turning):
    assert request(turning.path, 5, do="scale", to=4)["got"] == {"do": "scale", "to": 4}
    assert os.stat(turning.path).st_mode & 0o777 == 0o600


def test_a_refusal_is_an_error_with_its_exit_status(turning):
    with pytest.raises(SupervisorError, match="cannot") as caught:
        request(turning.path, 5, do="refuse")
    assert caught.value.code == 78


def test_an_answer_may_come_later_while_others_are_served(turning):
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(request(turning.path, 5, do="wait")))
    waiter.start()
    while not turning.late:
        request(turning.path, 5, do="status")
    request(turning.path, 5, do="status")
    waiter.join()
    assert answers[0]["late"]


def test_no_answer_in_time(turning):
    with pytest.raises(SupervisorError, match="no answer"):
        request(turning.path, 0.05, do="wait")


def test_garbage_and_half_frames_hurt_nobody_else(turning):
    for data in (b"\xff" * 8, pack({"do": "x"})[:-1], pack([1]), b"GET / HTTP/1.0\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(turning.path)
            connection.sendall(data)
    assert request(turning.path, 5, do="status")["ok"]


def test_many_idle_connections_do_not_keep_others_out(turning):
    idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for connection in idle:
            connection.connect(turning.path)
        assert request(turning.path, 5, do="status")["ok"]
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("length", [100, 107, 108, 200, 3000])
def test_paths_of_any_length(tmp_path, length):
    directory = str(tmp_path)
    while len(directory) + 9 < length:
        directory = os.path.join(directory, "d" * min(200, length - len(directory) - 9))
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "control")
    with Turning(path):
        assert request(path, 5, do="status")["ok"]
    assert os.listdir(directory) == []


def test_a_socket_left_by_a_killed_parent_is_replaced(tmp_path):
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(SupervisorError, match="nobody listens"):
        request(path, 5, do="status")
    with Turning(path):
        assert request(path, 5, do="status")["ok"]


def test_no_directory_is_an_error_that_names_the_path(tmp_path):
    path = str(tmp_path / "nowhere" / "control")
    with pytest.raises(SupervisorError, match="nowhere"):
        ControlServer(path, selectors.DefaultSelector(), lambda client, asked: None).open()
    with pytest.raises(SupervisorError, match="nowhere"):
        request(path, 5, do="status")
