"""The answer to a study's question in one or two sentences, as far as the intervals bear it and no further."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convatlas.arith.proportion import wilson
from convatlas.records.findings import Findings
from convatlas.records.study import Interval
from convatlas.report import figures
from convatlas.report.study.effects import Outcome, digits, ends, p_value
from convatlas.report.study.views import Pair, View, ranked
from convatlas.report.verdict import listed

FEW = 3
"""Up to so many comparisons each is spelled out."""
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Answer:
    """`headline` is one sentence or two; `basis` says what it rests on; `notes` are reservations."""

    headline: str
    basis: str
    notes: tuple[str, ...]


def answer(findings: Findings, shown: Sequence[View], found: Sequence[Outcome], *, compare: Pair | None) -> Answer:
    """What the comparisons come to. A winner is named only where an interval keeps clear of zero."""
    return Answer(_headline(findings, found, compare), _basis(findings, shown, found), tuple(_notes(findings, shown)))


def _headline(findings: Findings, found: Sequence[Outcome], compare: Pair | None) -> str:
    if compare is not None and found[0].effect is None:
        return (
            f"{compare[0]} against {compare[1]} was not among the planned comparisons, so the study tests no difference between "
            "them and names no winner; what follows describes each."
        )
    if not found:
        return "The study planned no comparison, so it names no winner."
    with_result = [each for each in found if each.difference]
    if not with_result:
        return "Undecided: no comparison has a result yet."
    pending = len(found) - len(with_result)
    more = f" {pending} of {len(found)} planned comparisons {'has' if pending == 1 else 'have'} no result yet." if pending else ""
    if len(with_result) == 1:
        return with_result[0].sentence + _so_far(findings, with_result[0]) + more
    return (_each(findings, with_result) if len(with_result) <= FEW else _many(findings, with_result, len(found))) + more


def _so_far(findings: Findings, outcome: Outcome) -> str:
    done, planned = len(outcome.effect.seeds) if outcome.effect else 0, len(findings.plan.seeds)
    return "" if done >= planned else f" That is after {done} of {planned} seeds."


def _each(findings: Findings, found: Sequence[Outcome]) -> str:
    """A sentence for what has a verdict, and one for what has none."""
    decided = [each for each in found if each.verdict != UNDECIDED]
    said = [_clause(findings, each) for each in sorted(decided, key=lambda each: each.verdict == "equivalent")]
    rest = [f"{each.first} against {each.second}" for each in found if each.verdict == UNDECIDED]
    parts = [f"{'; '.join(said)}."] if said else []
    parts += [f"Undecided{_seeds(findings, found)}: {listed(rest)}."] if rest else []
    return " ".join(parts)


def _many(findings: Findings, found: Sequence[Outcome], planned: int) -> str:
    decided = [each for each in found if each.verdict in ("better", "worse")]
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in ("equivalent", "undecided")}
    rest = [f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in counts.items() if count]
    more = f" {listed(rest).capitalize()}{_seeds(findings, found)}." if rest else ""
    if not decided:
        return f"Undecided: none of {planned} planned comparisons shows a difference.{more}"
    largest = max(decided, key=lambda each: abs(_difference(each).mean))
    are = "comparison is" if len(decided) == 1 else "comparisons are"
    return f"{len(decided)} of {planned} planned {are} decided, the largest: {_clause(findings, largest)}.{more}"


def _clause(findings: Findings, outcome: Outcome) -> str:
    """A verdict in words. One seed is about two networks, and not about the variants: another seed makes other networks."""
    found, effect = _difference(outcome), outcome.effect
    assert effect is not None
    here = f"in seed {effect.seeds[0]}, " if len(effect.seeds) == 1 else ""
    tested = f", p {_equals(p_value(effect.p_adjusted))}" if effect.p_adjusted is not None else ""
    if outcome.verdict != "equivalent":
        up = found if found.low > 0 else replace(found, mean=-found.mean, low=-found.high, high=-found.low)
        best, other = (outcome.first, outcome.second) if found.low > 0 else (outcome.second, outcome.first)
        size, low, high = (figures.percent(each, digits=digits(found), sign=False) for each in (up.mean, up.low, up.high))
        return f"{here}{best} is more accurate than {other} by {size} points ({low} to {high}{tested})"
    margin, judged = f"{100 * findings.plan.equivalence:.4g}", effect.equivalence_interval
    interval = ends(found) if judged is None else f"90 % interval {ends(judged)}"
    return f"{here}{outcome.first} and {outcome.second} are equivalent within {margin} points ({interval})"


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _difference(outcome: Outcome) -> Interval:
    assert outcome.difference is not None
    return outcome.difference


def _seeds(findings: Findings, found: Sequence[Outcome]) -> str:
    """After how many seeds that is so."""
    counts = sorted({len(each.effect.seeds) for each in found if each.effect})
    if not counts:
        return ""
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    plural = "seed" if counts == [1] else "seeds"
    return f" after {span} {plural}{'' if findings.complete else ' so far'}"


def _basis(findings: Findings, shown: Sequence[View], found: Sequence[Outcome]) -> str:
    counts = sorted({len(view.found.seeds) for view in shown if view.found and view.found.seeds})
    if not counts:
        return ""
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = "seed" if counts == [1] else "seeds"
    said = f"Top-1 accuracy on {figures.count(findings.plan.n_test)} test images, {span} {seeds} a variant."
    methods = list(dict.fromkeys(_difference(each).method for each in found if each.difference))
    if methods:
        said += f" Differences are in percentage points with their 95 % interval: {listed(methods)}."
    if len(findings.plan.comparisons) > 1 and any(each.effect and each.effect.p_adjusted is not None for each in found):
        said += f" p values are those after Holm over all {len(findings.plan.comparisons)} planned comparisons."
    return said


def _notes(findings: Findings, shown: Sequence[View]) -> list[str]:
    notes = []
    if any(view.found and len(view.found.seeds) == 1 for view in shown):
        notes.append(
            "Where there is one seed, the interval covers the sampling of test images only, not the spread from seed to seed: "
            "another seed could change the order."
        )
    if added := findings.plan.seeds_added:
        which = f"Seed {added[0]} was" if len(added) == 1 else f"Seeds {listed([str(each) for each in added])} were"
        notes.append(f"{which} added after a look at results, which makes the intervals a little too narrow.")
    chance = 1 / len(findings.plan.classes) if findings.plan.classes else 0.0
    images = findings.plan.n_test
    lost = [mark.name for _, mark in ranked(shown) if images and wilson(mark.value, images)[0] <= chance]
    if lost:
        notes.append(f"Not shown to be better than guessing ({figures.percent(chance)}): {listed(lost)}.")
    again = sum(run.record.summary.test_looks > 1 for view in shown for run in view.begun)
    if again:
        notes.append(f"The test split of {again} {'run' if again == 1 else 'runs'} was looked at more than once; see below.")
    return notes
