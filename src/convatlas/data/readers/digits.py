"""scikit-learn's handwritten digits, 8x8, sixteen grey levels."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from convatlas.data.catalog import CATALOG, MNIST_CLASSES
from convatlas.data.dataset import ImageSet, Reading, fingerprint_of_arrays
from convatlas.data.splits import hold_out
from convatlas.errors import UserError

_TEST_SHARE = 0.2


def _file() -> Path:
    """Where scikit-learn keeps them. It is not imported: that takes more than a second."""
    found = find_spec("sklearn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found is not None and found.origin else None
    if file is None or not file.is_file():
        what = "the data 'digits' comes with scikit-learn, which is not installed"
        raise UserError(what, fix="Run `pip install scikit-learn`.")
    return file


def read_digits() -> Reading:
    """1,797 images (N, 1, 8, 8), levels 0..16 spread over 0..255; a fifth of each class, always the same, is the test split.

    Raises UserError if scikit-learn is not installed.
    """
    with gzip.open(_file(), "rt", encoding="ascii") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=","))
    levels, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].long()
    images = ImageSet((levels * 255 / 16).round().to(torch.uint8), labels)
    keys = [str(index) for index in range(len(images))]
    train, test = (images.subset(i) for i in hold_out(keys, images.labels.tolist(), share=_TEST_SHARE, seed=0))
    classes = MNIST_CLASSES["digits"]
    return Reading(
        description=f"{CATALOG['digits'].title}, {CATALOG['digits'].what}",
        classes=classes,
        train=train,
        val=None,
        test=test,
        fingerprint=fingerprint_of_arrays(classes, {"train": train, "test": test}),
    )
