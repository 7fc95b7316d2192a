"""How a run ended, kept in its folder whatever the end is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from convatlas.errors import StorageError, UserError, first_line
from convatlas.records import codec, storage
from convatlas.records.run import Recipe, RunSummary
from convatlas.training.distributed import World
from convatlas.training.watch import Watch

OF_MEMORY = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory object", "std::bad_alloc")
"""What torch and oneDNN say on a processor when they get no memory."""


class Stopped(Exception):
    """The watcher asked the run to stop; its state is saved."""


def heeding(watch: Watch) -> Callable[[str, int, int], None]:
    """What tells `watch` how much is computed of what is computed at once, and raises Stopped when it asks to stop."""

    def told(what: str, done: int, total: int) -> None:
        watch.computing(what, done, total)
        if watch.stopping():
            raise Stopped

    return told


class Kept(Protocol):
    """A run under way, as far as its outcome goes."""

    recipe: Recipe
    folder: Path
    summary: RunSummary
    world: World


@contextmanager
def outcome_kept(run: Kept) -> Iterator[None]:
    """Write `summary.json` at the beginning and at the end, whatever the end is. The process that leads does so."""
    _write(run)
    try:
        yield
    except (Stopped, StorageError):
        run.summary = replace(run.summary, status="interrupted")
        raise
    except UserError as error:
        run.summary = replace(run.summary, status="failed", cause=str(error))
        raise
    except RuntimeError as error:
        failure = _out_of_memory(run, error)
        if failure is None:
            run.summary = replace(run.summary, status="failed", cause=first_line(error))
            raise
        run.summary = replace(run.summary, status="failed", cause=str(failure))
        raise failure from error
    except Exception as error:
        run.summary = replace(run.summary, status="failed", cause=first_line(error))
        raise
    except BaseException:  # a second Ctrl-C or SIGTERM, which waits for nothing
        run.summary = replace(run.summary, status="interrupted")
        raise
    finally:
        _write(run)


def _write(run: Kept) -> None:
    if run.world.leads:
        storage.write_text(run.folder / "summary.json", codec.to_text(run.summary))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is memory that was short. On CPUs torch raises a plain RuntimeError for that, and oneDNN does not say why."""
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in OF_MEMORY)


def _out_of_memory(run: Kept, error: RuntimeError) -> UserError | None:
    """The error for a batch that memory could not hold."""
    if not is_out_of_memory(error):
        return None
    size = run.recipe.batch_size
    return UserError(
        f"out of memory: {run.recipe.model} with batches of {size} images",
        fix=f"Try --batch-size {max(size // 2, 2)}, in a new folder.",
    )
