"""Training states outlive a power cut at any moment, and damage to the newest of them."""

import io
from dataclasses import replace

import pytest
import torch

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records import manifest, storage
from convatlas.records.run import ModelConfig
from convatlas.training import checkpoint
from tests.records.crash_states import Recorder, crash_states, put

SAVES = 8


def state(n):
    return {"n": n, "weights": torch.full((64,), float(n))}


def saved(tmp_path, monkeypatch, disk, *, save=checkpoint.save_state, saves=SAVES):
    """The log of so many saves in a folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(storage, "DISK", disk)
    for n in range(1, saves + 1):
        save(folder, state(n))
        disk.acknowledge(n)
    monkeypatch.undo()
    return disk.log


def judged(tmp_path, log):
    """How many states a power cut may leave, how many of them load something wrong, and how many lose what was acknowledged."""
    total, wrong, lost, noted = 0, 0, 0, []
    for found, acknowledged in crash_states(log):
        put(tmp_path / "after", found)
        total += 1
        try:
            loaded = checkpoint.load_state(tmp_path / "after", note=noted.append)
        except UserError:
            loaded = None
        n = 0 if loaded is None else loaded["n"]
        wrong += bool(n) and not torch.equal(loaded["weights"], state(n)["weights"])
        lost += n < acknowledged
    return total, wrong, lost, noted


def test_no_power_cut_loses_what_was_acknowledged(tmp_path, monkeypatch):
    total, wrong, lost, noted = judged(tmp_path, saved(tmp_path, monkeypatch, Recorder()))
    assert total > 61
    assert (wrong, lost, noted) == (0, 0, [])


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize("lazy", [("sync file", "sync folder"), ("sync folder",), ("sync file",)])
def test_the_enumeration_finds_what_is_lost_without_synchronising(tmp_path, monkeypatch, lazy):
    _, wrong, lost, _ = judged(tmp_path, saved(tmp_path, monkeypatch, Recorder(lazy=lazy), saves=3))
    assert wrong == 0, "the SHA-256 tells damage all the same"
    assert lost > 0


def test_the_enumeration_finds_what_is_lost_when_the_old_state_is_removed_first(tmp_path, monkeypatch):
    def removing_first(folder, content):
        for path in folder.glob("state-*.pt"):
            storage.remove(path)
        checkpoint.save_state(folder, content)

    _, _, lost, _ = judged(tmp_path, saved(tmp_path, monkeypatch, Recorder(), save=removing_first))
    assert lost > 0


def test_two_states_are_kept_and_nothing_else(tmp_path):
    for n in range(1, 6):
        checkpoint.save_state(tmp_path, state(n))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "state-4.pt", "state-5.pt"]
    assert [each.name for each in manifest.read(tmp_path).files] == ["state-4.pt", "state-5.pt"]


def flips(content):
    """The content with one bit changed, at many places, and cut at many."""
    for at in range(0, len(content), max(len(content) // 40, 1)):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        yield content[:at]


@pytest.mark.parametrize("listed", [True, False])
def test_a_damaged_state_is_named_and_the_one_before_it_used(tmp_path, listed):
    """By the manifest every flipped bit is seen; without it those in a state's own numbers."""
    for n in (1, 2):
        checkpoint.save_state(tmp_path, state(n))
    path, content = tmp_path / "state-2.pt", (tmp_path / "state-2.pt").read_bytes()
    if not listed:
        (tmp_path / manifest.FILE).unlink()
        content_of_weights = state(2)["weights"].numpy().tobytes()
        begin = content.index(content_of_weights)
        damaged = [content[:at] + b"\xff" + content[at + 1 :] for at in range(begin, begin + len(content_of_weights))]
    else:
        damaged = list(flips(content))
    for each in damaged:
        path.write_bytes(each)
        notes = []
        assert checkpoint.load_state(tmp_path, note=notes.append)["n"] == 1
        (note,) = notes
        assert note.startswith(f"warning: {path} is damaged"), note
    path.write_bytes(content)
    assert checkpoint.load_state(tmp_path, note=notes.append)["n"] == 2


def test_a_damaged_state_is_not_kept_in_place_of_an_intact_one(tmp_path):
    for value in (1.0, 2.0):
        checkpoint.save_state(tmp_path, {"a": torch.tensor(value)})
    path = tmp_path / "state-2.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    checkpoint.forget_damaged(tmp_path)
    checkpoint.save_state(tmp_path, {"a": torch.tensor(3.0)})
    assert sorted(each.name for each in tmp_path.glob("state-*.pt")) == ["state-1.pt", "state-3.pt"]
    path = tmp_path / "state-3.pt"
    path.write_bytes(b"")
    assert checkpoint.load_state(tmp_path, note=lambda _: None)["a"] == 1.0


def test_what_cannot_be_read_counts_as_damaged_and_without_a_manifest_nothing_is_forgotten(tmp_path):
    for value in (1.0, 2.0):
        checkpoint.save_state(tmp_path, {"a": torch.tensor(value)})
    (tmp_path / "state-2.pt").unlink()
    (tmp_path / "state-2.pt").mkdir()  # which no process can read as a file, whatever its rights
    checkpoint.forget_damaged(tmp_path)
    assert [each.name for each in manifest.read(tmp_path).files] == ["state-1.pt"]
    (tmp_path / manifest.FILE).write_text("{}")
    checkpoint.forget_damaged(tmp_path)
    assert (tmp_path / manifest.FILE).read_text() == "{}"


@pytest.mark.parametrize("broken_at", ["config.json", "manifest.json"])
def test_a_configuration_that_was_being_replaced_is_not_taken_for_damaged(tmp_path, monkeypatch, broken_at):
    model = create_model("lenet.pocket")
    config = ModelConfig("lenet.pocket", 10, 3, 32, (0.5,) * 3, (0.2,) * 3, tuple("abcdefghij"), "0.1.0")
    checkpoint.save_model(tmp_path, model, config)
    write, seen = storage.write_bytes, []

    def torn(path, content):
        seen.append(path.name)
        if seen[1:] and path.name == broken_at:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(storage, "write_bytes", torn)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_config(tmp_path, replace(checkpoint.load_config(tmp_path), temperature=2.0))
    monkeypatch.undo()
    assert checkpoint.load_model(tmp_path)[1].temperature in (1.0, 2.0)


def test_a_damaged_manifest_is_named_and_states_are_judged_by_themselves(tmp_path):
    for n in (1, 2):
        checkpoint.save_state(tmp_path, state(n))
    path, content = tmp_path / manifest.FILE, (tmp_path / manifest.FILE).read_bytes()
    for each in flips(content):
        path.write_bytes(each)
        notes = []
        assert checkpoint.load_state(tmp_path, note=notes.append)["n"] == 2
        assert all(note.startswith("warning: ") and "manifest.json" in note for note in notes)
        assert notes or each.strip() == content.strip()
    checkpoint.save_state(tmp_path, state(3))
    notes = []
    assert checkpoint.load_state(tmp_path, note=notes.append)["n"] == 3
    assert notes == []


def test_with_all_states_damaged_the_run_is_refused(tmp_path):
    for n in (1, 2):
        checkpoint.save_state(tmp_path, state(n))
        (tmp_path / f"state-{n}.pt").write_bytes(b"")
    notes = []
    with pytest.raises(UserError, match="no training state in .* is intact"):
        checkpoint.load_state(tmp_path, note=notes.append)
    assert len(notes) == 2


def test_a_state_of_a_newer_version_is_refused_not_skipped(tmp_path):
    checkpoint.save_state(tmp_path, state(1))
    checkpoint.save_state(tmp_path, {**state(2), "format": 2})
    with pytest.raises(UserError, match=r"state-2\.pt is of another version"):
        checkpoint.load_state(tmp_path, note=print)


def test_the_only_state_of_an_earlier_version_is_read_and_then_replaced(tmp_path):
    buffer = io.BytesIO()
    torch.save({"format": 1, **state(1)}, buffer)
    (tmp_path / "state.pt").write_bytes(buffer.getvalue())
    assert checkpoint.load_state(tmp_path, note=print)["n"] == 1
    checkpoint.save_state(tmp_path, state(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "state-1.pt"]
