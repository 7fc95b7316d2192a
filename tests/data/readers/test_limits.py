"""Each reader refuses in one line what is missing, too large or cannot be read, whatever the reason."""

import errno
import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.data import pictures
from convatlas.data.loading import load_data
from convatlas.data.pictures import file_content, read_picture
from convatlas.data.readers import cifar, csv_list, folder, idx, picture_files
from convatlas.errors import UserError
from convatlas.records import codec, manifest
from convatlas.records.run import Recipe
from convatlas.training import checkpoint

from ..makers import cifar10_contents, idx_contents, write_classes, write_folder


@pytest.fixture
def broken(monkeypatch):
    """Every file is there, and none can be read: as on a disk that fails."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    return lambda *names: [monkeypatch.setattr(name, refuse) for name in names]


def refused(reason, read, *arguments, **settings):
    with pytest.raises(UserError, match=reason) as caught:
        read(*arguments, **settings)
    assert "\n" not in str(caught.value)


@pytest.fixture
def batches(tmp_path):
    return write_folder(tmp_path / "cifar-10-batches-py", cifar10_contents())


def read_cifar(place):
    return cifar.read_cifar("cifar10", place, verify=False)


def test_a_folder_of_cifar(batches, monkeypatch, broken):
    assert len(read_cifar(batches).test) == 30
    whole = (batches / "test_batch").read_bytes()
    (batches / "test_batch").unlink()
    refused("lacks the file test_batch", read_cifar, batches)
    (batches / "test_batch").write_bytes(whole)
    monkeypatch.setattr(cifar, "_MAX_BYTES", 1000)
    refused("bytes, too many for CIFAR", read_cifar, batches)
    monkeypatch.undo()
    broken("pathlib.Path.read_bytes")
    refused("cannot be read: Input/output error", read_cifar, batches)


def test_an_archive_of_cifar(tmp_path, monkeypatch, broken):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(bytes(2000))
    monkeypatch.setattr(cifar, "_MAX_UNPACKED", 1000)
    refused("2,000 bytes, too many for CIFAR", read_cifar, archive)
    archive.write_bytes(gzip.compress(bytes(2000)))
    refused("unfolds to more than 1,000 bytes", read_cifar, archive)
    monkeypatch.undo()
    broken("pathlib.Path.read_bytes")
    refused("cannot be read: Input/output error", read_cifar, archive)


class Asks:
    """Pickles as a call of something with arguments."""

    def __init__(self, what, *arguments):
        self.call = (what, arguments)

    def __reduce__(self):
        return self.call


class Outside(pickle.Pickler):
    def persistent_id(self, value):
        return "elsewhere" if isinstance(value, str) else None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Asks(np.ndarray, (4,)), "it calls numpy.ndarray"),
        (Asks(np._core.multiarray._reconstruct, np.ndarray, (5,), b"b"), "another class than an array"),
        (Asks(np.dtype, "O8", False, True), "it holds 'O8' and not bytes"),
        (Asks(__import__("_codecs").encode, "x", "rot13"), "it calls a codec"),
        (Asks(print, "x"), "it asks for __builtin__.print"),
        (["no", "dict"], "holds no batch of images"),
    ],
)
def test_a_batch_that_asks_for_more(value, reason):
    content = pickle.dumps(value, protocol=2)
    refused(reason, cifar._unpickle, content, where="the batch")


def test_a_batch_whose_memo_has_no_end():
    content = b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b"."
    refused("it remembers 2,147,483,647 things", cifar._unpickle, content, where="the batch")


def test_a_batch_that_asks_for_objects_outside(tmp_path):
    with (tmp_path / "batch").open("wb") as file:
        Outside(file, protocol=2).dump("x")
    refused("an object outside the file", cifar._unpickle, (tmp_path / "batch").read_bytes(), where="the batch")


@pytest.mark.parametrize("names", [None, [], [b"one"], [b"one", "two"], {b"a": 1}])
def test_names_of_classes_that_are_none(names):
    layout = cifar._LAYOUTS["cifar10"]
    content = pickle.dumps({layout.names: names}, protocol=2)
    refused("holds no class names", cifar._class_names, content, layout, where="the file")


def test_mnist_by_one_of_its_files(tmp_path, broken):
    write_folder(tmp_path, idx_contents())
    file = tmp_path / "train-images-idx3-ubyte"
    read = idx.read_idx("mnist", file, verify=False)
    assert len(read.train) == len(idx.read_idx("mnist", tmp_path, verify=False).train)
    broken("pathlib.Path.open")
    refused("cannot be read: Input/output error", idx.read_idx, "mnist", tmp_path, verify=False)


def test_mnist_without_one_of_its_files(tmp_path):
    write_folder(tmp_path, idx_contents())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    refused("lacks the file t10k-labels-idx1-ubyte", idx.read_idx, "mnist", tmp_path, verify=False)


def test_a_list(tmp_path, monkeypatch, broken):
    path = tmp_path / "list.csv"
    path.write_text("file,label\n")
    monkeypatch.setattr(csv_list, "_MAX_BYTES", 5)
    refused("11 bytes, too many for a list", csv_list._text, path)
    monkeypatch.undo()
    broken("pathlib.Path.read_bytes")
    refused("cannot be read: Input/output error", csv_list._text, path)


def test_a_folder_that_cannot_be_listed(tmp_path, broken):
    root = write_classes(tmp_path / "own")
    broken("os.scandir")
    refused("cannot be read: Input/output error", folder.read_folder, root, request(root))


def request(root, size=16):
    return picture_files.Request(root, size, 0.2, 0, False, None)


def test_more_pictures_than_memory_holds(tmp_path, monkeypatch):
    root = write_classes(tmp_path / "own")
    monkeypatch.setattr(picture_files, "_MAX_BYTES", 1000)
    refused("20 pictures at 16x16 take 0 GiB of memory", load_data, "folder", root=root, image_size=16)


def test_a_picture_file(tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(pictures, "_MAX_FILE_BYTES", 5)
    refused("bytes, too many for a picture", file_content, path)


def test_grey_levels_beyond_16_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "p.tiff")
    refused(r"grey levels outside 0\.\.65535", read_picture, tmp_path / "p.tiff", size=8, channels=3)


def test_records_and_states(tmp_path, monkeypatch, broken):
    (tmp_path / "recipe.json").write_text("{}")
    monkeypatch.setattr(codec, "MOST_BYTES", 1)
    refused("2 bytes, too many for such a file", codec.read, Recipe, tmp_path / "recipe.json")
    monkeypatch.undo()
    for n in (1, 2):
        checkpoint.save_state(tmp_path, {"n": n})
    real, notes = Path.read_bytes, []
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "I/O")) if path.name == "state-2.pt" else real(path),
    )
    assert checkpoint.load_state(tmp_path, note=notes.append)["n"] == 1
    assert notes == [f"warning: {tmp_path / 'state-2.pt'} cannot be read: I/O; it is left out"]
    monkeypatch.undo()
    broken("pathlib.Path.read_bytes")
    with pytest.raises(UserError, match=r"no training state in .* is intact"):
        checkpoint.load_state(tmp_path, note=notes.append)


def test_a_manifest_that_is_damaged_is_begun_anew(tmp_path):
    (tmp_path / manifest.FILE).write_text("{}")
    (tmp_path / "a").write_bytes(b"a")
    manifest.write(tmp_path, manifest.entry_of("a", b"a"))
    assert manifest.checked(tmp_path / "a") == b"a"
    refused("cannot be read: No such file", manifest.checked, tmp_path / "b")
