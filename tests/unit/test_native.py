"""The C kernels and their Python twins pass the same tests."""

from __future__ import annotations

import errno
import mmap
import multiprocessing
import os
import types

import pytest

from sarrapipe import _twin, native

FULL = 2**64 - 1


def add_many(kernels: types.ModuleType, path: str, times: int) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 16) as words:
        for _ in range(times):
            kernels.atomic_add(words, 8, 1)


class TestTwin:
    kernels: types.ModuleType = _twin

    def test_store_and_load(self) -> None:
        words = bytearray(24)
        self.kernels.atomic_store(words, 8, FULL)
        assert self.kernels.atomic_load(words, 8) == FULL
        assert words == bytes(8) + b"\xff" * 8 + bytes(8)

    def test_add_wraps_and_returns_the_new_value(self) -> None:
        words = bytearray(8)
        assert self.kernels.atomic_add(words, 0, 5) == 5
        assert self.kernels.atomic_add(words, 0, -6) == FULL
        assert self.kernels.atomic_add(words, 0, 1) == 0

    def test_compare_and_swap(self) -> None:
        words = bytearray(8)
        assert self.kernels.compare_and_swap(words, 0, 0, 7) is True
        assert self.kernels.compare_and_swap(words, 0, 0, 9) is False
        assert self.kernels.atomic_load(words, 0) == 7

    @pytest.mark.parametrize("offset", [-8, 1 << 40, 9, 16])
    def test_refuses_an_offset_without_a_word(self, offset: int) -> None:
        with pytest.raises(IndexError):
            self.kernels.atomic_load(bytearray(16), offset)

    def test_refuses_an_unaligned_word(self) -> None:
        with pytest.raises(ValueError, match="aligned"):
            self.kernels.atomic_add(bytearray(16), 4, 1)

    @pytest.mark.parametrize("value", [-1, FULL + 1])
    def test_refuses_a_value_that_is_no_word(self, value: int) -> None:
        with pytest.raises(OverflowError):
            self.kernels.atomic_store(bytearray(8), 0, value)
        with pytest.raises(OverflowError):
            self.kernels.compare_and_swap(bytearray(8), 0, 0, value)

    def test_refuses_to_write_into_a_read_only_buffer(self) -> None:
        with pytest.raises((TypeError, BufferError)):
            self.kernels.atomic_store(bytes(8), 0, 1)

    def test_processes_lose_no_addition(self, tmp_path: object) -> None:
        path = f"{tmp_path}/words"
        with open(path, "wb") as file:
            file.write(bytes(16))
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=add_many, args=(self.kernels, path, 3000)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        with open(path, "rb") as file:
            assert int.from_bytes(file.read()[8:], "little") == 9000

    def test_opens_below_a_directory(self, tmp_path: object) -> None:
        os.makedirs(f"{tmp_path}/a/b")
        root = os.open(str(tmp_path), os.O_PATH)
        try:
            fd = self.kernels.open_beneath(root, "a//b/./new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
            assert os.stat(f"{tmp_path}/a/b/new").st_ino == os.fstat(fd).st_ino
            assert not os.get_inheritable(fd)
            os.close(fd)
            os.close(self.kernels.open_beneath(root, b".", os.O_DIRECTORY))
        finally:
            os.close(root)

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("../outside", errno.EXDEV),
            ("/etc", errno.EXDEV),
            ("a/../a", errno.EXDEV),
            ("a/..", errno.EXDEV),
            ("away/file", errno.ELOOP),
            ("a/final", errno.ELOOP),
            ("inside/file", errno.ELOOP),
            ("a/missing/file", errno.ENOENT),
            ("a/plain/file", errno.ENOTDIR),
        ],
    )
    def test_refuses_what_leads_outside(self, tmp_path: object, path: str, expected: int) -> None:
        os.makedirs(f"{tmp_path}/root/a")
        for name in ("root/a/plain", "file"):
            with open(f"{tmp_path}/{name}", "wb"):
                pass
        os.symlink("..", f"{tmp_path}/root/away")
        os.symlink("plain", f"{tmp_path}/root/a/final")
        os.symlink("a", f"{tmp_path}/root/inside")
        root = os.open(f"{tmp_path}/root", os.O_PATH)
        try:
            with pytest.raises(OSError) as caught:
                self.kernels.open_beneath(root, path, os.O_RDONLY)
        finally:
            os.close(root)
        assert caught.value.errno == expected

    @pytest.mark.parametrize("flags", [os.O_PATH, os.O_PATH | os.O_DIRECTORY, os.O_RDONLY | os.O_NOFOLLOW])
    def test_a_final_link_is_not_opened_either(self, tmp_path: object, flags: int) -> None:
        os.mkdir(f"{tmp_path}/real")
        os.symlink("real", f"{tmp_path}/link")
        root = os.open(str(tmp_path), os.O_PATH)
        try:
            with pytest.raises(OSError) as caught:
                self.kernels.open_beneath(root, "link", flags)
        finally:
            os.close(root)
        assert caught.value.errno == errno.ELOOP

    def test_names_may_begin_with_dots(self, tmp_path: object) -> None:
        os.makedirs(f"{tmp_path}/...")
        root = os.open(str(tmp_path), os.O_PATH)
        try:
            os.close(self.kernels.open_beneath(root, ".../..x", os.O_CREAT | os.O_WRONLY, 0o600))
            os.close(self.kernels.open_beneath(root, "x..", os.O_CREAT | os.O_WRONLY, 0o600))
        finally:
            os.close(root)

    def test_syncs_a_file_system(self, tmp_path: object) -> None:
        fd = os.open(str(tmp_path), os.O_RDONLY)
        self.kernels.sync_file_system(fd)
        os.close(fd)
        with pytest.raises(OSError) as caught:
            self.kernels.sync_file_system(fd)
        assert caught.value.errno == errno.EBADF

    def test_both_export_the_same(self) -> None:
        assert [name for name in _twin.__all__ if name not in dir(self.kernels)] == []


@pytest.mark.skipif(not native.BUILT, reason="the extension was not built (BUILD_EXTENSION=no)")
class TestNative(TestTwin):
    kernels = native
