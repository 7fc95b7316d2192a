"""`convatlas predict`: a table for spreadsheets, whole folders, and names of any bytes; what `eval` says of all images."""

import csv
import io
import json
import os

import pytest
import torch

from convatlas.models.registry import create_model
from convatlas.records.run import ModelConfig
from convatlas.training.checkpoint import save_model

from .makers import picture_folder
from .zygote import command


def saved(folder, classes):
    """A network as a finished run leaves it; what it answers does not matter here."""
    torch.manual_seed(0)
    folder.mkdir()
    config = ModelConfig("lenet.pocket", 3, 3, 32, (0.5,) * 3, (0.25,) * 3, classes, "0")
    save_model(folder, create_model("lenet.pocket", num_classes=3, in_chans=3, image_size=32), config)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicting") / "work"
    folder.mkdir()
    saved(folder / "run", ("ant", "bee", "cow"))
    saved(folder / "odd", ("=1+1", "-x", "@y"))
    picture_folder(folder / "pets", each=3)
    (folder / "=1.png").write_bytes((folder / "pets" / "ant" / "0.png").read_bytes())
    (folder / "torn.png").write_bytes(b"")
    return folder


def table(text):
    head, *rows = csv.reader(io.StringIO(text))
    assert all(len(row) == len(head) for row in rows)
    return head, rows


def test_csv_has_what_json_has(made):
    words = ["predict", "run", "pets/ant/0.png", "pets/bee/1.png", "--top", "2"]
    done = command(*words, "--csv", folder=made)
    assert (done.returncode, done.stderr) == (0, "")
    head, rows = table(done.stdout)
    assert head == ["picture", "class 1", "probability 1", "class 2", "probability 2"]
    said = json.loads(command(*words, "--json", folder=made).stdout)
    expected = [[each["image"], *map(str, sum(zip(each["classes"], each["probabilities"], strict=True), ()))] for each in said]
    assert rows == expected and len(rows) == 2


def test_no_more_columns_than_classes_and_empty_cells_for_what_is_unreadable(made):
    done = command("predict", "run", "torn.png", "pets/ant/0.png", "--csv", folder=made)
    assert done.returncode == 2 and "1 of 2 pictures could not be read: torn.png is empty" in done.stderr
    head, (torn, whole) = table(done.stdout)
    assert len(head) == 1 + 2 * 3
    assert torn == ["torn.png", *[""] * 6] and "" not in whole


def test_no_cell_is_a_formula(made):
    done = command("predict", "odd", "=1.png", "--csv", folder=made)
    assert done.returncode == 0, done.stderr
    _, ((picture, *cells),) = table(done.stdout)
    assert picture == "'=1.png" and set(cells[::2]) == {"'=1+1", "'-x", "'@y"}
    assert sum(map(float, cells[1::2])) == pytest.approx(1, abs=1e-5)


def test_one_form_of_the_answer(made):
    done = command("predict", "run", "torn.png", "--csv", "--json", folder=made)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --csv and --json are two forms of one answer. Leave one of them out.\n"


def test_a_folder_stands_for_the_pictures_below_it(made, tmp_path):
    root = tmp_path / "all"
    picture_folder(root, classes=("b", "a"), each=2)
    picture_folder(tmp_path / "elsewhere", classes=("far",), each=1)
    (root / "a" / "deep").mkdir()
    one = (root / "a" / "0.png").read_bytes()
    for name in ("a/deep/UPPER.PNG", "a/.hidden.png", "a/notes.txt", ".cache/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(one)
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to(root)
    (root / "link.png").symlink_to(root / "b" / "0.png")
    done = command("predict", "run", "pets/cow/1.png", root, "--json", folder=made)
    assert done.returncode == 0, done.stderr
    names = ["a/0.png", "a/1.png", "a/deep/UPPER.PNG", "b/0.png", "b/1.png", "link.png"]
    assert [each["image"] for each in json.loads(done.stdout)] == ["pets/cow/1.png", *(str(root / name) for name in names)]


def test_a_folder_without_pictures_is_refused(made, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("x")
    done = command("predict", "run", "pets", tmp_path / "none", folder=made)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"there are no pictures in {tmp_path / 'none'}. Name a folder with files that end in .bmp," in done.stderr


def test_a_folder_that_cannot_be_listed_is_not_passed_over(made, tmp_path, monkeypatch):
    from convatlas.cli.training import predict
    from convatlas.errors import UserError

    picture_folder(tmp_path / "all", classes=("a", "b"), each=1)
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(UserError, match="all/b cannot be listed: Permission denied"):
        predict(made / "run", [tmp_path / "all"], threads=1)


def test_a_name_too_long_to_be_one_is_told(made):
    done = command("predict", "run", "x" * 300 + ".png", folder=made)
    assert done.returncode == 2 and "could not be read" in done.stderr and done.stderr.count("\n") == 1


def test_threads(made):
    done = command("predict", "run", "pets/ant/0.png", "--threads", "0", folder=made)
    assert done.returncode == 2 and "--threads is 0" in done.stderr
    done = command("predict", "run", "pets/ant/0.png", "--threads", "1", folder=made)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_of_bytes_that_are_no_text_is_json_all_the_same(made, tmp_path):
    name = "\udcff.png"
    (tmp_path / name).write_bytes((made / "=1.png").read_bytes())
    done = command("predict", "run", tmp_path / name, "--json", folder=made)
    assert done.returncode == 0, done.stderr
    assert "\\udcff.png" in done.stdout
    assert json.loads(done.stdout)[0]["image"] == str(tmp_path / name)


def test_all_images_are_judged_and_said_to_be(made):
    done = command("eval", "run", "pets", folder=made)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lenet.pocket on all 9 images: top-1 ")
