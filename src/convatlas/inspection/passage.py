"""One image's way through a network, step by step: the modules of torch that it passes, and the functions called in between.

A step is a module of torch without children, or a function (`torch.cat`, `x + y`, `F.conv2d`) that some other module calls in
its `forward`. What happens inside a step belongs to it. Which step feeds which is told from the tensors themselves, so that
it holds for any Python in between.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from convatlas.errors import UserError
from convatlas.inspection.receptive import tensors_in
from convatlas.records.ledger import IMAGE

READS_VALUES = frozenset({"item", "__bool__", "__int__", "__float__", "__index__", "tolist", "is_nonzero", "equal", "allclose"})
"""Functions that make Python numbers of a tensor's values, upon which a `forward` can then decide."""
SHAPED_BY_VALUES = frozenset({"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"})
"""Functions whose result has a shape that depends on values."""
VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
"""Attributes of a tensor that are tensors."""
SIZED_BY = frozenset({"tensor_split", "repeat_interleave", "narrow"})
"""Functions whose result has a shape that depends on the values of their further arguments."""
TO_NUMPY = frozenset({"numpy", "__array__"})
DECIDING = READS_VALUES | SHAPED_BY_VALUES | SIZED_BY | TO_NUMPY | {"__getitem__"}
"""All functions that may make what is computed depend on values."""
BACKWARDS = frozenset({"radd", "rmul", "rsub", "rtruediv", "rmatmul", "rpow", "iadd", "imul", "isub", "itruediv", "ipow"})
IN_WORDS = {"truediv": "div", "getitem": "slice", "setitem": "write"}


class ValuesNeededError(Exception):
    """The network computes with values that it has on its own device, and the meta device has none."""


@dataclass(eq=False)
class Step:
    """A module of torch, or a function called in the `forward` of the module `name`, as the image passed it.

    `fed_by` are the steps whose outputs it takes, `IMAGE` for the image. `fed` and `outputs` are the tensors themselves.
    """

    name: str
    operation: str
    module: nn.Module | None
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    fed: list[Tensor] = field(default_factory=list)
    fed_by: tuple[int, ...] = ()
    outputs: list[Tensor] = field(default_factory=list)


class Passage(TorchFunctionMode):
    """While it is entered (see `passing`), notes the steps of everything that is computed from `image`.

    `steps` is in the order of the data. `parts` are the modules around steps that the image went through: path and class.
    `ended` is called when a step has ended and counts. `numpy` is called when maps leave torch for NumPy, after which steps are
    taken to follow each other; without it that is refused. `failed` is the step in which something was raised.
    """

    def __init__(
        self, model: nn.Module, image: Tensor, *, ended: Callable[[Step], None], numpy: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.parts: dict[str, str] = {}
        self.open: Step | None = None
        self.failed: Step | None = None
        self.refusal: UserError | None = None
        self._ended = ended
        self._numpy = numpy
        self._left_torch = False
        self._own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._inside: list[str] = []
        self._names = {module: name for name, module in model.named_modules()}
        # Tensors are kept: an id means nothing once its tensor is gone.
        self._producers: dict[int, tuple[Tensor, int]] = {id(image): (image, IMAGE)}
        # What was computed from parameters alone, such as a view of one or a product with a mask.
        self._made_of: dict[int, tuple[Tensor, tuple[nn.Parameter, ...]]] = {}

    @property
    def place(self) -> str:
        """The path of the module whose `forward` is running."""
        return self._inside[-1] if self._inside else ""

    @property
    def stuck(self) -> Step | None:
        """The step in which something was raised."""
        return self.failed or self.open

    def depends_on_image(self, tensors: Iterable[Tensor]) -> bool:
        """Whether any of these was made from the image."""
        return any(id(each) in self._producers or (self._left_torch and id(each) not in self._own) for each in tensors)

    def begin(
        self, operation: str, arguments: tuple[Any, ...], options: dict[str, Any], *, module: nn.Module | None = None
    ) -> Step:
        """Open a step. What is computed until it ends belongs to it."""
        name = self.place if module is None else self._names[module]
        step = Step(name, operation, module, arguments, options)
        self._feed(step)
        self.open = step
        return step

    def _feed(self, step: Step) -> None:
        """Find out what a step is given of what came from the image."""
        given = list(tensors_in([step.arguments, step.options]))
        step.fed = [tensor for tensor in given if id(tensor) in self._producers]
        step.fed_by = tuple(dict.fromkeys(self._producers[id(tensor)][1] for tensor in step.fed))
        if self._left_torch and not step.fed:
            step.fed, step.fed_by = given[:1], (len(self.steps) - 1,)

    def end(self, step: Step, result: Any) -> None:
        """Close a step. It counts if it took something from the image and gives tensors."""
        self.open = None
        step.outputs = list(tensors_in([result]))
        if not step.fed or not step.outputs:
            parameters = self.parameters_of(step)
            self._made_of.update({id(output): (output, parameters) for output in step.outputs if parameters})
            return
        self.steps.append(step)
        for output in step.outputs:
            self._producers[id(output)] = (output, len(self.steps) - 1)
        self._ended(step)

    def parameters_of(self, step: Step) -> tuple[nn.Parameter, ...]:
        """The parameters that a step uses: its module's, and those that its arguments are or were computed from."""
        # Straight from the module, which as a step has no children: `parameters()` looks for these at length.
        own = () if step.module is None else (each for each in step.module._parameters.values() if each is not None)
        given = list(tensors_in([step.arguments, step.options]))
        made_of = (parameter for each in given if id(each) in self._made_of for parameter in self._made_of[id(each)][1])
        return (*own, *(each for each in given if isinstance(each, nn.Parameter)), *made_of)

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module begins its `forward`: a step, or a part with steps inside. Others' modules do not count."""
        if self.open is not None or module not in self._names:
            return
        if is_step(module):
            self.begin(type(module).__name__, args, {}, module=module)
            return
        self._inside.append(self._names[module])
        self.parts.setdefault(self._names[module], type(module).__name__)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """It has ended it."""
        step = self.open
        if step is None and module in self._names:
            self._inside.pop()
        elif step is not None and step.module is module:
            if not step.fed:  # given by keyword, which is not told before
                step.options = kwargs
                self._feed(step)
            self.end(step, output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry a function out; outside of other steps it is a step."""
        options = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name not in VIEWS:
                return func(*args, **options)
        self._refuse_values(name, args, options)
        if self.open is not None:
            return func(*args, **options)
        step = self.begin(_in_words(name), args, options)
        try:
            result = func(*args, **options)
        except BaseException:
            self.failed = self.failed or step
            raise
        self.end(step, args[0] if name == "__setitem__" else result)
        return result

    def _refuse_values(self, name: str, args: Any, options: dict[str, Any]) -> None:
        """A `forward` that decides by the values of its maps computes something else for another image."""
        if name not in DECIDING:
            return
        given = list(tensors_in([args, options]))
        by_mask = name == "__getitem__" and any(each.dtype == torch.bool for each in given[1:])
        by_mask = by_mask or (name in SIZED_BY and self.depends_on_image(given[1:]))
        if not given or not (by_mask or name in READS_VALUES or name in SHAPED_BY_VALUES or name in TO_NUMPY):
            return
        if not self.depends_on_image(given):
            if given[0].is_meta:
                raise ValuesNeededError(f"{name} of a tensor of its own")
            return
        if name not in TO_NUMPY:
            self.refuse(name)
        if self._numpy is None:
            raise ValuesNeededError("its maps go through NumPy")
        self._left_torch = True
        self._numpy()

    def refuse(self, name: str) -> None:
        """Raise the error for a `forward` that decides by its maps; `refusal` keeps it, should somebody's code swallow it."""
        self.refusal = self.refusal or self._decided(name)
        raise self.refusal

    def _decided(self, name: str) -> UserError:
        where = f"the forward of {self.place or 'the network'}"
        if name in SHAPED_BY_VALUES or name in SIZED_BY or name == "__getitem__":
            what = f"{where} picks units by the values of its maps ({_in_words(name)})"
        else:
            what = f"{where} makes Python numbers of the values of its maps ({name.strip('_')}) and may decide upon them"
        return UserError(
            f"{what}, so that its layers depend on the image",
            fix="A ledger holds for all images: compute that with tensors of fixed shape, or look at the parts around it.",
        )


@contextmanager
def passing(passage: Passage) -> Iterator[None]:
    """While it lasts, `passage` learns in which module of its model the image is."""
    # Hooks of all modules at once: those of each one take longer to set than the image takes to pass.
    handles = [register_module_forward_pre_hook(passage.before), register_module_forward_hook(passage.after, with_kwargs=True)]
    try:
        with passage:
            yield
    finally:
        for handle in handles:
            handle.remove()


def is_step(module: nn.Module) -> bool:
    """Whether a module is one step: it has no children, and does what a module of torch does."""
    if next(module.children(), None) is not None:
        return False
    return any(each.__module__.startswith("torch.nn.") and each is not nn.Module for each in type(module).__mro__)


def _in_words(name: str) -> str:
    """`x + y`, `y += x` and `torch.add(x, y)` are all called add."""
    plain = name.strip("_")
    plain = plain[1:] if plain in BACKWARDS else plain
    return IN_WORDS.get(plain, plain)
