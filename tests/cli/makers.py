"""The command line as a person runs it: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def environment(folder, **changes):
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG") or key.startswith("COVERAGE_")}
    return {**kept, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1", **changes}


def convatlas(*words, folder, timeout=120, **changes):
    """Run `convatlas words...` in `folder`; returns the finished process."""
    return subprocess.run(
        [Path(sys.executable).parent / "convatlas", *map(str, words)],
        cwd=folder,
        env=environment(folder, **changes),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def picture_folder(root, *, classes=("ant", "bee", "cow"), each=8, size=36):
    """A folder of classes, each of its own colour with noise."""
    generator = np.random.default_rng(0)
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(each):
            base = np.full((size, size, 3), 60)
            base[:, :, i % 3] = 200
            pixels = (base + generator.integers(-20, 20, base.shape)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{j}.png")
    return root
