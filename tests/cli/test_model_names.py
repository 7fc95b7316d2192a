"""Models by configuration and from files, on the command line: trained, judged, resumed, compared, shown."""

import json
import shutil

import pytest

from tests.cli.makers import picture_folder
from tests.cli.zygote import command

NET = """
from torch import nn

def make(num_classes, in_chans=3, image_size=32):
    return nn.Sequential(
        nn.Conv2d(in_chans, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )

def ten():
    return make(10)
"""
YAML = "family: resnet\ndepths: [1, 1]\nwidths: [4, 8]\nstem: 4\nshortcut: false\nnorm: none\nact: tanh\n"
CANONICAL = 'resnet{"act": "tanh", "depths": [1, 1], "norm": "none", "shortcut": false, "stem": 4, "widths": [4, 8]}'
QUICK = (
    "--data",
    "folder",
    "--data-root",
    "pictures",
    "--image-size",
    "16",
    "--epochs",
    "1",
    "--precision",
    "fp32",
    "--threads",
    "1",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names") / "here"
    folder.mkdir()
    picture_folder(folder / "pictures", each=12, size=16)
    (folder / "net.py").write_text(NET)
    (folder / "net.yaml").write_text(YAML)
    done = command("train", "net.py:make", *QUICK, "--out", "own", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(place, tmp_path):
    return shutil.copytree(place, tmp_path / "here")


def done(*words, folder):
    result = command(*words, folder=folder)
    assert result.returncode == 0, result.stderr
    return result


def refused(*words, folder):
    result = command(*words, folder=folder)
    assert result.returncode == 2, result.stdout
    said = result.stderr.strip()
    assert said.startswith("error: ") and "\n" not in said, result.stderr
    return said


def test_a_yaml_file_is_a_model_and_not_needed_afterwards(here):
    said = done("train", "net.yaml", *QUICK, "--out", "run", folder=here).stdout
    assert said.startswith(f"{CANONICAL}: ")
    (here / "net.yaml").unlink()
    assert json.loads((here / "run" / "recipe.json").read_text())["model"] == CANONICAL
    done("eval", "run", folder=here)
    done("predict", "run", "pictures/ant/0.png", folder=here)
    assert (
        "tanh"
        in done("look", "run", "pictures/ant/0.png", "--only", "activations,maps", "--out", "look", folder=here).stdout
        + (here / "look" / "look.json").read_text()
    )


def test_folders_are_named_safely(here):
    done("train", "resnet{depths: [1], widths: [4], stem: 4}", *QUICK, folder=here)
    done("train", "./net.py:make{act: tanh}", *QUICK, folder=here)
    names = sorted(path.name for path in (here / "runs").iterdir())
    assert [name[:11] for name in names] == ["net.py-make", "resnet-dept"]


def test_ones_own_network_is_judged_only_if_its_file_is_named(here):
    for words in (
        ("eval", "own"),
        ("predict", "own", "pictures/ant/0.png"),
        ("look", "own", "pictures/ant/0.png", "--only", "activations", "--out", "look"),
    ):
        said = refused(*words, folder=here)
        assert "made by the Python file net.py" in said and "--code net.py" in said
        assert done(*words, "--code", "net.py", folder=here).returncode == 0


def test_the_next_command_names_the_file(here):
    split = shutil.copytree(here / "pictures", here / "split" / "train")
    shutil.copytree(split, here / "split" / "test")
    words = [word if word != "pictures" else "split" for word in QUICK]
    said = done("train", "net.py:make", *words, "--out", "run", folder=here).stdout
    assert "next: convatlas eval run --split test --code net.py" in said


def test_changed_code_is_refused(here):
    (here / "net.py").write_text(NET + "# changed\n")
    assert "net.py has changed since own began" in refused("eval", "own", "--code", "net.py", folder=here)


def test_a_run_that_came_from_elsewhere_takes_its_code_from_where_it_is(here):
    (here / "code").mkdir()
    (here / "net.py").rename(here / "code" / "net.py")
    assert "--code net.py" in refused("eval", "own", folder=here)
    done("eval", "own", "--code", "code/net.py", folder=here)


def test_resuming_wants_the_code_too(here):
    summary = json.loads((here / "own" / "summary.json").read_text())
    (here / "own" / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    assert "--code net.py" in refused("train", "--resume", "own", folder=here)
    done("train", "--resume", "own", "--code", "net.py", folder=here)


def test_logits_of_another_number_are_refused_before_anything_is_written(here):
    said = refused("train", "net.py:ten", *QUICK, "--out", "run", folder=here)
    assert "net.py:ten gives a tensor (2, 10) for two images, and not logits (2, 3)" in said
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "net.py:make", "--code", "net.py"), "--code is for --resume"),
        (("compare", "--models", "net.py:make", "--code", "net.py"), "--code is for --resume"),
        (("look", "net.py:make", "pictures/ant/0.png", "--code", "net.py"), "--code is for a run's folder"),
        (("eval", "own", "--code", "none.py"), "--code none.py is no file"),
        (("train", "resnet{dephts: [1]}"), "no setting of resnet called 'dephts'. Did you mean depths"),
        (("train", "none.yaml"), "none.yaml does not exist"),
        (("show", "vgg{norm: none}"), "norm would change nothing"),
        (("show", "net.py:ten", "--num-classes", "3"), "--num-classes is for models of the atlas"),
        (("diff", "resnet{", "resnet20"), "no model called 'resnet{'"),
    ],
)
def test_bad_names_and_options(place, words, said):
    assert said in refused(*words, folder=place)


def test_compare_takes_every_form(here):
    models = "resnet{depths: [1,1], widths: [4, 8], stem: 4},net.yaml,net.py:make,net.py:make{norm: none}"
    done("compare", "--models", models, *QUICK, "--out", "all", folder=here)
    found = json.loads((here / "all" / "results.json").read_text())
    assert [row["family"] for row in found["rows"]] == ["resnet", "resnet", "your own", "your own"]
    assert found["models"][1:] == [CANONICAL, "net.py:make", 'net.py:make{"norm": "none"}']
    assert all(row["accuracies"] for row in found["rows"])
    runs = sorted(path.name for path in (here / "all" / "runs").iterdir())
    assert len(runs) == 4 and all(len(name) < 80 for name in runs)
    assert "--code net.py" in refused("compare", "--resume", "all", folder=here)
    done("compare", "--resume", "all", "--code", "net.py", folder=here)
    done("report", "all", folder=here)


def test_configurations_are_shown_drawn_told_apart_and_measured(here):
    name = "resnet{depths: [1,1], widths: [4, 8], stem: 4, kernel_size: 5}"
    assert json.loads(done("show", name, "--json", folder=here).stdout)["params"] > 0
    assert done("draw", name, folder=here).stdout.startswith("drawn: resnet-depths-1-1-widths-4-8-stem-4-kernel_size-5-")
    record = json.loads(done("diff", "net.yaml", "net.py:make", "--image-size", "16", "--json", folder=here).stdout)
    assert record["models"] == [CANONICAL, "net.py:make"]
    done("diff", "net.py:make", "net.py:make{norm: none}", folder=here)
    done("calc", "rf", name, folder=here)
    words = ("--seeds", "1", "--batch-size", "8", "--data", "folder", "--data-root", "pictures", "--image-size", "16", "--json")
    flows = json.loads(done("gradients", name, "net.py:make", *words, "--out", "flows", folder=here).stdout)["flows"]
    assert [flow["model"].partition("{")[0] for flow in flows] == ["resnet", "net.py:make"]
    assert json.loads(done("show", "net.py:make", "--num-classes", "3", "--json", folder=here).stdout)["rows"]
