"""Peers are called with their own defaults, their user's configuration left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perf.cage import Cage, CageError
from perf.peers import ssh, web
from perf.peers.fetcher import Fetcher, shell


def _copier() -> Fetcher:
    return Fetcher(name="copier", program="cp", arguments=shell('cp "$1" "$2"'))


def test_a_fetcher_runs_its_program_and_is_timed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("bytes")
    with Cage(isolated=False) as cage:
        done = _copier().fetch(cage, str(tmp_path / "a"), str(tmp_path / "b c"), str(tmp_path / "log"))
    assert done.seconds > 0
    assert (tmp_path / "b c").read_text() == "bytes"


def test_what_a_failed_peer_said_is_told(tmp_path: Path) -> None:
    with Cage(isolated=False) as cage, pytest.raises(CageError, match=r"copier ended with 1: .*nothere"):
        _copier().fetch(cage, str(tmp_path / "nothere"), str(tmp_path / "b"), str(tmp_path / "log"))


def test_a_missing_program_is_known_before_it_is_called() -> None:
    assert _copier().installed()
    assert not Fetcher(name="x", program="no-such-program", arguments=shell("")).installed()


def test_every_web_peer_has_a_name_of_its_own_and_names_source_and_destination() -> None:
    names = [peer.name for peer in (*web.ALL, web.CURL_SYNC)]
    assert len(set(names)) == len(names)
    for peer in (*web.ALL, web.CURL_SYNC):
        command = " ".join(peer.arguments("http://h:1/d/file.bin", "/dev/shm/out/copy.bin"))
        assert "h:1" in command
        assert "d/file.bin" in command
        assert "copy.bin" in command


def test_ssh_peers_use_the_one_configuration(tmp_path: Path) -> None:
    target = ssh.SshTarget(
        config="/t/config",
        host="peer",
        address="127.0.0.1",
        port=22,
        user="u",
        key="/t/key",
        known_hosts="/t/k",
    )
    for fetcher in (ssh.sftp_get, ssh.scp_get, ssh.rsync_get, ssh.lftp_get, ssh.sftp_put, ssh.scp_put):
        assert "/t/config" in " ".join(fetcher(target).arguments("/from", "/to"))
    assert "known_hosts_file='/t/k'" in " ".join(ssh.rclone_get(target).arguments("/from", "/to"))
    text = target.client_config(cipher="aes128-gcm@openssh.com")
    assert "Ciphers aes128-gcm@openssh.com\n" in text
    if shutil.which("ssh"):
        (tmp_path / "config").write_text(text)
        with Cage(isolated=False) as cage:
            done = cage.run(["ssh", "-G", "-F", str(tmp_path / "config"), "peer"], log=str(tmp_path / "log"))
        assert done.code == 0, (tmp_path / "log").read_text()
