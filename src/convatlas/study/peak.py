"""How much memory a network takes at its fullest, measured in a process that does only that.

    python -m convatlas.study.peak < order.json

The process does a little of everything first, so that libraries have what they keep. Then it notes what it holds, makes the
network, lets it answer a batch, notes the highest mark, trains for three steps, and notes it again. The network's own weights are
in both numbers, the batch of images in neither.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from convatlas.errors import UserError
from convatlas.models.configuration import factory_of, is_user_file
from convatlas.models.user_files import trust, trusted_file
from convatlas.records import codec
from convatlas.records.run import Recipe
from convatlas.study.contestant import Contestant
from convatlas.study.step_memory import only_the_classifier
from convatlas.training.optim import make_optimizer

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux wants written for its high-water mark to fall to what is held now (proc(5), since 4.0)."""
TRAINING_STEPS = 3
"""The optimizer's memory is there from the first step on; the later ones show whether anything is added."""
SECONDS = 600


@dataclass(frozen=True)
class PeakOrder:
    """What is to be measured. `code` is the Python file of the user's, if any, that makes the network, and may be run.

    `checkpointing`: activations are computed twice instead of kept; with `trains` "head" the classifier alone learns.
    """

    recipe: Recipe
    num_classes: int
    in_chans: int
    image_size: int
    batch_size: int
    threads: int
    code: str | None = None
    checkpointing: bool = False
    trains: str = "full"


@dataclass(frozen=True)
class Peaks:
    """Bytes above what the process held before it had the network; None where the system does not tell."""

    inference: int | None
    training: int | None


def measure_peaks(order: PeakOrder, *, environment: Mapping[str, str] | None = None) -> Peaks:
    """The peaks, from a process of its own. It runs the user's file if this process may. Raises UserError if that fails.

    `environment` is added to this process's, such as what glibc is told of keeping memory (mallopt(3)).
    """
    if is_user_file(order.recipe.model):
        order = replace(order, code=str(trusted_file(factory_of(order.recipe.model)[0]).resolve()))
    command, name = [sys.executable, "-m", "convatlas.study.peak"], order.recipe.model
    line, settings = codec.to_line(order), {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(command, input=line, capture_output=True, text=True, timeout=SECONDS, check=False, env=settings)
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} took over {SECONDS} s for {TRAINING_STEPS} steps", fix="Give smaller batches.") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        cause = said[-1] if said else f"its process ended with {done.returncode}"
        raise UserError(f"the memory of {name} could not be measured: {cause}", fix="See whether it trains by itself.")
    return codec.from_text(Peaks, done.stdout.splitlines()[-1], where="the measuring process")


def peaks(order: PeakOrder) -> Peaks:
    """The same in this process, whose memory must not be used for anything else meanwhile."""
    torch.set_num_threads(order.threads)
    if order.code is not None:
        trust(Path(order.code))
    warm = Contestant(replace(order.recipe, model="lenet.pocket"), torch.randn(2, 3, 32, 32), num_classes=2)
    warm.answer()
    warm.step()
    cuda = warm.device == "cuda"
    del warm
    images = torch.randn(order.batch_size, order.in_chans, order.image_size, order.image_size)
    reset, highest = (_reset_cuda, _highest_cuda) if cuda else (_reset, highest_mark)
    held = reset()
    contestant = _as_ordered(Contestant(order.recipe, images, num_classes=order.num_classes), order)
    contestant.answer()
    inference = highest()
    reset()
    for _ in range(TRAINING_STEPS):
        contestant.step()
    training = highest()
    return Peaks(_above(inference, held), _above(training, held))


def _as_ordered(contestant: Contestant, order: PeakOrder) -> Contestant:
    if order.checkpointing:
        contestant.model.set_grad_checkpointing()
    if order.trains == "head":
        only_the_classifier(contestant.model)
        contestant.optimizer = make_optimizer(contestant.model, contestant.recipe)
    return contestant


def _above(peak: int | None, held: int | None) -> int | None:
    return None if peak is None or held is None else max(peak - held, 0)


def _reset() -> int | None:
    """Let the high-water mark fall to what is held now, where that may be done; returns the mark."""
    with suppress(OSError):  # elsewhere than on Linux, or not allowed: then the mark so far is what counts as held
        RESET.write_text(RESET_PEAK)
    return highest_mark()


def highest_mark() -> int | None:
    """The most bytes that this process had in memory at once since the last reset; None if the system does not tell."""
    try:
        lines = STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _usage()
    marks = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(marks[0][1]) * 1024 if marks else _usage()


def _usage() -> int | None:
    """The same by getrusage, which counts in bytes on macOS and in KiB elsewhere. Windows has none."""
    if os.name != "posix":
        return None
    import resource

    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024


def _reset_cuda() -> int | None:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _highest_cuda() -> int | None:
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def main(measured: Callable[[PeakOrder], Peaks] = peaks) -> int:
    """Read the order from standard input, write the peaks to standard output; what is wrong with the order in a line."""
    order = codec.from_plain(PeakOrder, json.loads(sys.stdin.read()), where="the order")
    try:
        found = measured(order)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(codec.to_line(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
