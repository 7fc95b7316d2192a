"""When memory cannot hold a batch: first activations are computed twice instead of kept, then the batch is computed in parts.

The first changes no number (see `Network.set_grad_checkpointing`). With parts the gradients are added up, so that the update is
that of the whole batch; only BatchNorm then normalises each part by itself.
"""

import mmap
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from convatlas.records.engine import Reason
from convatlas.training.allocator import give_back
from convatlas.training.outcome import is_out_of_memory
from convatlas.training.state import Run

Part = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Adds the gradients of a part of a batch (images, labels, its share of the batch); returns its mean loss and hits."""
LEAST_PART = 2
"""BatchNorm needs two images."""
RESERVE = 0.25
"""The share of a limited address space that is held back, untouched, until memory is short. For every new size of a part oneDNN
writes code, up to 60 MB for a network of fifty convolutions, into memory that it asks of the system: what a torn heap has free
does not help it."""


def within_memory(run: Run, part: Part, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The batch's gradients by `part`, in as many parts as the run has come to; mean loss and hits of the whole batch.

    Raises the error of torch's where nothing is left to be done.
    """
    buffers = [each.clone() for each in run.model.buffers()]
    if run.reserve is None and not run.choices.checkpointing:
        run.reserve = _reserved()
    while True:
        failure = None
        try:
            result = _in_parts(run, part, x, y)
        except RuntimeError as error:
            if not is_out_of_memory(error) or not _can_relieve(run, len(y)):
                raise
            failure = str(error)
        if failure is None:
            return result
        # Outside of the handler: the error holds on to all that the pass had computed.
        _relieve(run, len(y))
        run.optimizer.zero_grad()
        for buffer, before in zip(run.model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def _in_parts(run: Run, part: Part, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    parts = min(run.choices.parts, max(1, len(y) // LEAST_PART))  # a small last batch has no more
    if parts == 1:
        return part(x, y, 1.0)
    pieces = zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
    done = [(*part(some, labels, len(labels) / len(y)), len(labels) / len(y)) for some, labels in pieces]
    losses, right, shares = zip(*done, strict=True)
    return torch.stack([loss * share for loss, share in zip(losses, shares, strict=True)]).sum(), torch.stack(right).sum()


def _can_relieve(run: Run, n: int) -> bool:
    return not run.choices.checkpointing or n // (2 * run.choices.parts) >= LEAST_PART


def _reserved() -> mmap.mmap | None:
    """The reserve where memory ends by an error (`ulimit -v`); elsewhere the system ends the process, and none would help."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        return mmap.mmap(-1, int(RESERVE * limit))
    except OSError:  # then there was no room to spare
        return None


def _relieve(run: Run, n: int) -> None:
    """Take the next step down, and say so: to the watcher now, and in the run's record."""
    give_back()
    if run.reserve is not None and not run.reserve.closed:
        run.reserve.close()
    if not run.choices.checkpointing:
        run.model.set_grad_checkpointing()
        choices = replace(run.choices, checkpointing=True)
        chosen, why = "checkpointing", f"a batch of {n} images did not fit: activations are computed twice instead of kept"
    else:
        choices = replace(run.choices, parts=2 * run.choices.parts)
        chosen = f"{choices.parts} parts"
        why = f"a batch of {n} images did not fit: it is computed in {choices.parts} parts, whose gradients are added up"
    reasons = tuple(each for each in choices.reasons if each.about != "memory")
    run.choices = replace(choices, reasons=(*reasons, Reason("memory", chosen, why)))
    run.summary = replace(run.summary, choices=run.choices)
    run.watch.note(f"memory is short: {why}")
    if run.choices.device == "cuda":
        torch.cuda.empty_cache()
