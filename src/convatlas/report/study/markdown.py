"""`report.md` of a study: the question, the answer, the verdicts, the variants and what to keep in mind, as GitHub shows it."""

import re
from collections.abc import Sequence

from convatlas.records.findings import Findings
from convatlas.records.study import Interval
from convatlas.records.study_folder import StudyRun
from convatlas.report import figures
from convatlas.report.plain import plain
from convatlas.report.study.answer import answer
from convatlas.report.study.effects import Outcome, bounded, digits, ends, outcomes, p_value
from convatlas.report.study.views import View, link, pairs, views

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#!|~$])")
_LIST = re.compile(r"^(\d*)([-+.)=])")
"""What begins a list, or a line under a heading."""
_LINKED = {"@": "&#64;", "://": "&#58;//", "www.": "www&#46;"}
"""What GitHub would make a mention or a link of."""


def study_markdown(findings: Findings, runs: Sequence[StudyRun]) -> str:
    """The short report. Whatever a name holds is shown as text."""
    plan = findings.plan
    shown = views(findings, runs)
    found = outcomes(findings, pairs(findings, shown, compare=None))
    said = answer(findings, shown, found, compare=None)
    size = f"{len(plan.variants)} variants × {len(plan.seeds)} seeds, {figures.count(plan.n_train)} training images"
    parts = [
        f"# {escaped(plan.question)}",
        f"**{escaped(said.headline)}**",
        escaped(f"{said.basis} Data: {plan.data_description}; {size}.".strip()),
        *_incomplete(findings),
        *_verdicts(found),
        *_variants(shown),
        *_caveats(findings, shown, said.notes),
        f"Study `{_coded(plan.name)}`, {escaped(plan.date)}, ConvAtlas {escaped(findings.environment.convatlas)}. Every run is "
        "in the folder that the table of variants links to. [report.html](./report.html) has the curves, confusions, feature "
        "maps and recipes, [results.csv](./results.csv) one row a run, [findings.json](./findings.json) every number.",
    ]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text from outside, as Markdown shows it unchanged."""
    safe = _ACTIVE.sub(r"\\\1", plain(text).replace("&", "&amp;"))
    for active, harmless in _LINKED.items():
        safe = safe.replace(active, harmless)
    return _LIST.sub(r"\1\\\2", safe) if re.match(r"(\d+[.)]|[-+=]+)(\s|$)", safe) else safe


def _coded(text: str) -> str:
    return plain(text).replace("`", "'").replace("|", "¦").strip() or "-"


def _incomplete(findings: Findings) -> list[str]:
    if findings.complete:
        return []
    planned = len(findings.plan.variants) * len(findings.plan.seeds)
    return [
        f"> **Incomplete:** {len(findings.missing)} of {planned} runs have no result yet; all of this may change. "
        f"Go on with `{_coded(findings.command)}`."
    ]


def _verdicts(found: Sequence[Outcome]) -> list[str]:
    if not found:
        return []
    rows = ["| Comparison | Points | 95 % interval | p adjusted | d | Verdict |", "|---|--:|--:|--:|--:|---|"]
    for each in found:
        difference, effect = each.difference, each.effect
        cells = [escaped(each.name)]
        if difference is None or effect is None:
            cells += [figures.DASH] * 4
        else:
            cells += [
                figures.points(difference.mean, digits=digits(difference)),
                ends(difference) if bounded(difference) else "none",
                escaped(p_value(effect.p_adjusted)),
                figures.DASH if effect.effect_size is None else figures.significant(effect.effect_size),
            ]
        rows.append(f"| {' | '.join([*cells, each.verdict])} |")
    return ["## Verdicts", "\n".join(rows), "\n".join(f"- {escaped(each.sentence)}" for each in found if each.difference)]


def _variants(shown: Sequence[View]) -> list[str]:
    heads = "| Variant | Top-1 | 95 % interval | Runs | Validation | Calibration error | Parameters | MACs | Training |"
    rows = [heads, "|---|--:|--:|---|--:|--:|--:|--:|--:|"]
    for view in shown:
        found = view.found
        runs = " ".join(f"[{run.seed}]({link(run.folder)})" for run in view.runs)
        cells = [
            escaped(view.name),
            _share(found.top1 if found else None),
            _range(found.top1 if found else None),
            runs.replace("|", "%7C") or "none",
            _share(found.validation if found else None),
            _share(found.calibration_error if found else None),
            figures.count(view.variant.params),
            figures.short(view.variant.macs),
            figures.duration(found.train_seconds if found else None),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return ["## Variants", "\n".join(rows)]


def _share(found: Interval | None) -> str:
    return figures.percent(found.mean, digits=2) if found else figures.DASH


def _range(found: Interval | None) -> str:
    if found is None:
        return figures.DASH
    return f"{figures.percent(found.low, digits=2, sign=False)} to {figures.percent(found.high, digits=2)}"


def _caveats(findings: Findings, shown: Sequence[View], notes: Sequence[str]) -> list[str]:
    said = list(notes)
    looks = sum(run.record.summary.test_looks for view in shown for run in view.begun)
    runs = sum(len(view.begun) for view in shown)
    said.append(f"The test split was looked at {looks} times in {runs} runs; nothing was chosen by it.")
    if (best := findings.optimism) is not None:
        said.append(
            f"Choosing each run's best epoch by the test would have added {figures.points(best.mean, digits=2)} points "
            f"({figures.points(best.low, digits=2)} to {figures.points(best.high, digits=2)}) that are not there."
        )
    said += [
        f"No result of {each.run} after {each.attempts} {'attempt' if each.attempts == 1 else 'attempts'}: {each.cause}"
        for view in shown if view.found for each in view.found.failures
    ]  # fmt: skip
    return ["## To keep in mind", "\n".join(f"- {escaped(each)}" for each in said)]
