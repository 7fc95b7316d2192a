"""`convatlas memory`: how much memory a network takes to train and to answer, before anything runs."""

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from convatlas.cli.console import counted, say, tell, tell_json, tell_table
from convatlas.cli.options import Json, typed_model
from convatlas.cli.showing import ImageSize, InChans, Name, ledger_of
from convatlas.errors import UserError
from convatlas.records.ledger import Ledger
from convatlas.records.memory import MemoryMeasured, MemoryRecord
from convatlas.records.run import Recipe
from convatlas.report.ledger_words import size
from convatlas.training.recipes import completed

if TYPE_CHECKING:
    from convatlas.layers.network import Network

CHOICES = {"optimizer": ("adamw", "sgd", "muon", "adam"), "precision": ("fp32", "bf16"), "trains": ("full", "head")}
PARTS = ("weights", "gradients", "optimizer", "images", "activations", "total")
MOMENTS = {"forward": "forward pass", "backward": "backward pass", "update": "optimizer's step"}
ALLOCATORS = {
    # What glibc is told by variables (mallopt(3)): each larger block comes from the system and goes back when it is freed, or
    # nothing goes back, as `convatlas train` has it (convatlas.training.allocator).
    "exact": {"MALLOC_MMAP_THRESHOLD_": "65536"},
    "kept": {
        "MALLOC_MMAP_THRESHOLD_": "2147483647",
        "MALLOC_TRIM_THRESHOLD_": "2147483647",
        "MALLOC_TOP_PAD_": "268435456",
        "GLIBC_TUNABLES": "glibc.malloc.mxfast=0",
    },
}
MOST = 1_000_000


def memory(
    name: Name,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Images a step.", min=1, max=MOST)] = 64,
    image_size: ImageSize = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="Classes (default: its own).", min=1)] = None,
    in_chans: InChans = None,
    optimizer: Annotated[str, typer.Option("--optimizer", help="adamw, sgd, muon or adam.")] = "adamw",
    precision: Annotated[str, typer.Option("--precision", help="Of training: fp32 or bf16. Answers are in fp32.")] = "fp32",
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Compute activations twice, not keep them.")] = False,
    trains: Annotated[str, typer.Option("--trains", help="full, or head: the classifier alone, the rest frozen.")] = "full",
    measure: Annotated[bool, typer.Option("--measure", help="Take a few steps in processes that do only that.")] = False,
    as_json: Json = False,
) -> None:
    """The memory that training and answering take on a processor, predicted: weights, gradients, optimizer, activations."""
    _check(optimizer=optimizer, precision=precision, trains=trains)
    name = typed_model(name)
    ledger = ledger_of(name, image_size=image_size, in_chans=in_chans, num_classes=num_classes)
    recipe = replace(completed(name, "shapes", optimizer), batch_size=batch_size, precision=precision, device="cpu", epochs=1)
    record = _predicted(ledger, recipe, num_classes, checkpointing=checkpointing, trains=trains)
    if measure:
        record = replace(record, measured=tuple(_measured(record, recipe, blocks) for blocks in ALLOCATORS))
    if as_json:
        tell_json(record)
    else:
        _show(record)


def _check(**given: str) -> None:
    for option, value in given.items():
        known = CHOICES[option]
        if value not in known:
            raise UserError(f"--{option} is {value!r}", fix=f"Choose {', '.join(known[:-1])} or {known[-1]}.")


def _predicted(ledger: Ledger, recipe: Recipe, num_classes: int | None, *, checkpointing: bool, trains: str) -> MemoryRecord:
    from convatlas.study.step_memory import predict

    shape, name = ledger.input_shape, recipe.model
    with redirect_stdout(sys.stderr):  # what somebody's network prints is no part of the result
        inference, training = predict(
            lambda: _network(name, shape, num_classes), recipe, shape, checkpointing=checkpointing, trains=trains
        )
    classes = ledger.rows[-1].output_shape[0] if num_classes is None else num_classes
    return MemoryRecord(
        model=name,
        input_shape=shape,
        num_classes=classes,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        precision=recipe.precision,
        checkpointing=checkpointing,
        trains=trains,
        inference=inference,
        training=training,
    )


def _network(name: str, shape: tuple[int, ...], num_classes: int | None) -> "Network":
    """The network, without memory for its weights unless it is from a user's file."""
    from contextlib import nullcontext

    import torch

    from convatlas.models.configuration import is_user_file
    from convatlas.models.registry import create_model

    with nullcontext() if is_user_file(name) else torch.device("meta"):
        return create_model(name, num_classes=num_classes, in_chans=shape[0], image_size=shape[1])


def _measured(record: MemoryRecord, recipe: Recipe, blocks: str) -> MemoryMeasured:
    """The peaks of a process that gets and gives back memory as `blocks` says."""
    import torch

    from convatlas.study.peak import PeakOrder, measure_peaks

    say(f"measuring: {counted(recipe.batch_size, 'image')} a step, memory {blocks}")
    order = PeakOrder(
        recipe,
        num_classes=record.num_classes,
        in_chans=record.input_shape[0],
        image_size=record.input_shape[1],
        batch_size=recipe.batch_size,
        threads=torch.get_num_threads(),
        checkpointing=record.checkpointing,
        trains=record.trains,
    )
    found = measure_peaks(order, environment=ALLOCATORS[blocks])
    return MemoryMeasured(blocks, found.inference, found.training)


def _show(record: MemoryRecord) -> None:
    shape = "x".join(map(str, record.input_shape))
    how = [record.optimizer, record.precision, *(["checkpointing"] if record.checkpointing else [])]
    tell(f"{record.model}, {counted(record.batch_size, 'image')} of {shape} a step, {', '.join(how)}")
    if record.trains == "head":
        tell("the classifier alone is trained")
    tell("")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("training", "inference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in PARTS:
        table.add_row(part, *(size(getattr(use, part)) for use in (record.training, record.inference)))
    table.add_row("fullest in the", *(MOMENTS[use.when] for use in (record.training, record.inference)))
    for each in record.measured:
        table.add_row(f"measured, {each.blocks}", *_against(record, each))
    tell_table(table)
    tell("")
    for line in _notes(record):
        tell(line)


def _against(record: MemoryRecord, measured: MemoryMeasured) -> Iterator[str]:
    """What was measured, as a multiple of the prediction."""
    for found, predicted in ((measured.training, record.training), (measured.inference, record.inference)):
        yield "not told here" if found is None else f"{size(found)}, {found / predicted.total:.2f} times"


def _notes(record: MemoryRecord) -> Iterator[str]:
    yield "Not in it: Python, torch and the data set, and what libraries take within an operation."
    if record.measured:
        yield "exact: each block went back to the system when it was freed, which is what is predicted."
        yield "kept: nothing went back, as `convatlas train` has it for speed; holes between blocks count."
    else:
        yield "The allocator's holes come on top: --measure says how much they are here."
