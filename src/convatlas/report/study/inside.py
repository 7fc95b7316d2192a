"""The variants from within, side by side: what their layers make of the same image, and what came back to each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from convatlas.records.gradients import GradientFlow, RunFlow
from convatlas.records.look import Look, LookedAt, Maps
from convatlas.report import figures
from convatlas.report.charts import svg
from convatlas.report.charts.lines import Paper, Points, Series, lines
from convatlas.report.gradients import run_chart
from convatlas.report.html import HALF, NARROW, Figure
from convatlas.report.sections import png
from convatlas.report.study.views import View

ABREAST = 6
"""Variants whose maps are shown side by side."""
ROOM = 1_500_000
"""Letters that the sheets of maps may have together, beyond the first image's."""
LARGEST_SHEET = 250_000
EPOCHS = 12
"""Of a run's gradients, layer by layer; of more epochs some, evenly, the first and the last among them."""


@dataclass(frozen=True)
class Column:
    """A variant, the run whose network is looked into, and what it says of the image, likeliest first."""

    view: View
    folder: str
    answers: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Sheet:
    """A layer's maps; `picture` is a PNG data URL, or None where the record holds anything else."""

    maps: Maps
    picture: str | None


@dataclass(frozen=True)
class Layer:
    """One row: the layers at the same place of all variants, None where a variant has none there."""

    name: str
    sheets: tuple[Sheet | None, ...]


@dataclass(frozen=True)
class Seen:
    """One image, as every variant sees it."""

    name: str
    picture: str | None
    columns: tuple[Column, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Inside:
    """The images that are shown; `left_out` are those for which there was no room, and variants without a place."""

    images: tuple[Seen, ...]
    left_out: int
    unplaced: tuple[str, ...]
    notes: tuple[str, ...]


def inside(shown: Sequence[View]) -> Inside | None:
    """The images that all the looks have, by their names."""
    looks = [(view, run.folder, run.look) for view in shown for run in view.begun if run.look is not None]
    first: dict[str, tuple[View, str, Look]] = {}
    for view, folder, look in looks:
        first.setdefault(view.name, (view, folder, look))
    if not first:
        return None
    placed, rest = list(first.values())[:ABREAST], list(first)[ABREAST:]
    common = [each.image for each in placed[0][2].images if all(_of(look, each.image) for _, _, look in placed)]
    images: list[Seen] = []
    taken = 0
    for name in common:
        seen = _seen(name, placed)
        taken += sum(len(sheet.picture or "") for layer in seen.layers for sheet in layer.sheets if sheet)
        if images and taken > ROOM:
            break
        images.append(seen)
    notes = tuple(f"{view.name}: {note}" for view, _, look in placed for note in look.notes)
    return Inside(tuple(images), len(common) - len(images), tuple(rest), notes)


def _of(look: Look, name: str) -> LookedAt | None:
    return next((each for each in look.images if each.image == name), None)


def _seen(name: str, placed: Sequence[tuple[View, str, Look]]) -> Seen:
    found = [(view, folder, each) for view, folder, look in placed if (each := _of(look, name)) is not None]
    columns = [
        Column(view, folder, tuple(zip(each.prediction.classes, each.prediction.probabilities, strict=False))[:3])
        for view, folder, each in found
    ]
    stems = [next((maps for maps in each.maps if maps.layer == "stem"), None) for _, _, each in found]
    stages = [[maps for maps in each.maps if maps.layer != "stem"] for _, _, each in found]
    layers = [Layer("stem", tuple(map(_sheet, stems)))] if any(stems) else []
    for i in range(max(map(len, stages))):
        row = [each[i] if i < len(each) else None for each in stages]
        layers.append(Layer(f"stage {i + 1}", tuple(map(_sheet, row))))
    return Seen(name, png(found[0][2].picture), tuple(columns), tuple(layers))


def _sheet(maps: Maps | None) -> Sheet | None:
    if maps is None:
        return None
    return Sheet(maps, png(maps.picture) if len(maps.picture) <= LARGEST_SHEET else None)


# Gradients


@dataclass(frozen=True)
class Flow:
    """`figures` show the gradient by depth, before the first step and after the last epoch; `rasters` one run of each variant
    epoch by epoch, but for `left_out` variants.
    """

    figures: tuple[Figure, ...]
    rasters: tuple[tuple[View, str, svg.Markup], ...]
    left_out: int


def gradient_flow(shown: Sequence[View]) -> Flow | None:
    """Of the variants whose runs kept their gradients."""
    kept = [(view, [run for run in view.begun if run.flows]) for view in shown]
    known = [(view, runs) for view, runs in kept if runs]
    if not known:
        return None
    first = [(view, [run.flows[0] for run in runs]) for view, runs in known]
    last = [(view, [run.flows[-1] for run in runs]) for view, runs in known]
    ends = [layer.weight_gradient for _, flows in (*first, *last) for flow in flows for layer in flow.layers]
    drawn = [_by_depth("Before the first step", first)]
    if any(run.flows[0].epoch != run.flows[-1].epoch for _, runs in known for run in runs):
        drawn.append(_by_depth("After the last epoch", last))
    placed = known[:ABREAST]
    records = [RunFlow(view.name, runs[0].record.recipe, _thinned(runs[0].flows)) for view, runs in placed]
    rasters = [
        (view, runs[0].folder, run_chart(record, records, width=NARROW))
        for (view, runs), record in zip(placed, records, strict=True)
    ]
    return Flow(tuple(drawn), tuple(rasters), len(known) - len(placed)) if max(ends) > 0 else None


def _thinned(flows: tuple[GradientFlow, ...]) -> tuple[GradientFlow, ...]:
    last = len(flows) - 1
    return flows if last < EPOCHS else tuple(flows[round(i * last / (EPOCHS - 1))] for i in range(EPOCHS))


def _by_depth(heading: str, flows: Sequence[tuple[View, list[GradientFlow]]]) -> Figure:
    series = []
    for view, each in flows:
        singles = [tuple((float(i), layer.weight_gradient or None) for i, layer in enumerate(one.layers, 1)) for one in each]
        series.append(Series(view.name, view.colour, _middle(singles), tuple(singles), dash=view.dash))
    name = f"{heading}: norm of the gradient by each layer's weights, of {', '.join(each.name for each in series)}"
    papers = [
        Paper(width, 340, name, "layer, from the image to the logits", "norm of the gradient",
              x_whole=True, y_format=figures.power, y_log=True)
        for width in (HALF, NARROW)
    ]  # fmt: skip
    return Figure(heading, *(lines(series, paper=paper) for paper in papers))


def _middle(singles: Sequence[Points]) -> Points:
    """The median over seeds, layer by layer; a gap where any seed has none."""
    points: list[tuple[float, float | None]] = []
    for layer in zip(*singles, strict=False):
        known = [y for _, y in layer if y is not None]
        points.append((layer[0][0], median(known) if len(known) == len(layer) else None))
    return tuple(points)
