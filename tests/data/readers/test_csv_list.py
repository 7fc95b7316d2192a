from pathlib import Path

import pytest
import torch

from convatlas.data.loading import load_data
from convatlas.errors import UserError

from ..makers import write_picture


def listing(tmp_path, text, *, pictures=12, name="list.csv", encoding="utf-8"):
    for i in range(pictures):
        write_picture(tmp_path / "pics" / f"{i:02}.png", i)
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def rows(n=12, *, splits=None):
    lines = [
        f"pics/{i:02}.png,{'odd' if i % 2 else 'even'}" + (f",{splits[i % len(splits)]}" if splits else "") for i in range(n)
    ]
    return "\n".join(["path,label" + (",split" if splits else ""), *lines]) + "\n"


def load(path, **options):
    return load_data("csv", root=path, image_size=16, **options)


def refused(path, reason):
    with pytest.raises(UserError, match=reason) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_list_without_splits_is_parted(tmp_path):
    data = load(listing(tmp_path, rows()))
    assert data.classes == ("even", "odd")
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 2)
    assert set(data.split["test"]) <= {f"pics/{i:02}.png" for i in range(12)}


def test_the_split_column_is_obeyed(tmp_path):
    data = load(listing(tmp_path, rows(splits=["train", "train", "train", "train", "valid", "Test"])))
    assert data.split["val"] == ("pics/04.png", "pics/10.png")
    assert data.split["test"] == ("pics/05.png", "pics/11.png")
    assert data.test.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: t.replace("path,label", " Path , LABEL ")]
)
def test_line_ends_byte_order_marks_and_case_do_not_matter(tmp_path, change):
    assert load(listing(tmp_path, change(rows()))).split == load(listing(tmp_path, rows(), name="other.csv")).split


def test_the_order_of_rows_does_not_matter(tmp_path):
    head, *lines = rows().strip().split("\n")
    turned = "\n".join([head, *lines[::-1]])
    first, second = load(listing(tmp_path, rows())), load(listing(tmp_path, turned, name="turned.csv"))
    assert first.split == second.split
    assert torch.equal(first.train.images, second.train.images)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"lacks the column 'path' \(found: nothing\)"),
        ("path,label\n", "lists no pictures, it has a header only"),
        ("file,label\npics/00.png,a\n", r"lacks the column 'path' \(found: file, label\)"),
        ("path,class\npics/00.png,a\n", "lacks the column 'label'"),
        ("path,label\npics/99.png,a\n", "line 2 names pics/99.png, which is no file. Mend it"),
        ("path,label\npics,a\n", "line 2 names pics, which is no file"),
        ("path,label\npics/00.png,a\npics/01.png,a\n", "one class only, 'a'"),
        ("path,label\npics/00.png,-1\n", "line 2 has the label -1, which usually means unlabelled"),
        ("path,label\npics/00.png,\n", "line 2 has no label"),
        ("path,label\n,a\n", "line 2 has no path"),
        ("path,label\npics/00.png,a,b,c\n", "line 2 has more fields than the header"),
        ("path,label\npics/00.png,a\npics/00.png,b\n", "line 3 lists pics/00.png again"),
        (
            "path,label\n/etc/passwd,a\n",
            "names /etc/passwd, not below the list's folder /.*Use paths relative to the file, or put it",
        ),
        ("path,label\n../x.png,a\n", "not below the list's folder"),
        ("path,label\npics/../pics/00.png,a\n", "which leads up by .. and counts as not below the list's folder"),
        ("path,label\npics/\0.png,a\n", "line 2 names .*, which is no file"),
        ("path,label\npics/00.png,a\n./pics//00.png,b\n", "line 3 lists pics/00.png again"),
        ("path,label,split\npics/00.png,a,dev\n", "line 2 has the split 'dev'. Use train, val or test"),
        ("path,label,split\npics/00.png,a,\n", "line 2 has the split ''"),
        ("path,label,split\npics/00.png,a,train\npics/01.png,b,test\n", "no train rows of class 'b'"),
        ('path,label\n"pics/00.png,a\n', "line 2 is no CSV"),
    ],
)
def test_a_list_that_does_not_hold_is_named_with_its_line(tmp_path, text, reason):
    refused(listing(tmp_path, text), reason)


def whole(folder):
    """The list with the whole path of each picture."""
    return rows().replace("pics/", f"{folder}/pics/")


def test_whole_paths_below_the_list_are_admitted_and_kept_relative(tmp_path, monkeypatch):
    expected = load(listing(tmp_path, rows())).split
    for text in (whole(tmp_path), whole(f"{tmp_path}/pics/.."), whole(f"{tmp_path}/./")):
        assert load(listing(tmp_path, text, name="whole.csv")).split == expected
    monkeypatch.chdir(tmp_path / "pics")
    assert load(Path("../whole.csv")).split == expected


def test_a_list_that_was_named_by_a_link_to_its_folder(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    by_place, by_link = (listing(place, whole(tmp_path / name), name=f"{name}.csv") for name in ("place", "link"))
    assert load(tmp_path / "link" / by_place.name).split == load(tmp_path / "link" / by_link.name).split
    # Under the folder's own name nothing tells that the link leads there.
    refused(by_link, "line 2 names .*/link/pics/00.png, not below the list's folder .*/place")


def test_whole_paths_beside_the_list_are_refused_with_the_folder(tmp_path):
    (tmp_path / "lists").mkdir()
    path = listing(tmp_path, whole(tmp_path), name="lists/list.csv")
    refused(path, f"names {tmp_path}/pics/00.png, not below the list's folder {tmp_path}/lists")
    refused(listing(tmp_path, whole(f"{tmp_path}/../{tmp_path.name}x"), name="list.csv"), "not below the list's folder")
    repeated = f"path,label\npics/00.png,a\n{tmp_path}/pics/00.png,b\n"
    refused(listing(tmp_path, repeated, name="again.csv"), "line 3 lists pics/00.png again")
    refused(listing(tmp_path, whole(f"{tmp_path}/nowhere")), "nowhere/pics/00.png, which is no file")


def test_a_list_that_is_not_utf8_is_said(tmp_path):
    refused(listing(tmp_path, rows().replace("odd", "grün"), encoding="latin1"), "is not UTF-8")


def test_a_missing_list_or_a_folder_in_its_place_is_said(tmp_path):
    refused(tmp_path / "none.csv", "none.csv does not exist")
    refused(tmp_path, "is no regular file")


def test_a_corrupt_picture_is_named_and_left_out_only_if_told_so(tmp_path):
    path = listing(tmp_path, rows())
    (tmp_path / "pics" / "02.png").write_bytes(b"no picture")
    refused(path, r"02.png is no picture")
    assert load(path, skip_unreadable=True).skipped == ("pics/02.png",)
