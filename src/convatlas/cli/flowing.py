"""`convatlas gradients`: what comes back to each layer, at initialisation and along runs."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from convatlas.cli import options as o
from convatlas.cli.console import tell, tell_json, tell_table
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.gradients import GradientComparison, GradientFlow, read_flows

if TYPE_CHECKING:
    from torch import Tensor

    from convatlas.data.dataset import DataSet
    from convatlas.report.gradients import NetworkRow

PAIRS = 4
"""Ways between two images along which gradients are compared."""

Norm = Annotated[str, typer.Option("--norm", help="own: as the networks have it; none: without normalisation layers.")]
Start = Annotated[str, typer.Option("--start", help="Initial weights: own, fan-in (variance 1 / fan-in), or torch.")]


def gradients(
    names: Annotated[list[str], typer.Argument(help="Models, such as resnet56.plain resnet56; or run folders.")],
    data: o.Data = "shapes",
    data_root: o.DataRoot = None,
    seeds: Annotated[str, typer.Option("--seeds", help="How many (3), or which (4,7).")] = "3",
    batch_size: o.BatchSize = 128,
    norm: Norm = "own",
    start: Start = "own",
    image_size: o.ImageSize = None,
    no_verify: o.NoVerify = False,
    threads: o.Threads = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder for page, figure and records.")] = None,
    as_json: o.Json = False,
) -> None:
    """Gradients layer by layer: of models before the first step, or along runs that were trained with --gradients."""
    o.check_new(out)
    runs = [Path(name) for name in names if o.is_run(name)]
    if runs and len(runs) < len(names):
        raise UserError("models and runs cannot be mixed", fix="Give models only, or run folders only.")
    if runs:
        if (norm, start, seeds) != ("own", "own", "3"):
            raise UserError("--norm, --start and --seeds are for models", fix="Leave them out: a run has its own.")
        _along_runs(runs, out or o.fresh_folder("gradients"), as_json=as_json)
        return
    chosen = o.DataOptions(data, data_root, image_size, 0.1, not no_verify, False)
    comparison = _measured(names, chosen, o.parse_seeds(seeds), batch_size=batch_size, norm=norm, start=start, threads=threads)
    _write_comparison(comparison, out or o.fresh_folder("gradients"), as_json=as_json)


def _measured(
    names: list[str],
    chosen: o.DataOptions,
    seeds: tuple[int, ...],
    *,
    batch_size: int,
    norm: str,
    start: str,
    threads: int | None,
) -> GradientComparison:
    """Every network with every seed on the same batch. Words and names are refused before any data is read."""
    import torch

    from convatlas.cli.progress import loading_bar
    from convatlas.cli.working import load, use_threads
    from convatlas.inspection.gradients import check_change
    from convatlas.models.registry import find_variant
    from convatlas.models.user_files import is_user_file
    from convatlas.training.gradients import fixed_batch
    from convatlas.training.prepare import check_fits

    names = [o.typed_model(name) for name in names]
    _check(names, seeds, batch_size)
    check_change(norm=norm, start=start)
    variants = [name for name in names if not is_user_file(name)]
    for name in variants:
        find_variant(name)
    use_threads(threads)
    images = load(chosen)
    for name in variants:
        check_fits(name, images)
    batch = fixed_batch(images, size=batch_size, seed=0)
    flows: list[GradientFlow] = []
    with loading_bar() as progress:
        for name in names:
            for seed in seeds:
                progress("networks", len(flows), len(names) * len(seeds))
                flows.append(_flow(name, images, batch, seed=seed, norm=norm, start=start))
    return GradientComparison(
        data=images.description,
        image_size=images.image_size,
        batch_size=len(batch[1]),
        seeds=seeds,
        norm=norm,
        start=start,
        torch=torch.__version__,
        command=shlex.join(["convatlas", *sys.argv[1:]]),
        flows=tuple(flows),
    )


def _check(names: list[str], seeds: tuple[int, ...], batch_size: int) -> None:
    if len(set(names)) < len(names):
        raise UserError("a model stands twice", fix="Name each once.")
    if len(set(seeds)) < len(seeds):
        raise UserError("a seed stands twice", fix="Name each once.")
    if not 2 <= batch_size <= 4096:
        raise UserError(f"--batch-size is {batch_size}", fix="Give a whole number from 2 to 4096.")


def _flow(name: str, images: "DataSet", batch: "tuple[Tensor, Tensor]", *, seed: int, norm: str, start: str) -> GradientFlow:
    from dataclasses import replace

    import torch

    from convatlas.inspection.gradients import changed, gradient_flow, gradient_similarity
    from convatlas.models.user_files import is_user_file, model_from_file
    from convatlas.training.prepare import network_for

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        asked = {"num_classes": images.num_classes, "in_chans": images.in_chans, "image_size": images.image_size}
        own = model_from_file(name, **asked) if is_user_file(name) else network_for(name, images, size=images.image_size)
        model = changed(own, norm=norm, start=start)
    flow = gradient_flow(model, *batch, name=name, seed=seed)
    pairs = [(batch[0][i], batch[0][i + 1]) for i in range(min(PAIRS, len(batch[1]) - 1))]
    similar = [gradient_similarity(model, first, second) for first, second in pairs]
    return replace(flow, similarity=sum(similar) / len(similar))


def _write_comparison(comparison: GradientComparison, out: Path, *, as_json: bool) -> None:
    from convatlas.report.gradients import flow_chart, initial_page, network_rows
    from convatlas.report.html import WIDE
    from convatlas.report.standalone import standalone

    storage.new_folder(out)
    storage.write_text(out / "gradients.json", codec.to_text(comparison))
    storage.write_text(out / "gradients.html", initial_page(comparison))
    storage.write_text(out / "gradients.svg", standalone(flow_chart(comparison, width=WIDE, height=400)))
    if as_json:
        tell_json(comparison)
        return
    tell_table(_table(network_rows(comparison)))
    tell("")
    tell("Gradient of the loss by the first and the last layer's output, root mean square times images, median over seeds.")
    tell("similarity: mean cosine between the gradients by images that hardly differ; near 0 they are like noise.")
    tell(f"written: {out / 'gradients.html'}")


def _table(rows: "list[NetworkRow]") -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("network", no_wrap=True)
    for heading in ("seeds", "first", "last", "first/last", "similarity"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("going back, it", min_width=16)
    for row in rows:
        similar = "-" if row.similarity is None else f"{row.similarity:.2f}"
        sizes = [_scientific(each) for each in (row.first, row.last, row.ratio)]
        table.add_row(row.model, str(row.seeds), *sizes, similar, row.verdict.partition(":")[0])
    return table


def _scientific(value: float | None) -> str:
    from convatlas.report.figures import scientific

    return scientific(value).replace("\u202f", "")


def _along_runs(folders: list[Path], out: Path, *, as_json: bool) -> None:
    from convatlas.report.gradients import run_chart, run_page
    from convatlas.report.html import NARROW
    from convatlas.report.standalone import standalone

    runs = [read_flows(folder) for folder in folders]
    if len({run.name for run in runs}) < len(runs):
        raise UserError(
            "two runs have the same name", fix="Name each once; folders of one name take a `convatlas gradients` each."
        )
    for run, folder in zip(runs, folders, strict=True):
        if not run.flows:
            raise UserError(f"{folder} has no gradients yet", fix="Train it for an epoch.")
    storage.new_folder(out)
    storage.write_text(out / "gradients.html", run_page(runs))
    storage.write_text(out / "gradients.json", codec.to_text(tuple(runs)))
    for run in runs:
        storage.write_text(out / f"{run.name}.svg", standalone(run_chart(run, runs, width=NARROW)))
    if as_json:
        tell_json(runs)
        return
    for run in runs:
        first, last = run.flows[0], run.flows[-1]
        sizes = " to ".join(_scientific(flow.layers[0].weight_gradient) for flow in (first, last))
        tell(f"{run.name}: {len(first.layers)} layers, epochs {first.epoch} to {last.epoch}; the first layer's gradient {sizes}")
    tell(f"written: {out / 'gradients.html'}")
