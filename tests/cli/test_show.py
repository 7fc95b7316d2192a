"""`convatlas show`: the ledger at a terminal, as JSON and as a page."""

import json

import pytest

from convatlas.records import codec
from convatlas.records.ledger import Ledger

from .makers import convatlas
from .zygote import command

NET = """
import torch
from torch import nn
from beside import WIDTH

def make():
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 5))

class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x

class Rolls(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x).roll(1, 2)

class Loud(Decides):
    def forward(self, x):
        print("HELLO")
        return self.conv(x)

READY = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(50)))

class Two(nn.Module):
    def forward(self, image, mask):
        return image * mask

def broken():
    raise ValueError("no weights")

def number():
    return 3

WORDS = "not callable"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("show")
    (place / "net.py").write_text(NET)
    (place / "beside.py").write_text("WIDTH = 7\n")
    (place / "syntax.py").write_text("def make(:\n")
    (place / "there.html").write_text("mine")
    return place


def test_a_network_of_the_atlas(folder):
    done = convatlas("show", "resnet18", folder=folder, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "floor((224 - 7 + 2*3) / 2) + 1 = 112" in text
    assert "BasicBlock x 2" in text
    assert "paths see 27, 11" in text
    assert "11,689,512 parameters; 1,814,073,344 MACs" in text
    assert "every unit sees the whole image from head.pool (AdaptiveAvgPool2d) on" in text
    assert "skipped pixels: stages.1.0.shortcut.conv: kernel 1, stride 2" in text
    assert max(len(line) for line in text.splitlines() if "  " in line) <= 100


def test_all_columns_where_there_is_room(folder):
    wide = convatlas("show", "resnet18", folder=folder, COLUMNS="140").stdout.splitlines()
    assert wide[2].split() == ["layer", "operation", "output", "params", "MACs", "keeps", "field", "jump", "start"]
    narrow = convatlas("show", "resnet18", folder=folder, COLUMNS="60").stdout.splitlines()
    assert narrow[2].split() == ["layer", "operation", "output", "params", "MACs", "field"]
    assert not any("…" in line for line in (*wide, *narrow)), "no digit is lost"


def test_unfolded(folder):
    folded, unfolded = (command("show", "convnext.pocket", *more, folder=folder).stdout for more in ((), ("--all",)))
    assert "Block x 2" in folded
    assert "Block x" not in unfolded
    assert len(unfolded.splitlines()) > len(folded.splitlines())


def test_json_is_the_record(folder):
    done = command("show", "lenet5", "--json", folder=folder)
    record = codec.from_plain(Ledger, json.loads(done.stdout), where="x")
    assert record.params == 61_706
    assert record.input_shape == (1, 32, 32)


def test_ones_own_network_and_a_page(folder):
    done = command("show", "net.py:make", "--image-size", "32", "--html", "page.html", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "idle bias: 0: a bias before BatchNorm. BatchNorm subtracts each channel's mean" in done.stdout
    assert "layer by layer" in (folder / "page.html").read_text()
    assert "written: page.html" in done.stdout


def test_what_is_not_known_is_not_denied(folder):
    """Rolling is not followed: the footer says so, and no hint speaks of what units do not see."""
    text = " ".join(command("show", "net.py:Rolls", "--image-size", "16", folder=folder).stdout.split())
    assert "receptive fields are not known (?) from the network itself (roll) on: the operation roll has no rule" in text
    assert "no unit sees" not in text
    assert "narrow view" not in text


def test_what_a_network_prints_is_no_part_of_the_result(folder):
    done = command("show", "net.py:Loud", "--image-size", "16", "--json", folder=folder)
    assert codec.from_plain(Ledger, json.loads(done.stdout), where="x").params == 112
    assert "HELLO" in done.stderr


def test_a_module_that_is_made_already_and_many_alike_layers(folder):
    done = convatlas("show", "net.py:READY", "--image-size", "16", folder=folder, COLUMNS="100")
    assert "0 to 49" in done.stdout
    assert len(done.stdout.splitlines()) < 25


def test_lines_below_the_table_fit_a_narrow_terminal(folder):
    lines = convatlas("show", "lenet5", folder=folder, COLUMNS="60").stdout.splitlines()
    footer = lines[lines.index("61,706 parameters; 416,520 MACs") :]
    assert max(map(len, footer)) <= 60


BAD = [
    (["show", "resnet18", "--html", "there.html"], "Name another with --html"),
    (["show", "resnt18"], "no model called 'resnt18'. Did you mean resnet18"),
    (["show", "resnet18", "--image-size", "0"], "image_size is 0"),
    (["show", "vgg16", "--image-size", "8"], "layer stages.4.6 (MaxPool2d) the map is 1x1"),
    (["show", "resnet18", "--html", "there.html"], "there.html exists already"),
    (["show", "resnet18", "--batch-size", "0"], "--batch-size"),
    (["show", "net.py"], "'net.py' names no factory. Name one after a colon"),
    (["show", "net.py:mak"], "net.py has no 'mak'. Did you mean make?"),
    (["show", "net.py:broken"], "broken() of net.py failed: ValueError: no weights"),
    (["show", "net.py:number"], "number() of net.py gives a int"),
    (["show", "net.py:WORDS"], "WORDS() of net.py failed: TypeError"),
    (["show", "none.py:make"], "none.py is no file"),
    (["show", "syntax.py:make"], "syntax.py cannot be run: SyntaxError"),
    (["show", "net.py:Decides"], "may decide upon them"),
    (["show", "net.py:Two"], "takes 2 inputs (image, mask)"),
    (["show", "net.py:make", "--in-chans", "1"], "layer 0 takes 3 channels, and is given 1"),
    (["show", "net.py:make", "--num-classes", "3"], "--num-classes is for models of the atlas"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words, message, folder):
    before = sorted(path.name for path in folder.rglob("*") if "__pycache__" not in path.parts)
    done = command(*words, folder=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert message in " ".join(done.stderr.split())
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.rglob("*") if "__pycache__" not in path.parts) == before
