import os
import shutil
import time

import pytest
import torch

from convatlas.data.loading import load_data
from convatlas.errors import UserError

from ..makers import write_classes, write_picture


def load(root, **options):
    return load_data("folder", root=root, image_size=16, **options)


def refused(root, reason, **options):
    with pytest.raises(UserError, match=reason) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)


def test_one_folder_of_classes_is_parted_class_by_class(tmp_path):
    data = load(write_classes(tmp_path, each=20))
    assert data.classes == ("ants", "bees")
    assert (len(data.train), len(data.val), len(data.test)) == (28, 6, 6)
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.images.shape[1:] == (3, 16, 16)
    names = [name for part in data.split.values() for name in part]
    assert len(names) == len(set(names)) == 40
    assert all(name.split("/")[0] in data.classes for name in names)
    assert "70/15/15" in data.description


def test_the_share_that_is_asked_for_is_of_all_pictures_and_moves_no_test_image(tmp_path):
    root = write_classes(tmp_path, each=20)
    first, asked, none = load(root), load(root, parted=0.4), load(root, parted=0.0)
    assert [len(asked.train), len(asked.val), len(asked.test)] == [18, 16, 6]
    assert [len(none.train), len(none.val), len(none.test)] == [34, 0, 6]
    assert first.split["test"] == asked.split["test"] == none.split["test"]
    assert first.fingerprint == asked.fingerprint
    assert "no splits: parted 45/40/15 into" in asked.description and "no splits: parted 85/0/15 into" in none.description
    for same in (load(root, parted=0.15), load(root, validation=0.4)):  # as runs of earlier versions have them
        assert (same.split, same.description) == (first.split, first.description)
    refused(root, r"validation is 0\.81 of pictures without splits, .* Give one from 0 to 0\.8\.", parted=0.81)


def test_the_same_files_and_seed_give_the_same_split_wherever_they_lie(tmp_path):
    first = load(write_classes(tmp_path / "here", each=20), seed=3)
    copied = shutil.copytree(tmp_path / "here", tmp_path / "there")
    again = load(copied, seed=3)
    assert first.split == again.split
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.train.images, again.train.images)


def test_the_seed_moves_validation_but_never_the_test_images(tmp_path):
    root = write_classes(tmp_path, each=20)
    first, other = load(root, seed=0), load(root, seed=1)
    assert first.split["val"] != other.split["val"]
    assert first.split["test"] == other.split["test"]
    assert first.fingerprint == other.fingerprint


def test_split_labels_and_pictures_belong_together(tmp_path):
    data = load(write_classes(tmp_path, each=6))
    from convatlas.data.pictures import read_picture

    for split, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        for i, name in enumerate(data.split[split]):
            assert torch.equal(part.images[i], read_picture(tmp_path / name, size=16, channels=3))
            assert data.classes[part.labels[i]] == name.split("/")[0]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_folders_of_splits_are_used_as_they_are(tmp_path, val):
    for i, split in enumerate(("train", val, "test")):
        write_classes(tmp_path / split, each=4 + i, first_seed=100 * i)
    data = load(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (8, 10, 12)
    assert data.split["val"][0] == f"{val}/ants/00.png"


def test_without_test_val_serves_as_test_and_that_is_said(tmp_path):
    write_classes(tmp_path / "train", each=10)
    write_classes(tmp_path / "val", each=5, first_seed=100)
    data = load(tmp_path, validation=0.2)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 10)
    assert "val serves as test, 20% of train held out" in data.description


def test_without_val_it_is_held_out_of_train(tmp_path):
    write_classes(tmp_path / "train", each=10)
    write_classes(tmp_path / "test", each=5, first_seed=100)
    data = load(tmp_path, validation=0.2)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 10)


def test_what_systems_strew_about_is_ignored(tmp_path):
    root = write_classes(tmp_path)
    expected = load(root).fingerprint
    write_picture(root / "__MACOSX" / "ants" / "._00.png", 1)
    write_picture(root / ".hidden" / "a.png", 1)
    write_picture(root / "ants" / "._00.png", 1)
    (root / "ants" / "Thumbs.db").write_bytes(b"x")
    (root / "ants" / "notes.txt").write_text("not a picture")
    (root / ".DS_Store").write_bytes(b"x")
    assert load(root).fingerprint == expected


def test_an_empty_or_missing_folder_is_said(tmp_path):
    refused(tmp_path / "nowhere", "nowhere does not exist")
    refused(write_picture(tmp_path / "a.png", 1), "a.png is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no pictures")
    (tmp_path / "empty" / "ants").mkdir()
    (tmp_path / "empty" / "bees").mkdir()
    refused(tmp_path / "empty", "has folders but no pictures")


def test_a_flat_folder_is_told_how_to_be_arranged(tmp_path):
    write_picture(tmp_path / "ant.png", 1)
    refused(tmp_path, r"1 pictures but no class folders. Arrange it as FOLDER/<class>")


def test_one_class_only_is_said(tmp_path):
    refused(write_classes(tmp_path, ("ants",)), "one class only, 'ants'")


def test_an_empty_class_is_named(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "wasps").mkdir()
    refused(tmp_path, "the class 'wasps' .* has no pictures")


@pytest.mark.parametrize("twin", ["Ants", "café", "CAFE\u0301"])
def test_names_equal_but_for_case_or_unicode_form_are_refused(tmp_path, twin):
    write_classes(tmp_path, ("ants", "cafe\u0301", twin))
    refused(tmp_path, "two folders for one class")


def test_classes_that_differ_between_splits_are_named(tmp_path):
    write_classes(tmp_path / "train", ("ants", "bees"))
    write_classes(tmp_path / "test", ("ants", "bees", "wasps"))
    refused(tmp_path, "the class 'wasps' is missing from train")
    shutil.rmtree(tmp_path / "test" / "wasps")
    shutil.rmtree(tmp_path / "test" / "bees")
    refused(tmp_path, "the class 'bees' is missing from test")


def test_mixed_and_nested_layouts_are_refused(tmp_path):
    write_classes(tmp_path / "nested" / "deep")
    write_classes(tmp_path / "nested")
    refused(tmp_path / "nested", "class folder .*deep holds folders itself, such as ants")
    write_classes(tmp_path / "mixed" / "train")
    write_classes(tmp_path / "mixed", ("wasps",))
    refused(tmp_path / "mixed", r"mixes split folders \(train\) with others \(wasps\)")
    write_classes(tmp_path / "two" / "train")
    write_classes(tmp_path / "two" / "val")
    write_classes(tmp_path / "two" / "valid")
    refused(tmp_path / "two", "two val folders, val and valid")
    write_picture(write_classes(tmp_path / "beside") / "stray.png", 1)
    refused(tmp_path / "beside", "pictures beside its class folders, such as stray.png")


def test_a_corrupt_picture_is_named_and_left_out_only_if_told_so(tmp_path):
    root = write_classes(tmp_path)
    (root / "ants" / "03.png").write_bytes((root / "ants" / "03.png").read_bytes()[:-20])
    refused(root, r"ants/03.png is damaged: .*--skip-unreadable")
    data = load(root, skip_unreadable=True)
    assert data.skipped == ("ants/03.png",)
    assert len(data.train) + len(data.val) + len(data.test) == 19
    assert all("ants/03.png" not in names for names in data.split.values())
    assert "1 unreadable picture left out" in data.description


def test_more_than_half_the_pictures_are_not_left_out(tmp_path):
    root = write_classes(tmp_path)
    for i in range(5):
        for name in ("ants", "bees"):
            (root / name / f"{i:02}.png").write_bytes(b"")
    assert len(load(root, skip_unreadable=True).skipped) == 10
    (root / "ants" / "05.png").write_bytes(b"")
    refused(root, "11 of 20 pictures cannot be read, ants/00.png the first of them", skip_unreadable=True)


def test_leaving_a_picture_out_does_not_move_the_others(tmp_path):
    root = write_classes(tmp_path)
    before = load(root).split
    (root / "ants" / "03.png").write_bytes(b"")
    after = load(root, skip_unreadable=True).split
    assert {s: [n for n in names if n != "ants/03.png"] for s, names in before.items()} == {s: list(n) for s, n in after.items()}


def test_a_class_whose_pictures_are_all_unreadable_is_named(tmp_path):
    root = write_classes(tmp_path)
    for path in (root / "bees").iterdir():
        path.write_bytes(b"")
    refused(root, "no picture of class 'bees' in train can be read", skip_unreadable=True)


@pytest.mark.timeout(20)
def test_pipes_and_loops_are_named_not_opened(tmp_path):
    root = write_classes(tmp_path)
    os.mkfifo(root / "ants" / "pipe.png")
    refused(root, "pipe.png is no regular file")
    (root / "ants" / "pipe.png").unlink()
    (root / "ants" / "loop.png").symlink_to(root / "ants" / "loop.png")
    refused(root, "loop.png cannot be read")


@pytest.mark.parametrize(
    "name", ["new\nline.png", "right\u202eleft.png", "😀.png", os.fsdecode(b"\xff\xfe.png"), "x" * 251 + ".png"]
)
def test_odd_names_are_read_and_recorded_as_text(tmp_path, name):
    root = write_classes(tmp_path)
    write_picture(root / "ants" / name, 77)
    data = load(root)
    names = [each for part in data.split.values() for each in part]
    assert len(names) == 21
    "".join(names).encode("utf-8")


def test_the_same_picture_in_train_and_test_is_counted(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", each=3)
    data = load(tmp_path, validation=0.0)
    assert "warning: 6 of 6 test pictures are also in train or val" in data.description
    assert len(data.test) == 6


def test_the_same_picture_in_two_classes_is_counted(tmp_path):
    root = write_classes(tmp_path)
    shutil.copy(root / "ants" / "00.png", root / "bees" / "00.png")
    assert "warning: 1 picture lies in more than one class" in load(root).description
    assert "warning" not in load(write_classes(tmp_path / "clean")).description


def test_the_fingerprint_follows_content_and_classes(tmp_path):
    first = load(write_classes(tmp_path / "a"))
    renamed = load(write_classes(tmp_path / "b", ("ants", "wasps")))
    changed = write_classes(tmp_path / "c")
    write_picture(changed / "ants" / "00.png", 999)
    assert len({first.fingerprint, renamed.fingerprint, load(changed).fingerprint}) == 3


def test_progress_counts_every_folder_and_picture(tmp_path):
    seen = []
    load(write_classes(tmp_path), progress=lambda *call: seen.append(call))
    assert seen == [*(("folders", i, 2) for i in range(3)), *(("pictures", i, 20) for i in range(1, 21))]


def test_an_error_is_told_at_once_and_not_after_all_pictures_are_read(tmp_path):
    root = write_classes(tmp_path, each=3)
    for i in range(30):
        write_picture(root / "bees" / f"large{i}.png", i, size=(500, 500))
    (root / "ants" / "00.png").write_bytes(b"")
    (root / "ants" / "01.png").write_bytes(b"")
    (root / "ants" / "02.png").write_bytes(b"")
    began = time.perf_counter()
    refused(root, "ants/0..png is empty")
    to_error = time.perf_counter() - began
    began = time.perf_counter()
    for path in (root / "ants").iterdir():
        write_picture(path, 1)
    load(root)
    assert to_error < 0.7 * (time.perf_counter() - began)
