"""Small data for the tests, made on the spot."""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture_bytes(seed: int, *, size=(24, 20), mode="RGB", kind="PNG", **options) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_picture(path: Path, seed: int, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_bytes(seed, **options))
    return path


def write_classes(root: Path, classes=("ants", "bees"), *, each=10, first_seed=0) -> Path:
    for c, name in enumerate(classes):
        for i in range(each):
            write_picture(root / name / f"{i:02}.png", first_seed + 1000 * c + i)
    return root


def cifar_batch(n: int, seed: int, *, num_classes=10, key=b"labels") -> dict:
    rng = np.random.default_rng(seed)
    labels = [int(label) for label in np.arange(n) % num_classes]
    return {b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), key: labels}


CIFAR10_FILES = {f"data_batch_{i}": 20 + i for i in range(1, 6)} | {"test_batch": 30}


def cifar10_contents() -> dict[str, bytes]:
    contents = {name: pickle.dumps(cifar_batch(n, n), protocol=2) for name, n in CIFAR10_FILES.items()}
    names = [name.encode() for name in ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]]
    contents["batches.meta"] = pickle.dumps({b"label_names": names}, protocol=2)
    return contents


def write_folder(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, contents: dict[str, bytes], *, prefix="cifar-10-batches-py/") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_contents(*, n_train=40, n_test=20) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    contents = {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        contents[f"{prefix}-images-idx3-ubyte"] = idx_bytes(rng.integers(0, 256, (n, 28, 28)))
        contents[f"{prefix}-labels-idx1-ubyte"] = idx_bytes(np.arange(n) % 10)
    return contents


def gzipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}
