import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from convatlas.data import pictures
from convatlas.data.pictures import printable, read_picture
from convatlas.errors import UserError

from .makers import picture_bytes, write_picture


def write_image(path, image, kind="PNG", **options):
    image.save(path, kind, **options)
    return path


def pixel(path, channels=3):
    return read_picture(path, size=None, channels=channels)[:, 0, 0].tolist()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png(width, height) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def test_a_picture_comes_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = read_picture(write_image(tmp_path / "a.png", Image.fromarray(pixels)), size=None, channels=3)
    assert np.array_equal(picture.numpy().transpose(1, 2, 0), pixels)


@pytest.mark.parametrize(("size", "extent"), [(24, (48, 20)), (24, (20, 48)), (24, (1, 1)), (8, (1, 5000)), (24, (24, 24))])
def test_any_extent_becomes_the_square_asked_for(tmp_path, size, extent):
    assert read_picture(write_picture(tmp_path / "a.png", 0, size=extent), size=size, channels=3).shape == (3, size, size)


def test_the_square_is_the_middle_of_the_picture_scaled(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 30, 3), dtype=np.uint8))
    picture = read_picture(write_image(tmp_path / "a.png", image), size=5, channels=3)
    scaled = np.asarray(image.resize((15, 5), Image.Resampling.BICUBIC))
    assert np.array_equal(picture.numpy().transpose(1, 2, 0), scaled[:, 5:10])


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 77, [77, 77, 77]),
        ("LA", (77, 0), [255, 255, 255]),
        ("RGBA", (200, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (200, 0, 0, 255), [200, 0, 0]),
        ("RGBA", (0, 0, 0, 51), [204, 204, 204]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 0x8080, [128, 128, 128]),
        ("I;16", 300, [1, 1, 1]),
    ],
)
def test_modes_become_rgb_by_the_written_rules(tmp_path, mode, colour, expected):
    assert pixel(write_image(tmp_path / "a.png", Image.new(mode, (4, 4), colour))) == expected


def test_a_palette_with_transparency_is_composited_on_white(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    assert pixel(write_image(tmp_path / "opaque.png", image)) == [200, 0, 0]
    assert pixel(write_image(tmp_path / "clear.png", image, transparency=1)) == [255, 255, 255]
    assert pixel(write_image(tmp_path / "clear.gif", image, "GIF", transparency=1)) == [255, 255, 255]


def test_cmyk_becomes_rgb_and_colour_becomes_grey(tmp_path):
    path = write_image(tmp_path / "a.tif", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    assert pixel(path) == [255, 0, 0]
    assert pixel(path, channels=1) == [76]


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(UserError, match="floating-point"):
        pixel(write_image(tmp_path / "a.tif", Image.new("F", (4, 4), 0.5), "TIFF"))


def test_the_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(write_image(tmp_path / "a.png", image, exif=exif), size=None, channels=3)
    assert picture.shape == (3, 6, 4)
    assert picture[0].nonzero().tolist() == [[0, 3]]


def test_an_unreadable_exif_block_counts_as_none(tmp_path):
    path = write_image(tmp_path / "a.jpg", Image.new("RGB", (6, 4)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_picture(path, size=None, channels=3).shape == (3, 4, 6)


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("TIFF", "tif"), ("WEBP", "webp")])
def test_of_several_frames_the_first_counts(tmp_path, kind, suffix):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("#ff0000", "#00ff00")]
    options = {"lossless": True} if kind == "WEBP" else {}
    path = write_image(tmp_path / f"a.{suffix}", frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixel(path) == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7])
def test_a_picture_cut_short_is_named(tmp_path, kind, share):
    path = tmp_path / "cut.img"
    whole = picture_bytes(1, size=(60, 50), kind=kind)
    path.write_bytes(whole)
    read_picture(path, size=8, channels=3)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"cut\.img (is|has)") as caught:
        read_picture(path, size=8, channels=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "missing"), [("PNG", 20), ("PNG", 1), ("JPEG", 1), ("JPEG", 2)])
def test_a_missing_end_that_pillow_does_not_mind_is_noticed(tmp_path, kind, missing):
    path = tmp_path / "cut"
    path.write_bytes(picture_bytes(1, kind=kind)[:-missing])
    with pytest.raises(UserError, match="cut short"):
        read_picture(path, size=8, channels=3)


def test_a_jpeg_is_cut_short_even_if_its_thumbnail_is_whole(tmp_path):
    thumbnail = picture_bytes(2, size=(8, 8), kind="JPEG")
    whole = picture_bytes(1, kind="JPEG")
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert read_picture(path, size=8, channels=3).shape == (3, 8, 8)
    path.write_bytes(whole[:2] + segment + whole[2:-2])
    with pytest.raises(UserError, match="cut short"):
        read_picture(path, size=8, channels=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_bytes_after_the_end_do_no_harm(tmp_path, kind):
    path = tmp_path / "a"
    path.write_bytes(picture_bytes(1, kind=kind) + b"appended by a camera")
    assert read_picture(path, size=8, channels=3).shape == (3, 8, 8)


def test_one_flipped_bit_in_a_png_is_noticed(tmp_path):
    content = bytearray(picture_bytes(1))
    content[len(content) // 2] ^= 4
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        read_picture(tmp_path / "a.png", size=8, channels=3)


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7", b"<svg/>", bytes(200), b"\xff\xd8\xff\xe0"]
)
def test_what_is_no_picture_is_refused_whatever_its_name(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg is (no picture in JPEG|damaged)"):
        read_picture(tmp_path / "a.jpg", size=8, channels=3)


@pytest.mark.parametrize("extent", [(6400, 6400), (10_000, 10_000), (60_000, 60_000)])
def test_too_many_pixels_are_refused_from_the_header(tmp_path, extent):
    (tmp_path / "bomb.png").write_bytes(huge_png(*extent))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"more than 40,000,000"):
            read_picture(tmp_path / "bomb.png", size=8, channels=3)


def test_a_text_chunk_that_unpacks_to_64_megabytes_is_refused(tmp_path):
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000), 9))
    whole = picture_bytes(1)
    (tmp_path / "a.png").write_bytes(whole[:33] + bomb + whole[33:])
    with pytest.raises(UserError, match="damaged"):
        read_picture(tmp_path / "a.png", size=8, channels=3)


@pytest.mark.timeout(20)
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(UserError, match="no regular file"):
            read_picture(tmp_path / name, size=8, channels=3)
    for name in ("loop.png", "gone.png"):
        with pytest.raises(UserError, match="cannot be read"):
            read_picture(tmp_path / name, size=8, channels=3)


def test_a_link_to_a_picture_is_a_picture(tmp_path):
    write_picture(tmp_path / "a.png", 1)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert read_picture(tmp_path / "link.png", size=8, channels=3).shape == (3, 8, 8)


def test_a_name_cannot_break_the_line_of_its_error(tmp_path):
    name = "new\nline\u202e\udcff😀.png"
    assert printable(name) == "new\\nline\\u202e\\udcff😀.png"
    with pytest.raises(UserError) as caught:
        read_picture(tmp_path / name, size=8, channels=3)
    str(caught.value).encode("utf-8")
    assert "\n" not in str(caught.value)


def test_reading_leaves_the_warning_filters_as_they_were(tmp_path):
    before = list(warnings.filters)
    read_picture(write_picture(tmp_path / "a.png", 1), size=8, channels=3)
    assert warnings.filters == before


def test_pillow_is_asked_for_the_listed_formats_only(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PPM")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="no picture"):
        read_picture(tmp_path / "a.png", size=8, channels=3)


def photograph(width, height):
    """Smooth colours with some grain, as photographs have."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("extent", "size", "decoded"),
    [
        ((640, 480), 240, (640, 480)),
        ((640, 480), 121, (640, 480)),
        ((640, 480), 120, (320, 240)),
        ((480, 640), 60, (120, 160)),
        ((640, 480), 8, (80, 60)),
    ],
)
def test_a_large_jpeg_is_decoded_at_no_less_than_twice_the_size(tmp_path, monkeypatch, extent, size, decoded):
    path = write_image(tmp_path / "a.jpg", photograph(*extent), "JPEG", quality=90)
    seen = []
    monkeypatch.setattr(pictures, "_upright", lambda image: seen.append(image.size) or image)
    picture = read_picture(path, size=size, channels=3)
    assert seen == [decoded]
    with Image.open(path) as image:
        scaled = tuple(int(size * side / min(extent)) for side in extent)
        left, top = (round((side - size) / 2) for side in scaled)
        cut = image.convert("RGB").resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
        full = np.asarray(cut, dtype=np.int64)
    difference = np.abs(picture.numpy().transpose(1, 2, 0) - full).mean()
    assert difference == 0 if decoded == extent else 0 < difference < 2


def test_without_a_size_all_pixels_are_decoded(tmp_path):
    image = photograph(640, 480)
    path = write_image(tmp_path / "a.jpg", image, "JPEG")
    assert read_picture(path, size=None, channels=3).shape == (3, 480, 640)


def test_the_extent_of_a_jpeg_is_judged_before_it_is_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 640 * 480 - 1)
    with pytest.raises(UserError, match="640x480 pixels, more than"):
        read_picture(write_image(tmp_path / "a.jpg", photograph(640, 480), "JPEG"), size=8, channels=3)
