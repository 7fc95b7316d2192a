import errno
import os
import shutil
import subprocess
import sys

import pytest

from convatlas.errors import StorageError, UserError
from convatlas.records import storage


def test_write_replaces_whole_and_leaves_no_litter(tmp_path):
    path = tmp_path / "a.json"
    storage.write_text(path, "one")
    storage.write_text(path, "two ü")
    assert path.read_text(encoding="utf-8") == "two ü"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_full_disk_keeps_the_old_content_and_says_so(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.json"
    storage.write_text(path, "old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=r"the disk is full: .*a\.json could not be written"):
        storage.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_order_is_write_sync_rename_sync(tmp_path, monkeypatch):
    """Rename before fsync, or no fsync of the folder, loses acknowledged files in a power cut."""
    seen = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace

    def fsync(descriptor):
        seen.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")
        real_fsync(descriptor)

    def replace(self, target):
        seen.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "replace", replace)
    storage.write_text(tmp_path / "a", "x")
    assert seen == ["sync file", "rename", "sync folder"]


def test_append_repairs_a_torn_last_line(tmp_path):
    path = tmp_path / "m.jsonl"
    whole = "first\nsecond\n"
    for cut in range(len(whole) + 1):
        path.write_text(whole[:cut])
        storage.append_line(path, "new\n")
        kept = whole[:cut][: whole[:cut].rfind("\n") + 1]
        assert path.read_text() == kept + "new\n"


def test_a_folder_is_made_once_only(tmp_path):
    folder = storage.new_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    with pytest.raises(UserError, match="exists already, and nothing is ever overwritten"):
        storage.new_folder(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        storage.new_folder(tmp_path / "file" / "sub")
    with pytest.raises(UserError, match="could not be written"):
        storage.write_text(tmp_path / "nowhere" / "a", "x")


def test_new_folders_outlive_a_power_cut(tmp_path, monkeypatch):
    """A name is sure once the folder that it stands in was synchronised."""
    synchronised = []
    monkeypatch.setattr(storage.DISK, "sync", synchronised.append)
    storage.new_folder(tmp_path / "a" / "b")
    assert sorted(synchronised) == [tmp_path, tmp_path / "a"]


def test_a_folder_that_has_not_begun_is_cleared_and_any_other_stays(tmp_path):
    for name, files in {
        "empty": (),
        "torn": (".recipe.json.7.tmp", ".lock", "split.json"),
        "begun": ("recipe.json",),
        "own": ("notes",),
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("")
        storage.clear_unbegun(tmp_path / name)
    storage.clear_unbegun(tmp_path / "nowhere")
    assert {path.name: os.listdir(path) for path in tmp_path.iterdir()} == {"begun": ["recipe.json"], "own": ["notes"]}


def test_a_folder_below_a_file_or_where_nothing_may_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="lies below a file, not a folder"):
        storage.new_folder(tmp_path / "file" / "run")

    def forbidden(*args, **kwargs):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", forbidden)
    with pytest.raises(StorageError, match="could not be written: Permission denied"):
        storage.new_folder(tmp_path / "run")


def test_on_windows_files_are_synchronised_and_folders_not(tmp_path, monkeypatch):
    """Which cannot be opened there."""
    monkeypatch.setattr(storage, "POSIX", False)
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: (opened.append((path, flags)), real(path, flags, *rest))[1])
    storage.DISK.sync(tmp_path)
    assert opened == []
    (tmp_path / "file").write_text("")
    storage.DISK.sync(tmp_path / "file")
    assert opened == [(tmp_path / "file", os.O_RDWR)]


def test_without_file_locks_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "fcntl", None)
    with storage.held(tmp_path), storage.held(tmp_path):
        assert list(tmp_path.iterdir()) == []


HELD = """
import sys, pathlib
from convatlas.records.storage import held
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HELD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_and_told_who_holds_the_folder(tmp_path):
    with holder(tmp_path) as process:
        for said, named in ((None, f"process {process.pid} on '.*' since 2"), ("", "another process"), ("[]", "another process")):
            if said is not None:
                (tmp_path / storage.LOCK).write_text(said)
            with pytest.raises(UserError, match=f"is in use by {named}"), storage.held(tmp_path):
                raise AssertionError("held twice")
        process.kill()
    with storage.held(tmp_path):
        pass
    assert (tmp_path / storage.LOCK).read_text() == ""


def test_a_folder_whose_first_files_fail_does_not_stay(tmp_path):
    with pytest.raises(StorageError), storage.beginning(tmp_path / "run"):
        storage.write_text(tmp_path / "run" / "plan.json", "x")
        raise StorageError("the disk is full", fix="Make room.")
    assert list(tmp_path.iterdir()) == []
    with storage.beginning(tmp_path / "run"):
        storage.write_text(tmp_path / "run" / "plan.json", "x")
    assert os.listdir(tmp_path / "run") == ["plan.json"]


def test_a_first_line_that_fails_leaves_no_empty_file(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        storage.append_line(tmp_path / "log", "x\n")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    storage.append_line(tmp_path / "log", "kept\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        storage.append_line(tmp_path / "log", "x\n")
    assert (tmp_path / "log").read_text().startswith("kept\n")


def test_what_a_crash_left_is_swept_and_nothing_else(tmp_path):
    for name in (".state-1.pt.77.tmp", "kept.tmp", ".kept"):
        (tmp_path / name).write_text("")
    storage.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".kept", "kept.tmp"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_disk_that_is_really_full(tmp_path):
    """One of 256 KiB, on which nothing is left behind and the old content stands; with room, the new is written."""
    script = f"""
mount -t tmpfs -o size=256k none {tmp_path} || exit 77
exec {sys.executable} - <<'END'
from pathlib import Path
from convatlas.errors import StorageError
from convatlas.records import storage
folder = Path({str(tmp_path)!r})
storage.write_bytes(folder / "state", b"1" * 100_000)
(folder / "ballast").write_bytes(b"." * 80_000)
for write in (lambda: storage.write_bytes(folder / "state", b"2" * 120_000), lambda: storage.append_line(folder / "log", "3" * 120_000 + "\\n")):
    try:
        write()
    except StorageError as error:
        assert "the disk is full" in str(error) and "bytes needed" in str(error), error
    else:
        raise AssertionError("there was room")
with storage.held(folder):
    assert (folder / "state").read_bytes() == b"1" * 100_000
assert [path.name for path in folder.glob(".*")] == [".lock"], list(folder.iterdir())
(folder / "ballast").unlink()
storage.append_line(folder / "log", "4\\n")
assert (folder / "log").read_text().endswith("4\\n")
storage.write_bytes(folder / "state", b"2" * 120_000)
print("held")
END
"""
    done = subprocess.run(["unshare", "-rm", "/bin/sh", "-c", script], capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("file systems cannot be mounted here")
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
