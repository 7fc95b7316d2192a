"""The page of a study: what stands on it, that it stands alone, and that odd or missing records do not break it."""

import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from convatlas.errors import UserError
from convatlas.records.findings import Tuned
from convatlas.records.plan import Searched, Tuning
from convatlas.records.run import RunRecord
from convatlas.records.study import Interval
from convatlas.report import figures
from convatlas.report.study import study_page
from convatlas.report.study.agreement import agreements
from convatlas.report.study.calibration import bins
from convatlas.report.study.classes import confusions
from convatlas.report.study.inside import inside
from convatlas.report.study.settings import held_equal, interaction
from convatlas.report.study.views import pairs, views

from ..pages import Page, drawings
from .samples import CLASSES, N, effect, grid, study, unfinished


@pytest.fixture(scope="module")
def whole() -> str:
    return study_page(*study())


def sections(html: str) -> list[str]:
    return [attributes["id"] or "" for name, attributes in Page(html).elements if name == "h2" and "id" in attributes]


def test_page_loads_nothing_and_links_only_to_what_stands_beside_it(whole: str) -> None:
    page = Page(whole)
    assert whole.lstrip().startswith("<!DOCTYPE html>")
    assert not page.names() & {"script", "link", "iframe", "object", "embed", "form", "base", "use", "image", "foreignobject"}
    policies = [a["content"] for name, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    links = [a["href"] or "" for name, a in page.elements if name == "a"]
    assert links and all(each.startswith(("#", "./")) for each in links)
    assert whole.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert "url(" not in whole and "@import" not in whole


def test_sections_stand_in_the_order_of_the_reading_and_every_entry_of_the_contents_has_one(whole: str) -> None:
    order = [
        "verdicts",
        "variants",
        "held",
        "curves",
        "pareto",
        "classes",
        "confusions",
        "errors",
        "agreement",
        "maps",
        "gradients",
    ]
    order += ["calibration", "seal", "tuning", "failures", "recipe", "machine", "runs", "plan", "again"]
    assert sections(whole) == order
    assert sections(study_page(*grid())) == [*order[:5], "interaction", *order[5:]]
    entries = [a["href"] for name, a in Page(whole).elements if name == "a" and (a["href"] or "").startswith("#")]
    assert entries == [f"#{each}" for each in order]


def test_every_number_is_that_of_the_records(whole: str) -> None:
    findings, runs = study()
    text = Page(whole).text
    assert findings.plan.question in text and findings.plan.name in text and "2026-01-06 09:08 UTC" in text
    for row, variant in zip(findings.variants, findings.plan.variants, strict=True):
        top1, speed = row.top1, row.speed
        assert top1 is not None and speed is not None
        for number in (
            f"{100 * top1.mean:.2f}\u202f%", f"{100 * top1.low:.2f} to {100 * top1.high:.2f}\u202f%", figures.count(variant.params),
            figures.short(variant.macs), *(f"{seed}: {100 * value:.2f}\u202f%" for seed, value in zip(row.seeds, row.top1_of_seeds, strict=True)),
            figures.significant(1000 * speed.latency.mean), figures.short(speed.throughput.mean), *row.runs,
            f"{figures.significant(speed.inference_peak_bytes / 2**20)} MiB", figures.duration(row.train_seconds),
        ):  # fmt: skip
            assert number in text, (row.name, number)
    for one in findings.effects:
        assert one.sentence in text and f"{one.first} − {one.second}" in text
    assert "−10.0" in text and "−13.0 to −7.0" in text and "0.024" in text and "1.75" in text
    for run in runs:
        assert f"{run.record.summary.train_seconds:.1f}" in text
    for field in (*fields(findings.plan.variants[0].recipe), *fields(findings.environment)):
        assert field.name == "seed" or field.name in text, field.name


def test_every_accuracy_leads_to_its_run_folder(whole: str) -> None:
    findings, _ = study()
    links = [a["href"] for name, a in Page(whole).elements if name == "a"]
    for row in findings.variants:
        for folder in row.runs:
            assert links.count(f"./{folder}/") >= 2, folder


def test_every_drawing_and_picture_is_told_in_words(whole: str) -> None:
    drawn = drawings(whole)
    assert len(drawn) > 20
    for each in drawn:
        assert each.attrib["role"] == "img" and len(each.attrib["aria-label"]) > 20
        width, height = (float(each.attrib[key]) for key in ("width", "height"))
        assert 0 < width < 2000 and 0 < height < 2000
    assert all(a.get("alt") for name, a in Page(whole).elements if name == "img")
    told = " ".join(each.attrib["aria-label"] for each in drawn)
    assert "plain − short: −10.0 (−13.0 to −7.0)" in told and "plain: 62.0\u202f%, 95 % interval 60.0 to 64.0\u202f%" in told


def test_headline_names_a_winner_with_its_interval_and_says_what_is_undecided(whole: str) -> None:
    said = re.search(r'<p class="verdict">(.*?)</p>', whole, re.S)
    assert said is not None
    assert said[1] == (
        "short is more accurate than plain by 10.0 points (7.0 to 13.0, p = 0.024). Undecided after 3 seeds: short against long."
    )


def headline(findings, runs, **more) -> str:
    found = re.search(r'<p class="verdict">.*?</p>', study_page(findings, runs, **more), re.S)
    assert found is not None
    return Page(found[0]).text


def test_headlines_of_other_outcomes() -> None:
    findings, runs = study()
    (equal, runs2) = grid()
    assert headline(equal, runs2) == "20-batch and 20-none: equivalent."
    assert "no winner" in headline(replace(findings, effects=(), plan=replace(findings.plan, comparisons=())), runs)
    nothing = tuple(replace(each, difference=None) for each in findings.effects)
    assert headline(replace(findings, effects=nothing), runs) == "Undecided: no comparison has a result yet."
    many = tuple(effect("plain", name, 0.01 * k, 0.2, "undecided") for k, name in enumerate(["short", "long"]))
    more = (*many, *(effect(b, a, 0.3, 0.1, "better") for a, b in [("plain", "short"), ("plain", "long")]))
    planned = replace(findings.plan, comparisons=tuple(type(findings.plan.comparisons[0])(e.first, e.second) for e in more))
    said = headline(replace(findings, effects=more, plan=planned), runs)
    assert said.startswith(
        "2 of 4 planned comparisons are decided, the largest: short is more accurate than plain by 30.0 points (20.0 to"
    )
    assert said.endswith("2 are undecided after 3 seeds.")
    one_seed = study(seeds=(4,))
    assert "in seed 4, short is more accurate than plain" in headline(*one_seed)
    assert "another seed could change the order" in Page(study_page(*one_seed)).text


@pytest.mark.parametrize("difference", [Interval(0.02, -0.01, 0.05, 3, "x"), Interval(0.02, 0.02, 0.02, 3, "x"), None])
def test_no_winner_whose_interval_does_not_keep_clear_of_zero(difference) -> None:
    findings, runs = study()
    boast = replace(effect("plain", "short", 0.1, 0.01, "better"), difference=difference, sentence="plain wins.")
    said = Page(study_page(replace(findings, effects=(boast,)), runs)).text
    assert "plain wins." not in said and "plain is more accurate" not in said
    assert "undecided" in said
    assert headline(replace(findings, effects=(boast,)), runs).startswith("Undecided")


def test_what_is_missing_is_said_and_the_rest_is_shown() -> None:
    html = study_page(*unfinished())
    text = Page(html).text
    assert "This study is incomplete" in text and "2 of 9 runs have no result yet" in text
    assert "short, seed 1: not begun" in text and "long, seed 2: the loss was not finite" in text
    assert "convatlas study resume first" in text
    assert "long, seed 2, after 2 attempts: the loss was not finite" in text
    assert "no result yet" in text
    assert headline(*unfinished()).endswith("1 of 2 planned comparisons has no result yet.")
    findings, runs = unfinished()
    early = replace(findings.effects[1], seeds=(0,))
    assert "after 1 of 3 seeds" in headline(replace(findings, effects=(findings.effects[0], early)), runs)
    assert len(sections(html)) == 20
    row = text[text.index("All runs") :]
    assert "not begun" in row and "failed" in row


def _bare():
    findings, runs = study()
    rows = tuple(
        replace(
            row, runs=(), seeds=(), top1=None, top1_of_seeds=(), validation=None, calibration_error=None, per_class=(),
            train_seconds=None, train_images_per_second=None, optimism=None, speed=None,
        )
        for row in findings.variants
    )  # fmt: skip
    return replace(findings, variants=rows, effects=(), optimism=None, complete=False, environment=findings.environment), runs


def _odd():
    findings, runs = study()
    bare, _ = _bare()
    light = tuple(replace(each, answers=None, flows=(), look=None, looks=(), test_epochs=()) for each in runs)
    untested = tuple(replace(each, record=replace(each.record, test=None), answers=None) for each in light)
    no_epochs = tuple(
        replace(each, record=RunRecord(each.record.recipe, each.record.summary, (), each.record.test)) for each in runs
    )
    dead = tuple(
        replace(
            each, flows=tuple(replace(f, layers=tuple(replace(one, weight_gradient=0.0) for one in f.layers)) for f in each.flows)
        )
        for each in runs
    )
    thousand = tuple(f"class {i}" for i in range(300))
    many = tuple(
        replace(row, per_class=tuple(Interval(0.5, 0.4, 0.6, 3, "x") for _ in thousand)) for row in findings.variants
    )  # fmt: skip
    long = "Wolpertinger" * 40
    renamed = {each.name: f"{each.name}-{long}" for each in findings.plan.variants}
    plan = replace(
        findings.plan,
        variants=tuple(replace(each, name=renamed[each.name]) for each in findings.plan.variants),
        comparisons=tuple(
            replace(each, first=renamed[each.first], second=renamed[each.second]) for each in findings.plan.comparisons
        ),
    )
    wordy = replace(
        findings, plan=plan, variants=tuple(replace(each, name=renamed[each.name]) for each in findings.variants),
        effects=tuple(replace(each, first=renamed[each.first], second=renamed[each.second]) for each in findings.effects),
    )  # fmt: skip
    return {
        "nothing has begun": (bare, ()),
        "begun, nothing finished": (bare, runs),
        "findings without folders": (findings, ()),
        "folders without findings": (replace(findings, variants=(), effects=()), runs),
        "runs without extras": (findings, light),
        "runs without a test": (findings, untested),
        "runs without epochs": (findings, no_epochs),
        "dead gradients": (findings, dead),
        "other looks": (
            findings,
            tuple(replace(each, look=replace(each.look, images=())) if each.look else each for each in runs),
        ),
        "no classes": (replace(findings, plan=replace(findings.plan, classes=())), untested),
        "many classes": (replace(findings, plan=replace(findings.plan, classes=thousand), variants=many), untested),
        "no factors": (replace(findings, plan=replace(findings.plan, factors=(), comparisons=(), held=())), runs),
        "one seed": study(seeds=(7,)),
        "long names": (wordy, tuple(replace(each, variant=renamed[each.variant]) for each in runs)),
        "held at nothing": (
            replace(findings, plan=replace(findings.plan, held=(replace(findings.plan.held[0], target=0.0),))),
            runs,
        ),
        "unfinished": unfinished(),
        "two factors": grid(),
    }


@pytest.mark.parametrize("case", _odd())
def test_odd_records_give_a_sound_page(case: str) -> None:
    html = study_page(*_odd()[case])
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", Page(html).text)
    for drawing in drawings(html):
        width, height = (float(drawing.attrib[key]) for key in ("width", "height"))
        assert 0 < width < 2000 and 0 < height < 4000


def test_comparison_of_two_shows_them_alone_and_in_the_same_colours() -> None:
    findings, runs = study()
    html = study_page(findings, runs, compare=("long", "short"))
    text = Page(html).text
    assert "plain" not in text.replace("plan", "").split("The plan")[0].split("Design")[1].split("Held equal")[1]
    assert headline(findings, runs, compare=("long", "short")) == "short and long: undecided."
    whole = {view.name: view.colour for view in views(findings, runs)}
    two = {view.name: view.colour for view in views(findings, runs, compare=("long", "short"))}
    assert two == {name: whole[name] for name in ("long", "short")}


def test_comparison_that_was_not_planned_is_not_tested() -> None:
    findings, runs = study()
    html = study_page(findings, runs, compare=("plain", "long"))
    assert "was not among the planned comparisons" in headline(findings, runs, compare=("plain", "long"))
    assert "not tested" in Page(html).text and "Confusion of plain minus that of long" in html


@pytest.mark.parametrize(("pair", "said"), [(("plain", "shrot"), "Did you mean short"), (("plain", "plain"), "with itself")])
def test_comparison_of_what_is_not_there_is_refused(pair, said: str) -> None:
    with pytest.raises(UserError, match=said):
        study_page(*study(), compare=pair)


def test_what_is_off_what_was_held_is_marked() -> None:
    findings, runs = study()
    plan = findings.plan
    fat = replace(findings, plan=replace(plan, variants=(*plan.variants[:2], replace(plan.variants[2], params=300_000))))
    (held,) = held_equal(fat, views(fat, runs))
    assert [each.within for each in held.variants] == [True, True, False]
    assert held.variants[2].off == pytest.approx(1 / 9)
    assert "+11.11\u202f%, too much" in Page(study_page(fat, runs)).text
    assert "too much" not in Page(study_page(findings, runs)).text


def test_interaction_has_the_means_of_the_cells_and_of_whole_rows() -> None:
    findings, runs = grid()
    table = interaction(findings, views(findings, runs))
    assert table is not None
    means = [[cell.mean for cell in row if cell] for row in table.cells]
    assert means == [[pytest.approx(0.61), pytest.approx(0.71)], [pytest.approx(0.81), pytest.approx(0.91)]]
    assert table.row_means == (pytest.approx(0.66), pytest.approx(0.86))
    lacking = replace(findings, variants=(replace(findings.variants[0], top1=None), *findings.variants[1:]))
    gap = interaction(lacking, views(lacking, runs))
    assert gap is not None and gap.row_means[0] is None and gap.cells[0][0] is None
    assert interaction(*(lambda f, r: (f, views(f, r)))(*study())) is None


def test_agreement_counts_images_and_adds_up() -> None:
    findings, runs = study()
    shown = views(findings, runs)
    first, _ = agreements(findings, pairs(findings, shown, compare=None), most=6)
    assert sum(map(sum, first.table)) == first.n == N
    assert first.states == ("right", "mixed", "wrong")
    # plain is right in every seed on 60 of each hundred, and in some seeds on 64; short on 70 and 74.
    assert first.second_alone == 2 * (70 - 64) and first.first_alone == 0
    assert [image.index for image in first.only_second][:2] == [64, 65] or first.only_second[0].picture
    single = study(seeds=(0,))
    (alone, _) = agreements(single[0], pairs(single[0], views(*single), compare=None), most=6)
    assert alone.states == ("right", "wrong") and alone.table == ((120, 0), (20, 60))


def test_confusion_difference_is_in_shares_of_the_class() -> None:
    findings, runs = study()
    first, _ = confusions(findings, pairs(findings, views(findings, runs), compare=None))
    assert {(each.truth, each.answer) for each in first.shifts} == {(CLASSES[i], CLASSES[(i + 1) % 4]) for i in range(4)}
    assert sum(each.change for each in first.shifts) / 4 == pytest.approx(0.1)
    assert first.chart is not None and "circle called square: +" in first.chart


def test_reliability_counts_the_answers_of_all_seeds() -> None:
    findings, runs = study()
    view = views(findings, runs)[0]
    points = bins(view)
    assert all(0.5 <= confidence <= 0.9 and share is not None and 0 <= share <= 1 for confidence, share in points)
    weights = [0.62]  # the mean accuracy of the variant, whatever the bins
    assert sum(y or 0 for _, y in points) / len(points) == pytest.approx(weights[0], abs=0.1)


def test_maps_are_side_by_side_for_the_images_that_all_have() -> None:
    findings, runs = study()
    short = next(each for each in runs if each.variant == "short" and each.look)
    assert short.look is not None
    one = replace(short, look=replace(short.look, images=short.look.images[:1]))
    found = inside(views(findings, [one if each is short else each for each in runs]))
    assert found is not None and [each.name for each in found.images] == ["validation image 0, circle"]
    assert [layer.name for layer in found.images[0].layers] == ["stem", "stage 1", "stage 2"]
    assert [len(layer.sheets) for layer in found.images[0].layers] == [3, 3, 3]


def test_heavy_pictures_are_left_out() -> None:
    findings, runs = study()
    heavy = "data:image/png;base64,iVBORw0KGgo" + "A" * 200_000
    fat = []
    for each in runs:
        if each.look is not None:
            seen = tuple(replace(i, maps=tuple(replace(m, picture=heavy) for m in i.maps)) for i in each.look.images)
            each = replace(each, look=replace(each.look, images=seen))
        test = each.record.test
        assert test is not None
        worst = tuple(replace(one, picture=heavy) for one in test.worst)
        fat.append(replace(each, record=replace(each.record, test=replace(test, worst=worst))))
    html = study_page(findings, fat)
    assert len(html) < 4_000_000 and "1 more image is there" in Page(html).text


def test_tuning_is_told_for_each_variant() -> None:
    findings, runs = study()
    tuning = Tuning(12, (Searched("lr", 1e-4, 1e-1, log=True), Searched("optimizer", choices=("sgd", "adamw"))), 2)
    tuned = tuple(Tuned(each.name, 12, {"lr": "0.0123"}, 0.654) for each in findings.plan.variants)
    text = Page(study_page(replace(findings, plan=replace(findings.plan, tuning=tuning), tuned=tuned), runs)).text
    assert "12 trials of 2 epochs" in text and "lr: from 0.0001 to 0.1, by powers of ten" in text
    assert "optimizer: one of sgd, adamw" in text and text.count("lr 0.0123") == 3 and "65.40\u202f%" in text
    assert "No search is done yet" in Page(study_page(replace(findings, plan=replace(findings.plan, tuning=tuning)), runs)).text


def test_seal_counts_dates_and_optimism(whole: str) -> None:
    text = Page(whole).text
    assert "The test split was opened 9 times in 9 runs" in text and "36 looks with those" in text
    assert text.count("2026-01-05 10:11 UTC") >= 9
    assert "+1.00" in text and "2 of 3, 2 of 3, 2 of 3" in text
    findings, runs = study()
    blind = replace(
        findings, plan=replace(findings.plan, watched=False), variants=tuple(replace(v, optimism=None) for v in findings.variants)
    )
    assert "cannot be said how optimistic" in Page(study_page(blind, runs)).text
    again = tuple(replace(r, record=replace(r.record, summary=replace(r.record.summary, test_looks=2))) for r in runs)
    assert "9 runs was looked at more than once" in Page(study_page(findings, again)).text


def test_what_ran_elsewhere_is_told() -> None:
    findings, runs = study()
    other = replace(findings.environment, torch="2.99")
    moved = replace(runs[0], record=replace(runs[0].record, summary=replace(runs[0].record.summary, environment=other)))
    text = Page(study_page(findings, (moved, *runs[1:]))).text
    assert "runs/plain/seed-0 ran elsewhere: torch 2.99." in text


def test_rendering_does_not_reach_torch() -> None:
    code = (
        "import sys; from tests.report.study.samples import study; from convatlas.report.study import *;"
        "study_page(*study()); study_csv(*study()); study_markdown(*study());"
        "sys.exit(str(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'safetensors', 'scipy'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
