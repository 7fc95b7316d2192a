"""The page as a whole: what stands on it, that it stands alone, and that odd records do not break it."""

import math
import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from convatlas.records.study import Comparison
from convatlas.report import figures
from convatlas.report.html import comparison_page

from .pages import Page, drawings
from .samples import CLASSES, FAMILIES, evaluation, row, run, study, unfinished


@pytest.fixture(scope="module")
def whole() -> str:
    return comparison_page(*study())


def test_page_is_one_document_that_loads_nothing(whole: str) -> None:
    page = Page(whole)
    assert whole.lstrip().startswith("<!DOCTYPE html>")
    assert not page.names() & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "a",
        "use",
        "image",
        "foreignobject",
    }
    sources = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in {"src", "href", "xlink:href"}
    ]
    assert sources and all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert whole.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert "url(" not in whole and "@import" not in whole


def test_policy_admits_styles_and_pictures_only(whole: str) -> None:
    policies = [a["content"] for name, a in Page(whole).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_number_of_every_model_is_on_the_page() -> None:
    comparison, runs = study(seeds=(0, 1, 2))
    text = Page(comparison_page(comparison, runs)).text
    for each in comparison.rows:
        interval = each.accuracy
        assert interval is not None
        for number in (
            figures.count(each.params), figures.short(each.macs), figures.count(each.images_seen), f"{each.train_seconds:.1f}",
            f"{100 * interval.mean:.1f}\u202f%", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}\u202f%", str(each.year),
            f"{100 * min(each.accuracies):.1f} to {100 * max(each.accuracies):.1f}\u202f%", each.family, each.title, *each.runs,
            figures.count(round(each.images_per_second)),
        ):  # fmt: skip
            assert number in text, (each.model, number)


def test_every_field_of_recipe_and_environment_is_on_the_page(whole: str) -> None:
    comparison, _ = study()
    text = Page(whole).text
    for field in (*fields(comparison.recipe), *fields(comparison.environment)):
        assert field.name in text
    for value in (
        "f3a9c1d2",
        "0.003",
        "one-cycle",
        "Imaginary CPU 8481C",
        "2.10.0+cpu",
        "channels_last",
        "the processor has AMX",
    ):
        assert value in text
    assert comparison.command in text and "2\u202f000 test images" in text


def test_sections_show_counts_recalls_confusions_and_pictures() -> None:
    text = Page(comparison_page(*study([4]))).text
    assert "434" in text and "66 of 500" in text and "86.8\u202f%" in text  # 0.868 of 500 found, the rest the next class
    assert "square → triangle" in text and "99.0\u202f%, image 3" in text
    html = comparison_page(*study([4]))
    assert html.count('<img src="data:image/png;base64,') == 4


def test_best_section_is_open_and_the_others_closed(whole: str) -> None:
    details = [attributes for name, attributes in Page(whole).elements if name == "details"]
    assert len(details) == 8
    assert ["open" in each for each in details] == [True] + 7 * [False]


def test_unfinished_models_stand_with_their_cause_and_the_command_that_goes_on() -> None:
    comparison, runs = study([3, 4, 5])
    failed = replace(comparison.rows[0], accuracy=None, accuracies=(), seeds=(), runs=(), cause="the loss was not finite")
    partial = replace(
        comparison, rows=(failed, *comparison.rows[1:]), models=(*comparison.models, "vgg.pocket"), complete=False
    )  # fmt: skip
    text = Page(
        comparison_page(partial, [unfinished(runs[0], "the loss was not finite"), *runs[1:]], continue_with="go --on")
    ).text
    assert "This comparison is incomplete" in text and "go --on" in text
    assert "googlenet.pocket: the loss was not finite" in text and "vgg.pocket: not run yet" in text
    assert "2 of 4 models have no result" in text
    assert "failed: the loss was not finite" in text


def test_incomplete_without_a_continuing_command_shows_that_of_the_comparison() -> None:
    comparison, runs = study([3, 4])
    text = Page(comparison_page(replace(comparison, complete=False), runs)).text
    assert "command of the whole comparison: convatlas compare --epochs 5" in text
    assert "incomplete" not in Page(comparison_page(comparison, runs)).text


def test_lacking_seed_is_named() -> None:
    comparison, runs = study([3, 4], seeds=(0, 1))
    short = row(runs[:1], title="GoogLeNet")
    text = Page(comparison_page(replace(comparison, rows=(short, comparison.rows[1]), complete=False), runs)).text
    assert "googlenet.pocket: no result for seed 1" in text


def test_budget_is_explained_as_it_was_given() -> None:
    comparison, runs = study([3, 4])
    assert "same number of training images" in comparison_page(comparison, runs)
    timed = replace(comparison, recipe=replace(comparison.recipe, epochs=None, minutes=2.0))
    page = comparison_page(timed, runs)
    assert "same wall-clock time" in page and "same number of training images" not in page


def test_colour_and_curves_of_several_seeds() -> None:
    html = comparison_page(*study([4], seeds=(0, 1, 2)))
    assert html.count('class="thin"') == 3 * 2 * 4  # three seeds, wide and narrow, four figures
    assert 'class="thin"' not in comparison_page(*study([4]))


def _odd() -> dict[str, tuple[Comparison, list]]:
    pair, runs = study([3, 4])
    one = runs[0]
    gaps = tuple(replace(each, val_accuracy=None, val_loss=None) for each in one.metrics)
    nan = tuple(replace(each, val_accuracy=math.nan, train_loss=math.nan) for each in one.metrics)
    long = "Wolpertinger" * 60
    equal = [replace(each, accuracy=pair.rows[0].accuracy, accuracies=pair.rows[0].accuracies) for each in pair.rows]
    broken = replace(pair.rows[0], accuracy=replace(pair.rows[0].accuracy, mean=math.nan))  # type: ignore[type-var]
    hundred = tuple(f"class {index}" for index in range(100))
    thousand = tuple(f"class {index}" for index in range(300))
    return {
        "no row": (replace(pair, rows=(), complete=False), []),
        "no class": (replace(pair, classes=()), runs),
        "one epoch": study([3, 4], epochs=1),
        "equal": (replace(pair, rows=tuple(equal)), runs),
        "no validation": (pair, [replace(one, metrics=gaps), runs[1]]),
        "not a number": (replace(pair, rows=(broken, pair.rows[1])), [replace(one, metrics=nan), runs[1]]),
        "no metrics": (pair, [replace(one, metrics=()), runs[1]]),
        "no test": (pair, [replace(one, test=None), runs[1]]),
        "no runs": (pair, []),
        "long names": (replace(pair, rows=tuple(replace(each, title=f"{each.family} {long}") for each in pair.rows)), runs),
        "hundred classes": (replace(pair, classes=hundred), [replace(one, test=evaluation(0.7, hundred)), runs[1]]),
        "too many classes": (replace(pair, classes=thousand), [replace(one, test=evaluation(0.7, thousand)), runs[1]]),
        "zero size": (replace(pair, rows=tuple(replace(each, params=0, train_seconds=0.0) for each in pair.rows)), runs),
        "unknown families": (replace(pair, rows=tuple(replace(each, family="mine") for each in pair.rows)), runs),
        "same titles": (replace(pair, rows=tuple(replace(each, title="Net") for each in pair.rows)), runs),
    }


@pytest.mark.parametrize("case", _odd())
def test_odd_records_give_a_sound_page(case: str) -> None:
    html = comparison_page(*_odd()[case])
    assert not re.search(r"\b(nan|inf|None)\b", Page(html).text)
    for drawing in drawings(html):
        width, height = (float(drawing.attrib[key]) for key in ("width", "height"))
        assert 0 < width < 2000 and 0 < height < 2000


def test_empty_class_has_no_recall() -> None:
    comparison, runs = study([4])
    test = runs[0].test
    assert test is not None
    emptied = replace(test, confusion=((0, 0, 0, 0), *test.confusion[1:]))
    text = Page(comparison_page(comparison, [replace(runs[0], test=emptied)])).text
    assert "circleno images–" in text and text.count("no images") == 1


def test_no_test_evaluation_is_said() -> None:
    comparison, runs = study([4])
    assert "hold no evaluation" in comparison_page(comparison, [replace(runs[0], test=None)])


def test_hundred_classes_stay_small() -> None:
    classes = tuple(f"class {index}" for index in range(100))
    comparison, runs = study([4])
    html = comparison_page(comparison, [replace(runs[0], test=evaluation(0.7, classes))])
    assert len(html) < 200_000
    assert 'class="count' not in html and html.count("<bdi>class 99</bdi>") >= 1


def test_models_of_one_title_are_told_apart_by_name_and_dashes() -> None:
    comparison, runs = study([3, 4])
    same = replace(comparison, rows=tuple(replace(each, title="Net", family="resnet") for each in comparison.rows))
    html = comparison_page(same, runs)
    assert 'class="mean dash1"' in html and "<strong>resnet.pocket</strong>" in html


def test_rendering_does_not_reach_torch() -> None:
    code = (
        "import sys; from tests.report.samples import study; from convatlas.report.html import comparison_page;"
        "from convatlas.report.table import comparison_csv; comparison_page(*study()); comparison_csv(*study());"
        "sys.exit(str(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'safetensors', 'scipy'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_samples_cover_the_eight_families() -> None:
    assert len({each[0] for each in FAMILIES}) == 8 and len(CLASSES) == 4
    assert run(0).summary.model == "lenet.pocket"


def test_a_model_that_never_began_has_dashes_not_zeros() -> None:
    whole, runs = study([3, 4])
    never = replace(
        whole.rows[0], params=0, macs=0, image_size=0, accuracy=None, accuracies=(), seeds=(), runs=(), cause="not run yet"
    )  # fmt: skip
    html = comparison_page(replace(whole, rows=(never, whole.rows[1]), complete=False), runs[1:])
    assert "0 × 0" not in html and '<td class="number">0</td>' not in html.split("The models")[1].split("How they learned")[0]
    assert "googlenet.pocket: not run yet" in Page(html).text
