"""Weights to and from other libraries' names, by file."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from convatlas.errors import UserError
from convatlas.models.converting import convert
from convatlas.models.keymaps import counterpart, family_of, layouts
from convatlas.models.pretrained import to_timm, to_torchvision
from convatlas.models.registry import MODELS, create_model
from convatlas.records.run import ModelConfig
from convatlas.training.checkpoint import save_model


def weights(name, folder, **options) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(2)
    model = create_model(name, **options).eval()
    path = folder / "ours.safetensors"
    safetensors.torch.save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path, model


@pytest.mark.parametrize("name", MODELS)
def test_the_family_is_told_by_names(name):
    with torch.device("meta"):
        keys = create_model(name, in_chans=MODELS[name].in_chans).state_dict()
    assert family_of(keys) == MODELS[name].family
    for layout in layouts(MODELS[name].family).values():
        theirs = layout.rename(keys)
        assert len(set(theirs.values())) == len(keys), f"{layout.name}: two tensors got one name"


def test_no_family_for_other_networks():
    assert family_of(torch.nn.Linear(2, 2).state_dict()) is None
    with pytest.raises(UserError, match="not the tensors of a network of the atlas"):
        to_timm({"weight": torch.zeros(1)})
    with pytest.raises(UserError, match="torchvision has no networks of the family lenet"):
        to_torchvision(create_model("lenet5", in_chans=1).state_dict())


@pytest.mark.parametrize(
    ("name", "to", "suffix"),
    [
        ("resnet18", "torchvision", ".safetensors"),
        ("resnet18", "torchvision", ".pth"),
        ("convnext_tiny", "timm", ".safetensors"),
        ("vgg11_bn", "timm", ".safetensors"),
    ],
)
def test_there_and_back_again(name, to, suffix, tmp_path):
    """Names and shapes have nothing to do with the form of the file: one network is enough for the second."""
    path, model = weights(name, tmp_path, num_classes=5)
    there = convert(path, to=to, out=tmp_path / f"there{suffix}", model=name)
    assert (there.from_layout, there.to_layout, there.num_classes, there.in_chans) == ("convatlas", to, 5, 3)
    back = convert(tmp_path / f"there{suffix}", to="convatlas", out=tmp_path / "back.safetensors", model=name)
    assert back.from_layout in {to, "torchvision"}
    again = safetensors.torch.load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())
    assert again.keys() == model.state_dict().keys()


def test_what_is_printed_loads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, model = weights("densenet121", tmp_path, num_classes=4, in_chans=1)
    done = convert(path, to="convatlas", out=Path("x.pth"), model="densenet121")
    names = {}
    exec("\n".join(done.how), names)
    assert torch.equal(names["model"].stem[0].weight, model.stem[0].weight)
    safetensors.torch.save_file(
        create_model("resnet18", num_classes=2, image_size=32).state_dict(), tmp_path / "small.safetensors"
    )
    done = convert(Path("small.safetensors"), to="convatlas", out=Path("y.pth"), model="resnet18")
    exec("\n".join(done.how), names)
    assert names["model"].loaded.tensors == 122


def test_a_run_knows_its_own_network(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text("{}")
    config = ModelConfig("resnet18", 3, 3, 32, (0.5,) * 3, (0.5,) * 3, ("a", "b", "c"), "0")
    save_model(folder, create_model("resnet18", num_classes=3, image_size=32), config)
    done = convert(folder, to="convatlas", out=tmp_path / "x.safetensors")
    assert (done.model, done.num_classes, done.preprocessing.mean) == ("resnet18", 3, (0.5,) * 3)
    with pytest.raises(UserError, match="stem for images of up to 64 pixels, which torchvision does not build"):
        convert(folder, to="torchvision", out=tmp_path / "y.safetensors")
    with pytest.raises(UserError, match="is a run of resnet18, not of resnet50"):
        convert(folder, to="convatlas", out=tmp_path / "y.safetensors", model="resnet50")
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize("name", ["resnet50.paper", "resnet20", "lenet5", "vgg.pocket", "googlenet.paper", "densenet_bc_100_12"])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_variants_that_compute_something_else_are_not_passed_off(name, library, tmp_path):
    assert counterpart(name, library) is None
    path, _ = weights(name, tmp_path, in_chans=MODELS[name].in_chans)
    with pytest.raises(UserError, match=f"{library} has no network that computes what {name} does"):
        convert(path, to=library, out=tmp_path / "x.safetensors", model=name)


def test_spoilt_weights_are_not_passed_on(tmp_path):
    _, model = weights("resnet.pocket", tmp_path)
    model.head.classifier.bias.data[0] = float("nan")
    torch.save(model.state_dict(), tmp_path / "nan.pth")
    with pytest.raises(UserError, match="head.classifier.bias has 1 values that are NaN"):
        convert(tmp_path / "nan.pth", to="convatlas", out=tmp_path / "x.safetensors", model="resnet.pocket")


def test_bad_input_writes_nothing(tmp_path):
    path, _ = weights("resnet.pocket", tmp_path)
    out = tmp_path / "out.safetensors"
    for said, source, options in (
        ("there is no layout called 'keras'", path, {"to": "keras", "model": "resnet.pocket"}),
        ("does not say which network it is for", path, {"to": "convatlas"}),
        ("there is no model called 'resnet5'", path, {"to": "convatlas", "model": "resnet5"}),
        ("does not hold the weights of resnet20", path, {"to": "convatlas", "model": "resnet20"}),
        ("does not exist", tmp_path / "none.pth", {"to": "convatlas", "model": "resnet20"}),
        ("is no finished run", tmp_path, {"to": "convatlas", "model": "resnet20"}),
    ):
        with pytest.raises(UserError, match=said):
            convert(source, out=out, **options)
        assert not out.exists()
    with pytest.raises(UserError, match="ends in .bin"):
        convert(path, to="convatlas", out=tmp_path / "x.bin", model="resnet.pocket")
    out.write_text("kept")
    with pytest.raises(UserError, match="exists"):
        convert(path, to="convatlas", out=out, model="resnet.pocket")
    assert out.read_text() == "kept"
    convert(path, to="convatlas", out=out, model="resnet.pocket", overwrite=True)
    assert out.stat().st_size > 1000
