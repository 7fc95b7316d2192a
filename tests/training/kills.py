"""Runs that are killed by SIGKILL at random moments and resumed until they finish, and then compared with runs that were not.

    python -m tests.training.kills --kills 500 [--seed 0]

Each attempt is a child process, forked from one that has imported everything but has computed nothing yet. It kills itself: after
a random time, in the middle of a random operation of the disk (of a write, a third of it is done), or while the validation images
are judged. What a run leaves is hashed: weights, optimizer, average, metrics, all but what a clock decides.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from convatlas.records import codec, storage
from convatlas.records.run import RunSummary, read_metrics
from convatlas.training import checkpoint, closing, loop
from convatlas.training.loop import resume, train

from ..cli import preloaded  # noqa: F401  what the children need, imported once
from .makers import small_data, small_recipe

RECIPES = {
    "adamw": {},
    "ema": {"ema": 0.9},
    "sgd, cosine": {"optimizer": "sgd", "lr": 0.05, "schedule": "cosine"},
    "muon, sizes": {"optimizer": "muon", "lr": 0.02, "sizes": ((0.5, 24),), "schedule": "constant"},
    "dropout": {"model": "vgg.pocket"},
    "cutout": {"model": "efficientnet.pocket", "cutout": 8},
    "bf16": {"precision": "bf16", "model": "lenet.pocket"},
    "gradients": {"gradients": True, "model": "lenet.pocket"},
}
"""Settings of which each keeps something else in its state."""
MOMENTS = ("time", "disk", "validation")


@dataclass(frozen=True)
class Moment:
    """When a child is to kill itself: after so many seconds, at so many operations of the disk, or so many judgements."""

    kind: str
    after: float


class DeadlyDisk(storage.Disk):
    """Kills the process in the middle of an operation."""

    def __init__(self, after):
        self.left = after

    def _now(self):
        self.left -= 1
        return self.left < 0

    def write(self, path, content):
        if self._now():
            super().write(path, content[: len(content) // 3])
            die()
        super().write(path, content)

    def append(self, path, whole, content):
        if self._now():
            with path.open("ab") as file:
                file.write(content[: len(content) // 3])
            die()
        super().append(path, whole, content)

    def sync(self, path):
        if self._now():
            die()
        super().sync(path)

    def rename(self, path, new):
        if self._now():
            die()
        super().rename(path, new)

    def remove(self, path):
        if self._now():
            die()
        super().remove(path)


def data_for(changes):
    """Small images, since no state depends on their size, but for the networks and the sizes of images that need larger ones."""
    return small_data(size=32 if changes.get("model") == "lenet.pocket" or "sizes" in changes else 16)


def die():
    """As the kernel's killer does it: nothing is finished, nothing is closed."""
    os.kill(os.getpid(), signal.SIGKILL)


def prepare(moment):
    """Let this process die at the moment."""
    if moment.kind == "time":
        threading.Thread(target=lambda: (time.sleep(moment.after), die()), daemon=True).start()
    elif moment.kind == "disk":
        storage.DISK = DeadlyDisk(int(moment.after))
    else:
        real, left = closing._judge, [int(moment.after)]

        def judge(run):
            left[0] -= 1
            result = real(run)
            if left[0] < 0:
                die()
            return result

        closing._judge = judge


def attempt(folder, changes, moment):
    """Train or resume in a child until it is done or dead; whether it was done."""
    summary = folder / "summary.json"
    if summary.exists() and codec.read(RunSummary, summary).status == "finished":
        return True  # it was killed when all was done
    child = os.fork()
    if child == 0:
        sys.settrace(None)  # nobody counts the lines that it reaches, which would take longer than all else
        code = 1
        try:
            import torch

            torch.set_num_threads(1)
            closing.SECONDS_BETWEEN_STATES = 0.0
            loop.choose.__globals__["precision"].cpu_computes_bf16 = lambda: True
            if moment is not None:
                prepare(moment)
            if (folder / "recipe.json").exists():
                resume(folder, data=data_for(changes))
            else:
                train(small_recipe(**changes), fresh(folder), data=data_for(changes))
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "a resumed run ended with an error"
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


def fresh(folder):
    """A folder in which nothing can be resumed is begun anew, as its user would do: it was killed before it was a run."""
    for path in sorted(folder.glob("*")) if folder.exists() else []:
        path.unlink()
    if folder.exists():
        (folder / storage.LOCK).unlink(missing_ok=True)
        for path in folder.glob(".*"):
            path.unlink()
        folder.rmdir()
    return folder


def digest(folder):
    """Of all that a finished run comes to."""
    import torch

    said = hashlib.sha256((folder / "model.safetensors").read_bytes())
    state = checkpoint.load_state(folder, note=lambda text: None)
    del state["recipe"]  # read back from JSON, whose numbers are floats where a recipe in Python has whole ones
    state["position"] = {k: v for k, v in state["position"].items() if "seconds" not in k}
    _take(said, state, torch.Tensor)
    clock = {"seconds", "images_per_second"}
    for metrics in read_metrics(folder / "metrics.jsonl"):
        said.update(repr({k: v for k, v in vars(metrics).items() if k not in clock}).encode())
    flows = folder / "gradients.jsonl"
    said.update(flows.read_bytes() if flows.exists() else b"")
    return said.hexdigest()


def _take(said, value, tensor):
    if isinstance(value, tensor):
        said.update(value.contiguous().numpy().tobytes() if value.ndim else repr(value.item()).encode())
    elif isinstance(value, dict):
        for key, each in value.items():
            said.update(repr(key).encode())
            _take(said, each, tensor)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _take(said, each, tensor)
    else:
        said.update(repr(value).encode())


def killed_until_done(folder, changes, draw, *, lasts):
    """Kill and resume one run until it is done; how often it was killed, at which moments."""
    moments = []
    while True:
        kind = draw.choice(MOMENTS)
        after = {"time": draw.uniform(0, lasts), "disk": draw.randrange(60), "validation": draw.randrange(3)}[kind]
        # One that was killed often is left in peace, so that it ends.
        moment = Moment(kind, after) if len(moments) < 8 else None
        if attempt(folder, changes, moment):
            return moments
        moments.append(moment)


def soak(kills, seed, place, *, say=print):
    """Kill runs of all recipes in turn so many times; returns the kills. Raises AssertionError at the first that differs."""
    draw, done, whole = random.Random(seed), [], {}
    for number in range(10**6):
        name = list(RECIPES)[number % len(RECIPES)]
        if name not in whole:
            begun = time.monotonic()
            assert attempt(place / f"whole {name}", RECIPES[name], None)
            whole[name] = digest(place / f"whole {name}"), time.monotonic() - begun
        wanted, lasts = whole[name]
        folder = place / f"{number} {name}"
        moments = killed_until_done(folder, RECIPES[name], draw, lasts=lasts)
        assert digest(folder) == wanted, f"{name}, killed at {moments}, is another run (seed {seed}, run {number})"
        assert not list(folder.glob(".*.tmp")), f"{name}, killed at {moments}, left litter"
        done += moments
        say(f"{len(done)} kills, {number + 1} runs, all as if never killed")
        if len(done) >= kills:
            return done
    raise AssertionError


def main():
    """Soak in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = soak(options.kills, options.seed, Path(folder))
    for kind in MOMENTS:
        print(f"{sum(moment.kind == kind for moment in done)} by {kind}")


if __name__ == "__main__":
    main()
