"""`convatlas gradients`: networks before the first step, and runs."""

import json

import pytest

from convatlas.records import codec
from convatlas.records.gradients import GradientComparison

from .zygote import command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("gradients")
    (place / "there").mkdir()
    for name, more in (("with", ["--gradients"]), ("without", [])):
        words = ["train", "lenet.pocket", "--data", "shapes", "--epochs", "1", "--batch-size", "256", "--out", name, *more]
        done = command(*words, folder=place)
        assert done.returncode == 0, done.stderr
    return place


def test_two_networks(folder):
    done = command("gradients", "resnet20.plain", "resnet20", "--seeds", "2", "--batch-size", "16", "--out", "out", folder=folder)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("resnet20")]
    assert names == ["resnet20.plain", "resnet20"]
    assert {path.name for path in (folder / "out").iterdir()} == {"gradients.html", "gradients.json", "gradients.svg"}
    record = codec.read(GradientComparison, folder / "out" / "gradients.json")
    assert [(flow.model, flow.seed) for flow in record.flows] == [(m, s) for m in ("resnet20.plain", "resnet20") for s in (0, 1)]
    assert record.flows[0].similarity < 0.2 < record.flows[2].similarity
    page = (folder / "out" / "gradients.html").read_text()
    assert "convatlas gradients resnet20.plain resnet20 --seeds 2" in page
    assert (folder / "out" / "gradients.svg").read_text().startswith("<?xml")


def test_along_a_run(folder):
    done = command("gradients", "with", "--out", "along", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert (run["name"], [flow["epoch"] for flow in run["flows"]]) == ("with", [0, 1])
    assert {path.name for path in (folder / "along").iterdir()} == {"gradients.html", "gradients.json", "with.svg"}


def test_ones_own_network(folder):
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    done = command("gradients", "net.py:make", "--seeds", "2", "--batch-size", "8", "--json", "--out", "own", folder=folder)
    assert done.returncode == 0, done.stderr
    flows = json.loads(done.stdout)["flows"]
    assert [flow["model"] for flow in flows] == ["net.py:make"] * 2
    assert flows[0]["loss"] != flows[1]["loss"], "another seed, other weights"


BAD = [
    (["gradients", "with", "--norm", "none"], "--norm, --start and --seeds are for models"),
    (["gradients", "resnet20.plan"], "no model called 'resnet20.plan'. Did you mean resnet20.plain"),
    (["gradients", "resnet20", "resnet20"], "a model stands twice"),
    (["gradients", "resnet20", "--seeds", "0"], "--seeds is '0'"),
    (["gradients", "resnet20", "--seeds", "3,3"], "a seed stands twice"),
    (["gradients", "resnet20", "--norm", "no"], "norm is 'no'. Give own or none"),
    (["gradients", "resnet20", "--start", "he"], "start is 'he'"),
    (["gradients", "resnet20", "--batch-size", "1"], "--batch-size is 1"),
    (["gradients", "resnet20", "--out", "there"], "there exists already"),
    (["gradients", "with", "resnet20"], "models and runs cannot be mixed"),
    (["gradients", "with", "./with"], "two runs have the same name"),
    (["gradients", "without"], "without has no gradients. Train with --gradients"),
    (["gradients", "vgg16", "--image-size", "8"], "images of 8 pixels do not fit vgg16"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words, message, folder):
    before = sorted(path.name for path in folder.iterdir())
    done = command(*words, folder=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(path.name for path in folder.iterdir()) == before
