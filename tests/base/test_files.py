import os
import stat

import pytest

from tfptq.base.files import check_path, check_writable, write_atomically


def test_writes_bytes_and_text(tmp_path):
    assert write_atomically(tmp_path / "a", b"\x00\xff") == tmp_path / "a"
    write_atomically(str(tmp_path / "b"), "Größe\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_text(encoding="utf-8") == "Größe\n"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    write_atomically(path, b"old")

    def fail(source, destination):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_permissions_follow_the_old_file_or_the_umask(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_atomically(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write_atomically(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_the_umask_of_other_threads_is_left_alone(tmp_path, monkeypatch):
    def refuse(mask):
        raise AssertionError("the umask was changed")

    monkeypatch.setattr(os, "umask", refuse)
    write_atomically(tmp_path / "file", b"1")
    write_atomically(tmp_path / "file", b"2")


def test_a_private_file_is_never_open_to_others(tmp_path, monkeypatch):
    path, modes, chmod = tmp_path / "file", [], os.chmod
    path.write_bytes(b"old")
    path.chmod(0o600)

    def look(target, mode):
        modes.append(stat.S_IMODE(os.stat(target).st_mode))
        chmod(target, mode)

    monkeypatch.setattr(os, "chmod", look)
    write_atomically(path, b"new")
    assert modes == [0o600] and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_name_of_any_length_that_the_system_takes(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"1")
    assert path.read_bytes() == b"1" and len(os.listdir(tmp_path)) == 1


def test_refuses_a_folder_and_a_missing_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError, match="create it first"):
        write_atomically(tmp_path / "no" / "file", b"")


@pytest.mark.parametrize("path", ["", "a\0b", b"", b"\0"])
def test_refuses_what_is_no_path(path):
    for check in (lambda: check_path("output", path), lambda: check_writable(os.fsdecode(path))):
        with pytest.raises(ValueError, match="name a file or a folder"):
            check()


@pytest.mark.parametrize("protected, message", [("", "in the folder"), ("file", "write-protected")])
def test_refuses_what_is_protected(tmp_path, monkeypatch, protected, message):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda target, mode: os.fspath(target) != os.fspath(tmp_path / protected))
    with pytest.raises(PermissionError, match=message):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_refuses_a_folder_in_which_no_file_can_be_made(tmp_path, monkeypatch):
    check_writable(tmp_path / "file")
    assert not os.listdir(tmp_path)

    def fail(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(OSError, match="no file can be made in the folder .*Read-only file system"):
        check_writable(tmp_path / "file")


def test_a_link_keeps_its_target(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "model.tflite", tmp_path / "latest"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"


def test_refuses_a_device_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", os.devnull):
        with pytest.raises(OSError, match="it is a device or a pipe; name a file"):
            write_atomically(path, b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
