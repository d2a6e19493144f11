"""Files are whole or absent."""

import os
import subprocess
import sys
import threading

import pytest
from benchmarks.measure import put_between

from uvae_lib.files import atomic_path, write_atomically


def test_text_is_written_as_utf_8(tmp_path):
    write_atomically(tmp_path / "a.txt", "Ωm = 0.3, σ8\n")
    assert (tmp_path / "a.txt").read_bytes() == "Ωm = 0.3, σ8\n".encode()


def test_bytes_are_written_as_they_are(tmp_path):
    write_atomically(tmp_path / "a.bin", b"\x00\r\n\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"


def test_missing_folders_are_made(tmp_path):
    write_atomically(tmp_path / "new" / "folder" / "a.txt", "a")
    assert (tmp_path / "new" / "folder" / "a.txt").read_text() == "a"


def test_an_old_file_is_replaced(tmp_path):
    write_atomically(tmp_path / "a.txt", "old and longer")
    write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_nothing_is_left_beside_a_finished_file(tmp_path):
    write_atomically(tmp_path / "a.txt", "a")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_file_has_no_name_before_the_block_ends(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
        before = (tmp_path / "a.txt").exists()
    assert (before, (tmp_path / "a.txt").exists()) == (False, True)


def test_an_error_in_the_block_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk")
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_process_that_dies_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    dying = (
        "import os, sys; from uvae_lib.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    died = subprocess.run([sys.executable, "-c", dying, tmp_path / "a.txt"])
    assert (died.returncode, (tmp_path / "a.txt").read_text()) == (9, "old")


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_half(tmp_path):
    path, versions, seen = tmp_path / "a.bin", [bytes([i]) * 2**20 for i in range(2)], []
    write_atomically(path, versions[0])
    stop = threading.Event()

    def read():
        while not stop.is_set():
            seen.append(path.read_bytes() in versions)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(40):
        write_atomically(path, versions[i % 2])
    stop.set()
    reader.join()
    assert seen and all(seen)


def test_text_is_put_between_its_marks_and_nothing_else_changes(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n")
    put_between(path, "x", "new\n")
    put_between(path, "x", "newer\n")
    assert path.read_text() == "a\n<!-- x:begin -->\nnewer\n<!-- x:end -->\nb\n"


def test_a_file_without_the_marks_is_refused_and_kept(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- x:begin -->\n")
    with pytest.raises(ValueError, match="has no <!-- x:begin --> and <!-- x:end -->"):
        put_between(path, "x", "new\n")
    assert path.read_text() == "a\n<!-- x:begin -->\n"
