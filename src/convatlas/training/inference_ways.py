"""Ways to run a network that only has to answer: what each needs, how it is set up, and how it is called.

Measured on networks of the atlas, and kept, is what ever was fastest: folding BatchNorm costs nothing; bf16 halves what moves and
doubles what is multiplied; compiling joins convolutions with what follows and lays their filters out once; OpenVINO does the same
by kernels of its own, without a compiler.
"""

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.errors import UserError
from convatlas.training.folding import folded
from convatlas.training.precision import cpu_computes_bf16

Ask = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits (N, num_classes) in the network's own dtype."""


@dataclass(frozen=True)
class Way:
    """One way to run a network. `setup_seconds` is what setting up is expected to take (0: less than a batch's worth).

    `build(network, example)` gives the call, and `lacking()` says, as (what, remedy), what keeps it from being built here. A
    `static` way takes batches of the example's size only.
    """

    engine: str
    precision: str
    build: Callable[[nn.Module, Tensor], Ask]
    lacking: Callable[[], tuple[str, str] | None]
    setup_seconds: float = 0.0
    static: bool = False


def _nothing() -> None:
    return None


def _bf16() -> tuple[str, str] | None:
    return None if cpu_computes_bf16() else ("this processor has no bf16 instructions", "Choose --engine auto.")


def _compiler() -> tuple[str, str] | None:
    named = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([named] if named else ["g++", "clang++"])):
        return None
    return "there is no C++ compiler here", "Install g++ or clang++, or choose --engine auto."


def _openvino() -> tuple[str, str] | None:
    if importlib.util.find_spec("openvino") is not None:
        return None
    return "OpenVINO is not installed", "Install it with `pip install 'convatlas[openvino]'`, or choose --engine auto."


def _both(*needs: Callable[[], tuple[str, str] | None]) -> Callable[[], tuple[str, str] | None]:
    return lambda: next((lack for need in needs if (lack := need()) is not None), None)


def as_it_is(network: nn.Module, example: Tensor) -> Ask:
    """The network itself, called without gradients."""

    @torch.inference_mode()
    def ask(x: Tensor) -> Tensor:
        out: Tensor = network(x)
        return out

    return ask


def _laid_out(network: nn.Module, example: Tensor, dtype: torch.dtype) -> nn.Module:
    """A folded copy in `dtype`, whose filters have their channels last in memory."""
    copy = folded(network, example)
    with torch.inference_mode(False):  # tensors made within it could not be compiled
        laid: nn.Module = copy.to(dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return laid


def _taking(run: Ask, dtype: torch.dtype) -> Ask:
    """`run` on images in `dtype`, channels last; the answers in the dtype of the images."""

    @torch.inference_mode()
    def ask(x: Tensor) -> Tensor:
        # A copy always: a compiled network would be compiled anew for tensors made outside of inference mode.
        laid = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last).copy_(x)
        return run(laid).to(x.dtype)

    return ask


def _folded(dtype: torch.dtype | None) -> Callable[[nn.Module, Tensor], Ask]:
    def build(network: nn.Module, example: Tensor) -> Ask:
        kind = dtype or example.dtype
        return _taking(_laid_out(network, example, kind), kind)

    return build


def _compiled(dtype: torch.dtype | None) -> Callable[[nn.Module, Tensor], Ask]:
    """By torch's inductor, with filters laid out once ("freezing")."""

    def build(network: nn.Module, example: Tensor) -> Ask:
        kind = dtype or example.dtype
        laid = _laid_out(network, example, kind)

        def call(x: Tensor) -> Tensor:
            out: Tensor = laid(x)
            return out

        # torch keeps what it compiled by code object, and gives up after a few networks of the same one.
        call.__code__ = call.__code__.replace(co_name="call")
        ask = _taking(torch.compile(call, dynamic=False, fullgraph=True, options={"freezing": True}), kind)
        with _quiet():
            ask(example)
        return ask

    return build


def _by_openvino(precision: str) -> Callable[[nn.Module, Tensor], Ask]:
    def build(network: nn.Module, example: Tensor) -> Ask:
        import openvino
        import openvino.properties as properties
        import openvino.properties.hint as hint

        copy = deepcopy(network).eval()
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            graph = openvino.convert_model(copy, example_input=example.clone(), input=[list(example.shape)])
        settings = {
            hint.inference_precision(): getattr(openvino.Type, precision),
            hint.performance_mode(): hint.PerformanceMode.LATENCY,
            properties.inference_num_threads(): torch.get_num_threads(),
        }
        return _asking(openvino.Core().compile_model(graph, "CPU", settings).create_infer_request(), openvino.Tensor)

    return build


def _asking(request: Any, tensor: Any) -> Ask:
    """An OpenVINO request as a function of torch tensors; no memory is copied on the way in."""

    @torch.inference_mode()
    def ask(x: Tensor) -> Tensor:
        given = x.detach().contiguous().numpy()
        answers = request.infer([tensor(given, shared_memory=True)], share_inputs=True)
        return torch.from_numpy(next(iter(answers.values())))

    return ask


@contextmanager
def _quiet() -> Iterator[None]:
    """While a compiler or a converter works: it warns of its own insides, which are not the caller's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


COMPILING, CONVERTING = 40.0, 20.0
"""Seconds that setting up ResNet-50 took at most on two busy cores, rounded (docs/LOG.md)."""
YARDSTICK = "eager fp32"
WAYS: dict[str, Way] = {
    YARDSTICK: Way("eager", "fp32", as_it_is, _nothing),
    "folded fp32": Way("folded", "fp32", _folded(None), _nothing),
    "folded bf16": Way("bf16", "bf16", _folded(torch.bfloat16), _bf16),
    "compiled fp32": Way("compile", "fp32", _compiled(None), _compiler, COMPILING, static=True),
    "compiled bf16": Way("compile", "bf16", _compiled(torch.bfloat16), _both(_bf16, _compiler), COMPILING, static=True),
    "openvino fp32": Way("openvino", "fp32", _by_openvino("f32"), _openvino, CONVERTING, static=True),
    "openvino bf16": Way("openvino", "bf16", _by_openvino("bf16"), _both(_bf16, _openvino), CONVERTING, static=True),
}
"""Slow to set up last."""
AUTO = "auto"
ENGINES = (AUTO, "eager", "folded", "bf16", "compile", "openvino")
"""What a person may ask for."""


def ways_of(engine: str, *, exact: bool) -> tuple[str, ...]:
    """The ways that an engine of `ENGINES` allows, of which the best is to be taken; a single one is what was asked for.

    `exact` allows fp32 only. An engine that has both takes bf16 where the processor computes it. Raises UserError.
    """
    if engine not in ENGINES:
        raise UserError(f"there is no engine called {engine!r}", fix=f"Choose {', '.join(ENGINES[:-1])} or {ENGINES[-1]}.")
    allowed = [name for name, way in WAYS.items() if not exact or way.precision == "fp32"]
    if engine == AUTO:
        return tuple(allowed)
    of_it = [name for name in allowed if WAYS[name].engine == engine]
    if not of_it:
        raise UserError(
            "figures that are kept are computed in fp32, and --engine bf16 is not",
            fix="Choose auto, folded, compile or openvino.",
        )
    able = [name for name in of_it if WAYS[name].precision == "fp32" or cpu_computes_bf16()]
    return ((able or of_it)[-1],)
