"""What the commands that compute have in common: data, threads, progress, signals. Importing this takes torch along."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
import typer

from convatlas.cli.console import say
from convatlas.cli.options import DataOptions
from convatlas.cli.progress import LiveWatch, PlainWatch, loading_bar, make_watch
from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import DataSet
from convatlas.data.loading import load_data
from convatlas.data.places import recall
from convatlas.errors import UserError
from convatlas.records.run import Recipe
from convatlas.training.loop import Stopped


def load(chosen: DataOptions) -> DataSet:
    """The data that the options name, with a progress bar for what takes long."""
    if chosen.root is not None and chosen.name in CATALOG and CATALOG[chosen.name].kind == "built in":
        raise UserError(f"{chosen.name} is built in and lies nowhere", fix="Leave --data-root out.")
    with loading_bar() as progress:
        return load_data(
            chosen.name,
            root=chosen.root,
            image_size=chosen.image_size,
            validation=chosen.validation,
            skip_unreadable=chosen.skip_unreadable,
            verify=chosen.verify,
            progress=progress,
        )


def say_what_it_is(data: DataSet) -> None:
    """The data in a line, with what its reader found odd, and the classes that a split lacks."""
    sizes = f"{len(data.train):,} training, {len(data.val):,} validation, {len(data.test):,} test images"
    say(f"data: {data.description}; {sizes}")
    for split, images in (("training", data.train), ("validation", data.val), ("test", data.test)):
        lacking = [name for i, name in enumerate(data.classes) if not (images.labels == i).any()]
        if lacking:
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            say(f"note: no {split} image of {', '.join(lacking[:3])}{more}")


def load_for(recipe: Recipe, root: Path | None) -> DataSet:
    """The data of an earlier run, from where it was read then unless `root` says otherwise.

    Its content is compared with the run's fingerprint, which says more than the published checksums.
    """
    place = root or recall(recipe.data_fingerprint)
    return load(DataOptions(recipe.data, place, recipe.image_size, recipe.validation, False, recipe.skip_unreadable))


def tied_to(recipe: Recipe, data: DataSet) -> Recipe:
    """The recipe tied to this data's content."""
    return replace(recipe, data_fingerprint=data.fingerprint)


def use_threads(threads: int | None) -> None:
    """Let torch use so many threads."""
    if threads is None:
        return
    if not 1 <= threads <= 1024:
        raise UserError(f"--threads is {threads}", fix="Give a whole number from 1 to 1024.")
    torch.set_num_threads(threads)


@contextmanager
def watching(runs: int, folder: Path, command: str) -> Iterator[LiveWatch | PlainWatch]:
    """A watcher that shows progress; Ctrl-C or SIGTERM stops the run after its step, a second one at once.

    When stopped, says that what is done is kept in `folder` and that `command` goes on; exits with 130 or 143.
    """
    watch = make_watch(runs)
    caught: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        watch.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with watch:
            yield watch
    except Stopped:
        say(f"stopped; what is done is kept in {folder}. Go on with: {command}")
        raise typer.Exit(128 + caught[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
