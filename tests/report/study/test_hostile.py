"""Names of a study are hostile input: none becomes an element, an attribute, a link elsewhere, or Markdown."""

import re
import unicodedata
from dataclasses import replace
from functools import cache

import pytest

from convatlas.records.findings import Failure, Tuned
from convatlas.records.plan import Searched, Tuning
from convatlas.report.plain import plain
from convatlas.report.study import study_csv, study_markdown, study_page

from ..pages import Page, drawings
from ..test_hostile import PAYLOADS
from .samples import study

pytestmark = pytest.mark.untraced  # a hundred pages, whose lines other tests reach


@cache
def _poisoned(name: str):
    """A study in which every text is `name`, but that which makes the page's structure."""
    findings, runs = study(seeds=(0, 1))
    names = {"plain": name, "short": f"{name}2", "long": f"{name}3"}
    classes = (name, f"{name}2", "c", "d")
    environment = replace(findings.environment, processor=name, system=name, convatlas=name)
    plan = findings.plan
    variants = tuple(
        replace(v, name=names[v.name], levels={name: name}, recipe=replace(v.recipe, model=name, optimizer=name)) for v in plan.variants
    )  # fmt: skip
    plan = replace(
        plan, name=name, question=name, date=name, convatlas=name, design=name, variants=variants, data=name, data_description=name,
        factors=(replace(plan.factors[0], name=name, levels=(name,)),), classes=classes, source=name, held=(replace(plan.held[0], what=name),),
        comparisons=tuple(replace(each, first=names[each.first], second=names[each.second]) for each in plan.comparisons),
        tuning=Tuning(3, (Searched(name, choices=(name, name)),), 1, sampler=name, pruner=name),
    )  # fmt: skip
    effects = tuple(
        replace(
            each,
            first=names[each.first],
            second=names[each.second],
            sentence=name,
            difference=replace(each.difference, method=name),
        )
        for each in findings.effects
        if each.difference
    )
    rows = tuple(
        replace(
            row, name=names[row.name], runs=tuple(f"{name}/{folder}" for folder in row.runs), top1=replace(row.top1, method=name),
            failures=(Failure(name, 2, name),),
        )
        for row in findings.variants
        if row.top1
    )  # fmt: skip
    findings = replace(
        findings, plan=plan, variants=rows, effects=effects, date=name, command=name, environment=environment, complete=False,
        missing=(name,), tuned=tuple(Tuned(each.name, 1, {name: name}, 0.5) for each in rows),
    )  # fmt: skip
    return findings, tuple(_run(each, name, names[each.variant], classes) for each in runs)


def _run(run, name: str, variant: str, classes):
    summary = run.record.summary
    choices = replace(summary.choices, reason=name, device=name)
    summary = replace(summary, status=name, cause=name, model=name, family=name, skipped_images=(name,), choices=choices)
    worst = tuple(replace(each, truth=name, predicted=name, picture=name) for each in run.record.test.worst)
    test = replace(run.record.test, classes=classes, worst=worst)
    look = run.look and replace(
        run.look, model=name, notes=(name,),
        images=tuple(
            replace(
                each, image=f"{name}{i}", picture=name, prediction=replace(each.prediction, classes=(name, name)),
                maps=tuple(replace(one, layer=name, picture=name) for one in each.maps),
            )
            for i, each in enumerate(run.look.images)
        ),
    )  # fmt: skip
    flows = tuple(replace(f, layers=tuple(replace(one, name=name) for one in f.layers)) for f in run.flows)
    looks = tuple(replace(each, date=name) for each in run.looks)
    record = replace(run.record, summary=summary, test=test)
    return replace(run, variant=variant, folder=f"{name}/{run.folder}", record=record, look=look, flows=flows, looks=looks)


@cache
def _page(name: str) -> str:
    return study_page(*_poisoned(name))


def _skeleton(html: str) -> set[tuple[str, tuple[str, ...]]]:
    return {(name, tuple(sorted(attributes))) for name, attributes in Page(html).elements}


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_payload_adds_no_element_and_no_attribute(payload: str) -> None:
    html = _page(payload)
    html.encode("utf-8")
    assert _skeleton(html) <= _skeleton(_page("harmless"))
    assert len(drawings(html)) == len(drawings(_page("harmless")))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_links_stay_beside_the_page(payload: str) -> None:
    page = Page(_page(payload))
    links = [a["href"] or "" for name, a in page.elements if name == "a"]
    assert links and all(re.fullmatch(r"#[a-z]+|\./[A-Za-z0-9%_.~/-]*", each) for each in links)
    assert not [a for name, a in page.elements if name == "img" and not (a["src"] or "").startswith("data:image/png;base64,")]


@pytest.mark.parametrize("payload", PAYLOADS[:30], ids=range(30))
def test_payload_is_shown_as_the_text_it_is(payload: str) -> None:
    shown = " ".join(plain(payload).split())
    assert shown in re.sub(r"\s+", " ", "".join(Page(_page(payload)).texts))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_no_character_hides_or_reorders(payload: str) -> None:
    for text in (_page(payload), study_markdown(*_poisoned(payload)), study_csv(*_poisoned(payload))):
        assert {each for each in text if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} <= {"\n"}


ESCAPED_OR_CODE = r"\\.|`[^`]*`"
MARKUP = ("**bold**", "[x](javascript:alert(1))", "![x](https://evil.example/x.png)", "# head", "a | b | c", "```", "`code`", "> quote",
          "- item", "1. item", "<b>x</b>", "&lt;", "@somebody", "https://evil.example", "www.evil.example", "a\n\n# b", "$x$", "~~x~~")  # fmt: skip


@pytest.mark.parametrize("payload", (*MARKUP, *PAYLOADS), ids=range(len(MARKUP) + len(PAYLOADS)))
def test_markdown_has_the_same_structure_whatever_the_names(payload: str) -> None:
    def structure(text: str) -> list[tuple[str, int]]:
        bare = re.sub(ESCAPED_OR_CODE, "", text)
        kinds = [re.match(r"(#+ |\| |\|--|- |> |\d+\. |)", line) for line in bare.split("\n")]
        return [(kind[0] if kind else "", line.count("|")) for kind, line in zip(kinds, bare.split("\n"), strict=True)]

    text = study_markdown(*_poisoned(payload))
    assert structure(text) == structure(study_markdown(*_poisoned("harmless")))
    unescaped = re.sub(ESCAPED_OR_CODE, "", text)
    targets = re.findall(r"\]\(([^)]*)\)", unescaped)
    unescaped = re.sub(r"\]\([^)]*\)", "]", unescaped)
    assert (
        "<" not in unescaped
        and "![" not in unescaped
        and "@" not in unescaped
        and "://" not in unescaped
        and "www." not in unescaped
    )
    for target in targets:
        assert target.startswith("./"), target


@pytest.mark.parametrize("payload", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1"])
def test_formulas_are_defused(payload: str) -> None:
    cells = [cell for line in study_csv(*_poisoned(payload)).splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell.lstrip('"').startswith(("=", "+", "-", "@"))]
