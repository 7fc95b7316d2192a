"""What the commands that compute have in common: data, threads, progress, signals. Importing this takes torch along."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
import typer

from convatlas.cli.console import say
from convatlas.cli.options import DataOptions, data_of, typed_model
from convatlas.cli.progress import LiveWatch, PlainWatch, loading_bar, make_watch
from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import DataSet
from convatlas.data.loading import load_data
from convatlas.data.places import recall
from convatlas.errors import UserError
from convatlas.models.registry import find_variant
from convatlas.records import codec
from convatlas.records.run import EpochMetrics, Recipe, RunSummary
from convatlas.records.weights import Preprocessing
from convatlas.training.distributed import ALONE, World, joined, own_threads
from convatlas.training.outcome import Stopped
from convatlas.training.prepare import named
from convatlas.training.recipe import tied
from convatlas.training.watch import Progress
from convatlas.transfer.plan import prepared_for

SECONDS_TO_END = 2.0
"""What a second signal leaves a run to write down how it ended."""


@contextmanager
def together() -> Iterator[World]:
    """The processes that torchrun started (see `joined`), of which one says in a line why all must end, with exit code 2."""
    with joined() as world:
        try:
            with world.heard():
                yield world
        except UserError as error:
            world.fail(error)
            if world.speaks():
                say(f"error: {error}")
            raise typer.Exit(2) from None


def in_turn(world: World, load: Callable[[], DataSet]) -> DataSet:
    """The data that `load` gives: the first process loads it, then the others, who find what it has decoded."""
    data = load() if world.leads else None
    world.any(False)
    return load() if data is None else data


def load(chosen: DataOptions, *, how: Preprocessing | None = None, quiet: bool = False) -> DataSet:
    """The data that the options name, as `how` wants them if given, with a progress bar for what takes long unless `quiet`."""
    if chosen.root is not None and chosen.name in CATALOG and CATALOG[chosen.name].kind == "built in":
        raise UserError(f"{chosen.name} is built in and lies nowhere", fix="Leave --data-root out.")
    with nullcontext() if quiet else loading_bar() as progress:
        data = load_data(
            chosen.name,
            root=chosen.root,
            image_size=chosen.image_size if how is None else how.resize or how.crop,
            crop=None if how is None else how.crop,
            interpolation="bicubic" if how is None else how.interpolation,
            validation=chosen.validation,
            parted=chosen.parted,
            skip_unreadable=chosen.skip_unreadable,
            fraction=chosen.fraction,
            verify=chosen.verify,
            progress=progress,
        )
    return data if how is None else prepared_for(data, how)


def say_what_it_is(data: DataSet) -> None:
    """The data in a line, with what its reader found odd, and the classes that a split lacks."""
    sizes = f"{len(data.train):,} training, {len(data.val):,} validation, {len(data.test):,} test images"
    say(f"data: {data.description}; {sizes}")
    for split, images in (("training", data.train), ("validation", data.val), ("test", data.test)):
        lacking = [name for i, name in enumerate(data.classes) if not (images.labels == i).any()]
        if lacking and len(images):
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            say(f"note: no {split} image of {', '.join(lacking[:3])}{more}")
    for each in data.shared:
        what = f"{each.count:,} of {each.total:,} {each.split} pictures lie in {each.other} too"
        say(f"note: {what}, such as {each.example[0]} = {each.example[1]}, and flatter the figures; `convatlas check` lists them")


def load_for(recipe: Recipe, root: Path | None, *, quiet: bool = False) -> DataSet:
    """The data of an earlier run, from where it was read then unless `root` says otherwise.

    Its content is compared with the run's fingerprint, which says more than the published checksums.
    """
    place = root or recall(recipe.data_fingerprint)
    if place is None and CATALOG[recipe.data].kind == "your own":
        raise UserError("the images of this run are not where they were", fix="Give their place now with --data-root.")
    chosen, tuning = data_of(recipe, place, verify=False), recipe.tuning
    if tuning is None:
        return load(chosen, quiet=quiet)
    return load(replace(chosen, parted=tuning.validation), how=tuning.preprocessing, quiet=quiet)


def named_here(recipe: Recipe) -> Recipe:
    """The recipe of a model that was named on the command line, with its canonical name. Raises UserError for an unknown one."""
    found = named(replace(recipe, model=typed_model(recipe.model)))
    find_variant(found.model)
    return found


def tied_to(recipe: Recipe, data: DataSet, *, batch_given: bool) -> Recipe:
    """The recipe tied to this data's content; batches of a size that nobody gave are not larger than the data."""
    size = recipe.batch_size if batch_given else max(2, min(recipe.batch_size, len(data.train)))
    return tied(replace(recipe, batch_size=size), data)


def use_threads(threads: int | None, world: World = ALONE) -> None:
    """Let torch use so many threads; where several processes train together and none are given, each its share of the cores."""
    if threads is None:
        if world.ranks > 1:
            torch.set_num_threads(own_threads())
        elif torch.get_num_threads() > 1:
            _say_if_busy()
        return
    if not 1 <= threads <= 1024:
        raise UserError(f"--threads is {threads}", fix="Give a whole number from 1 to 1024.")
    torch.set_num_threads(threads)


def threads_before(folder: Path, processes: int = 1) -> int | None:
    """With how many threads the run began, since another number gives other bits; None if that cannot be had here."""
    path = folder / "summary.json"
    before = codec.read(RunSummary, path).choices if path.exists() else None
    here = (os.cpu_count() or 1) // processes
    return before.threads if before is not None and before.processes == processes and before.threads <= here else None


def _say_if_busy() -> None:
    """Threads of one operation wait for each other, so that one which gets no core holds up all: ten times, it was measured."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > cores:
        say(f"other work keeps this machine busy (load {load:.1f} on {cores} cores): --threads 1 may be much faster")


class _SilentWatch(PlainWatch):
    """Hears everything, says nothing, and can be asked to stop: another process speaks."""

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def trying(self, what: str, done: int, total: int) -> None:
        """Nothing."""


def _end_within(seconds: float, code: int) -> None:
    """End this process after that time, if it has not ended by then: compilers catch what is raised while they work."""
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()


@contextmanager
def watching(
    runs: int, folder: Path, command: str, *, explain: bool = False, silent: bool = False
) -> Iterator[LiveWatch | PlainWatch]:
    """A watcher that shows progress; Ctrl-C or SIGTERM stops the run after its step, a second one at once, as without us.

    `explain`: it also says what the engine chose, and why. When stopped, says that what is done is kept in `folder` and that
    `command` goes on; exits with 130 or 143. `silent`: all that, without a word.
    """
    watch = _SilentWatch(runs, explain=False) if silent else make_watch(runs, explain=explain)
    caught: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if caught:
            signal.signal(number, before[signal.Signals(number)])
            _end_within(SECONDS_TO_END, 128 + number)
            signal.raise_signal(number)
        caught.append(number)
        watch.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with watch:
            yield watch
    except Stopped:
        if not silent:
            say(f"stopped; what is done is kept in {folder}. Go on with: {command}")
        # Where several processes train together, another one may have been asked.
        raise typer.Exit(128 + (caught[0] if caught else signal.SIGTERM)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
