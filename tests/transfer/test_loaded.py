"""`convatlas.load`: pictures as Pillow holds them are taken as their files are, and the object says what it is."""

import numpy as np
import pytest
import torch
from PIL import Image

import convatlas
from convatlas.data.pictures import read_picture
from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records.run import ModelConfig
from convatlas.training.checkpoint import save_model
from convatlas.transfer import loaded

CONFIG = ModelConfig("resnet.pocket", 7, 3, 32, (0.5,) * 3, (0.25,) * 3, tuple("abcdefg"), "0", resize=36, temperature=1.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("loaded") / "run"
    place.mkdir()
    save_model(place, create_model("resnet.pocket", num_classes=7, image_size=32), CONFIG)
    return place


def noise(mode="RGB", size=(50, 41), seed=0):
    """An image that no turning leaves as it is."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


def turned(value=6):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def sixteen():
    return Image.fromarray(np.random.default_rng(1).integers(0, 65536, (41, 50), dtype=np.uint16))


FILES = {
    "plain.png": lambda path: noise().save(path),
    "clear.png": lambda path: noise("RGBA").save(path),
    "grey-clear.png": lambda path: noise("LA").save(path),
    "grey.png": lambda path: noise("L").save(path),
    "bits.png": lambda path: noise("1").save(path),
    "palette.png": lambda path: noise("P").save(path, transparency=3),
    "colour.png": lambda path: noise().save(path, transparency=noise().getpixel((20, 20))),
    "sixteen.png": lambda path: sixteen().save(path),
    "turned.png": lambda path: noise().save(path, exif=turned(5)),
    "odd-exif.png": lambda path: noise().save(path, exif=turned(77)),
    "turned.jpg": lambda path: noise().save(path, exif=turned()),
    "print.jpg": lambda path: noise("CMYK").save(path, exif=turned(3)),
    "turned.tif": lambda path: noise().save(path, exif=turned(8)),
    "long.tif": lambda path: Image.fromarray(np.array(sixteen()).astype(np.int32)).save(path),
    "lab.tif": lambda path: noise("LAB").save(path),
    "ycbcr.tif": lambda path: noise("YCbCr").save(path),
    "moving.gif": lambda path: noise("P").save(path, save_all=True, append_images=[noise("P", seed=1)]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_pillow_holds_is_taken_as_its_file_is(tmp_path, name, channels):
    path = tmp_path / name
    FILES[name](path)
    how = ModelConfig("resnet.pocket", 7, channels, 32, (0.5,) * channels, (0.25,) * channels, tuple("abcdefg"), "0", resize=36)
    with Image.open(path) as image:
        taken = loaded._pixels("x", image, how)
        again = loaded._pixels("x", image, how)
    if (name, channels) == ("lab.tif", 1):  # of which Pillow makes no grey
        with pytest.raises(UserError, match="conversion from LAB"):
            read_picture(path, size=36, channels=channels, crop=32)
        assert isinstance(taken, str) and "conversion from LAB" in taken
        return
    expected = read_picture(path, size=36, channels=channels, crop=32)
    assert isinstance(taken, torch.Tensor) and torch.equal(taken, expected) and torch.equal(again, expected)


@pytest.mark.parametrize(
    ("mode", "via", "plain"),
    [("HSV", "RGB", "RGB"), ("RGBX", "RGB", "RGB"), ("RGBa", "RGBA", "RGBA"), ("La", "LA", "LA"), ("PA", "P", "RGBA")],
)
def test_modes_that_no_file_has_become_colours(mode, via, plain):
    image = noise(via).convert(mode)
    flat = image.convert(plain)
    assert image.mode == mode
    assert torch.equal(loaded._pixels("x", image, CONFIG), loaded._pixels("x", flat, CONFIG))


def test_an_unreadable_exif_block_counts_as_none():
    image = noise()
    image.info["exif"] = b"Exif\0\0garbage that is no block of tags"
    with pytest.raises(SyntaxError):
        image.getexif()
    assert torch.equal(loaded._pixels("x", image, CONFIG), loaded._pixels("x", noise(), CONFIG))


def test_files_and_images_may_be_mixed_and_are_answered_in_order(folder, tmp_path):
    model = convatlas.load(folder)
    paths = []
    for i in range(3):
        noise(seed=i).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    of_files = model.predict(paths, top=7)
    with Image.open(paths[2]) as opened:
        mixed = model.predict([noise(seed=1), paths[0], opened, Image.new("F", (9, 9)), str(tmp_path / "none.png")], top=7)
    assert [each.image for each in mixed] == ["images[0]", str(paths[0]), str(paths[2]), "images[3]", str(tmp_path / "none.png")]
    for found, expected in ((mixed[0], of_files[1]), (mixed[1], of_files[0]), (mixed[2], of_files[2])):
        assert found.classes == expected.classes and found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert mixed[3].error == "images[3] has floating-point pixels, whose white nobody knows" and "none.png" in mixed[4].error
    assert model.predict(iter([noise()]), top=2)[0].classes == model.predict([noise()], top=7)[0].classes[:2]


def test_many_images_are_computed_a_part_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(loaded, "at_once", lambda n, size: 2)
    model, images = convatlas.load(folder), [noise(seed=i) for i in range(5)]
    together = model.predict(images)
    assert [each.image for each in together] == [f"images[{i}]" for i in range(5)]
    for i, each in enumerate(together):
        assert each.probabilities == pytest.approx(model.predict([images[i]])[0].probabilities, abs=1e-5)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_image_without_pixels_carries_its_error(folder, size):
    (said,) = convatlas.load(folder).predict([Image.new("RGB", size)])
    assert said.error is not None and said.error.startswith("images[0] ") and "\n" not in said.error


def test_an_image_whose_file_is_cut_short_carries_its_error(folder, tmp_path):
    noise(size=(200, 200)).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:2000])
    with Image.open(tmp_path / "x.jpg") as image:
        (said,) = convatlas.load(folder).predict([image])
    assert said.error is not None and said.error.startswith(str(tmp_path / "x.jpg"))


def test_one_image_is_no_list(folder):
    with pytest.raises(UserError, match="Give a list of paths, or of images of Pillow"):
        convatlas.load(folder).predict(noise())


def test_it_says_what_it_is(folder):
    said = repr(convatlas.load(folder))
    assert said == f"<resnet.pocket of {folder}: 7 classes (a, b, c, d, e, ...), images of 32x32 pixels>"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist") as caught:
        convatlas.load(tmp_path / "nowhere")
    assert "--resume" not in str(caught.value)
