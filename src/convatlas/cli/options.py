"""Options that several commands share, and what they become."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from convatlas.arith.schedules import SCHEDULES
from convatlas.errors import UserError
from convatlas.records import storage
from convatlas.records.naming import short_name
from convatlas.records.run import Recipe
from convatlas.training.recipes import DEFAULT_EPOCHS, NOT_MIRRORED, completed, find_recipe

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
Data = Annotated[str, typer.Option("--data", "-d", help="Data set: see `convatlas data`.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder (or archive, or CSV) of the data.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Read published data even if its checksums differ.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Go on without unreadable images, half of them at most.")]
Epochs = Annotated[int | None, typer.Option("--epochs", "-e", help="Budget: this many passes over the images.")]
Minutes = Annotated[float | None, typer.Option("--minutes", "-m", help="Budget: this much training time for each model.")]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", help="Images a step.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate (default: 0.003 AdamW, 0.1 SGD).")]
Optimizer = Annotated[str, typer.Option("--optimizer", help="adamw, adam, sgd (Nesterov momentum) or muon.")]
WeightDecay = Annotated[float | None, typer.Option("--weight-decay", help="Default: 0.05 AdamW, 0.0005 SGD.")]
Schedule = Annotated[str, typer.Option("--schedule", help=f"{', '.join(SCHEDULES)}: see `convatlas schedule`.")]
Warmup = Annotated[float, typer.Option("--warmup", help="Share of the budget spent on warming up.")]
LabelSmoothing = Annotated[float, typer.Option("--label-smoothing")]
Ema = Annotated[float, typer.Option("--ema", help="Decay of the weights' moving average; 0: none.")]
ClipGrad = Annotated[float, typer.Option("--clip-grad", help="Largest gradient norm; 0: no clipping.")]
Patience = Annotated[int, typer.Option("--patience", help="End after so many epochs without a lower validation loss; 0: never.")]
Flip = Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images (default: not for digits).")]
Crop = Annotated[int | None, typer.Option("--crop", help="Shift images by up to this many pixels (default: an eighth).")]
Cutout = Annotated[int, typer.Option("--cutout", help="Blank a square of this side, in pixels.")]
Augment = Annotated[
    str,
    typer.Option(
        "--augment", help="none; trivial: one operation of any strength an image (TrivialAugment); rand: two (RandAugment)."
    ),
]
MixUp = Annotated[float, typer.Option("--mixup", help="MixUp's alpha; 0: none.")]
CutMix = Annotated[float, typer.Option("--cutmix", help="CutMix's alpha; 0: none.")]
Validation = Annotated[float, typer.Option("--validation", help="Share of training images held out (without splits, of all).")]
DataFraction = Annotated[float, typer.Option("--data-fraction", help="Train on this share of the training images.")]
ImageSize = Annotated[int | None, typer.Option("--image-size", help="Resize images to this many pixels a side.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")]
MemoryFormat = Annotated[str, typer.Option("--memory-format", help="auto, channels_last or contiguous.")]
Convolutions = Annotated[
    str,
    typer.Option(
        "--convolutions", help="auto, stock (PyTorch's own, as pooling is then, and no trials) or trial (the fastest here)."
    ),
]
Compile = Annotated[str, typer.Option("--compile", help="auto, on or off: torch.compile; graphs: CUDA graphs.")]
SyncBatchNorm = Annotated[bool, typer.Option("--sync-batchnorm", help="With torchrun: BatchNorm over all processes' images.")]
Allocator = Annotated[str, typer.Option("--allocator", help="auto (keep memory from step to step) or system.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option("--threads", help="Processor threads (default: all cores).")]
Code = Annotated[
    list[Path] | None, typer.Option("--code", help="A Python file that may be run, since it makes the run's network. Repeatable.")
]


@dataclass(frozen=True)
class DataOptions:
    """Which data, as the command line names it."""

    name: str
    root: Path | None
    image_size: int | None
    validation: float
    verify: bool
    skip_unreadable: bool
    fraction: float = 1.0
    parted: float | None = None


def data_of(recipe: Recipe, root: Path | None, *, verify: bool) -> DataOptions:
    """The data that a recipe names, at `root`."""
    shares = (recipe.data_fraction, recipe.parted)
    return DataOptions(recipe.data, root, recipe.image_size, recipe.validation, verify, recipe.skip_unreadable, *shares)


def make_recipe(
    model: str,
    data: DataOptions,
    *,
    epochs: int | None,
    minutes: float | None,
    optimizer: str,
    lr: float | None,
    weight_decay: float | None,
    flip: bool | None,
    crop: int | None,
    **rest: Any,
) -> Recipe:
    """The recipe that the options make. It is not tied to any data yet."""
    begun = completed(model, data.name, optimizer)
    return replace(
        begun,
        epochs=epochs,
        minutes=minutes,
        lr=begun.lr if lr is None else lr,
        weight_decay=begun.weight_decay if weight_decay is None else weight_decay,
        flip=begun.flip if flip is None else flip,
        crop=crop,
        validation=data.validation,
        parted=data.parted,
        image_size=data.image_size,
        skip_unreadable=data.skip_unreadable,
        **rest,
    )


def recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """The recipe that options named like its settings make; the budget is ten epochs where none is given."""
    if settings["model"] is None:
        fix = "Name one, such as `convatlas train resnet.pocket`, or a recipe of `convatlas recipes` with --recipe."
        raise UserError("no model is named", fix=fix)
    names = ("data", "image_size", "validation", "skip_unreadable")
    data = DataOptions(settings["data"], None, settings["image_size"], settings["validation"], True, settings["skip_unreadable"])
    rest = {name: value for name, value in settings.items() if name not in names}
    if rest["epochs"] is None and rest["minutes"] is None:
        rest["epochs"] = DEFAULT_EPOCHS
    return make_recipe(data=data, **rest)


def changed(name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe called `name` with some settings replaced. Raises UserError for an unknown one."""
    base = find_recipe(name)
    if "minutes" in settings and "epochs" not in settings:
        base = replace(base, epochs=None, sizes=())
    if settings.get("data", base.data) in NOT_MIRRORED and "flip" not in settings:
        base = replace(base, flip=False)
    return replace(base, **settings)


def use_allocator(wanted: str) -> None:
    """Set the process's allocator up for training; call it before torch is imported."""
    if wanted not in ("auto", "system"):
        raise UserError(f"--allocator is {wanted!r}", fix="Choose auto or system.")
    if wanted == "auto":
        from convatlas.training.allocator import keep_memory

        keep_memory()


def trust_code(code: list[Path] | None) -> None:
    """Let the Python files that --code names make networks."""
    from convatlas.models.user_files import trust

    for path in code or ():
        if not path.is_file():
            raise UserError(f"--code {path} is no file", fix="Check the path.")
        trust(path)


def typed_model(name: str) -> str:
    """The canonical name of a model that was named on the command line: its Python file, if it has one, is trusted with that."""
    from convatlas.models.configuration import factory_of, is_user_file, model_name
    from convatlas.models.user_files import trust

    if is_user_file(name):
        trust(factory_of(name)[0])
    return model_name(name)


def is_run(name: str) -> bool:
    """Whether a run's folder is meant, and no model."""
    return "{" not in name and (Path(name) / "recipe.json").exists()


def fresh_folder(what: str) -> Path:
    """A folder below runs/ that does not exist yet, named after what is run and when."""
    # Several may be started within a second: the process's number is in the name.
    base = Path("runs") / f"{short_name(what)}-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}"
    tries = [base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 100))]
    return next(path for path in tries if not path.exists())


def nothing_beside_resume(context: typer.Context) -> None:
    """Refuse settings beside --resume: the run goes on with its own recipe, and nothing is skipped silently."""
    allowed = {"resume", "data_root", "threads", "explain", "allocator", "as_json", "code"}
    given = [name for name in context.params if on_the_command_line(context, name) and name not in allowed]
    if given:
        names = ", ".join(given)
        raise UserError(f"--resume goes on with the recipe it began with, so {names} cannot be given", fix="Leave it out.")


def on_the_command_line(context: typer.Context, name: str) -> bool:
    """Whether the option was given, and is not the default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_new(out: Path | None, *, option: str = "--out") -> None:
    """Refuse an output folder or file that exists, or could not, before anything is loaded or computed."""
    if out is None:
        return
    if not str(out).isprintable():
        raise UserError(
            f"the folder's name {str(out)!r} has characters that cannot be printed", fix=f"Name another with {option}."
        )
    with storage.explained(out):
        exists = out.exists()
        above = next((each for each in out.absolute().parents if each.exists()), None)
    if exists:
        raise UserError(f"{out} exists already, and nothing is ever overwritten", fix=f"Name another with {option}.")
    if above is not None and not above.is_dir():
        raise UserError(f"{out} lies below a file, not a folder", fix=f"Name another with {option}.")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3` means the seeds 0, 1, 2; `4,7` means those two; `5,` means the one."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() or part == "" for part in parts) or parts == [""]:
        raise UserError(f"--seeds is {text!r}", fix="Give how many, such as 3, or which, such as 4,7.")
    numbers = [int(part) for part in parts if part]
    if len(parts) > 1:
        return tuple(numbers)
    if not 1 <= numbers[0] <= 1000:
        raise UserError(f"--seeds is {text!r}, a number of seeds", fix="Give 1 to 1000, or a list such as 4,7.")
    return tuple(range(numbers[0]))
