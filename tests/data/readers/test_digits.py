"""scikit-learn's digits, read without importing it."""

import subprocess
import sys

import pytest
import torch

from convatlas.data.loading import load_data
from convatlas.data.readers import digits
from convatlas.data.readers.digits import read_digits
from convatlas.errors import UserError


def test_they_are_what_scikit_learn_loads():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    ours = read_digits()
    levels = torch.from_numpy(theirs.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)
    pairs = {(image.numpy().tobytes(), int(label)) for image, label in zip(levels, theirs.target, strict=True)}
    assert len(ours.train) + len(ours.test) == len(theirs.target) == 1797
    parts = (ours.train, ours.test)
    found = {(x.numpy().tobytes(), int(y)) for part in parts for x, y in zip(part.images, part.labels, strict=True)}
    assert found == pairs


def test_scikit_learn_is_not_imported():
    code = "import sys, convatlas.data.loading as l; l.load_data('digits'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("spec", [None, type("Spec", (), {"origin": "/nowhere/sklearn/__init__.py"})])
def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch, spec):
    monkeypatch.setattr(digits, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        load_data("digits")
