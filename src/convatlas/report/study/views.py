"""What the report shows of each variant: its colour, its mark, and the runs behind its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from convatlas.errors import UserError, unknown_name
from convatlas.records.findings import Findings, VariantFindings
from convatlas.records.plan import PlannedComparison, Variant
from convatlas.records.study_folder import StudyRun
from convatlas.report.charts.marks import Mark
from convatlas.report.gradients import COLOURS
from convatlas.report.views import FAMILIES

Pair = tuple[str, str]


@dataclass(frozen=True)
class View:
    """A variant as the report shows it.

    `runs` are those that its numbers were made of, seed by seed, and `begun` all that have a folder. `found` is None, and so is
    `mark`, while nothing is known of it. `dash` counts the variants of the same colour before it.
    """

    variant: Variant
    found: VariantFindings | None
    colour: int
    dash: int
    mark: Mark | None
    runs: tuple[StudyRun, ...]
    begun: tuple[StudyRun, ...]

    @property
    def name(self) -> str:
        """Its name in the plan."""
        return self.variant.name


def views(findings: Findings, runs: Sequence[StudyRun], *, compare: Pair | None = None) -> list[View]:
    """The variants in the order of the plan, or the two that are compared; their colours are the same in either case.

    Raises UserError for a comparison of what the study has not.
    """
    names = [each.name for each in findings.plan.variants]
    if compare is not None:
        _check_pair(compare, names)
    colours = _colours(findings, runs)
    found = {each.name: each for each in findings.variants}
    every = []
    for i, variant in enumerate(findings.plan.variants):
        before = colours[:i].count(colours[i])
        every.append(_view(variant, found.get(variant.name), runs, colour=colours[i], dash=before))
    if compare is None:
        return every
    return [every[names.index(name)] for name in compare]


def ranked(shown: Sequence[View]) -> list[tuple[View, Mark]]:
    """The variants that have an accuracy, each with its mark, in the order of the page."""
    return [(view, view.mark) for view in shown if view.mark is not None]


def pairs(findings: Findings, shown: Sequence[View], *, compare: Pair | None) -> list[tuple[View, View]]:
    """The planned comparisons as views, or the one that is asked for, whether or not it was planned."""
    by_name = {view.name: view for view in shown}
    wanted = [PlannedComparison(*compare)] if compare else findings.plan.comparisons
    return [(by_name[each.first], by_name[each.second]) for each in wanted]


def cause_of(view: View, seed: int) -> str | None:
    """Why a run has no result: as the study's findings have it, or as its own folder has."""
    failures = view.found.failures if view.found else ()
    told = next((each.cause for each in failures if each.run == f"{view.name}, seed {seed}"), None)
    return told or next((run.record.summary.cause for run in view.begun if run.seed == seed), None)


def link(folder: str) -> str:
    """A reference to a file or folder beside the page; it cannot become anything else, whatever the name."""
    return f"./{quote(folder, safe='/', errors='replace')}"


def _check_pair(pair: Pair, names: Sequence[str]) -> None:
    for name in pair:
        if name not in names:
            raise unknown_name("variant", name, names, where=f"The study has {', '.join(names[:20])}.")
    if pair[0] == pair[1]:
        raise UserError(f"{pair[0]} is compared with itself", fix="Name two variants.")


def _view(variant: Variant, found: VariantFindings | None, runs: Sequence[StudyRun], *, colour: int, dash: int) -> View:
    begun = tuple(run for run in runs if run.variant == variant.name)
    counted = tuple(run for run in begun if found is not None and run.seed in found.seeds)
    return View(variant, found, colour, dash, _mark(found, colour), counted, begun)


def _mark(found: VariantFindings | None, colour: int) -> Mark | None:
    if found is None or found.top1 is None:
        return None
    return Mark(found.name, colour, found.top1.mean, found.top1.low, found.top1.high, found.top1_of_seeds)


def _colours(findings: Findings, runs: Sequence[StudyRun]) -> list[int]:
    """The families' own colours where every variant is of another known family; else easily told ones in turn."""
    families = {run.variant: run.record.summary.family for run in runs}
    own = [families.get(each.name) for each in findings.plan.variants]
    known = [FAMILIES.index(each) for each in own if each in FAMILIES]
    if len(set(known)) == len(own):
        return known
    return [COLOURS[i % len(COLOURS)] for i in range(len(own))]
