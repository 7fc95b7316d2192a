"""Ledgers of every variant beside torchinfo, fvcore and ptflops: how long each takes, and whether its MACs are right.

Right is half of what torch's FlopCounterMode counts. With torchinfo, fvcore and ptflops installed, from the repository's root:
`PYTHONPATH=. python benchmarks/ledgers.py [NAME ...]`. Each tool is given the network as it wants it: ours one on the meta
device, the others one with values, since they run it; building it is not in the times. All in turns, after a warm-up that is not
counted; medians of N rounds.
"""

import contextlib
import io
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convatlas.inspection.ledger import ledger
from convatlas.models.registry import MODELS, create_model

LANDMARKS = ("lenet5", "alexnet", "vgg16", "googlenet", "resnet50", "densenet121", "efficientnet_b0", "convnext_tiny")
ROUNDS = 3
Counter = Callable[[nn.Module, tuple[int, int, int]], float]


def ours(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """Our MACs."""
    return ledger(model, shape).macs


def torchinfo(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """torchinfo's multiply-adds."""
    from torchinfo import summary

    return float(summary(model, input_size=(1, *shape), verbose=0).total_mult_adds)


def fvcore(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """fvcore's "flops", which are multiply-adds; those of operations that we count (convolutions and matrix products)."""
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.CRITICAL)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.CRITICAL)
    by_operator = FlopCountAnalysis(model, torch.zeros(1, *shape)).by_operator()
    return float(sum(by_operator[name] for name in ("conv", "linear", "matmul", "addmm", "bmm", "einsum")))


def ptflops(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """ptflops' MACs, which count norms, activations and poolings too."""
    import tests.parity.reference_libraries  # noqa: F401  without it torchvision, which ptflops imports, fails beside a CPU build
    from ptflops import get_model_complexity_info

    with contextlib.redirect_stdout(io.StringIO()):
        macs, _ = get_model_complexity_info(model, shape, as_strings=False, print_per_layer_stat=False, verbose=False)
    return float(macs)


TOOLS: dict[str, Counter] = {"ours": ours, "torchinfo": torchinfo, "fvcore": fvcore, "ptflops": ptflops}


def truth(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Half of what torch counts, on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    return int(counter.get_total_flops()) // 2


def measured(name: str) -> None:
    """One variant: each tool's median seconds and its MACs over the truth."""
    variant = MODELS[name]
    shape = (variant.in_chans, variant.image_size, variant.image_size)
    with torch.device("meta"):
        on_meta = create_model(name, in_chans=variant.in_chans).eval()
    real = create_model(name, in_chans=variant.in_chans).eval()
    right = truth(on_meta, shape)
    seconds: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    said: dict[str, float | None] = {}
    for round_ in range(ROUNDS + 1):
        for tool, count in TOOLS.items():
            began = time.perf_counter()
            try:
                said[tool] = count(on_meta if tool == "ours" else real, shape)
            except Exception as error:
                said[tool] = None
                print(f"  {tool} fails on {name}: {type(error).__name__}: {str(error).splitlines()[0][:80]}")
            if round_:
                seconds[tool].append(time.perf_counter() - began)
    cells = []
    for tool in TOOLS:
        share = "fails" if said[tool] is None else f"{said[tool] / right:.3f}"  # type: ignore[operator]
        cells.append(f"{statistics.median(seconds[tool]):.2f} s, MACs x {share}")
    print(f"| {name} | {right / 1e9:.3f} G | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """A row for each variant named, or for the landmarks; `all` for all."""
    warnings.simplefilter("ignore")
    names = sys.argv[1:] or list(LANDMARKS)
    names = list(MODELS) if names == ["all"] else names
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {ROUNDS} rounds in turns")
    print("| variant | MACs | " + " | ".join(TOOLS) + " |")
    print("|---|---|" + "---|" * len(TOOLS))
    for name in names:
        measured(name)


if __name__ == "__main__":
    main()
