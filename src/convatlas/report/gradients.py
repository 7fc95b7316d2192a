"""The pages of gradient flow: networks side by side at initialisation, and runs epoch by epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from convatlas.records.gradients import GradientComparison, GradientFlow, LayerGradient, RunFlow
from convatlas.report import figures
from convatlas.report.charts import svg
from convatlas.report.charts.lines import Paper, Points, Series, lines
from convatlas.report.charts.raster import raster
from convatlas.report.html import HALF, NARROW, WIDE, Figure, templates

FAR = 100.0
"""A gradient that many times larger or smaller on one side of a network than on the other is said to explode or to vanish."""
Measure = Callable[[LayerGradient], float]
MEASURES: tuple[tuple[str, str, Measure], ...] = (
    ("Gradient by each layer's output", "gradient, root mean square", lambda layer: layer.activation_gradient),
    ("Gradient by each layer's weights", "norm of the gradient", lambda layer: layer.weight_gradient),
)


@dataclass(frozen=True)
class NetworkRow:
    """One network over its seeds, medians. `ratio` is the first layer's gradient over the last one's."""

    model: str
    seeds: int
    layers: int
    loss: float | None
    first: float
    last: float
    ratio: float | None
    similarity: float | None
    verdict: str


def network_rows(comparison: GradientComparison) -> list[NetworkRow]:
    """One row a network, in the order of the comparison."""
    return [_row(model, flows) for model, flows in _by_model(comparison.flows).items()]


def _by_model(flows: Sequence[GradientFlow]) -> dict[str, list[GradientFlow]]:
    found: dict[str, list[GradientFlow]] = {}
    for flow in flows:
        found.setdefault(flow.model, []).append(flow)
    return found


def _row(model: str, flows: Sequence[GradientFlow]) -> NetworkRow:
    """The last layer is the last but the classifier: that one's gradient does not depend on depth."""
    first = median(flow.layers[0].activation_gradient for flow in flows)
    last = median(flow.layers[-2 if len(flow.layers) > 1 else -1].activation_gradient for flow in flows)
    ratio = first / last if last else None
    similar = [flow.similarity for flow in flows if flow.similarity is not None]
    losses = [flow.loss for flow in flows if flow.loss is not None]
    return NetworkRow(
        model=model,
        seeds=len(flows),
        layers=len(flows[0].layers),
        loss=fmean(losses) if losses else None,
        first=first,
        last=last,
        ratio=ratio,
        similarity=fmean(similar) if similar else None,
        verdict=_verdict(first, ratio),
    )


def _verdict(first: float, ratio: float | None) -> str:
    if first == 0 or ratio is None:
        return "vanishes: nothing at all comes back to the first layer"
    if ratio < 1 / FAR:
        return f"vanishes: {figures.scientific(1 / ratio)} times smaller at the first layer"
    if ratio > FAR:
        return f"explodes: {figures.scientific(ratio)} times larger at the first layer"
    return f"stays within a factor of {FAR:g}"


def initial_page(comparison: GradientComparison) -> str:
    """The page of several networks at initialisation."""
    return templates().get_template("gradients.html.j2").render(
        comparison=comparison,
        rows=network_rows(comparison),
        figures_=[_figure(comparison, *measure) for measure in MEASURES],
        scientific=figures.scientific,
        runs=(),
    )  # fmt: skip


def flow_chart(comparison: GradientComparison, *, width: float = HALF, height: float = 360) -> svg.Markup:
    """The gradient by each layer's output, of all networks of a comparison, one curve each and a thin one for each seed."""
    heading, y_name, of = MEASURES[0]
    return _chart(comparison, heading, y_name, of, width=width, height=height)


def _figure(comparison: GradientComparison, heading: str, y_name: str, of: Measure) -> Figure:
    wide, narrow = (_chart(comparison, heading, y_name, of, width=width, height=360) for width in (WIDE, NARROW))
    return Figure(heading, wide, narrow)


def _chart(comparison: GradientComparison, heading: str, y_name: str, of: Measure, *, width: float, height: float) -> svg.Markup:
    series = []
    for i, (model, flows) in enumerate(_by_model(comparison.flows).items()):
        singles = tuple(_points(flow, of) for flow in flows)
        series.append(Series(model, COLOURS[i % len(COLOURS)], _middle(singles), singles, dash=i // len(COLOURS)))
    paper = Paper(
        width, height, heading, "layer, from the image to the logits", y_name, x_whole=True, y_format=figures.power, y_log=True
    )
    return lines(series, paper=paper)


COLOURS = (4, 1, 5, 7, 2, 0, 6, 3)
"""Colours of the style sheet in an order in which neighbours are easily told apart."""


def _points(flow: GradientFlow, of: Measure) -> Points:
    """Without the classifier, where the gradient does not depend on depth."""
    return tuple((i, of(layer) or None) for i, layer in enumerate(flow.layers[:-1] or flow.layers, start=1))


def _middle(singles: Sequence[Points]) -> Points:
    """The median over seeds, layer by layer; a gap where any seed has none."""
    points: list[tuple[float, float | None]] = []
    for layer in zip(*singles, strict=True):
        known = [y for _, y in layer if y is not None]
        points.append((layer[0][0], median(known) if len(known) == len(layer) else None))
    return tuple(points)


def run_page(runs: Sequence[RunFlow]) -> str:
    """The page of runs epoch by epoch: one grid each, all in one scale of colours."""
    return templates().get_template("gradients.html.j2").render(
        comparison=None,
        rows=[],
        figures_=[_first_layers(runs)],
        scientific=figures.scientific,
        runs=[(run, run_chart(run, runs, width=HALF)) for run in runs],
    )  # fmt: skip


def run_chart(run: RunFlow, runs: Sequence[RunFlow], *, width: float) -> svg.Markup:
    """Layers downwards, epochs to the right: the norm of the gradient by each layer's weights, in the colours of all `runs`."""
    sizes = [layer.weight_gradient for each in runs for flow in each.flows for layer in flow.layers if layer.weight_gradient > 0]
    rows = [[flow.layers[i].weight_gradient for flow in run.flows] for i in range(len(run.flows[0].layers))]
    return raster(
        rows,
        ends=(min(sizes, default=1.0), max(sizes, default=1.0)),
        names=[layer.name for layer in run.flows[0].layers],
        columns=[str(flow.epoch) for flow in run.flows],
        width=width,
        name=f"Gradients of {run.name}, layer by layer and epoch by epoch",
    )


def _first_layers(runs: Sequence[RunFlow]) -> Figure:
    """The first layer's gradient along each run."""
    heading = "Gradient by the first layer's weights, epoch by epoch"
    series = [
        Series(run.name, COLOURS[i % len(COLOURS)], tuple((f.epoch, f.layers[0].weight_gradient or None) for f in run.flows))
        for i, run in enumerate(runs)
    ]
    papers = (
        Paper(width, 300, heading, "epoch", "norm of the gradient", x_whole=True, y_format=figures.power, y_log=True)
        for width in (WIDE, NARROW)
    )
    return Figure(heading, *(lines(series, paper=paper) for paper in papers))
