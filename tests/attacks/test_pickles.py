"""No pickle is ever executed, in whatever form it comes, wherever a file is read."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from convatlas.data.readers.cifar import read_cifar
from convatlas.errors import UserError
from convatlas.models.checkpoints import read_checkpoint
from convatlas.training import checkpoint

from .payloads import FORMS, PAYLOADS, in_a_zip

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """In a folder of its own, with what the payloads would load; it holds no marker afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('marker', 'w')\n")
    yield
    assert not (tmp_path / "marker").exists()
    assert (tmp_path / "evil.py").exists()


def test_there_are_thirty_and_more():
    assert len(PAYLOADS) >= 30


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_as_weights(tmp_path, name, form):
    path = tmp_path / "weights.pth"
    path.write_bytes(FORMS[form](PAYLOADS[name]))
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("form", ["bare", "in a zip", "in an old file"])
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_as_a_training_state(tmp_path, name, form):
    (tmp_path / "state-1.pt").write_bytes(FORMS[form](PAYLOADS[name]))
    with pytest.raises(UserError):
        checkpoint.load_state(tmp_path, note=lambda text: None)


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_as_a_batch_of_cifar(tmp_path, name):
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (tmp_path / file).write_bytes(PAYLOADS[name])
    with pytest.raises(UserError):
        read_cifar("cifar10", tmp_path, verify=False)


def saved(tmp_path, value):
    path = tmp_path / "weights.pth"
    torch.save(value, path)
    return path.read_bytes()


def test_archives_that_lie(tmp_path):
    """Two pickles, a pickle elsewhere, a bomb, an overlap, forged lengths and checksums."""
    good = {"w": torch.arange(64.0)}
    whole = saved(tmp_path, good)
    payload = PAYLOADS["os.system"]
    forged = whole.replace(zlib.crc32(good["w"].numpy().tobytes()).to_bytes(4, "little"), b"\0\0\0\0")
    assert forged != whole
    bad = {
        "two": in_a_zip(payload, second=("archive/data.pkl.", payload)),
        "elsewhere": in_a_zip(payload, name="../archive/data.pkl"),
        "bomb": in_a_zip(bytes(50_000_000), packed=True),
        "forged checksum": forged,
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:100] + bytes([whole[100] ^ 0xFF]) + whole[101:],
        "long member": whole.replace((256).to_bytes(4, "little"), (2**31).to_bytes(4, "little")),
    }
    for name, content in bad.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(2**31),
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(4, dtype=torch.complex64),
        torch.empty(4, device="meta"),
        np.zeros(3),
        "text",
        None,
        b"bytes",
    ],
    ids=["stride 0", "sparse", "complex", "meta", "numpy", "text", "nothing", "bytes"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_tensor_is_refused(tmp_path, tensor):
    saved(tmp_path, {"w": tensor})
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "weights.pth")


FORBIDDEN = [
    r"\bpickle\.loads?\(",
    r"weights_only\s*=\s*False",
    r"torch\.hub\.load",
    r"\byaml\.load\(",
    r"(?<![\w.])eval\(",
    r"(?<![\w.])exec\(",
    r"shell\s*=\s*True",
    r"os\.system\(",
    r"\.extractall\(",
    r"tempfile\.mktemp\(",
    r"(?<!safetensors\.)\btorch\.load\((?!.*weights_only=True)",
    r"innerHTML",
    r"\|\s*safe\b",
    r"verify\s*=\s*False\s*,\s*#\s*tls",
    r"_create_unverified_context",
]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_the_source_has_nothing_that_runs_or_trusts_what_it_reads(pattern):
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*")
        if path.suffix in {".py", ".j2", ".html", ".js"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found
