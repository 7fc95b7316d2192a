"""Bad input: exit code 2, one line that says what is wrong and what to do, no traceback, nothing left behind."""

import os

import pytest
from PIL import Image

from .makers import picture_folder
from .zygote import command

QUICK = [  # refused from the words alone
    (["lisst"], "Did you mean 'list'"),
    (["train", "--epcs", "3"], "--epochs"),
    (["train", "resnet.pocket", "--epochs", "many"], "--epochs"),
    (["train", "resnet.pocket", "--epochs", "1.5"], "--epochs"),
    (["train"], "no model is named"),
    (["eval"], "Missing argument"),
    (["eval", "nowhere"], "does not exist"),
    (["eval", "nowhere", "--split", "tset"], "no split called 'tset'"),
    (["predict", "nowhere", "a.png"], "does not exist"),
    (["report", "nowhere"], "does not exist"),
    (["train", "--resume", "nowhere"], "does not exist"),
    (["compare", "--resume", "nowhere"], "does not exist"),
    (["compare", "--seeds", "x"], "--seeds is 'x'"),
    (["compare", "--seeds", "0"], "--seeds is '0'"),
    (["compare", "--seeds", "-1"], "--seeds is '-1'"),
    (["weights", "--download"], "no model is named"),
    (["weights", "resnt50"], "no weights are published for 'resnt50'. Did you mean resnet50"),
    (["weights", "resnet50", "--source", "timn"], "Did you mean timm?"),
    (["weights", "--source", "timn"], "there is no source of weights called 'timn'. Did you mean timm?"),
    (["train", "resnet.pocket", "--out", "there"], "there exists already"),
    (["compare", "--out", "there"], "there exists already"),
]
SETTINGS = [  # refused before data is read
    (["train", "resnet180"], "no model called 'resnet180'. Did you mean resnet18"),
    (["compare", "--models", "lenet5,vgg61"], "no model called 'vgg61'. Did you mean vgg19 or vgg16"),
    (["train", "resnet.pocket", "--epochs", "-1"], "epochs is -1"),
    (["train", "resnet.pocket", "--minutes", "0"], "minutes is 0"),
    (["train", "resnet.pocket", "--epochs", "1", "--minutes", "1"], "either --epochs or --minutes"),
    (["train", "resnet.pocket", "--lr", "-0.1"], "lr is -0.1"),
    (["train", "resnet.pocket", "--lr", "nan"], "lr is nan"),
    (["train", "resnet.pocket", "--batch-size", "-8"], "batch_size is -8"),
    (["train", "resnet.pocket", "--seed", "-1"], "seed is -1"),
    (["train", "resnet.pocket", "--optimizer", "sdg"], "no optimizer called 'sdg'. Did you mean sgd"),
    (["train", "resnet.pocket", "--threads", "0"], "--threads is 0"),
    (["train", "resnet.pocket", "--augment", "trival"], "no augment called 'trival'. Did you mean trivial"),
    (["train", "resnet.pocket", "--seed", "9223372036854775808"], "Give a whole number from 0 to 9223372036854775807.\n"),
    (["train", "resnet.pocket", "--data", " "], "`convatlas data` lists them"),
    (["train", "resnet.pocket", "--mixup", "nan"], "mixup is nan. Give an alpha above 0, at most 100, or 0"),
    (["train", "resnet.pocket", "--crop", "65"], "crop is 65. Give a whole number of pixels from 0 to 64.\n"),
    (
        ["train", "resnet.pocket", "--data", "there"],
        "no data set called 'there'. Pictures of your own are named with --data folder --data-root there.",
    ),
    (["lr", "resnet.pocket", "--cutmix", "-1"], "cutmix is -1"),
    (["compare", "--models", ""], "no models to compare"),
    (["compare", "--models", "lenet5,lenet5"], "lenet5 stands twice"),
    (["train", "resnet.pocket", "--device", "cuda"], "no CUDA device"),
    (["train", "resnet.pocket", "--data", "cifr10"], "no data set called 'cifr10'. Did you mean cifar10"),
    (["train", "resnet.pocket", "--data", "folder"], "needs a place"),
    (["train", "resnet.pocket", "--data", "cifar10"], "is not on this machine"),
    (["train", "resnet.pocket", "--data", "cifar10", "--data-root", "there"], "there"),
    (["train", "vgg16", "--image-size", "8"], "stages.4.6"),
    (["train", "lenet5", "--data", "digits"], "floor("),
    (["train", "resnet.pocket", "--lr", "1e30"], "at most 1e+06"),
    (["train", "resnet.pocket", "--out", "x" * 300], "could not be written: File name too long"),
    (["train", "resnet.pocket", "--out", "a\nb"], "cannot be printed"),
    (["train", "--resume", "there", "--epochs", "3"], "epochs cannot be given"),
    (["compare", "--resume", "there", "--out", "x"], "out cannot be given"),
    (["compare", "--models", "resnet.pocket", "--device", "cuda"], "no CUDA device"),
    (["train", "resnet.pocket", "--data-root", "there"], "is built in"),
    (["data", "--download"], "no data set is named"),
    (["data", "cifr10"], "Did you mean cifar10"),
    (["data", "shapes", "--download"], "nothing to fetch"),
]


def check(result, said, folder, before):
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert said in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    assert sorted(p.name for p in folder.iterdir() if p.name != "cache") == before


@pytest.mark.parametrize(("words", "said"), QUICK + SETTINGS, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_refused(tmp_path, words, said):
    here = tmp_path / "here"
    (here / "there").mkdir(parents=True)
    check(command(*words, folder=here), said, here, ["there"])


def spoil_one_class(root):
    for name in ("bee", "cow"):
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()


def spoil_empty_class(root):
    for path in (root / "cow").iterdir():
        path.unlink()


def spoil_no_images(root):
    for path in root.rglob("*.png"):
        path.rename(path.with_suffix(".txt"))


def spoil_truncated(root):
    path = root / "bee" / "3.png"
    os.truncate(path, path.stat().st_size - 20)


def spoil_html(root):
    (root / "bee" / "3.png").write_text("<html>not found</html>")


def spoil_bytes(root):
    os.rename(os.fsencode(root / "cow"), os.fsencode(root) + b"/cow\xff")


def spoil_gone(root):
    for path in sorted(root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    root.rmdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_one_class, "one class"),
        (spoil_empty_class, "cow"),
        (spoil_no_images, "no pictures"),
        (spoil_truncated, "3.png"),
        (spoil_html, "3.png"),
        (spoil_gone, "pictures"),
        (spoil_bytes, "bytes or marks that are no text"),
    ],
)
def test_a_folder_that_cannot_be_trained_on(tmp_path, spoil, said):
    root = picture_folder(tmp_path / "pictures")
    spoil(root)
    before = sorted(p.name for p in tmp_path.iterdir())
    result = command("train", "resnet.pocket", "--data", "folder", "--data-root", root, folder=tmp_path)
    check(result, said, tmp_path, before)


def test_unreadable_pictures_are_left_out_only_if_told_so(tmp_path):
    root = picture_folder(tmp_path / "pictures", each=12)
    spoil_truncated(root)
    words = [
        "train",
        "lenet5",
        "--data",
        "folder",
        "--data-root",
        root,
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--image-size",
        "32",
    ]
    result = command(*words, "--skip-unreadable", "--out", "run", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "left out, unreadable: " in result.stderr
    assert "3.png" in result.stderr


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "data_batch_1"])
def test_a_file_that_is_no_archive(tmp_path, name):
    folder = tmp_path / "cifar"
    folder.mkdir()
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]
    for each in [name] if name.endswith("gz") else batches:
        (folder / each).write_bytes(b"<html>captive portal</html>")
    words = ["train", "resnet.pocket", "--data", "cifar10", "--data-root", folder]
    before = sorted(p.name for p in tmp_path.iterdir())
    check(command(*words, folder=tmp_path), "checksum", tmp_path, before)
    check(command(*words, "--no-verify", folder=tmp_path), "cifar", tmp_path, before)


def test_a_picture_that_is_none_is_named_among_those_that_are(tmp_path):
    root = picture_folder(tmp_path / "pictures")
    made = command(
        "train",
        "lenet5",
        "--data",
        "folder",
        "--data-root",
        root,
        "--epochs",
        "1",
        "--image-size",
        "32",
        "--out",
        "run",
        folder=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / "no.jpg").write_bytes(b"\xff\xd8\xff")
    good = root / "ant" / "0.png"
    result = command("predict", "run", good, tmp_path / "no.jpg", folder=tmp_path)
    assert result.returncode == 2
    assert "1 of 2 pictures could not be read" in result.stderr
    assert "no.jpg" in result.stderr
    assert str(good) in result.stdout
    two = command("predict", "run", tmp_path / "nowhere.png", good, tmp_path / "no.jpg", folder=tmp_path)
    first, last = [line for line in two.stderr.splitlines() if line.startswith(("unreadable", "error"))]
    assert first.startswith("unreadable: ") and "nowhere.png" in first
    assert last.startswith("error: 2 of 3 pictures could not be read: ") and "no.jpg" in last


@pytest.mark.parametrize("name", ["a\x1b[31mred", "b\u202etxt", "new\nline"])
def test_names_cannot_write_to_the_terminal(tmp_path, name):
    root = picture_folder(tmp_path / "pictures", classes=(name, "[bold]c", "plain"))
    result = command("train", "lenet5", "--data", "folder", "--data-root", root, folder=tmp_path)
    check(result, "marks that are no text", tmp_path, ["pictures"])
    assert "\x1b" not in result.stderr
    assert "\u202e" not in result.stderr


def test_names_are_not_markup(tmp_path):
    root = picture_folder(tmp_path / "pictures", classes=("[bold]c", "plain"))
    words = ["--data", "folder", "--data-root", root, "--epochs", "1", "--image-size", "32", "--batch-size", "4", "--out", "run"]
    assert command("train", "lenet5", *words, folder=tmp_path).returncode == 0
    shown = command("predict", "run", next((root / "[bold]c").iterdir()), folder=tmp_path)
    assert "[bold]c" in shown.stdout


def test_a_grey_png_and_a_cmyk_jpeg_are_pictures(tmp_path):
    root = picture_folder(tmp_path / "pictures")
    Image.new("L", (40, 40), 128).save(root / "ant" / "grey.png")
    Image.new("CMYK", (40, 40)).save(root / "bee" / "cmyk.jpg")
    words = ["train", "lenet5", "--data", "folder", "--data-root", root, "--epochs", "1", "--image-size", "32"]
    assert command(*words, folder=tmp_path).returncode == 0
