import errno
import os

import pytest

from convatlas.errors import UserError
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
