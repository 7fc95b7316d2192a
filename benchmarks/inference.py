"""How fast networks answer: every way of `convatlas.training.inference_ways` against eager fp32, in turns, and beside OpenVINO.

From the repository's root, with the extra `openvino`: `PYTHONPATH=. python benchmarks/inference.py [NAME ...] [--quick]`.
Eager fp32 is what people run: NCHW, nothing folded. Weights are random, with BatchNorm statistics that are not trivial; images
are noise. A speed-up is the median of the ratios within rounds, with its 95 % interval; all ways alternate in one run. `--quick`
has ResNet-50 at batch 16 only, few rounds, and in bf16 only where there are two formats.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas.models.registry import create_model
from convatlas.records.inference import WayTrial
from convatlas.training.inference import Prepared, prepare
from convatlas.training.inference_ways import WAYS

NETWORKS = ("resnet50", "efficientnet_b0", "convnext_tiny")
BATCHES = (1, 16)
SIZE = 224
SECONDS, QUICK_SECONDS = 30.0, 1.0
EVERYTHING = 1e9
"""No way is rejected for its error here: it is stated."""
QUICK_WAYS = ("eager fp32", "folded bf16", "compiled bf16", "openvino bf16")


@dataclass(frozen=True)
class Row:
    """One network at one batch size: what was found of each way, how the best without OpenVINO compares, and seconds in all."""

    network: str
    batch: int
    trials: tuple[WayTrial, ...]
    best: str
    best_speed_up: float
    against_openvino: float | None
    seconds: float


def network(name: str) -> nn.Module:
    """A network in evaluation mode, its norms as after a training."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def measured(name: str, batch: int, *, ways: Sequence[str], seconds: float) -> Row:
    """One row."""
    began = time.perf_counter()
    images: Tensor = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    prepared: Prepared = prepare(network(name), images, ways=ways, seconds=seconds, tolerance=EVERYTHING, progress=_say)
    trials = prepared.record.trials
    ours = [t for t in trials if t.speed_up is not None and WAYS[t.name].engine != "openvino"]
    theirs = [t.speed_up for t in trials if t.speed_up is not None and WAYS[t.name].engine == "openvino"]
    best = max(ours, key=lambda t: t.speed_up or 0.0)
    best_speed_up = best.speed_up or 0.0
    ratio = max(theirs) / best_speed_up if theirs else None
    return Row(name, batch, trials, best.name, best_speed_up, ratio, time.perf_counter() - began)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def rows(names: Sequence[str] = NETWORKS, batches: Sequence[int] = BATCHES, *, quick: bool = False) -> Iterator[Row]:
    """A row for each network and batch size, as it is finished."""
    if quick:
        yield measured("resnet50", 16, ways=QUICK_WAYS, seconds=QUICK_SECONDS)
        return
    for name in names:
        for batch in batches:
            yield measured(name, batch, ways=tuple(WAYS), seconds=SECONDS)


def where() -> str:
    """The machine and the versions, in a line."""
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    able = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {able}, load before {load}, {SIZE} pixels"


def lines(row: Row) -> list[str]:
    """The lines of the table for one row."""
    table = []
    for t in row.trials:
        if t.seconds is None:
            table.append(f"| {row.network} | {row.batch} | {t.name} | - | {t.note} | - | - |")
            continue
        gain = "1" if t.speed_up is None else f"{t.speed_up:.2f} ({t.low:.2f} to {t.high:.2f})"
        taken = f"{t.seconds * 1e3:,.1f} ms | {gain} | {t.error:.1e} | {t.setup_seconds:.1f} s"
        table.append(f"| {row.network} | {row.batch} | {t.name} | {taken} |")
    return table


def verdict(row: Row) -> str:
    """How the best way without OpenVINO compares."""
    beside = (
        "OpenVINO is not installed" if row.against_openvino is None else f"OpenVINO is {row.against_openvino:.2f} times as fast"
    )
    return f"{row.network}, batch {row.batch}: {row.best} is {row.best_speed_up:.2f} times as fast as eager fp32; {beside}."


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, and a line for each network and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--quick", action="store_true", help="resnet50 at batch 16, the best ways only")
    options = parser.parse_args(words)
    print(where())
    print("| network | batch | way | time | speed-up (95 %) | error | set-up |\n|---|---|---|---|---|---|---|")
    done = []
    for row in rows(options.networks, quick=options.quick):
        done.append(row)
        print("\n".join(lines(row)), flush=True)
    print("\n" + "\n".join(verdict(row) for row in done))


if __name__ == "__main__":
    main()
