import os
import shutil
from pathlib import Path

import pytest
import torch

from convatlas.data import decoded_cache, pictures, places
from convatlas.data.loading import load_data
from convatlas.data.readers import picture_files
from convatlas.errors import StorageError, UserError

from .makers import picture_bytes, write_classes, write_picture


@pytest.fixture
def decodings(monkeypatch):
    """The names of the pictures that were decoded since the list was last cleared."""
    seen = []
    decode = picture_files.decode_picture

    def watched(content, **how):
        seen.append(Path(how["where"]).name)
        return decode(content, **how)

    monkeypatch.setattr(picture_files, "decode_picture", watched)
    return seen


def load(root, *, name="folder", image_size=16, **options):
    return load_data(name, root=root, image_size=image_size, **options)


def entry(suffix):
    (found,) = (places.cache_folder() / "decoded").glob(f"*.{suffix}")
    return found


def kept():
    return sorted(path.suffix for path in (places.cache_folder() / "decoded").iterdir())


def same(first, second):
    parts = zip((first.train, first.val, first.test), (second.train, second.val, second.test), strict=True)
    tensors = all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in parts)
    facts = ("fingerprint", "split", "skipped", "description", "classes", "mean", "std")
    return tensors and all(getattr(first, fact) == getattr(second, fact) for fact in facts)


def test_the_second_reading_decodes_nothing_and_gives_the_same(tmp_path, decodings):
    root = write_classes(tmp_path / "own")
    first = load(root)
    assert len(decodings) == 20
    decodings.clear()
    told = []
    assert same(first, load(root, progress=lambda *call: told.append(call)))
    assert decodings == []
    assert {what for what, *_ in told} == {"folders"}


def test_other_seeds_and_shares_find_the_same_pictures(tmp_path, decodings):
    root = write_classes(tmp_path / "own", each=20)
    load(root, seed=0)
    decodings.clear()
    cached = load(root, seed=1)
    assert decodings == []
    shutil.rmtree(places.cache_folder())
    assert same(cached, load(root, seed=1))


def test_a_list_is_kept_too(tmp_path, decodings):
    write_classes(tmp_path / "own")
    rows = [f"{name}/{i:02}.png,{name}" for name in ("ants", "bees") for i in range(10)]
    (tmp_path / "own" / "list.csv").write_text("\n".join(["path,label", *rows]))
    first = load(tmp_path / "own" / "list.csv", name="csv")
    decodings.clear()
    assert same(first, load(tmp_path / "own" / "list.csv", name="csv"))
    assert decodings == []


def change_content(root):
    """Other bytes, as many as before, with the time of before."""
    path = root / "ants" / "03.png"
    before, other = path.stat(), next(b for s in range(500, 900) if len(b := picture_bytes(s)) == path.stat().st_size)
    path.write_bytes(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        lambda root: write_picture(root / "ants" / "10.png", 99),
        lambda root: (root / "ants" / "03.png").unlink(),
        lambda root: (root / "ants" / "03.png").rename(root / "ants" / "11.png"),
    ],
)
def test_what_is_changed_added_removed_or_renamed_is_seen_and_replaces_the_old(tmp_path, decodings, change):
    root = write_classes(tmp_path / "own")
    load(root)
    change(root)
    decodings.clear()
    after = load(root)
    assert len(decodings) == len(list(root.rglob("*.png")))
    assert kept() == [".json", ".pixels"]
    shutil.rmtree(places.cache_folder())
    assert same(after, load(root))


def test_another_size_other_rules_and_another_pillow_decode_anew(tmp_path, decodings, monkeypatch):
    root = write_classes(tmp_path / "own")
    load(root)
    for change in (
        lambda: None,
        lambda: monkeypatch.setattr(decoded_cache, "RULES", pictures.RULES + 1),
        lambda: monkeypatch.setattr(decoded_cache.PIL, "__version__", "0"),
    ):
        change()
        decodings.clear()
        assert load(root, image_size=24).image_size == 24
        assert len(decodings) == 20
    assert kept() == [".json", ".pixels"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def spoil(path):
    path.write_text(path.read_text().replace("a", "b"))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("pixels", cut),
        ("json", cut),
        ("json", spoil),
        ("pixels", lambda path: path.write_bytes(bytes(path.stat().st_size))),
        ("pixels", lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))),
        ("pixels", Path.unlink),
        ("json", Path.unlink),
        ("json", lambda path: path.write_bytes(b"")),
        ("json", lambda path: path.write_bytes(bytes([255]))),
    ],
)
def test_a_damaged_entry_is_ignored_and_written_again(tmp_path, decodings, suffix, damage):
    root = write_classes(tmp_path / "own")
    first = load(root)
    damage(entry(suffix))
    decodings.clear()
    assert same(first, load(root))
    assert len(decodings) == 20
    assert same(first, load(root))
    assert len(decodings) == 20


def test_unreadable_pictures_are_remembered_with_their_names_and_still_an_error_unless_left_out(tmp_path, decodings):
    root = write_classes(tmp_path / "own")
    (root / "ants" / "03.png").write_bytes(b"")
    first = load(root, skip_unreadable=True)
    decodings.clear()
    again = load(root, skip_unreadable=True)
    assert again.skipped == ("ants/03.png",)
    assert same(first, again)
    assert decodings == []
    with pytest.raises(UserError, match="03.png is empty"):
        load(root)


@pytest.mark.parametrize("refusal", [StorageError("the disk is full", fix="Make room."), OSError(30, "Read-only file system")])
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, refusal):
    def refuse(path, content):
        raise refusal

    monkeypatch.setattr(decoded_cache.storage, "write_bytes", refuse)
    root = write_classes(tmp_path / "own")
    assert same(load(root), load(root))
    assert kept() == []


def test_a_file_in_the_place_of_the_cache_is_no_error(tmp_path):
    places.cache_folder().mkdir(parents=True)
    (places.cache_folder() / "decoded").write_bytes(b"")
    root = write_classes(tmp_path / "own")
    assert same(load(root), load(root))


def test_writing_to_the_pixels_does_not_reach_the_cache(tmp_path):
    root = write_classes(tmp_path / "own")
    for split in ("train", "val", "test"):
        shutil.copytree(root, root / split, ignore=lambda folder, names: [n for n in names if n in ("train", "val", "test")])
    for name in ("ants", "bees"):
        shutil.rmtree(root / name)
    first = load(root)
    mapped = load(root).train.images
    # It is a part of the whole file.
    assert mapped.untyped_storage().nbytes() == 60 * 3 * 16 * 16 == 3 * mapped.nbytes
    mapped.zero_()
    assert same(first, load(root))


def test_all_entries_together_stay_below_the_limit_and_the_longest_unused_goes_first(tmp_path, decodings, monkeypatch):
    monkeypatch.setattr(decoded_cache, "MOST_BYTES", 2 * 20 * 3 * 16 * 16)
    roots = [write_classes(tmp_path / name, first_seed=i) for i, name in enumerate(("a", "b", "c"))]
    load(roots[0])
    load(roots[1])
    notes = sorted((places.cache_folder() / "decoded").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for age, path in zip((50, 40), notes, strict=True):
        os.utime(path, (age, age))
    load(roots[0])
    load(roots[2])
    decodings.clear()
    load(roots[0])
    load(roots[2])
    assert decodings == []
    load(roots[1])
    assert len(decodings) == 20


def test_a_set_larger_than_the_limit_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "MOST_BYTES", 20 * 3 * 16 * 16 - 1)
    load(write_classes(tmp_path / "own"))
    assert not (places.cache_folder() / "decoded").exists()
