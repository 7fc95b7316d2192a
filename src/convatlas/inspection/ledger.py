"""The ledger of a network: what every operation costs, keeps and sees, for one image, without computing a single value.

A copy on the meta device is passed by one image in evaluation mode, for shapes, costs and receptive fields, and by a batch in
training mode, for what autograd keeps. A network that needs values of its own is passed for real instead.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.errors import UserError, first_line
from convatlas.inspection.calls import call_settings, window_settings
from convatlas.inspection.copying import on_meta
from convatlas.inspection.costs import Slide, macs_of, slide_of
from convatlas.inspection.hints import hints_of
from convatlas.inspection.keeping import Kept, Keys, kept
from convatlas.inspection.misfit import explained, one_image
from convatlas.inspection.passage import Passage, Step, passing
from convatlas.inspection.receptive import Follower, Sight, memory_of, operation_name, sight_of
from convatlas.inspection.resting import collector_resting
from convatlas.inspection.settings import settings
from convatlas.records.ledger import Ledger, LedgerRow, Memory, Part


@torch.inference_mode(False)  # within which torch would hide what composite operations consist of
@collector_resting()  # nearly all that is made is kept to the end
def ledger(module: nn.Module, input_shape: Sequence[int], *, name: str | None = None) -> Ledger:
    """The ledger of `module` for one image of `input_shape`: (C, H, W), or (N, C, H, W), of which one image is looked at.

    `name` is what the network is called in it (default: its class). The module is not touched, whatever its device and mode.
    Raises UserError for a network that takes more than one image, that decides by the values of its maps, or that fails.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"{module!r} is no torch.nn.Module", fix="Give a module, not its class or a function.")
    shape = one_image(module, input_shape)
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    copy = on_meta(module).eval()
    books = Books(copy, torch.empty(1, *shape, dtype=dtype, device="meta"))
    notes: list[str] = []
    try:
        books.run(torch.device("meta"))
    except UserError:
        raise
    except Exception as error:
        if any(each.is_meta for each in module.parameters()):
            raise explained(error, books.passage.stuck) from error
        books = _for_real(module, shape, dtype)
        notes.append(f"one image was passed for real, since the network cannot be followed without values ({first_line(error)})")
    keeping = _keeping(copy, shape, dtype, notes)
    return _closed(books, module, shape, keeping=keeping, notes=notes, name=name or type(module).__name__)


DECIDE = frozenset(
    {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
)
"""Operations in ATen that make Python numbers or shapes of values."""


class Books:
    """The rows of one passage, while it goes on."""

    def __init__(self, copy: nn.Module, image: Tensor) -> None:
        self.rows: list[LedgerRow] = []
        self.sights: list[Sight] = []
        self.keys = Keys()
        self.row_keys: list[tuple[str, str, int]] = []
        self.notes: list[str] = []
        self.aside = 0
        self.follower = Follower(image, observer=self._count, guard=self._guard)
        self.passage = Passage(copy, image, ended=self._enter, numpy=None if image.is_meta else self._lose)
        self.element_size = image.element_size()
        self._copy, self._image = copy, image
        self._names = {id(each): path.rpartition(".")[2] for path, each in chain(copy.named_parameters(), copy.named_buffers())}
        self._paid: set[int] = set()
        self._stored = {memory_of(each) for each in (image, *copy.parameters(), *copy.buffers())}
        self._macs = 0
        self._slides: list[Slide] = []

    def run(self, device: torch.device | None) -> None:
        """Pass the image; what the network makes without naming a device is made on `device`."""
        with device or nullcontext(), passing(self.passage), self.follower, torch.no_grad():
            self._copy(self._image)
        if self.passage.refusal is not None:
            raise self.passage.refusal

    def _guard(self, operation: str) -> None:
        """What makes numbers or shapes of values is refused here too, where no function's name tells."""
        if operation in DECIDE:
            self.passage.refuse(operation)

    def _count(self, func: Any, arguments: Any, outputs: list[Tensor], depends: bool) -> None:
        """An operation was carried out. One outside of modules and functions (in a custom one of autograd) is a step itself."""
        operation, step = operation_name(func), self.passage.open
        if not depends and (step is None or not step.fed):
            self.aside += macs_of(operation, arguments, outputs)
            return
        alone = step is None
        if alone:
            self.passage.begin(operation, tuple(arguments.values()), {})
        self._macs += macs_of(operation, arguments, outputs)
        slide = slide_of(operation, arguments)
        self._slides += [] if slide is None else [slide]
        if alone and self.passage.open is not None:
            self.passage.end(self.passage.open, outputs)

    def _enter(self, step: Step) -> None:
        """A step has ended: its row."""
        output = step.outputs[0]
        sight = sight_of(self.follower.find(output))
        rank = output.dim() - 2
        fits = len(self._slides) == 1 and len(self._slides[0].window.kernel) == rank
        slide = self._slides[0] if fits else None
        self.rows.append(
            LedgerRow(
                name=step.name,
                operation=step.operation,
                function=step.module is None,
                settings=self._settings(step, slide),
                window=slide.window if slide else None,
                inputs=step.fed_by,
                input_shape=tuple(step.fed[0].shape[1:]),
                output_shape=tuple(output.shape[1:]),
                formulas=slide.formulas if slide else (),
                params=self._params(step),
                macs=self._macs,
                activation_bytes=self._new_bytes(step),
                kept_bytes=None,
                receptive_field=sight.receptive_field,
                least_field=sight.least_field,
                start=sight.start,
                jump=sight.jump_along,
                unfollowed=sight.unfollowed,
            )
        )
        self.sights.append(sight)
        self.row_keys.append(self.keys.of(step))
        self._macs, self._slides = 0, []

    def _settings(self, step: Step, slide: Slide | None) -> str:
        if step.module is not None:
            return settings(step.module)
        if slide is not None:
            own = call_settings([each for each in step.arguments if isinstance(each, Tensor)], {}, self._names)
            return f"{window_settings(slide.window)} {own}".strip()
        return call_settings(step.arguments, step.options, self._names)

    def _params(self, step: Step) -> int:
        """The parameters that a step uses and none before it has."""
        fresh = {id(each): each.numel() for each in self.passage.parameters_of(step) if id(each) not in self._paid}
        self._paid |= set(fresh)
        return sum(fresh.values())

    def _new_bytes(self, step: Step) -> int:
        total = 0
        for output in step.outputs:
            if memory_of(output) not in self._stored:
                self._stored.add(memory_of(output))
                total += output.untyped_storage().nbytes()
        return total

    def _lose(self) -> None:
        """Maps have gone through NumPy, where nobody follows."""
        self.follower.lose_unknown("maps go through NumPy", but=(*self._copy.parameters(), *self._copy.buffers()))
        self.notes.append(
            "what NumPy computes is no row, its MACs are not counted, receptive fields are unknown after it, and a decision made "
            "in it would not be noticed"
        )


def _for_real(module: nn.Module, shape: tuple[int, int, int], dtype: torch.dtype) -> Books:
    """The books of a copy of the network on its own device, passed by an image of random numbers."""
    copy = deepcopy(module).eval()
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(device=device, dtype=dtype)
    books = Books(copy, image)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            books.run(None)
    except UserError:
        raise
    except Exception as error:
        raise explained(error, books.passage.stuck) from error
    return books


def _keeping(copy: nn.Module, shape: tuple[int, int, int], dtype: torch.dtype, notes: list[str]) -> Kept | None:
    """What training keeps; None, with a note, where that cannot be told."""
    if notes:
        notes.append("what training keeps is not known, since that is told on the meta device")
        return None
    try:
        return kept(copy, shape, dtype)
    except Exception as error:  # a network may do in training what it does not in evaluation
        notes.append(f"what training keeps is not known: in training the network fails on the meta device ({first_line(error)})")
        return None


def _closed(
    books: Books, module: nn.Module, shape: tuple[int, int, int], *, keeping: Kept | None, notes: list[str], name: str
) -> Ledger:
    rows = books.rows if keeping is None else _with_kept(books, keeping)
    auxiliary = _auxiliary(module)
    params = sum(each.numel() for each in module.parameters()) - auxiliary
    outside = params - sum(row.params for row in rows)
    if outside or books.aside:
        notes.append(
            f"{outside:,} parameters and {books.aside:,} MACs are in no row: they are not used, or what they make does not "
            "depend on the image"
        )
    return Ledger(
        model=name,
        input_shape=shape,
        rows=tuple(rows),
        parts=tuple(Part(path, kind) for path, kind in books.passage.parts.items()),
        params=params,
        auxiliary_params=auxiliary,
        macs=sum(row.macs for row in rows) + books.aside,
        memory=Memory(
            weights=sum(each.numel() * each.element_size() for each in chain(module.parameters(), module.buffers())),
            gradients=sum(each.numel() * each.element_size() for each in module.parameters() if each.requires_grad),
            activations=sum(row.activation_bytes for row in rows),
            kept=None if keeping is None else keeping.total,
            kept_once=None if keeping is None else keeping.once,
            peak=None if keeping is None else _peak(rows, books.element_size),
        ),
        sees_all=_sees_all(books),
        hints=hints_of(books.passage.steps, rows, shape),
        notes=tuple(notes + books.notes),
    )


def _with_kept(books: Books, keeping: Kept) -> list[LedgerRow]:
    """The rows with what training keeps because of each; what steps keep that only training has goes to the row before."""
    places = {key: i for i, key in enumerate(books.row_keys)}
    each, last = [0] * len(books.rows), 0
    for key, size in keeping.by_step.items():
        last = places.get(key, last)
        each[last] += size
    return [replace(row, kept_bytes=size) for row, size in zip(books.rows, each, strict=True)]


def _peak(rows: Sequence[LedgerRow], element_size: int) -> int:
    """The most bytes of one image at a time while gradients go back: what rows up to one keep, and two gradients there."""
    found = still = 0
    for row in rows:
        still += row.kept_bytes or 0
        found = max(found, still + element_size * (prod(row.output_shape) + prod(row.input_shape)))
    return found


def _sees_all(books: Books) -> int | None:
    """The first row from which on all that leads to the answer sees the whole image."""
    found, waiting = None, {len(books.rows) - 1}
    for i in range(len(books.rows) - 1, -1, -1):
        if i not in waiting:
            continue
        if not books.sights[i].all_whole:
            return found
        found = i
        waiting |= set(books.rows[i].inputs)
    return found


def _auxiliary(module: nn.Module) -> int:
    """Parameters of what only training uses, which networks of the atlas call `auxiliary`."""
    part = dict(module.named_children()).get("auxiliary", nn.Identity())
    return sum(each.numel() for each in part.parameters())
