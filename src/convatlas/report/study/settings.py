"""What the variants had in common and in what they differed: what was held equal, the recipes, the tuning, the machines."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean

from convatlas.records.findings import Findings, Tuned
from convatlas.records.plan import Held, Searched
from convatlas.records.study import Interval
from convatlas.report import figures
from convatlas.report import html as pages
from convatlas.report.study.views import View

WORDS = {"params": "parameters", "macs": "MACs", "steps": "optimisation steps", "minutes": "time of training"}


@dataclass(frozen=True)
class Kept:
    """How nearly one variant has what is held equal: `off` is the share by which it misses the target."""

    name: str
    value: str
    off: float | None
    within: bool


@dataclass(frozen=True)
class HeldEqual:
    """One quantity that is held equal, and how nearly."""

    what: str
    target: str
    tolerance: float
    variants: tuple[Kept, ...]


@dataclass(frozen=True)
class Recipes:
    """`common` settings, and those that differ with their value for each variant, in the order of the page."""

    common: tuple[tuple[str, str], ...]
    differing: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Grid:
    """The accuracies of a design of two factors: `cells[i][j]` at level i of the first and j of the second."""

    factors: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Interval | None, ...], ...]
    row_means: tuple[float | None, ...]
    column_means: tuple[float | None, ...]
    ends: tuple[float, float]


def held_equal(findings: Findings, shown: Sequence[View]) -> list[HeldEqual]:
    """Every quantity that the plan holds equal."""
    return [
        HeldEqual(
            what=WORDS.get(each.what, each.what),
            target=_amount(each.what, each.target),
            tolerance=each.tolerance,
            variants=tuple(_kept(view, each) for view in shown),
        )
        for each in findings.plan.held
    ]


def _kept(view: View, held: Held) -> Kept:
    one, found = view.variant, view.found
    minutes = found.train_seconds / 60 if found is not None and found.train_seconds is not None else one.recipe.minutes
    budgets = {"params": one.params, "macs": one.macs, "steps": one.steps, "minutes": minutes}
    value = budgets.get(held.what)
    if value is None or not held.target:
        return Kept(view.name, figures.DASH, None, True)
    off = value / held.target - 1
    return Kept(view.name, _amount(held.what, value), off, abs(off) <= held.tolerance)


def _amount(what: str, value: float) -> str:
    return f"{value:g} min" if what == "minutes" else figures.count(round(value))


def recipes(shown: Sequence[View]) -> Recipes:
    """All settings but the seed, as they were in the runs, where any has begun: what was tuned differs from the plan."""
    common, differing = [], []
    made = (view.begun[0].record.recipe if view.begun else view.variant.recipe for view in shown)
    listed = [dict(pages.fields(each)) for each in made]
    for name in listed[0] if listed else ():
        values = tuple(each[name] for each in listed)
        if name == "seed":
            continue
        if len(set(values)) == 1:
            common.append((name, "none" if values[0] == "()" else values[0]))
        else:
            differing.append((name, values))
    return Recipes(tuple(common), tuple(differing))


def searched(each: Searched) -> str:
    """What a tuned setting could become, in words."""
    if each.choices:
        return f"{each.setting}: one of {', '.join(each.choices)}"
    return f"{each.setting}: from {each.low:g} to {each.high:g}{', by powers of ten' if each.log else ''}"


def tuned(findings: Findings, shown: Sequence[View]) -> list[Tuned]:
    """What the searches of the variants shown came to."""
    names = {view.name for view in shown}
    return [each for each in findings.tuned if each.variant in names]


def machines(findings: Findings, shown: Sequence[View]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """In what the runs' machines and versions differ from those of the findings: the runs' folders, and the fields."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for view in shown:
        for run in view.begun:
            theirs, ours = run.record.summary.environment, findings.environment
            other = tuple(
                (each.name, str(getattr(theirs, each.name)))
                for each in fields(theirs)
                if getattr(theirs, each.name) != getattr(ours, each.name)
            )
            if other:
                found.setdefault(other, []).append(run.folder)
    return [(", ".join(folders), other) for other, folders in found.items()]


def interaction(findings: Findings, shown: Sequence[View]) -> Grid | None:
    """The means of a design of two factors with all of its cells; None for any other design."""
    factors = findings.plan.factors
    if len(factors) != 2 or len(shown) != len(findings.plan.variants):
        return None
    first, second = factors
    by_levels = {(view.variant.levels.get(first.name), view.variant.levels.get(second.name)): view for view in shown}
    if len(by_levels) < len(first.levels) * len(second.levels) or min(len(first.levels), len(second.levels)) < 2:
        return None
    cells = tuple(tuple(_top1(by_levels.get((a, b))) for b in second.levels) for a in first.levels)
    known = [cell.mean for row in cells for cell in row if cell is not None]
    if not known:
        return None
    return Grid(
        factors=(first.name, second.name),
        rows=first.levels,
        columns=second.levels,
        cells=cells,
        row_means=tuple(_mean(row) for row in cells),
        column_means=tuple(_mean(column) for column in zip(*cells, strict=True)),
        ends=(min(known), max(known)),
    )


def _top1(view: View | None) -> Interval | None:
    return view.found.top1 if view is not None and view.found is not None else None


def _mean(cells: Sequence[Interval | None]) -> float | None:
    """Only of whole rows: another level's absence would look like an effect."""
    known = [cell.mean for cell in cells if cell is not None]
    return fmean(known) if len(known) == len(cells) else None
