import dataclasses
import gzip
import hashlib

import numpy as np
import pytest

from convatlas.data.catalog import CATALOG, Known
from convatlas.data.loading import load_data
from convatlas.errors import UserError

from ..makers import gzipped, idx_bytes, idx_contents, write_folder

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def load(root, name="mnist"):
    return load_data(name, root=root, verify=False, validation=0.0)


def test_plain_and_gzipped_files_read_alike(tmp_path):
    plain = load(write_folder(tmp_path / "plain", idx_contents()))
    packed = load(write_folder(tmp_path / "packed", gzipped(idx_contents())))
    assert plain.fingerprint == packed.fingerprint
    assert plain.train.images.shape == (40, 1, 28, 28)
    assert plain.train.labels.tolist() == [i % 10 for i in range(40)]
    expected = np.frombuffer(idx_contents()[IMAGES][16:], dtype=np.uint8)
    assert np.array_equal(plain.train.images.numpy().ravel(), expected)


def test_the_two_sets_differ_in_their_classes(tmp_path):
    root = write_folder(tmp_path, idx_contents())
    assert load(root).classes[3] == "three"
    assert load(root, "fashion-mnist").classes[9] == "ankle boot"


@pytest.mark.parametrize("pack", [gzipped, dict])
def test_checksums_hold_for_the_content_however_it_is_packed(tmp_path, monkeypatch, pack):
    contents = idx_contents()
    known = Known({name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in contents.items()})
    monkeypatch.setitem(CATALOG, "mnist", dataclasses.replace(CATALOG["mnist"], known=(known,)))
    root = write_folder(tmp_path, pack(contents))
    assert "not verified" not in load_data("mnist", root=root).description
    write_folder(root, pack({IMAGES: contents[IMAGES][:-1] + b"!"}))
    with pytest.raises(UserError, match=rf"{IMAGES} in .* is not as published.*--no-verify"):
        load_data("mnist", root=root)


def train_images(shape=(40, 28, 28)):
    return idx_bytes(np.zeros(shape))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (IMAGES, b"", "begins with nothing"),
        (IMAGES, b"\x1f\x8b\x08\x00", "begins with 1f8b0800"),
        (IMAGES, idx_bytes(np.zeros(40)), "no 3-d IDX file"),
        (LABELS, train_images(), "no 1-d IDX file"),
        (IMAGES, train_images()[:10], "cut short within its header"),
        (IMAGES, train_images()[:-1], "31,359 values where its header says 31,360"),
        (IMAGES, train_images() + b"!", "31,361 values where its header says 31,360"),
        (IMAGES, train_images((40, 32, 32)), "images of 32x32, not 28x28"),
        (IMAGES, train_images((39, 28, 28)), "39 train images and 40 labels"),
        (IMAGES, train_images((0, 28, 28)), "0 values"),
        (LABELS, idx_bytes(np.arange(40) % 11), "label 10"),
        (IMAGES, bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(100), "header says"),
    ],
)
def test_a_file_that_does_not_add_up_is_named(tmp_path, file, content, reason):
    with pytest.raises(UserError, match=reason) as caught:
        load(write_folder(tmp_path, idx_contents() | {file: content}))
    assert "train" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 500])
def test_a_truncated_gzip_is_named(tmp_path, keep):
    packed = gzipped(idx_contents())
    packed[f"{IMAGES}.gz"] = packed[f"{IMAGES}.gz"][:keep]
    with pytest.raises(UserError, match=rf"{IMAGES}(.gz is no sound gzip file| in .* begins with nothing)"):
        load(write_folder(tmp_path, packed))


def test_what_is_no_gzip_is_named(tmp_path):
    packed = gzipped(idx_contents()) | {f"{LABELS}.gz": b"<html>not found</html>"}
    with pytest.raises(UserError, match=rf"{LABELS}.gz is no sound gzip file"):
        load(write_folder(tmp_path, packed))


def test_a_gzip_bomb_is_stopped(tmp_path):
    packed = gzipped(idx_contents()) | {f"{LABELS}.gz": gzip.compress(bytes(70_000_000))}
    with pytest.raises(UserError, match="more than 64,000,000 bytes"):
        load(write_folder(tmp_path, packed))
