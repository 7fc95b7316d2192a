import dataclasses
import gzip
import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from convatlas.data.catalog import CATALOG, Known
from convatlas.data.loading import load_data
from convatlas.errors import UserError

from ..makers import CIFAR10_FILES, cifar10_contents, cifar_batch, write_folder, write_tar


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def python2_batch(n: int, seed: int) -> bytes:
    """A batch as NumPy pickled it under Python 2: byte strings, and dtype and array built by name."""

    def text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    batch = cifar_batch(n, seed)
    data = batch[b"data"]
    dtype = (
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array = empty + b"(K\x01K" + bytes([n]) + b"M\x00\x0c\x86" + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in batch[b"labels"]) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def write(tmp_path, **changed):
    return write_folder(tmp_path, cifar10_contents() | changed)


def load(root, **options):
    return load_data("cifar10", root=root, verify=False, **options)


def test_images_and_labels_come_in_the_published_order(tmp_path):
    data = load(write(tmp_path), validation=0.0)
    assert len(data.train) == sum(CIFAR10_FILES.values()) - 30
    assert data.train.images.shape[1:] == (3, 32, 32)
    first = cifar_batch(21, 21)
    assert np.array_equal(data.train.images[:21].numpy().reshape(21, 3072), first[b"data"])
    assert data.train.labels[:21].tolist() == first[b"labels"]
    assert np.array_equal(data.test.images.numpy().reshape(30, 3072), cifar_batch(30, 30)[b"data"])
    assert data.classes[6] == "frog"


def test_a_batch_written_by_python_2_reads_the_same(tmp_path):
    old = load(write(tmp_path / "old", test_batch=python2_batch(30, 30)))
    new = load(write(tmp_path / "new"))
    assert old.fingerprint == new.fingerprint


def test_the_archive_reads_like_the_folder_and_nothing_is_unpacked(tmp_path):
    folder = load(write(tmp_path / "folder"))
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_contents() | {"../../evil": b"x"})
    before = sorted(tmp_path.rglob("*"))
    assert load(archive).fingerprint == folder.fingerprint
    assert sorted(tmp_path.rglob("*")) == before


def test_cifar100_has_its_fine_labels(tmp_path):
    contents = {
        name: pickle.dumps(cifar_batch(n, n, num_classes=100, key=b"fine_labels") | {b"coarse_labels": [0] * n}, protocol=2)
        for name, n in (("train", 300), ("test", 100))
    }
    contents["meta"] = pickle.dumps({b"fine_label_names": [b"kind %d" % i for i in range(100)]}, protocol=2)
    data = load_data("cifar100", root=write_folder(tmp_path / "cifar-100-python", contents).parent, verify=False)
    assert data.num_classes == 100
    assert data.test.labels.tolist() == list(range(100))


def test_files_of_a_known_state_are_read_without_a_flag_and_named(tmp_path, monkeypatch):
    contents = cifar10_contents()
    known = Known({name: md5(contents[name]) for name in CIFAR10_FILES}, remark="made for a test")
    entry = CATALOG["cifar10"]
    monkeypatch.setitem(CATALOG, "cifar10", dataclasses.replace(entry, known=(*entry.known, known)))
    assert "made for a test" in load_data("cifar10", root=write(tmp_path)).description
    changed = contents["data_batch_3"] + b"!"
    with pytest.raises(UserError, match=r"data_batch_3 in .* is not as published, a wrong checksum: its md5 is .*--no-verify"):
        load_data("cifar10", root=write(tmp_path, data_batch_3=changed))
    # Pickle ends at its stop mark, so the byte too many is seen by the checksum alone.
    assert "not verified" in load(tmp_path).description


def test_an_archive_with_another_checksum_is_refused(tmp_path):
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_contents())
    with pytest.raises(UserError, match=rf"its md5 is {md5(archive.read_bytes())}, not c58f3010.*--no-verify"):
        load_data("cifar10", root=archive)


class Payload:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    "payload",
    [
        Payload(os.mkdir, "pwned"),
        Payload(eval, "__import__('os').mkdir('pwned')"),
        Payload(np.ndarray, (1 << 40,)),
        Payload(np.dtype, "O"),
        np.array([1.0, 2.0]),
        np.array([Payload(os.mkdir, "pwned")], dtype=object),
        torch.nn.ReLU,
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_holds_more_than_arrays_is_refused(tmp_path, monkeypatch, payload, protocol):
    monkeypatch.chdir(tmp_path)
    forged = pickle.dumps({b"data": payload, b"labels": [0]}, protocol=protocol)
    with pytest.raises(UserError, match=r"test_batch in .* is (refused|damaged)"):
        load(write(tmp_path / "data", test_batch=forged))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ({b"data": np.zeros((5, 3072), dtype=np.uint8), b"labels": [0, 1, 2]}, "no label for each image"),
        ({b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [0, 10]}, r"label outside 0\.\.9"),
        ({b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [0, -1]}, r"label outside 0\.\.9"),
        ({b"data": np.zeros((2, 3000), dtype=np.uint8), b"labels": [0, 1]}, "no rows of 3072 pixels"),
        ({b"labels": [0, 1]}, "no rows of 3072 pixels"),
        ({b"data": np.zeros((0, 3072), dtype=np.uint8), b"labels": []}, "(no label for each image|refused)"),
        ([1, 2], "no batch of images"),
    ],
)
def test_a_batch_that_does_not_add_up_is_named(tmp_path, batch, reason):
    with pytest.raises(UserError, match=rf"data_batch_2 in .*{reason}"):
        load(write(tmp_path, data_batch_2=pickle.dumps(batch, protocol=2)))


@pytest.mark.parametrize("content", [b"", b"<html>", cifar10_contents()["test_batch"][:5000], bytes(100)])
def test_a_damaged_batch_is_named(tmp_path, content):
    with pytest.raises(UserError, match=r"test_batch in .* is damaged"):
        load(write(tmp_path, test_batch=content))


@pytest.mark.parametrize("content", [b"", b"<html>no archive</html>", "cut", "flipped"])
def test_what_is_no_archive_is_named(tmp_path, content):
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_contents())
    whole = bytearray(path.read_bytes())
    if content == "cut":
        content = bytes(whole[: len(whole) // 2])
    elif content == "flipped":
        whole[len(whole) // 2] ^= 255
        content = bytes(whole)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz (is no sound|lacks|.*damaged)"):
        load(path)


def test_an_archive_without_a_batch_is_named(tmp_path):
    contents = cifar10_contents()
    del contents["data_batch_4"]
    with pytest.raises(UserError, match="lacks the file data_batch_4"):
        load(write_tar(tmp_path / "cifar-10-python.tar.gz", contents))


def test_links_in_an_archive_are_not_followed(tmp_path):
    contents = cifar10_contents()
    secret = contents.pop("test_batch")
    (tmp_path / "outside").write_bytes(secret)
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", contents)
    with tarfile.open(tmp_path / "plain.tar", "w") as tar:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            tar.add(tmp_path / name, f"cifar-10-batches-py/{name}")
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        tar.addfile(link)
    path.write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    with pytest.raises(UserError, match="lacks the file test_batch"):
        load(path)
