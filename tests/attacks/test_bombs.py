"""Small files that would fill the memory: each is refused by its reader, quickly, in a process that is allowed little more."""

import ctypes
import gzip
import io
import json
import os
import resource
import struct
import sys
import tarfile
import time
import traceback
import zipfile
import zlib
from functools import cache, reduce
from pathlib import Path

import pytest
import torch

from convatlas.data.pictures import read_picture
from convatlas.data.readers import cifar, idx
from convatlas.errors import UserError
from convatlas.models.checkpoints import read_checkpoint
from convatlas.records import codec
from convatlas.records.run import Recipe, read_metrics
from convatlas.training import checkpoint

M_MMAP_THRESHOLD = -3
"""Blocks of a megabyte and more are taken anew from the system, so that what tests before gave back to the heap is not had besides."""
MORE = 700 * 2**20
"""Bytes that a reader may take beyond what the process has: CIFAR's own archive unfolds to 180 MB."""


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def deflated(n):
    """n zero bytes as deflate packs them: a block that was packed once, so many times over, and the end."""
    packer = zlib.compressobj(9, wbits=-15)
    return (packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)) * (n // 2**20) + packer.flush()


def zeros(n):
    """The same as zlib frames it, with its checksum: sound, like all that follow, and never there at once."""
    return b"\x78\xda" + deflated(n) + struct.pack(">HH", n % 65521, 1)


def checksum(n):
    return reduce(lambda crc, _: zlib.crc32(bytes(2**20), crc), range(n // 2**20), 0)


def gzipped(n):
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + deflated(n) + struct.pack("<II", checksum(n), n % 2**32)


def in_a_deflated_zip(n):
    """As torch has saved since 1.6, but that the pickle is n zero bytes, packed."""
    name, content = b"archive/data.pkl", deflated(n)
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, checksum(n), len(content), n, len(name), 0)
    local = b"PK\3\4" + common + name + content
    entry = b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    return local + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)


def test_the_bombs_are_sound():
    n = 2**21
    assert zlib.decompress(zeros(n)) == gzip.decompress(gzipped(n)) == bytes(n)
    with zipfile.ZipFile(io.BytesIO(in_a_deflated_zip(n))) as archive:
        assert archive.read("archive/data.pkl") == bytes(n)


def overlapping():
    """Many members that share the same bytes, as in 42.zip's successors: each alone is sound."""
    inner, target = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data/0", bytes(10**6))
    content = bytearray(inner.getvalue())
    begin = content.index(b"PK\x01\x02")
    entry = bytes(content[begin : content.index(b"PK\x05\x06")])
    many = b"".join(entry.replace(b"archive/data/0", f"archive/data/{i % 10}".encode()) for i in range(20_000))
    target.write(content[:begin] + many)
    target.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 20_000, 20_000, len(many), begin, 0))
    return target.getvalue()


@cache
def many_members(n):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for i in range(n):
            archive.writestr(f"archive/data/{i}", b"")
    return target.getvalue()


def spread():
    target = io.BytesIO()
    torch.save({"w": torch.zeros(1).expand(2**31)}, target)
    return target.getvalue()


def header(text):
    return struct.pack("<Q", len(text)) + text


def claiming(shape, length):
    return header(json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, length]}}).encode()) + bytes(16)


CHECKPOINTS = {
    "deflated zip of a gigabyte": lambda: in_a_deflated_zip(2**30),
    "members over one another": overlapping,
    "60,000 members": lambda: many_members(60_000),
    "2^31 elements from one": spread,
}
SAFETENSORS = {
    "header of 2^40 bytes": lambda: struct.pack("<Q", 2**40) + b"{}",
    "tensor of 2^40 elements": lambda: claiming([2**40], 2**42),
    "shape that overflows": lambda: claiming([2**32, 2**32, 2**32], 16),
    "100,000 brackets": lambda: header(b"[" * 100_000),
}
PICTURES = {
    "60,000 x 60,000": lambda: png(60_000, 60_000, chunk(b"IDAT", zeros(2**20))),
    "a row too many": lambda: png(40_000, 1_001, chunk(b"IDAT", zeros(2**20))),
    "zTXt of a gigabyte": lambda: png(32, 32, chunk(b"zTXt", b"k\0\0" + zeros(2**30)), chunk(b"IDAT", zeros(2**20))),
    "iCCP of a gigabyte": lambda: png(32, 32, chunk(b"iCCP", b"k\0\0" + zeros(2**30)), chunk(b"IDAT", zeros(2**12))),
}
RECORDS = {
    "100,000 deep": lambda: b"[" * 100_000 + b"]" * 100_000,
    "objects 100,000 deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a million keys": lambda: json.dumps({str(i): i for i in range(10**6)}).encode(),
    "a number of a million digits": lambda: b'{"epochs": ' + b"9" * 10**6 + b"}",
    "one line of 200 MB": lambda: b'{"model": "' + b"a" * 200_000_000 + b'"}',
}


def read_batch(path):
    return cifar._batch(path.read_bytes(), b"labels", 10, where="the batch")


def read_state(path):
    path.rename(path.with_name("state-1.pt"))
    return checkpoint.load_state(path.parent, note=lambda text: None)


def read_archive(path):
    return cifar.read_cifar("cifar10", path, verify=False)


def refused_in_little_memory(read, path):
    """Read the file in a child that may take MORE; how long that took. It must raise UserError, and nothing else."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
            resource.setrlimit(resource.RLIMIT_AS, (now + MORE, now + MORE))
            read(path)
        except UserError as error:
            code = 0 if str(error).isprintable() and len(str(error)) < 2000 else 3
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status), "killed"
    assert os.WEXITSTATUS(status) == 0
    return time.monotonic() - begun


CASES = [
    *(("weights.pth", read_checkpoint, name, make) for name, make in CHECKPOINTS.items()),
    *(("state.download", read_state, name, make) for name, make in CHECKPOINTS.items()),
    *(("model.safetensors", read_checkpoint, name, make) for name, make in SAFETENSORS.items()),
    *(("p.png", lambda path: read_picture(path, size=8, channels=3), name, make) for name, make in PICTURES.items()),
    *(("recipe.json", lambda path: codec.read(Recipe, path), name, make) for name, make in RECORDS.items()),
    *(("metrics.jsonl", read_metrics, name, lambda make=make: make() + b"\n") for name, make in RECORDS.items()),
    ("data_batch_1", read_batch, "memo of 2^31 places", lambda: b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b"."),
    ("data_batch_1", read_batch, "string of 2^62 bytes", lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"."),
    ("train-images-idx3-ubyte.gz", lambda path: idx.read_idx("mnist", path.parent, verify=False), "2 GB", lambda: gzipped(2**31)),
]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, limits the address space")
@pytest.mark.parametrize(("name", "read", "make"), [pytest.param(n, r, m, id=f"{n}: {i}") for n, r, i, m in CASES])
def test_a_bomb_is_refused(tmp_path, name, read, make):
    (tmp_path / name).write_bytes(make())
    assert refused_in_little_memory(read, tmp_path / name) < 20  # 2 on a machine that does nothing else


def test_an_archive_of_cifar_whose_numbers_are_none(tmp_path):
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.pax_headers = {"GNU.sparse.size": "many", "GNU.sparse.map": "0,1"}
    content = member.tobuf(format=tarfile.PAX_FORMAT) + bytes(1024)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=r"is no sound \.tar\.gz"):
        read_archive(tmp_path / "cifar-10-python.tar.gz")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, limits the address space")
def test_an_archive_of_cifar_that_unfolds_to_two_gigabytes(tmp_path):
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = 2**31
    content = gzip.compress(member.tobuf()) + gzipped(member.size) + gzip.compress(bytes(1024))  # gzip reads one after the other
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    refused_in_little_memory(read_archive, tmp_path / "cifar-10-python.tar.gz")
