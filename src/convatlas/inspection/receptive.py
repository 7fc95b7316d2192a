"""Following what each unit depends on through a real forward pass, whatever the module does with its tensors.

The pass runs on the meta device, so that nothing is computed. Every operation that torch carries out is seen, with the tensors
that go in and come out; `operations` says what it makes of them. What no rule covers is marked as lost, with the reason, and so
is everything that is computed from it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from convatlas.errors import UserError
from convatlas.inspection.axes import NotFollowedError
from convatlas.inspection.operations import RULES, Call, pointwise
from convatlas.inspection.shapes_only import carried_out
from convatlas.inspection.units import EVERYWHERE, Units, alike, image_units


@dataclass(frozen=True)
class Sight:
    """How much of the image the units of a tensor see; the fields are those of `LayerRecord` and `LedgerRow`.

    `jump_along` is the jump along the side of the receptive field. `all_whole` says whether each unit of every channel sees the
    whole image.
    """

    receptive_field: int | None
    jump: int | None
    unfollowed: str | None = None
    least_field: int | None = None
    start: int | None = None
    jump_along: int | None = None
    all_whole: bool = False


Observer = Callable[[OpOverload[Any, Any], Mapping[str, Any], list[Tensor], bool], None]
"""Is told of each operation: which, its arguments by name, the tensors that came out, and whether they depend on the image."""
Guard = Callable[[str], None]
"""Is asked before an operation on what depends on the image is carried out, by its name; may raise."""


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, follows everything that is computed from `image`, a tensor (1, C, H, W), best on the meta device."""

    def __init__(self, image: Tensor, *, observer: Observer | None = None, guard: Guard | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer, self._guard = observer, guard
        self._size = (image.shape[-2], image.shape[-1])
        # Tensors are kept until the follower goes: an id means nothing once its tensor is gone. On meta they hold no values.
        self._known: dict[int, tuple[Tensor, Units | UserError]] = {}
        self._written: set[int] = set()
        self._leak: UserError | None = None
        self._constant: dict[int, Tensor] = {}
        self._last_map = image
        self._learn(image, image_units(image.shape))

    def sight(self, tensor: Tensor) -> Sight:
        """How much of the image the units of a tensor see, those of the channel that sees most."""
        return sight_of(self.find(tensor))

    def last_map(self) -> Sight:
        """That of the last tensor (N, C, H, W) that was computed from the image and has rows and columns of units."""
        return self.sight(self._last_map)

    def units(self, tensor: Tensor) -> Units | None:
        """What is known of a tensor; None for one that depends on no pixel. Raises UserError, with the reason, where lost."""
        found = self.find(tensor)
        if isinstance(found, UserError):
            raise found
        return found

    def lose_unknown(self, reason: str, *, but: Iterable[Tensor]) -> None:
        """From now on take a tensor that nothing is known of for lost, and not for one that depends on no pixel, `but` these."""
        self._leak = NotFollowedError(reason)
        self._constant = {id(tensor): tensor for tensor in but}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks whether to keep its compiler out of this class. That would import the compiler: more than a second."""
        return False

    def __torch_dispatch__(self, func: OpOverload[Any, Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry an operation out, and learn what its results depend on."""
        arguments = _bound(func, args, kwargs or {})
        found = [self.find(tensor) for tensor in tensors_in(arguments.values())]
        depends = any(each is not None for each in found)
        if depends and self._guard is not None:
            self._guard(operation_name(func))
        result = carried_out(func, args, kwargs or {})
        outputs = list(tensors_in([result]))
        if depends:
            written = list(tensors_in(arguments[name] for name, _, writes in _signature(func) if writes))
            learnt = zip(outputs, self._units_of(func, arguments, found, outputs), strict=True)
            self._learn_all({id(output): (output, units) for output, units in learnt}, written)
        if self._observer is not None:
            self._observer(func, arguments, outputs, depends)
        return result

    def _learn_all(self, learnt: dict[int, tuple[Tensor, Units | UserError]], written: list[Tensor]) -> None:
        """Note what an operation's results depend on, and what it has written into."""
        for tensor in written:
            untold = NotFollowedError("an operation writes into a tensor that it does not return")
            self._overwrite(*learnt.pop(id(tensor), (tensor, untold)))
        for tensor, units in learnt.values():
            self._learn(tensor, units)

    def _units_of(
        self, func: OpOverload[Any, Any], arguments: dict[str, Any], found: list[Units | UserError | None], outputs: list[Tensor]
    ) -> list[Units | UserError]:
        """What each of an operation's results depends on, or why that is not known."""
        lost = next((each for each in found if isinstance(each, UserError)), None)
        if lost is not None:
            return [lost] * len(outputs)
        call = Call(arguments, tuple(tuple(output.shape) for output in outputs), self.units, self._size)
        try:
            units = _rule(func)(call)
        except (UserError, LookupError, TypeError, ValueError, RuntimeError) as error:
            # The rules are for the usual forms of an operation. Any other, too, leaves its results unknown, never wrong.
            if all(each is None or (isinstance(each, Units) and each.sees_all) for each in found):
                return [alike(output.shape, EVERYWHERE, self._size) for output in outputs]
            lost = error if isinstance(error, UserError) else _unusual(func)
            return [lost] * len(outputs)
        each_units = units if isinstance(units, list) else [units] * len(outputs)
        return [each if each.shape == call.shapes[i] else _beside(func) for i, each in enumerate(each_units)]

    def find(self, tensor: Tensor) -> Units | UserError | None:
        """What is known of a tensor, or why it is lost; None for one that depends on no pixel."""
        entry = self._known.get(id(tensor))
        if entry is not None:
            return entry[1]
        if self._written and memory_of(tensor) in self._written:
            return NotFollowedError("a tensor is used of which another one has changed a part")
        return None if id(tensor) in self._constant else self._leak

    def _learn(self, tensor: Tensor, units: Units | UserError) -> None:
        if tensor.dim() == 4 and (units.has_positions if isinstance(units, Units) else max(tensor.shape[-2:]) > 1):
            self._last_map = tensor
        self._known[id(tensor)] = (tensor, units)

    def _overwrite(self, tensor: Tensor, units: Units | UserError) -> None:
        """A tensor was changed in place. Others that share its memory are lost, unless what they depend on is still the same."""
        before = self.find(tensor)
        if isinstance(before, Units) and isinstance(units, Units) and before.same(units):
            return
        storage = memory_of(tensor)
        for key, (other, _) in list(self._known.items()):
            if memory_of(other) == storage:
                del self._known[key]
        self._written.add(storage)
        self._learn(tensor, units)


def sight_of(found: Units | UserError | None) -> Sight:
    """How much of the image these units see, those of the channel that sees most."""
    if isinstance(found, UserError):
        return Sight(None, None, found.what)
    if found is None:
        return Sight(0, None, least_field=0)
    fields = [region.receptive_field for region in found.regions]
    largest = None if None in fields else max(field for field in fields if field is not None)
    paths = [path for region in found.regions if (path := region.through_least).size[0] > 0]
    least = min(paths, key=lambda path: path.size, default=None)
    widest = max(found.regions, key=lambda region: region.size)
    jump = max(region.jump for region in found.regions) or None if found.has_positions else None
    return Sight(
        largest,
        jump,
        least_field=0 if least is None else least.receptive_field,
        start=None if largest is None else widest.start,
        jump_along=jump if largest is None or jump is None else widest.larger.jump,
        all_whole=found.all_whole,
    )


def _unusual(func: OpOverload[Any, Any]) -> NotFollowedError:
    return NotFollowedError(f"{operation_name(func)} is used in an unusual form")


def _beside(func: OpOverload[Any, Any]) -> NotFollowedError:
    return NotFollowedError(f"a result of {operation_name(func)} is used that is not its main one")


def _rule(func: OpOverload[Any, Any]) -> Any:
    name = operation_name(func)
    if func.namespace == "aten" and name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in func.tags:
        return pointwise
    raise NotFollowedError(f"the operation {name} has no rule")


def operation_name(func: OpOverload[Any, Any]) -> str:
    """An operation's name, the same for its form that works in place."""
    name: str = func.overloadpacket.__name__
    return name.removesuffix("_")


@cache
def _signature(func: OpOverload[Any, Any]) -> tuple[tuple[str, Any, bool], ...]:
    """Name, default and whether it is written to, of each argument of an operation."""
    return tuple(
        (each.name, each.default_value, each.alias_info is not None and each.alias_info.is_write)
        for each in func._schema.arguments
    )


def _bound(func: OpOverload[Any, Any], args: Iterable[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name."""
    signature = _signature(func)
    given = dict(zip((name for name, _, _ in signature), args, strict=False)) | kwargs
    return {name: given.get(name, default) for name, default, _ in signature}


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among values, and in lists and dicts of values."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def memory_of(tensor: Tensor) -> int:
    """Which memory a tensor lies in; the same number for its views."""
    return int(tensor.untyped_storage()._cdata)
