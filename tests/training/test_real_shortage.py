"""A fine-tuning in an address space that is too small for its batch goes on, where torch really gets no memory."""

import subprocess
import sys

import pytest

from convatlas.records import codec
from convatlas.records.run import RunSummary

from ..cli.makers import picture_folder
from ..transfer.makers import weights_file

MEGABYTE = 2**20


@pytest.mark.untraced  # in a process of its own
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
@pytest.mark.parametrize("more", [500, 900])
def test_a_run_goes_on_in_less_memory_than_its_batch_wants(tmp_path, more):
    """Unlimited this run takes 2 GB more than it has before its first step."""
    picture_folder(tmp_path / "pets", each=40, size=160)
    weights = weights_file(tmp_path / "weights.safetensors", "convnext.pocket")
    words = ["finetune", tmp_path / "pets", "--model", "convnext.pocket", "--weights", weights, "--strategy", "full", "--epochs", "1"]
    words += ["--image-size", "64", "--batch-size", "64", "--threads", "1", "--out", tmp_path / "run"]
    done = subprocess.run([sys.executable, "-c", LIMITED, str(more * MEGABYTE), *map(str, words)], capture_output=True, text=True)
    print(done.stderr)
    assert done.returncode == 0, done.stderr
