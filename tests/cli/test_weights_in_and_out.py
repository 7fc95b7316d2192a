"""`convatlas convert` and `convatlas scale` as a person runs them."""

import json

import pytest
import safetensors.torch
import torch

from convatlas.models.papers import golden_rows
from convatlas.models.registry import create_model
from tests.cli.zygote import command


@pytest.fixture
def weights(tmp_path):
    torch.save(create_model("resnet18", num_classes=7).state_dict(), tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def test_convert_says_how_to_load(weights, tmp_path):
    done = command("convert", "mine.pth", "theirs.safetensors", "--to", "torchvision", "--model", "resnet18", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resnet18: 122 tensors under torchvision's names in theirs.safetensors" in done.stdout
    assert "model = torchvision.models.get_model('resnet18', num_classes=7)" in done.stdout
    assert "layer4.1.bn2.running_var" in safetensors.torch.load_file(tmp_path / "theirs.safetensors")
    again = command("convert", "mine.pth", "theirs.safetensors", "--to", "timm", "--model", "resnet18", folder=tmp_path)
    assert (again.returncode, again.stderr) == (2, "error: theirs.safetensors exists. Choose another name, or add --force.\n")
    forced = command(
        "convert", "mine.pth", "theirs.safetensors", "--to", "timm", "--model", "resnet18", "--force", "--json", folder=tmp_path
    )
    assert json.loads(forced.stdout)["to_layout"] == "timm"


def test_convert_refuses_in_one_line(weights, tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    for words, said in (
        (["none.pth", "x.pth", "--model", "resnet18"], "none.pth does not exist"),
        (["page.pth", "x.pth", "--model", "resnet18"], "page.pth is no file of weights but a web page"),
        (["mine.pth", "x.pth"], "mine.pth does not say which network it is for"),
        (["mine.pth", "x.pth", "--model", "resnet34"], "mine.pth does not hold the weights of resnet34"),
        (["mine.pth", "x.pth", "--model", "resnet18", "--to", "onnx"], "there is no layout called 'onnx'"),
        (["mine.pth", "x.pth", "--model", "resnet18.paper", "--to", "timm"], "timm has no network that computes what resnet18.p"),
        (["mine.pth", "no/folder/x.pth", "--model", "resnet18"], "no/folder"),
    ):
        done = command("convert", *words, folder=tmp_path)
        assert done.returncode == 2, (words, done.stderr)
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
        assert not (tmp_path / "x.pth").exists()


def test_scale_by_the_rule_and_as_published(tmp_path):
    done = command("scale", "--phi", "0..1", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    rows = golden_rows()
    assert [row["macs"] for row in found["published"]] == [rows[f"efficientnet_b{i}"].macs for i in (0, 1)]
    assert [row["params"] for row in found["published"]] == [rows[f"efficientnet_b{i}"].params for i in (0, 1)]
    assert [row["depths"] for row in found["by_rule"]] == [[1, 2, 2, 3, 3, 4, 1], [2, 3, 3, 4, 4, 5, 2]]
    assert found["by_rule"][1]["predicted"] == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert found["by_rule"][1]["cost"] == found["by_rule"][1]["macs"] / rows["efficientnet_b0"].macs


def test_scale_with_other_growth_has_nothing_published(tmp_path):
    done = command("scale", "--phi", "0.5", "--alpha", "1.3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "alpha * beta^2 * gamma^2 = 2.08" in done.stdout
    assert "published" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 or "the rule's growth" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--phi", "many"], "--phi is 'many'"),
        (["--phi", "1..0"], "has 0 values"),
        (["--phi", "0..99"], "has 21 values"),
        (["--phi", "-1"], "phi is -1"),
        (["--phi", "nan"], "phi is nan"),
        (["--phi", "99"], "more than 64"),
        (["--phi", "1", "--alpha", "0.5"], "alpha is 0.5"),
    ],
)
def test_scale_refuses_in_one_line(words, said, tmp_path):
    done = command("scale", *words, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
