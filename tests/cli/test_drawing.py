"""`convatlas draw` on the command line."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from convatlas.cli.main import app
from convatlas.errors import UserError
from convatlas.records import codec

from ..report.diagram.ledgers import ledger, residual
from .makers import environment


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*words):
    result = CliRunner().invoke(app, ["draw", *map(str, words)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*words):
    result = CliRunner().invoke(app, ["draw", *map(str, words)])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def texts(file):
    root = ElementTree.parse(file).getroot()
    return [each.text.replace("\u00a0", " ") for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_network_under_its_name(here):
    assert draw("resnet18") == "drawn: resnet18.svg\n"
    assert [file.name for file in here.iterdir()] == ["resnet18.svg"]
    assert "BasicBlock, opened up" in texts(here / "resnet18.svg")
    assert refused("resnet18") == "resnet18.svg exists already, and nothing is ever overwritten. Name another file with --out."


def test_size_part_and_width(here):
    told = json.loads(draw("resnet18", "--image-size", 64, "--open", "stages.1.0", "--narrow", "--out", "a.svg", "--json"))
    assert told == {"file": "a.svg", "widths": [358], "bytes": (here / "a.svg").stat().st_size}
    found = texts(here / "a.svg")
    assert any("image 3 × 64 × 64" in text for text in found)
    assert "stages.1.0" in found
    assert ElementTree.parse(here / "a.svg").getroot().attrib["width"] == "358"


def test_a_page(here):
    assert json.loads(draw("lenet5", "--out", "a.html", "--json"))["widths"] == [1060, 358]
    assert (here / "a.html").read_text(encoding="utf-8").count("<svg") == 2


def test_a_network_of_the_users_own(here):
    (here / "net.py").write_text("from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())\n")
    assert draw("./net.py:make") == "drawn: net.make.svg\n"
    assert "3×3 conv" in texts(here / "net.make.svg")


def test_what_show_wrote_can_be_drawn(here):
    result = CliRunner().invoke(app, ["show", "lenet5", "--json"])
    (here / "shown.json").write_text(result.stdout, encoding="utf-8")
    draw("--ledger", "shown.json")
    draw("lenet5")
    assert (here / "shown.svg").read_bytes() == (here / "lenet5.svg").read_bytes()


def test_from_a_ledger_and_the_line_of_descent_without_torch(here):
    (here / "own.json").write_text(codec.to_text(ledger(residual(), [("block", "Block")], model="own")), encoding="utf-8")
    for words in (["draw", "--ledger", "own.json"], ["draw", "--evolution"], ["draw", "--help"]):
        code = (
            "import sys; from convatlas.cli.main import main\n"
            f"sys.argv = ['convatlas', *{words!r}]\n"
            "try: main()\n"
            "except SystemExit as e: assert e.code == 0, e.code\n"
            "assert 'torch' not in sys.modules"
        )
        result = subprocess.run([sys.executable, "-c", code], env=environment(here), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
    assert "Block, opened up" in texts(here / "own.svg")
    assert "ConvNeXt" in texts(here / "evolution.svg")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "one thing to draw"),
        (["resnet18", "--evolution"], "one thing to draw"),
        (["resnet81"], "Did you mean resnet18"),
        (["resnet18", "--open", "stages.9"], "Did you mean stages.3"),
        (["resnet18", "--out", "a.png"], "neither .svg nor .html"),
        (["resnet18", "--out", "none/a.svg"], "the folder none does not exist"),
        (["resnet18", "--out", "a.html", "--narrow"], "Leave --narrow out"),
        (["--evolution", "--open", "stem"], "--open is for one network"),
        (["--evolution", "--image-size", "64"], "--image-size is for a network by its name"),
        (["--ledger", "none.json"], "none.json does not exist"),
        (["resnet18", "--image-size", "0"], "image_size is 0"),
    ],
)
def test_refused(here, words, complaint):
    assert complaint in refused(*words)
    assert list(here.iterdir()) == []
