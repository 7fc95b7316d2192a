"""A data set looked over: planted faults of every kind are found, and sound data has none."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from convatlas.data.check_findings import class_rows
from convatlas.data.checking import check_data
from convatlas.data.loading import load_data
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.data_check import DataCheck, across

from .makers import cifar10_contents, write_folder
from .photographs import COPIES, cut, original


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture)).save(path)


def arranged(root, *, train=12, test=4, classes=("ants", "bees")):
    """A sound folder with train and test."""
    for c, name in enumerate(classes):
        for split, n, first in (("train", train, 0), ("test", test, 500)):
            for i in range(n):
                save(root / split / name / f"{i:02}.png", enlarged_to_64(original(1000 * c + first + i)))
    return root


def enlarged_to_64(picture):
    return np.asarray(Image.fromarray(cut(picture)).resize((64, 64), Image.Resampling.BICUBIC))


def kinds(check):
    return {finding.kind for finding in check.findings}


def text(check):
    return " ".join(finding.text for finding in check.findings)


def test_sound_data_has_no_findings(tmp_path):
    check = check_data("folder", root=arranged(tmp_path / "data"))
    assert check.findings == ()
    assert check.verdict == ("No image has an exact or near duplicate in another split.", "Nothing else was found.")
    assert check.splits == {"train": 24, "test": 8}
    assert [(row.name, row.counts, row.remark) for row in check.classes] == [
        ("ants", {"train": 12, "test": 4}, ""),
        ("bees", {"train": 12, "test": 4}, ""),
    ]
    assert check.refused is None and check.image == (3, 64, 64) and check.threshold == 0.8
    assert [(size.width, size.height, size.mode, size.count) for size in check.sizes] == [(64, 64, "RGB", 32)]
    assert codec.from_text(DataCheck, codec.to_text(check), where="x") == check


def test_duplicates_across_and_within_and_under_two_classes(tmp_path):
    root = arranged(tmp_path / "data")
    shutil.copy(root / "train" / "ants" / "03.png", root / "test" / "ants" / "copy.png")
    shutil.copy(root / "train" / "ants" / "04.png", root / "train" / "bees" / "wrong.png")
    mirrored = Image.open(root / "train" / "bees" / "05.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(root / "test" / "bees" / "mirrored.jpg", quality=80)
    check = check_data("folder", root=root)
    relations = {(each.split, each.other): each for each in check.relations}
    leak, within = relations["test", "train"], relations["train", "train"]
    assert (leak.exact, leak.near, leak.contradictory, len(leak.indices), leak.total) == (1, 1, 0, 2, 10)
    assert (within.exact, within.near, within.contradictory, len(within.indices)) == (1, 0, 1, 2)
    files = {(pair.first.file, pair.second.file, pair.kind, pair.mirrored) for pair in check.pairs}
    assert files == {
        ("test/ants/copy.png", "train/ants/03.png", "exact", False),
        ("test/bees/mirrored.jpg", "train/bees/05.png", "near", True),
        ("train/bees/wrong.png", "train/ants/04.png", "exact", False),
    }
    assert kinds(check) == {"duplicates across splits", "duplicates within a split", "contradictory labels"}
    assert "2 of 10 test images (20.0%)" in check.verdict[0]
    assert (
        across(check) == leak.indices == tuple(sorted(i for i, n in enumerate(check_names(root)) if "copy" in n or "mirr" in n))
    )
    assert across(check, split="val") == ()
    assert len(check.examples) == 3 and check.examples[0].pair.contradictory
    assert all(each.first.startswith("data:image/png;base64,") for each in check.examples)
    only_exact = check_data("folder", root=root, near=False)
    assert {pair.kind for pair in only_exact.pairs} == {"exact"} and only_exact.threshold is None
    assert not any(pair.mirrored for pair in check_data("folder", root=root, mirrored=False).pairs)


def check_names(root):
    return sorted(str(path.relative_to(root)) for path in (root / "test").rglob("*.*"))


def test_unreadable_files_are_listed_with_their_reasons(tmp_path):
    root = arranged(tmp_path / "data")
    (root / "train" / "ants" / "empty.png").write_bytes(b"")
    whole = (root / "test" / "bees" / "00.png").read_bytes()
    (root / "test" / "bees" / "torn.png").write_bytes(whole[: len(whole) // 2])
    check = check_data("folder", root=root)
    assert {(each.file, each.why) for each in check.unreadable} == {
        ("train/ants/empty.png", "is empty (0 bytes)"),
        ("test/bees/torn.png", "is damaged: it is cut short (a PNG without its end)"),
    }
    assert kinds(check) == {"unreadable files"}
    assert check.splits == {"train": 24, "test": 8}


def test_tiny_classes_and_pictures_that_are_small_grey_or_of_one_colour(tmp_path):
    root = arranged(tmp_path / "data")
    for i in range(3):
        save(root / "train" / "wasps" / f"{i}.png", enlarged_to_64(original(7000 + i)))
    save(root / "test" / "wasps" / "small.png", cut(original(7100)))
    save(root / "train" / "ants" / "grey.png", enlarged_to_64(original(7200)).mean(-1).astype("uint8"))
    save(root / "train" / "ants" / "white.png", np.full((64, 64, 3), 255, "uint8"))
    check = check_data("folder", root=root)
    assert kinds(check) == {"tiny class", "small pictures", "grey among coloured", "one colour"}
    assert check.classes[2].remark == "tiny: 3 training images"
    assert "'train/ants/white.png'" in text(check)
    assert [place.file for place in check.blank] == ["train/ants/white.png"]
    assert "1 picture of 38 in grey" in text(check) and "1 picture with a side under 64 pixels" in text(check)


def test_a_class_is_tiny_beside_much_larger_ones():
    rows = class_rows({"a": {"train": 500}, "b": {"train": 400}, "c": {"train": 39}, "d": {"train": 40}, "e": {"train": 401}})
    assert [row.remark.split(":")[0] for row in rows] == ["", "", "tiny", "", ""]
    assert rows[2].remark == "tiny: under a tenth of the median class, which has 400"
    rows = class_rows({"a": {"train": 20, "test": 0}, "b": {"train": 20, "test": 3}})
    assert [row.remark for row in rows] == ["none in test", ""]


def test_class_folders_that_differ_between_splits(tmp_path):
    root = arranged(tmp_path / "data", classes=("ants", "bees", "wasps"))
    shutil.rmtree(root / "test" / "wasps")
    (root / "test" / "bumblebees").mkdir()
    save(root / "test" / "bumblebees" / "0.png", original(9000))
    check = check_data("folder", root=root)
    assert kinds(check) == {"class folders differ", "class missing", "classes without training pictures"}
    assert "test has no folder for 'wasps', which train has." in text(check)
    assert "train has no folder for 'bumblebees', which test has." in text(check)
    assert "There is no image of 'wasps' in test." in text(check)
    assert check.splits == {"train": 36, "test": 8}
    assert {row.name: row.remark for row in check.classes} == {
        "ants": "",
        "bees": "",
        "bumblebees": "none in train",
        "wasps": "none in test",
    }


def test_duplicates_are_found_in_a_folder_that_training_would_refuse(tmp_path):
    root = arranged(tmp_path / "data", classes=("ants", "bees", "wasps"))
    shutil.rmtree(root / "test" / "wasps")
    shutil.copy(root / "train" / "ants" / "03.png", root / "test" / "ants" / "copy.png")
    check = check_data("folder", root=root)
    assert len(across(check)) == 1
    assert {"class folders differ", "duplicates across splits"} <= kinds(check)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda root: (root / "train" / "ants" / "00.png").rename(root / "train" / "stray.png"), "pictures without a class"),
        (lambda root: save(root / "other" / "0.png", original(1)), "mixed layout"),
        (lambda root: save(root / "train" / "ants" / "deep" / "0.png", original(1)), "nested folders"),
        (lambda root: (root / "train" / "flies").mkdir(), "empty class"),
        (lambda root: shutil.copytree(root / "test", root / "Test"), "two folders for one split"),
        (lambda root: (root / "test" / "ants").rename(root / "test" / "Ants"), "names equal but for case or Unicode form"),
    ],
)
def test_each_fault_of_a_folder_is_a_finding(tmp_path, make, kind):
    root = arranged(tmp_path / "data", train=10, test=2)
    make(root)
    check = check_data("folder", root=root, near=False)
    assert kind in kinds(check)
    assert check.refused is None and check.splits["train"] >= 19
    with pytest.raises(UserError):
        load_data("folder", root=root)


def test_pictures_beside_the_split_folders_are_a_finding_too(tmp_path):
    root = arranged(tmp_path / "data", train=10, test=2)
    save(root / "stray.png", original(1))
    check = check_data("folder", root=root, near=False)
    assert kinds(check) == {"pictures without a class"}
    assert "1 picture lies in" in text(check)


@pytest.mark.skipif(os.uname().sysname == "Darwin", reason="its file system makes the two names one")
def test_two_unicode_forms_of_one_class_are_one(tmp_path):
    root = arranged(tmp_path / "data", train=10, test=2, classes=("ant", unicodedata.normalize("NFC", "caf\u00e9")))
    save(root / "train" / unicodedata.normalize("NFD", "caf\u00e9") / "0.png", enlarged_to_64(original(9000)))
    check = check_data("folder", root=root, near=False)
    assert kinds(check) == {"names equal but for case or Unicode form"}
    assert [row.counts["train"] for row in check.classes] == [10, 11]


def test_folders_without_splits_are_parted_as_for_training(tmp_path):
    root = arranged(tmp_path / "data", train=20, test=0)
    check = check_data("folder", root=root / "train")
    assert check.splits == {"train": 28, "val": 6, "test": 6}
    assert [(each.split, each.other) for each in check.relations] == [
        ("test", "train"), ("test", "val"), ("test", "test"), ("val", "train"), ("val", "val"), ("train", "train"),
    ]  # fmt: skip
    assert check.findings == ()


def test_what_cannot_be_used_at_all_says_why(tmp_path):
    root = arranged(tmp_path / "data", train=2, test=1)
    for path in (root / "train" / "ants").iterdir():
        path.write_bytes(b"nothing")
    check = check_data("folder", root=root)
    assert check.refused is not None and "'ants'" in check.refused
    assert check.verdict[0].startswith("This data cannot be used as it is: no picture of class 'ants'")
    assert "cannot be used" in kinds(check) and check.pairs == () and check.image == ()
    assert [row.counts for row in check.classes] == [{"train": 2, "test": 1}] * 2
    assert codec.from_text(DataCheck, codec.to_text(check), where="x") == check
    one = arranged(tmp_path / "one", classes=("ants",))
    assert "one class" in kinds(check_data("folder", root=one, near=False))


def test_nothing_to_check_is_an_error(tmp_path):
    (tmp_path / "empty" / "train" / "ants").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name, root in (
        ("folder", tmp_path / "empty"),
        ("folder", tmp_path / "nowhere"),
        ("folder", tmp_path / "file"),
        ("folder", None),
        ("csv", tmp_path / "nowhere.csv"),
        ("cifar10", tmp_path / "empty"),
        ("cifar11", None),
    ):
        with pytest.raises(UserError):
            check_data(name, root=root, near=False)


def test_a_list_of_pictures(tmp_path):
    rows = ["path,label,split"]
    for i in range(24):
        save(tmp_path / f"{i}.png", enlarged_to_64(original(i % 22)))
        rows.append(f"{i}.png,{'ab'[i % 2]},{'test' if i >= 20 else 'train'}")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows.append("torn.png,a,train")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    check = check_data("csv", root=tmp_path / "list.csv")
    assert [(pair.first.file, pair.second.file) for pair in check.pairs] == [("22.png", "0.png"), ("23.png", "1.png")]
    assert [each.file for each in check.unreadable] == ["torn.png"] and "cut short" in check.unreadable[0].why


def test_published_and_built_in_sets(tmp_path):
    root = write_folder(tmp_path / "cifar-10-batches-py", cifar10_contents())
    check = check_data("cifar10", root=root, verify=False)
    assert check.splits == {"train": 115, "test": 30}
    assert check.pairs == () and check.sizes == () and check.unreadable == ()
    assert {row.remark for row in check.classes} == {""}
    digits = check_data("digits")
    assert digits.threshold is None and "8 pixels hold too little" in digits.near


def test_every_kind_of_copy_under_its_own_name(tmp_path):
    for name in ("ants", "bees"):
        for i in range(12):
            save(tmp_path / "train" / name / f"{i}.png", cut(original(i + 100 * (name == "bees"))))
        for i, (kind, make) in enumerate(COPIES.items()):
            save(tmp_path / "test" / name / f"{kind}.png", make(original(i + 100 * (name == "bees"))))
    check = check_data("folder", root=tmp_path, image_size=32)
    assert len(across(check)) == 2 * len(COPIES)
    assert len(check.pairs) == 2 * len(COPIES)
