"""The page of a classifier's errors on one split: one HTML file without script, its pictures inside; or its body alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from convatlas.arith.proportion import wilson
from convatlas.records.errors_look import Bin, Calibration, ClassScore, ErrorReport
from convatlas.records.study import Interval
from convatlas.report import figures
from convatlas.report.charts import axes, svg
from convatlas.report.charts.axes import Axis, Plot
from convatlas.report.charts.heatmap import NAMED, heatmap
from convatlas.report.charts.intervals import Row, Stroke, intervals
from convatlas.report.charts.marks import dot, whisker
from convatlas.report.html import HALF, NARROW, WIDE, Figure, templates
from convatlas.report.sections import Confused, png

SPLITS = {"train": "training", "val": "validation", "test": "test"}
CHARTED = 25
"""Up to so many classes are all on the chart; of more those that were found least."""
OPEN = 30
"""Up to so many rows a table stands open."""
CONFUSIONS = 8
SPARSE = 10
"""A bin of fewer answers is drawn pale."""
FEW = 5
"""Up to so many classes the confusion matrix is drawn small: its cells would be as large as a hand."""
CERTAIN = 0.999
RECALL, PRECISION = "equal", "open"
"""The style sheet's classes that give the two their colours; after and before scaling have the same."""


@dataclass(frozen=True)
class ErrorsView:
    """All that the page says beside the record. `cautions` are reasons to trust it less; `shown` classes are in the matrix, and
    `charted` on the chart of classes. `unmapped` says why pictures have no map, `scaled` whether there is a temperature at all.
    """

    verdict: str
    basis: tuple[str, ...]
    cautions: tuple[str, ...]
    matrix: Markup
    shown: int
    confused: tuple[Confused, ...]
    classes: Figure
    charted: int
    reliability: Figure
    calibration: str
    unmapped: str
    scaled: bool


def errors_page(report: ErrorReport, *, model: str, data: str) -> str:
    """The page. `data` describes the images: its title has what stands before the first comma, a line below it the whole."""
    title = re.split("[,;]", data)[0].strip() or data
    names = {"model": model, "title": title, "data": data if title != data else ""}
    return templates().get_template("errors_look/page.html.j2").render(**names, **_names(report))


def errors_section(report: ErrorReport) -> Markup:
    """The page's body for another page, which must include `errors_look/errors_look.css` in its style sheet."""
    return Markup(templates().get_template("errors_look/body.html.j2").render(**_names(report)))  # the template escapes


def _names(report: ErrorReport) -> dict[str, object]:
    return {"look": report, "view": errors_view(report), "split": SPLITS.get(report.split, report.split), "png": png,
            "sure": sure, "open": OPEN, "few": FEW}  # fmt: skip


def errors_view(report: ErrorReport) -> ErrorsView:
    """The record in words and charts."""
    matrix = _most_confused(report)
    charted = sorted((each for each in report.scores if each.recall), key=lambda each: each.recall.mean if each.recall else 0.0)
    kept = [each for each in report.scores if each in charted[:CHARTED]]
    return ErrorsView(
        verdict=_verdict(report),
        basis=_basis(report),
        cautions=_cautions(report),
        matrix=_heatmap(report, matrix),
        shown=len(matrix),
        confused=_confused(report),
        classes=_by_class(kept),
        charted=len(kept),
        reliability=_reliability(report),
        calibration=_calibration(report),
        unmapped=_unmapped(report),
        scaled=scaled(report),
    )


# Words


def sure(share: float) -> str:
    """A probability or a margin in [0, 1] as a percentage that is never rounded to certainty."""
    return f"above {figures.percent(CERTAIN)}" if share > CERTAIN else figures.percent(share)


def _verdict(report: ErrorReport) -> str:
    n, split = report.n, SPLITS.get(report.split, report.split)
    right = sum(row[i] for i, row in enumerate(report.confusion))
    share, low, high = report.accuracy.mean, report.accuracy.low, report.accuracy.high
    whole = f"{figures.percent(share)} (95 % interval {figures.percent(low, sign=False)} to {figures.percent(high)})"
    if n == 1:
        return f"The one {split} image is named {'correctly' if right else 'wrongly'}, which says next to nothing."
    if right == n:
        return f"All {figures.count(n)} {split} images are named correctly: {whole}."
    return f"{figures.count(right)} of {figures.count(n)} {split} images are named correctly: {whole}."


def _basis(report: ErrorReport) -> tuple[str, ...]:
    return (
        f"The network saw the middle {report.size} × {report.size} pixels of each. The interval ({report.accuracy.method}) "
        "covers the sampling of the images and not what another training would do.",
        _temperature(report),
    )


def scaled(report: ErrorReport) -> bool:
    """Whether there is a temperature: one that was fitted, or one that is not 1."""
    return bool(report.fitted_on) or report.temperature != 1


def _temperature(report: ErrorReport) -> str:
    """Where the temperature comes from. `fitted_on` is a split, or says in words which images they were."""
    if not scaled(report):
        return (
            "No temperature was fitted: probabilities are those that the network gives (logits are divided by 1, which leaves "
            "them as they are)."
        )
    said = f"Probabilities are those after temperature scaling with T = {figures.significant(report.temperature)}"
    if not report.fitted_on:
        return f"{said}, of which it is not known on what it was fitted."
    on = f"the {SPLITS[report.fitted_on]} images" if report.fitted_on in SPLITS else report.fitted_on
    return f"{said}, fitted on {on}{', these very images' if report.fitted_on == report.split else ''}."


def _unmapped(report: ErrorReport) -> str:
    """Why there is no map of an image: none could be made, or Grad-CAM, which keeps what speaks for a class, kept nothing."""
    if report.layer is None:
        return next((note for note in report.notes if note.startswith("There are no maps")), "There are no maps.")
    return "No map: in no place does this layer speak for the answer (Grad-CAM is zero everywhere), so there is nothing to show."


def _cautions(report: ErrorReport) -> tuple[str, ...]:
    found = []
    if report.split == "train":
        found.append(
            "These are the images it was trained on: on others it errs more, and doubtful labels it has learnt by heart."
        )
    if report.fitted_on == report.split:
        found.append("The temperature was fitted on the images that it is judged on here: on others it fits less well.")
    empty = [each.name for each in report.scores if not each.n]
    if empty:
        named = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        found.append(f"There is no image of {named}, so that nothing is known of {'it' if len(empty) == 1 else 'them'}.")
    return (*found, *report.notes)


def _calibration(report: ErrorReport) -> str:
    """How sure and how right it is, and whether the temperature helps on these images."""
    before, after = report.before, report.after
    if not scaled(report):
        right = figures.percent(report.accuracy.mean)
        return f"On average it is {figures.percent(_sure(before))} sure, and right on {right}. No temperature was fitted."
    said = (
        f"On average it is {figures.percent(_sure(before))} sure as it comes, {figures.percent(_sure(after))} with the "
        f"temperature, and right on {figures.percent(report.accuracy.mean)}."
    )
    losses = f"the cross-entropy is {after.nll:.3f} nats with it, {before.nll:.3f} without"
    if f"{after.nll:.3f}" == f"{before.nll:.3f}":
        return f"{said} The temperature changes nothing here."
    return f"{said} The temperature {'helps' if after.nll < before.nll else 'does not help'} here: {losses}."


def _sure(calibration: Calibration) -> float:
    """The mean probability of the answers."""
    return sum(each.n * each.probability for each in calibration.bins) / sum(each.n for each in calibration.bins)


def _most_confused(report: ErrorReport) -> list[int]:
    """All classes, in order; of more than can be named those that take part in most errors."""
    size = range(len(report.classes))
    if len(size) <= NAMED:
        return list(size)
    matrix = report.confusion
    errors = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in size]
    return sorted(sorted(size, key=lambda i: -errors[i])[:NAMED])


def _heatmap(report: ErrorReport, chosen: Sequence[int]) -> Markup:
    confusion = [[report.confusion[i][j] for j in chosen] for i in chosen]
    return heatmap(confusion, classes=[report.classes[i] for i in chosen], name="Confusion matrix")


def _confused(report: ErrorReport) -> tuple[Confused, ...]:
    """The most frequent confusions."""
    names = report.classes
    pairs = [
        Confused(names[i], names[j], count, sum(row))
        for i, row in enumerate(report.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.count)[:CONFUSIONS])


# Charts


def _by_class(scores: Sequence[ClassScore]) -> Figure:
    """One row a class: recall above, precision below, each with its interval."""
    rows = [
        Row(each.name, tuple(_stroke(each.name, *one) for one in _both(each)), figures.percent(each.recall.mean))
        for each in scores
        if each.recall
    ]
    ends = [end for row in rows for one in row.strokes for end in (one.low, one.high) if end is not None]
    axis = Axis(axes.linear(ends, floor=0.0, ceiling=1.0, count=6), "share", _whole)
    name = "Recall and precision by class"
    wide, narrow = (intervals(rows, axis=axis, width=width, name=name) for width in (WIDE, NARROW))
    return Figure(name, wide, narrow)


def _both(score: ClassScore) -> list[tuple[str, str, Interval]]:
    every = (("recall", RECALL, score.recall), ("precision", PRECISION, score.precision))
    return [(what, tone, found) for what, tone, found in every if found is not None]


def _stroke(name: str, what: str, tone: str, found: Interval) -> Stroke:
    interval = f"95 % interval {figures.percent(found.low, sign=False)} to {figures.percent(found.high)}"
    return Stroke(tone, found.mean, found.low, found.high, f"{name}, {what}: {figures.percent(found.mean)}, {interval}")


def _reliability(report: ErrorReport) -> Figure:
    wide, narrow = (_diagram(report, width=width) for width in (HALF, NARROW))
    return Figure("Reliability", wide, narrow)


def _diagram(report: ErrorReport, *, width: float) -> Markup:
    """Guo et al. 2017, figure 1, with a dot for each bin, as large as the bin has answers, and Wilson's interval of its share."""
    plot = Plot(44, 30, width - 16, 336)
    scale = axes.linear([0.0, 1.0], count=6)
    x, y = scale.between(plot.left, plot.right), scale.between(plot.bottom, plot.top)
    drawn = [("before", "open", report.before)] if report.temperature != 1 else []
    parts = [axes.frame(plot, x=Axis(x, "probability", _whole), y=Axis(y, "right answers", _whole))]
    parts.append(svg.line((x(0), y(0)), (x(1), y(1)), class_="chance"))
    last = "after" if scaled(report) else "as it comes"
    for what, tone, one in (*drawn, (last, "equal", report.after)):
        marks = [_mark(each, what, report.n, (x(each.probability), y)) for each in one.bins]
        parts.append(svg.tag("g", *marks, class_=tone))
    return svg.drawing(
        parts, width=width, height=plot.bottom + 44, name="Share of right answers against probability", class_="lines"
    )


def _mark(one: Bin, what: str, total: int, at: tuple[float, axes.Scale]) -> Markup:
    (x, y), (low, high) = at, wilson(one.right, one.n)
    told = f"{what}: {one.n} of {total} answers, {figures.percent(one.probability)} sure, {figures.percent(one.right)} right"
    radius = 2.5 + 6 * (one.n / total) ** 0.5
    pale = "pale" if one.n < SPARSE else None
    return svg.tag(
        "g", svg.title(told), whisker((x, y(low)), (x, y(high)), cap=3), dot((x, y(one.right)), radius=radius), class_=pale
    )


def _whole(value: float) -> str:
    return figures.percent(value, digits=0)
