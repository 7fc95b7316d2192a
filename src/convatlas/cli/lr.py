"""`convatlas lr`: a learning-rate range test."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from convatlas.cli import options as o
from convatlas.cli.console import say, tell, tell_json
from convatlas.cli.training import RECIPE_FIELDS
from convatlas.errors import UserError
from convatlas.records import storage
from convatlas.records.lr_range import LrRange
from convatlas.records.run import Recipe

KINDS = (".svg", ".html")
SECONDS_BEFORE_BAR = 2.0
OF_THE_TEST = ("low", "high", "steps", "out", "as_json")
"""Parameters that a training does not have."""

Low = Annotated[float, typer.Option("--from", help="The lowest learning rate.")]
High = Annotated[float, typer.Option("--to", help="The highest learning rate.")]
Steps = Annotated[int, typer.Option("--steps", help="In how many steps it grows.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="A new file for the plot: .svg, or .html with all the numbers.")]


def lr(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A model, such as resnet.pocket, a configured one, or net.py:make.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Begin with a recipe of `convatlas recipes`.")] = None,
    data: o.Data = "shapes",
    data_root: o.DataRoot = None,
    low: Low = 1e-5,
    high: High = 1.0,
    steps: Steps = 100,
    out: Out = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Decides initial weights, order and augmentation.")] = 0,
    batch_size: o.BatchSize = 128,
    optimizer: o.Optimizer = "adamw",
    weight_decay: o.WeightDecay = None,
    label_smoothing: o.LabelSmoothing = 0.1,
    clip_grad: o.ClipGrad = 1.0,
    flip: o.Flip = None,
    crop: o.Crop = None,
    cutout: o.Cutout = 0,
    augment: o.Augment = "none",
    mixup: o.MixUp = 0.0,
    cutmix: o.CutMix = 0.0,
    validation: o.Validation = 0.1,
    data_fraction: o.DataFraction = 1.0,
    image_size: o.ImageSize = None,
    precision: o.Precision = "auto",
    memory_format: o.MemoryFormat = "auto",
    convolutions: o.Convolutions = "auto",
    compile: o.Compile = "auto",
    allocator: o.Allocator = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    no_verify: o.NoVerify = False,
    skip_unreadable: o.SkipUnreadable = False,
    as_json: o.Json = False,
) -> None:
    """Train for some steps with a growing learning rate, and say where the loss falls, turns and explodes."""
    o.use_allocator(allocator)
    _check_file(out)
    settings = {name: value for name, value in context.params.items() if name in RECIPE_FIELDS}
    if recipe is None:
        made = o.recipe_of(settings | {"epochs": 1, "minutes": None, "lr": None})
    else:
        made = o.changed(recipe, {name: value for name, value in settings.items() if o.on_the_command_line(context, name)})
    if o.on_the_command_line(context, "validation"):
        made = replace(made, parted=validation)
    chosen = o.data_of(made, data_root, verify=not no_verify)
    given = recipe is not None or o.on_the_command_line(context, "batch_size")
    found = _measured(made, chosen, low, high, steps, batch_given=given, threads=threads)
    if out is not None:
        storage.write_text(out, _drawn(found, page=out.suffix.lower() == ".html"))
    _tell(found, out, _training(context), as_json=as_json)


def _check_file(file: Path | None) -> None:
    """Refuse a file that is neither SVG nor HTML, or cannot be, before anything is computed."""
    if file is None:
        return
    if file.suffix.lower() not in KINDS:
        raise UserError(f"{str(file)!r} is neither .svg nor .html", fix="Name a file of one of these with --out.")
    o.check_new(file)
    if not file.parent.is_dir():
        raise UserError(f"the folder {file.parent} does not exist", fix="Make it, or name another file with --out.")


def _measured(
    recipe: Recipe, chosen: o.DataOptions, low: float, high: float, steps: int, *, batch_given: bool, threads: int | None
) -> LrRange:
    """The test. Words, names and numbers are refused before any data is read."""
    from convatlas.cli.progress import loading_bar
    from convatlas.cli.working import load, named_here, say_what_it_is, tied_to, use_threads
    from convatlas.training.lr_range import check_range, lr_range
    from convatlas.training.recipe import check_recipe

    check_range(low, high, steps)
    recipe = named_here(recipe)
    check_recipe(recipe)
    use_threads(threads)
    data = load(chosen)
    recipe = tied_to(recipe, data, batch_given=batch_given)
    say_what_it_is(data)
    command = shlex.join(["convatlas", *sys.argv[1:]])
    with loading_bar() as bar:
        return lr_range(recipe, data=data, low=low, high=high, steps=steps, progress=_late(bar), command=command)


def _late(bar: Callable[[str, int, int], None]) -> Callable[[int, int], None]:
    """A listener that shows the bar once the test has taken some time."""
    begun = time.monotonic()

    def told(done: int, total: int) -> None:
        if time.monotonic() - begun >= SECONDS_BEFORE_BAR:
            bar("steps", done, total)

    return told


def _training(context: typer.Context) -> list[str]:
    """The command that trains with the settings of the test, as they were given, but for a learning rate."""
    words = ["convatlas", "train"]
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in OF_THE_TEST or not o.on_the_command_line(context, name):
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        else:
            words += [*([] if name == "model" else [f"--{name.replace('_', '-')}"]), str(value)]
    return words


def _drawn(found: LrRange, *, page: bool) -> str:
    from convatlas.report.html import WIDE
    from convatlas.report.lr_range import lr_chart, lr_page
    from convatlas.report.standalone import standalone

    return lr_page(found) if page else standalone(lr_chart(found, width=WIDE))


def _tell(found: LrRange, out: Path | None, training: list[str], *, as_json: bool) -> None:
    if as_json:
        tell_json(found)
        return
    from convatlas.report.lr_range import described, hint, rate

    tell(described(found).removesuffix(hint(found)).rstrip())
    tell(hint(found))
    if out is not None:
        tell(f"written: {out}")
    else:
        say("a plot of it: --out lr.svg, or lr.html with all the numbers")
    if found.suggestion is not None:
        tell(f"next: {shlex.join([*training, '--lr', rate(found.suggestion)])}")
