"""`convatlas diff` on the command line."""

import json
import re

import pytest
from typer.testing import CliRunner

from convatlas.cli import differing
from convatlas.cli.main import app
from convatlas.models.papers import golden_rows
from convatlas.records import codec
from convatlas.records.model import ModelDiff

from .zygote import command


def told(*words):
    result = CliRunner().invoke(app, ["diff", *words], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def row(text, label):
    """The numbers of a row of the closing table."""
    (line,) = (line for line in text.splitlines() if line.startswith(label))
    return re.split(r"\s{2,}", line.strip())[1:]


def test_deeper_in_every_stage():
    text = told("vgg11", "vgg16")
    a, b = golden_rows()["vgg11"], golden_rows()["vgg16"]
    assert row(text, "parameters") == [f"{a.params:,}", f"{b.params:,}", f"{b.params - a.params:+,}", "+4.1 %"]
    assert row(text, "MACs") == [f"{a.macs:,}", f"{b.macs:,}", f"{b.macs - a.macs:+,}", "+103.3 %"]
    assert row(text, "receptive field") == ["150", "212", "+62", "+41.3 %"]
    assert "stage 3: 5 layers the same\n" in text
    assert "+ 1 Conv2d, 256, 3x3 padding 1, +590,080 parameters, +1.85 G MACs" in text
    assert "head: the same, 9 layers" in text
    assert "why: docs/families/vgg.md" in text


def test_what_the_paper_does_otherwise():
    text = told("resnet50", "resnet50.paper")
    assert text.count("no bias -> 1x1 stride 2 no bias") == 3, "the first block of stages 2 to 4"
    assert text.count("3x3 stride 2 padding 1 no bias -> 3x3 padding 1 no bias") == 3
    assert "stem: the same" in text
    assert "stage 1: the same" in text
    assert row(text, "parameters")[2] == "none"
    assert row(text, "receptive field")[:2] == ["427", "483"]


def test_equal_models_are_said_to_be():
    text = told("resnet18", "resnet18")
    assert "All layers are the same." in text
    assert [row(text, label)[2] for label in ("parameters", "MACs", "receptive field")] == ["none"] * 3
    assert "~ " not in text.split("not the same.")[1]


def test_each_at_its_own_image_size_and_said_so():
    text = told("resnet18", "resnet.pocket")
    assert re.search(r"A  resnet18 +image 3x224x224, output 1000\n", text)
    assert re.search(r"B  resnet.pocket +image 3x32x32, output 10\n", text)
    assert "The images differ" in text
    alike = told("resnet18", "resnet.pocket", "--image-size", "32", "--num-classes", "10")
    assert "The images differ" not in alike
    assert re.search(r"A  resnet18 +image 3x32x32, output 10\n", alike)


def test_a_field_that_is_the_whole_image():
    assert row(told("efficientnet_b0", "efficientnet.pocket"), "receptive field") == ["whole image", "whole image", "none"]
    assert row(told("resnet18", "efficientnet_b0"), "receptive field") == ["435", "whole image"]


def test_a_field_that_is_not_known(monkeypatch):
    traced = differing._traced

    def lost(name, *options):
        record = traced(name, *options)
        layers = tuple(
            codec.from_plain(type(layer), {**codec.to_plain(layer), "unfollowed": "why"}, where="x") for layer in record.layers
        )
        plain = {**codec.to_plain(record), "layers": codec.to_plain(layers), "receptive_field": None, "unfollowed": "why"}
        return codec.from_plain(type(record), plain, where="x") if name == "vgg16" else record

    monkeypatch.setattr(differing, "_traced", lost)
    text = told("vgg11", "vgg16")
    assert row(text, "receptive field") == ["150", "unknown"]
    assert "receptive field 4 -> unknown" in " ".join(text.split())


def test_rates_that_rise_are_one_line():
    text = told("convnext_tiny", "convnext_small")
    assert "~ 2 DropPath, rate 0.00588235 to 0.0117647 -> rate 0.0114286 to 0.0228571" in text
    assert "+ 18 DropPath, rate 0.171429 to 0.365714" in text


@pytest.mark.parametrize("pair", [("resnet18", "resnet50"), ("googlenet", "googlenet.pocket"), ("densenet121", "resnet18")])
def test_it_fits_into_eighty_columns(pair):
    assert max(len(line.rstrip()) for line in told(*pair).splitlines()) <= 80


def test_json(tmp_path):
    result = command("diff", "vgg11", "vgg16", "--json", folder=tmp_path)
    found = json.loads(result.stdout)
    assert found["models"] == ["vgg11", "vgg16"]
    record = codec.from_plain(ModelDiff, found["difference"], where="x")
    assert record.second.receptive_field == 212
    assert [len(part.changes) for part in record.parts] == [2, 2, 2, 2, 2, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet5O", "resnet18"], "no model called 'resnet5O'. Did you mean"),
        (["resnet18"], "Missing argument 'second'"),
        (["vgg16", "vgg11", "--image-size", "8"], "the image is too small"),
        (["vgg16", "vgg11", "--num-classes", "-1"], "num_classes is -1"),
    ],
)
def test_bad_input_is_one_line(words, said, tmp_path):
    result = command("diff", *words, folder=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
