"""The page of a classifier's errors: whole, without script, true to the record, and safe from hostile names."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from convatlas.arith.proportion import wilson
from convatlas.records.errors_look import Bin, Calibration, ClassScore, ErrorReport, JudgedImage, Suspect
from convatlas.records.study import Interval
from convatlas.report.errors_look import CHARTED, errors_page, errors_section, errors_view, sure

from .pages import Page, drawings
from .samples import PICTURE
from .test_hostile import PAYLOADS

BINS = (Bin(8 / 15, 9 / 15, 4, 0.57, 0.5), Bin(14 / 15, 1.0, 16, 0.98, 0.9375))
BEFORE = Calibration(1.0, 0.41, 0.2, 0.07, 0.04, BINS)


def share(count, n):
    return Interval(count / n, *wilson(count / n, n), n, "Wilson score over something")


def report(name="cat", confusion=((9, 1), (2, 8)), classes=None, **changes):
    classes = classes or (name, "dog")
    right, n = sum(row[i] for i, row in enumerate(confusion)), sum(map(sum, confusion))
    scores = []
    for i, each in enumerate(classes):
        own, answers, found = sum(confusion[i]), sum(row[i] for row in confusion), confusion[i][i]
        precision, recall = share(found, answers) if answers else None, share(found, own) if own else None
        scores.append(ClassScore(each, own, answers, found, precision, recall, 2 * found / (own + answers) if own else None))
    image = JudgedImage(3, f"{name}.jpg", name, "dog", 0.98765, name, 0.9, PICTURE, PICTURE)
    close = replace(image, predicted=name, runner_up="dog", probability=0.52, margin=0.04, map=None)
    whole = ErrorReport(
        split="test",
        n=n,
        size=224,
        classes=classes,
        accuracy=share(right, n),
        confusion=confusion,
        scores=tuple(scores),
        worst=(image,),
        unsure=(close,),
        temperature=1.75,
        fitted_on="val",
        before=BEFORE,
        after=replace(BEFORE, temperature=1.75, nll=0.33),
        suspects=(Suspect(3, f"{name}.jpg", name, "dog", 0.01, 0.98, PICTURE), Suspect(9, "b.jpg", name, "dog", 0.1, 0.8, None)),
        layer="head.act",
        notes=(),
    )
    return replace(whole, **changes)


def text(record, **names):
    return Page(errors_page(record, **({"model": "net", "data": "pets"} | names))).text


def test_the_page_says_all_that_was_found():
    said = text(report())
    for words in (
        "Where net errs on pets",
        "17 of 20 test images are named correctly: 85.0\u202f% (95 % interval 64.0 to 94.8\u202f%).",
        "The network saw the middle 224 × 224 pixels",
        "T = 1.75, fitted on the validation images.",
        "Grad-CAM at head.act",
        "cat called dog, 98.8\u202f% sure",
        "cat 52.0\u202f%, dog 48.0\u202f%; labelled cat",
        "2 of 20 labels are improbable: the network, which was not trained on them,",
        "cat, or dog?",
        "dog → cat2 of 10",
        "90.0\u202f%59.6 to 98.2\u202f%",
        "7.0\u202f%",
        "On average it is 89.8\u202f% sure as it comes,",
        "The temperature helps here: the cross-entropy is 0.330 nats with it, 0.410 without.",
    ):
        assert words in said, words
    assert "To bear in mind" not in said


def test_it_is_one_file_without_script_with_its_pictures_inside():
    page = Page(errors_page(report(), model="net", data="pets"))
    assert not page.names() & {"script", "link", "iframe", "object"}
    images = [attributes for name, attributes in page.elements if name == "img"]
    assert [each["src"] for each in images] == [PICTURE] * 4 and all(each["alt"] for each in images)
    assert page.text.count("no map") == 1
    assert len(drawings(errors_page(report(), model="net", data="pets"))) == 5, "a matrix, and two charts wide and narrow"


def test_the_body_goes_into_another_page():
    body = errors_section(report())
    assert "<html" not in body and "<style" not in body
    assert body.strip() in errors_page(report(), model="net", data="pets")


def test_what_is_to_be_borne_in_mind():
    own = errors_view(report(split="val", notes=("There are no maps: why.",)))
    assert own.cautions == (
        "The temperature was fitted on the images that it is judged on here: on others it fits less well.",
        "There are no maps: why.",
    )
    assert own.basis[1].endswith("fitted on the validation images, these very images.")
    trained = text(report(split="train"))
    assert "These are the images it was trained on" in trained and "which was trained on these images" in trained


@pytest.mark.parametrize(
    ("fitted_on", "words"),
    [("val", "the validation images."), ("test", "the test images, these very images."),
     ("the folds by which it was chosen", "the folds by which it was chosen.")],
)  # fmt: skip
def test_it_says_on_what_the_temperature_was_fitted(fitted_on, words):
    assert f"temperature scaling with T = 1.75, fitted on {words}" in text(report(fitted_on=fitted_on))


def test_without_a_temperature_it_says_so_and_compares_nothing_with_it():
    said = text(report(fitted_on="", temperature=1.0, after=BEFORE))
    assert "No temperature was fitted: probabilities are those that the network gives" in said
    assert "On average it is 89.8\u202f% sure, and right on 85.0\u202f%. No temperature was fitted." in said
    assert "T = " not in said and "fitted on" not in said and "with the temperature" not in said
    whole, alone = (
        Page(errors_page(each, model="net", data="pets")).elements
        for each in (report(), report(fitted_on="", temperature=1.0, after=BEFORE))
    )
    assert sum(tag == "td" for tag, _ in whole) - sum(tag == "td" for tag, _ in alone) == 4
    assert "T = 1.75, of which it is not known on what it was fitted." in text(report(fitted_on=""))


def test_a_long_description_of_the_data_stands_below_the_title():
    data = "a folder of pictures, 2 classes, 80 pictures at 110x110; no splits: parted 70/15/15"
    said = text(report(), data=data)
    assert "Where net errs on a folder of pictures 17 of 20" in said and f"The data: {data}." in said
    assert said.count(data) == 1
    assert "The data" not in text(report(), data="pets")
    assert "Where net errs on , pets" in text(report(), data=", pets"), "a title is never without its data"


def test_it_says_why_a_picture_has_no_map():
    one = report()
    assert text(one).count("in no place does this layer speak for the answer") == 1, "below the pictures that lack one"
    mapped = replace(one, unsure=one.worst)
    assert "no map" not in text(mapped).lower()
    none = replace(one, layer=None, worst=(replace(one.worst[0], map=None),), notes=("There are no maps: the reason. Do this.",))
    assert text(none).count("There are no maps: the reason. Do this.") == 3, "above all, and below both kinds"
    assert "There are no maps: the reason. Do this." in Page(errors_section(none)).text
    assert Page(errors_section(replace(none, notes=()))).text.count("There are no maps.") == 2


def test_maps_are_explained_also_where_every_answer_is_right():
    assert text(report()).count("Grad-CAM at head.act") == 1
    assert text(report(worst=())).count("Grad-CAM at head.act") == 1


def test_a_class_without_an_image():
    one = report(confusion=((9, 1), (0, 0)))
    assert errors_view(one).cautions == ("There is no image of dog, so that nothing is known of it.",)
    assert errors_view(one).charted == 1
    assert "dog0–10.0\u202f%" in text(one)
    many = errors_view(report(confusion=((1, *(0,) * 7), *((0,) * 8,) * 7), classes=tuple("abcdefgh")))
    assert many.cautions == ("There is no image of b, c, d, e, f and 2 more, so that nothing is known of them.",)


def test_all_answers_right_and_one_image():
    perfect = text(report(confusion=((10, 0), (0, 10)), worst=(), suspects=()))
    assert "All 20 test images are named correctly: 100.0\u202f% (95 % interval 83.9 to 100.0\u202f%)." in perfect
    assert "There are none: every answer is right." in perfect
    assert "No label is improbable" in perfect
    one = text(report(confusion=((1, 0), (0, 0)), worst=(), suspects=()))
    assert "The one test image is named correctly, which says next to nothing." in one
    assert "is named wrongly" in text(report(confusion=((0, 1), (0, 0))))


def test_a_temperature_that_does_not_help_or_does_nothing():
    worse = report(after=replace(BEFORE, nll=0.52))
    assert "The temperature does not help here: the cross-entropy is 0.520 nats with it, 0.410 without." in text(worse)
    plain = report(temperature=1.0, after=BEFORE)
    assert "The temperature changes nothing here." in text(plain)
    assert "before: " not in str(errors_view(plain).reliability.wide)
    assert "before: " in str(errors_view(worse).reliability.wide)


def test_the_reliability_diagram_has_a_dot_for_each_bin():
    chart = str(errors_view(report()).reliability.wide)
    assert chart.count("<circle") == 4
    assert "after: 16 of 20 answers, 98.0\u202f% sure, 93.8\u202f% right" in chart
    assert chart.count('class="pale"') == 2, "bins of fewer than ten answers"
    radii = sorted({float(each) for each in re.findall(r'<circle[^>]* r="([\d.]+)"', chart)})
    assert radii[0] < radii[1]


def test_of_many_classes_those_with_errors_are_drawn_and_all_are_listed():
    """Forty classes, of which number 33 is called 7 five times, and 8 called 9 once."""
    rows = [[10 if i == j else 0 for j in range(40)] for i in range(40)]
    rows[33][7], rows[8][9] = 5, 1
    many = report(confusion=tuple(map(tuple, rows)), classes=tuple(f"class {i}" for i in range(40)))
    view = errors_view(many)
    assert view.shown == view.charted == CHARTED
    for name in ("class 33", "class 7", "class 8", "class 9"):
        assert f">{name}<" in view.matrix
    assert ">class 39<" not in view.matrix
    assert ">class 33<" in view.classes.wide and ">class 39<" not in view.classes.wide
    assert [(each.truth, each.answer, each.count) for each in view.confused] == [
        ("class 33", "class 7", 5),
        ("class 8", "class 9", 1),
    ]
    said = text(many)
    assert "class 39" in said and "Of 40 classes the 25 that take part in most errors" in said
    assert "Drawn are the 25 classes found least." in said


def test_nothing_is_rounded_to_certainty():
    assert sure(0.99951) == "above 99.9\u202f%" and sure(0.999) == "99.9\u202f%"
    assert sure(1.0) == "above 99.9\u202f%"


def test_a_picture_that_is_none_is_not_shown():
    one = report()
    elsewhere = "https://elsewhere/x.png"
    spoilt = replace(
        one,
        worst=(replace(one.worst[0], picture=elsewhere, map=elsewhere),),
        suspects=(replace(one.suspects[0], picture=elsewhere),),
    )
    assert "elsewhere" not in errors_page(spoilt, model="net", data="pets")


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_stay_text(payload):
    poisoned = report(payload, split=payload, fitted_on=payload, layer=payload, notes=(payload,))
    page = Page(errors_page(poisoned, model=payload, data=payload))
    assert page.names() == Page(errors_page(report(notes=("x",)), model="net", data="pets")).names()
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)


def test_torch_is_not_needed():
    code = "import sys, convatlas.report.errors_look; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
