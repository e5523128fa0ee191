"""Ports for servers of our own."""

from __future__ import annotations

import socket

from sarrapipe.pump.ports import LOOPBACK, PortReservation, free_ports, is_free


def test_ports_are_held_until_released_and_all_different() -> None:
    reservation = PortReservation()
    try:
        ports = [reservation.take() for _ in range(50)]
        assert len(set(ports)) == 50
        assert not any(is_free(port) for port in ports)
    finally:
        reservation.release()
    assert all(is_free(port) for port in ports)


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)
