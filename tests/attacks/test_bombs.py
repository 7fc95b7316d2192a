"""Small files that would fill the memory: each is refused by its reader, quickly, in a process that is allowed little more."""

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
from tests.attacks.payloads import in_a_zip

MORE = 700 * 2**20
"""Bytes that a reader may take beyond what the process has: CIFAR's own archive unfolds to 180 MB."""


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(n):
    """n zero bytes, packed by zlib without ever being there at once."""
    packer, block = zlib.compressobj(9), bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(n // len(block))) + packer.flush()


def gzipped(n):
    packer, block = zlib.compressobj(9, wbits=31), bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(n // len(block))) + packer.flush()


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
    "deflated zip of a gigabyte": lambda: in_a_zip(bytes(2**30), packed=True),
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
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.size = 2**31
        archive.addfile(member, Zeros())
    return cifar.read_cifar("cifar10", path, verify=False)


class Zeros:
    """A file of zeros without an end."""

    def read(self, n):
        return bytes(n)


def refused_in_little_memory(read, path):
    """Read the file in a child that may take MORE; how long that took. It must raise UserError, and nothing else."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, limits the address space")
def test_an_archive_of_cifar_that_unfolds_to_two_gigabytes(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    refused_in_little_memory(read_archive, tmp_path / "cifar-10-python.tar.gz")
