"""`convatlas data preview`: the sheet, the page and the record, beside `convatlas data` as it was."""

import json
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.cli.previewing import preview
from convatlas.data.dataset import ImageSet
from convatlas.data.policies import stored_side
from convatlas.data.policy_names import POLICIES
from convatlas.data.policy_samples import samples
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.preview import Preview

from .makers import environment, picture_folder
from .zygote import command

SMALL = ["--image-size", "28", "--rows", "4", "--columns", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("preview")
    picture_folder(place / "data", each=8)
    lines = ["path,label", *(f"data/{name}/{i}.png,{name}" for name in ("ant", "bee") for i in range(8))]
    (place / "list.csv").write_text("\n".join(lines))
    return place


@pytest.mark.parametrize("policy", POLICIES)
def test_a_sheet_has_a_row_an_image_and_a_column_a_copy(folder, policy):
    done = command("data", "preview", "data", "--policy", policy, *SMALL, "--out", f"{policy}.png", folder=folder)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert f"written: {policy}.png" in done.stdout and "4 images, 2 copies each" in done.stdout
    with Image.open(folder / f"{policy}.png") as sheet:
        assert sheet.width == 3 * (224 + 2) + 2 and (sheet.height - 2) % 4 == 0
        pixels = np.asarray(sheet)
    # Pictures of class 0 are red with noise, by whatever policy that leaves colours alone.
    assert pixels[2:226, 2:226].mean((0, 1)).argmax() == 0
    assert pixels[2:226, 2:226].mean() == pytest.approx((200 + 60 + 60) / 3, abs=3)


def test_none_shows_the_middle_again(folder):
    done = command("data", "preview", "data", "--policy", "none", *SMALL, "--seed", "3", "--out", "same.png", folder=folder)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "same.png") as sheet:
        pixels = np.asarray(sheet)
    first, second = pixels[2:226, 2:226], pixels[2:226, 228:452]
    assert np.array_equal(first, second)


def test_the_record_says_what_was_drawn_and_mixed(folder):
    words = ["data", "preview", "data", "--policy", "rand", "--mixup", "0.4", "--cutmix", "1", *SMALL, "--json"]
    done = command(*words, "--out", "mixed.png", folder=folder)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    record = codec.from_plain(Preview, json.loads(done.stdout), where="x")
    assert (record.policy, record.mixup, record.cutmix, record.flip, record.image_size) == ("rand", 0.4, 1.0, True, 28)
    labels = [image.label for image in record.images]
    assert labels == sorted(labels) and set(labels) == {"ant", "bee", "cow"}
    for image in record.images:
        assert image.file is not None and image.file.startswith(f"{image.label}/")
        assert len(image.copies) == 2 and all(sum(copy.shares.values()) == pytest.approx(1, abs=0.02) for copy in image.copies)
        assert all("% of it" in copy.drawn for copy in image.copies)
    assert any(copy.mixture for image in record.images for copy in image.copies)
    again = command(*words, "--out", "again.png", folder=folder)
    assert again.stdout == done.stdout
    assert (folder / "again.png").read_bytes() == (folder / "mixed.png").read_bytes()


def test_a_page_has_captions_and_every_picture_inside(folder):
    done = command("data", "preview", "list.csv", *SMALL, "--cutmix", "1", "--out", "sheet.html", folder=folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "sheet.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4 * 3 and 'src=""' not in page
    assert "<script" not in page and "% of it" in page and "CutMix with alpha 1.0" in page and "data/ant/" in page


def test_published_and_built_in_data_are_scaled_and_digits_are_not_mirrored(folder):
    words = ["--rows", "2", "--columns", "4", "--image-size", "32", "--json"]
    done = command("data", "preview", "digits", *words, "--out", "digits.png", folder=folder)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["flip"] is False and "of it, mirrored" not in done.stdout
    assert record["images"][0]["file"] is None
    turned = command("data", "preview", "digits", "--flip", *words, "--out", "turned.png", folder=folder)
    assert json.loads(turned.stdout)["flip"] is True and "of it, mirrored" in turned.stdout


def test_without_out_it_goes_below_runs(folder):
    done = command("data", "preview", "shapes", *SMALL, folder=folder)
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "runs").iterdir()
    assert made.name.startswith("preview-light-") and made.suffix == ".png"


@pytest.mark.parametrize("as_json", [False, True])
def test_reading_many_files_is_shown(folder, tmp_path, monkeypatch, as_json):
    heard = []

    @contextmanager
    def bar():
        yield lambda what, done, total: heard.append((what, done, total))

    monkeypatch.setattr("convatlas.cli.working.loading_bar", bar)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    preview(str(folder / "data"), image_size=28, rows=2, columns=2, out=tmp_path / "sheet.png", as_json=as_json)
    assert ("folders", 3, 3) in heard and ("pictures", 24, 24) in heard


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["data", "--policy", "heavy"], "no augmentation policy called 'heavy'"),
        (["nowhere"], "no data set called 'nowhere'"),
        (["data", "--data-root", "data"], "data is a place already. Leave --data-root out."),
        (["shapes", "--data-root", "data"], "shapes is built in"),
        (["folder"], "needs a place"),
        (["data", "--out", "there.png"], "there.png exists already, and nothing is ever overwritten"),
        (["data", "--out", "sheet.jpg"], "Let its name end in .png or .html."),
        (["data", "--out", "no/sheet.png"], "there is no folder no"),
        (["data", "--rows", "99"], "99 rows are asked for, and there are"),
        (["data", "--rows", "0"], "--rows is 0. Choose 1 or more."),
        (["data", "--columns", "1"], "--columns is 1. Choose 2 or more."),
        (["data", "--seed", "-1"], "--seed is -1"),
        (["data", "--image-size", "0"], "--image-size is 0"),
        (["data", "--rows", "1000", "--columns", "50"], "more than a sheet holds"),
        (["data", "--mixup", "-1"], "mixup is -1.0"),
        ([], "Missing argument"),
        (["data", "--nothing"], "No such option: --nothing. See `convatlas data preview --help`."),
    ],
)
def test_refusals_are_one_line_and_write_nothing(folder, words, reason):
    (folder / "there.png").write_text("mine")
    before = sorted(path.name for path in folder.rglob("*") if "cache" not in path.parts)
    size = [] if "--image-size" in words else ["--image-size", "28"]
    out = [] if "--out" in words else ["--out", "new.png"]
    done = command("data", "preview", *words, *size, *out, folder=folder)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and reason in done.stderr
    assert (folder / "there.png").read_text() == "mine"
    assert sorted(path.name for path in folder.rglob("*") if "cache" not in path.parts) == before


def test_the_command_beside_it_is_as_it_was(folder):
    every, one = (command("data", *words, folder=folder) for words in ([], ["digits"]))
    assert every.returncode == one.returncode == 0
    assert "cifar10" in every.stdout and "1,438 + 359" in one.stdout and "cifar10" not in one.stdout
    assert json.loads(command("data", "digits", "--json", folder=folder).stdout)["digits"]["kind"] == "built in"
    wrong = command("data", "cifar11", folder=folder)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "Did you mean cifar10" in wrong.stderr
    assert "data preview" in command("data", "--help", folder=folder).stdout


def test_help_needs_no_torch(tmp_path):
    for words in (["data", "--help"], ["data", "preview", "--help"]):
        code = (
            "import sys; from convatlas.cli.main import main\n"
            f"sys.argv = ['convatlas', *{words!r}]\n"
            "try: main()\n"
            "except SystemExit as e: assert e.code == 0, e.code\n"
            "assert not {'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "Usage: convatlas data" in done.stdout
    assert "--policy" in done.stdout and "TrivialAugment" in done.stdout


def test_rows_are_shared_by_the_classes_and_images_are_scaled():
    labels = torch.tensor([2] * 30 + [0] * 3 + [1] * 7)
    images = ImageSet(torch.randint(0, 256, (40, 1, 20, 20), dtype=torch.uint8), labels)
    settings = {"copies": 2, "policy": "trivial", "size": 14, "flip": True, "mixup": 0.0, "cutmix": 0.0, "num_classes": 3}
    made = samples(images, rows=7, seed=1, **settings)
    assert sorted(each.label for each in made) == [each.label for each in made]
    assert sorted([each.label for each in made].count(label) for label in range(3)) == [2, 2, 3]
    assert len({each.index for each in made}) == 7
    assert all(int(labels[each.index]) == each.label for each in made)
    assert made[0].copies.shape == (2, 1, 14, 14) and made[0].original.shape == (1, 14, 14) and stored_side(14) == 16
    assert [each.index for each in samples(images, rows=7, seed=2, **settings)] != [each.index for each in made]
    with pytest.raises(UserError, match="41 rows are asked for, and there are 40 images"):
        samples(images, rows=41, seed=1, **settings)
