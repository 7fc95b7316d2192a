"""How long a recipe trains, and what it reaches: n seeds on CIFAR-10, each judged on the test images once.

    python benchmarks/time_to_accuracy.py [RECIPE ...] --data-root FOLDER [--seeds 3] [--threads N] [--keep FOLDER]

Prints for each recipe the accuracy of each seed, mean and standard deviation, seconds of training (set-up, trials and
evaluation are not counted) and seconds in all. `--beside COMMAND` times any other command on the same machine, in turns with
ours, such as airbench's own script on a GPU; the last line that it prints is shown. With `--validate` nobody looks at the test
images: a tenth of the training images is held out instead, for choosing settings.
"""

import argparse
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev


def one(name: str, seed: int, folder: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    """Accuracy in [0, 1], seconds of training, seconds in all."""
    from convatlas.cli.progress import PlainWatch
    from convatlas.data.loading import load_data
    from convatlas.training.apply import evaluate_run
    from convatlas.training.loop import train
    from convatlas.training.recipes import find_recipe

    recipe = replace(find_recipe(name), seed=seed)
    if options.validate:
        recipe = replace(recipe, validation=0.1)
    data = load_data("cifar10", root=options.data_root, validation=recipe.validation, seed=seed, verify=False)
    begun = time.perf_counter()
    run = folder / f"{name}-seed{seed}"
    summary = train(replace(recipe, data_fingerprint=data.fingerprint), run, data=data, watch=PlainWatch(1, explain=True))
    taken = time.perf_counter() - begun
    outcome = evaluate_run(run, data=data, split="val" if options.validate else "test")
    return outcome.top1, summary.train_seconds, taken


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """The folder for run folders: the one named, or one that is gone afterwards."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def report(name: str, outcomes: list[tuple[float, float, float]]) -> str:
    """A row of the table."""
    accuracies, seconds, wall = zip(*outcomes, strict=True)
    spread = f" ± {100 * stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    mean = f"{100 * fmean(accuracies):.2f}{spread}"
    return f"| {name} | {len(outcomes)} | {each} | {mean} | {fmean(seconds):.0f} | {fmean(wall):.0f} |"


def main() -> None:
    """Parse, run, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["fast94"])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--beside")
    parser.add_argument("--validate", action="store_true")
    options = parser.parse_args()
    from convatlas.training.allocator import keep_memory

    keep_memory()
    import torch

    torch.set_num_threads(options.threads)
    table = ["| recipe | n | accuracies, % | mean, % | training, s | in all, s |", "|---|---|---|---|---|---|"]
    with kept(options.keep) as folder:
        for name in options.recipes:
            outcomes = []
            for seed in range(options.seeds):
                outcomes.append(one(name, seed, folder, options))
                print(report(f"{name} so far", outcomes), flush=True)
                if options.beside:
                    begun = time.perf_counter()
                    other = subprocess.run(shlex.split(options.beside), capture_output=True, text=True, check=True)
                    print(f"beside: {time.perf_counter() - begun:.1f} s: {other.stdout.strip().splitlines()[-1]}", flush=True)
            table.append(report(name, outcomes))
    print("\n".join(table))


if __name__ == "__main__":
    main()
