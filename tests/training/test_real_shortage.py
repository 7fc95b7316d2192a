"""A fine-tuning in an address space that is too small for its batch goes on, where torch really gets no memory."""

import subprocess
import sys

import pytest

from convatlas.records import codec
from convatlas.records.run import RunSummary

from ..cli.makers import picture_folder
from ..transfer.makers import weights_file

MORE = 900 * 2**20
"""Bytes beyond what the process has before it reads an image. The run wants 1.4 GB, and a third of that with checkpointing."""
LIMITED = """
import resource, sys
from pathlib import Path
from convatlas.training.allocator import keep_memory
keep_memory()
import torch, scipy.stats, convatlas.training.loop, convatlas.transfer.tournament, convatlas.transfer.result
torch.set_num_threads(1)
limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from convatlas.cli.main import main
main()
"""


@pytest.mark.untraced  # in a process of its own
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
def test_a_run_goes_on_in_less_memory_than_its_batch_wants(tmp_path):
    """What is freed of a failed step must not stay with the heap: oneDNN asks the system for the memory of its code."""
    picture_folder(tmp_path / "pets", each=100, size=72)
    weights = weights_file(tmp_path / "weights.safetensors", "convnext.pocket")
    words = [
        "finetune",
        tmp_path / "pets",
        "--model",
        "convnext.pocket",
        "--weights",
        weights,
        "--strategy",
        "full",
        "--epochs",
        "1",
    ]
    words += ["--image-size", "64", "--batch-size", "192", "--threads", "1", "--out", tmp_path / "run"]
    done = subprocess.run([sys.executable, "-c", LIMITED, str(MORE), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "memory is short: a batch of 192 images did not fit: activations are computed twice" in done.stderr
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert (summary.status, summary.choices.checkpointing) == ("finished", True)
