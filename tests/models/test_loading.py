"""Loading weights: strictly, from any known layout, and never code."""

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

import convatlas
from convatlas.errors import UserError
from convatlas.models.loading import with_channels
from convatlas.models.pretrained import in_layout
from convatlas.models.registry import create_model

SMALL = {"num_classes": 10, "image_size": 32}


def saved(name, folder, *, layout="convatlas", suffix=".safetensors", **options) -> tuple[Path, torch.nn.Module]:
    """A network with random weights, and its file in some layout."""
    torch.manual_seed(1)
    model = create_model(name, **{**SMALL, **options}).eval()
    tensors = {key: value.clone().contiguous() for key, value in in_layout(model.state_dict(), layout).items()}
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path, model


def refused(path, name="resnet.pocket", **options) -> str:
    with pytest.raises(UserError) as caught:
        create_model(name, pretrained=path, **{**SMALL, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("resnet.pocket", "convatlas"),
        ("resnet.pocket", "torchvision"),
        ("resnet20", "idelbayev"),
        ("densenet.pocket", "torchvision"),
        ("googlenet", "torchvision"),
        ("vgg.pocket", "torchvision"),
        ("alexnet.pocket", "torchvision"),
        ("efficientnet.pocket", "torchvision"),
        ("efficientnet.pocket", "timm"),
        ("efficientnet_lite0", "lukemelas"),
        ("convnext.pocket", "torchvision"),
        ("convnext.pocket", "timm"),
        ("lenet5.paper", "convatlas"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_in_any_layout_comes_back_bit_for_bit(name, layout, suffix, tmp_path):
    path, model = saved(name, tmp_path, layout=layout, suffix=suffix)
    loaded = create_model(name, pretrained=path, **SMALL).eval()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert loaded.loaded.tensors == len(model.state_dict())
    assert (loaded.loaded.adapted, loaded.loaded.fresh, loaded.loaded.left_out) == ((), (), ())


def test_wrappers_and_prefixes_of_training_scripts_are_taken_off(tmp_path):
    _, model = saved("resnet.pocket", tmp_path)
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "wrapped.th")
    loaded = create_model("resnet.pocket", pretrained=tmp_path / "wrapped.th", **SMALL)
    assert torch.equal(loaded.head.classifier.weight, model.head.classifier.weight)


def test_the_oldest_densenet_files_have_other_names(tmp_path):
    path, model = saved("densenet.pocket", tmp_path, layout="torchvision", suffix=".pth")
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", k): v for k, v in torch.load(path).items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, path)
    loaded = create_model("densenet.pocket", pretrained=path, **SMALL)
    assert torch.equal(loaded.stages[0].layer0.norm1.weight, model.stages[0].layer0.norm1.weight)


def test_counters_that_old_files_lack_begin_at_zero(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    safetensors.torch.save_file({k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
    assert create_model("resnet.pocket", pretrained=path, **SMALL).stem[0].norm.num_batches_tracked == 0


def test_half_precision_is_taken_up(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    safetensors.torch.save_file({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, path)
    weight = create_model("resnet.pocket", pretrained=path, **SMALL).head.classifier.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.head.classifier.weight.half().float())


# What may differ


def test_another_number_of_classes_begins_with_a_new_classifier_and_says_so(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    loaded = create_model("resnet.pocket", pretrained=path, num_classes=3, image_size=32)
    assert loaded.loaded.fresh == ("head.classifier.weight", "head.classifier.bias")
    assert loaded.loaded.adapted == ("head.classifier: random, to be trained",)
    assert torch.equal(loaded.stem[0].conv.weight, model.stem[0].conv.weight)
    assert loaded.head.classifier.weight.shape == (3, 64)


def test_another_number_of_classes_that_nobody_asked_for_is_an_error(tmp_path):
    path, _ = saved("resnet.pocket", tmp_path, num_classes=7)
    with pytest.raises(UserError, match=r"is for 7 classes, and resnet.pocket is built for 10. Give num_classes=7 to keep"):
        create_model("resnet.pocket", pretrained=path)


def test_features_leave_the_classifier_out(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    features = create_model("resnet.pocket", pretrained=path, num_classes=0, image_size=32).eval()
    assert set(features.loaded.left_out) == {"head.classifier.weight", "head.classifier.bias"}
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model.head.classifier(features(x)), model(x))


def test_googlenets_auxiliary_heads_come_and_go(tmp_path):
    path, model = saved("googlenet", tmp_path, layout="torchvision")
    features = create_model("googlenet", pretrained=path, num_classes=0, image_size=32)
    assert len(features.loaded.left_out) == 2 + len(model.auxiliary.state_dict())
    other = create_model("googlenet", pretrained=path, num_classes=4, image_size=32)
    assert other.loaded.adapted == ("auxiliary.0.classifier, auxiliary.1.classifier, head.classifier: random, to be trained",)
    assert torch.equal(other.auxiliary[0].linear.weight, model.auxiliary[0].linear.weight)
    safetensors.torch.save_file({k: v for k, v in model.state_dict().items() if not k.startswith("auxiliary")}, path)
    without = create_model("googlenet", pretrained=path, **SMALL)
    assert set(without.loaded.fresh) == {f"auxiliary.{key}" for key in model.auxiliary.state_dict()}


@pytest.mark.parametrize("name", ["resnet.pocket", "vgg.pocket", "convnext.pocket", "lenet5"])
@pytest.mark.parametrize("channels", [1, 2, 5, 6])
def test_other_channels_keep_the_size_of_activations(name, channels, tmp_path):
    path, model = saved(name, tmp_path)
    loaded = create_model(name, pretrained=path, in_chans=channels, **SMALL).eval()
    how = "weights summed" if channels == 1 else f"weights repeated, times 3/{channels}"
    first = next(iter(model.state_dict()))
    assert loaded.loaded.adapted == (f"{first}: {channels} input channels instead of 3, {how}",)
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        ours, theirs = loaded(grey.expand(-1, channels, -1, -1)), model(grey.expand(-1, 3, -1, -1))
    if channels in (1, 6):  # every channel stands in for a third of the weights: the very same
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert 0.5 < ours.std() / theirs.std() < 2


def test_channels_are_repeated_in_turn():
    weight = torch.arange(6.0).reshape(2, 3, 1, 1)
    assert with_channels(weight, 4)[:, :, 0, 0].tolist() == [[0, 0.75, 1.5, 0], [2.25, 3, 3.75, 2.25]]
    assert with_channels(weight, 1)[:, :, 0, 0].tolist() == [[3], [12]]
    assert torch.equal(with_channels(with_channels(weight[:, :1], 3), 1), weight[:, :1])


# What is refused


def test_another_architecture_is_told_by_its_tensors(tmp_path):
    path, _ = saved("resnet32", tmp_path)
    text = refused(path, "resnet20")
    assert "does not hold the weights of resnet20: 72 have no place in it (stages.0.3.conv1.conv.weight, " in text
    text = refused(path, "convnext.pocket")
    assert "tensors are missing (stem.0.weight, " in text
    text = refused(path, "resnet18")
    assert "have another shape (stem.0.conv.weight is 16x3x3x3, not 64x3x3x3" in text


def test_another_architecture_with_other_classes_is_not_taken_for_other_classes(tmp_path):
    path, _ = saved("resnet20", tmp_path)
    with pytest.raises(UserError, match="does not hold the weights of resnet18"):
        create_model("resnet18", pretrained=path)


def test_extra_and_missing_keys_are_named(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    tensors = {**model.state_dict(), "teacher.weight": torch.zeros(1)}
    safetensors.torch.save_file(tensors, path)
    assert "1 have no place in it (teacher.weight)" in refused(path)
    del tensors["teacher.weight"], tensors["stages.1.0.conv1.norm.bias"]
    safetensors.torch.save_file(tensors, path)
    assert "1 tensors are missing (stages.1.0.conv1.norm.bias)" in refused(path)


def test_nothing_is_changed_by_a_refused_file(tmp_path):
    from convatlas.models.loading import load

    _, model = saved("resnet.pocket", tmp_path)
    network = create_model("resnet.pocket", **SMALL)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    tensors = dict(model.state_dict())
    tensors["head.classifier.bias"] = torch.full((10,), float("nan"))
    with pytest.raises(UserError, match=r"head.classifier.bias has 10 values that are NaN or infinite"):
        load(network, tensors, where="f", name="resnet.pocket", classes_chosen=True)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_whole_numbers_for_weights_are_refused(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    tensors = {**model.state_dict(), "head.classifier.bias": torch.zeros(10, dtype=torch.int64)}
    safetensors.torch.save_file(tensors, path)
    assert "head.classifier.bias has numbers of type torch.int64" in refused(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.99, 0.99999])
def test_truncated_files_are_refused(suffix, share, tmp_path):
    path, _ = saved("resnet.pocket", tmp_path, suffix=suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert re.search(r"is empty|is damaged", refused(path))


class _Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle", "pickle 0", "pickle 2", "within the state dict"])
def test_code_is_refused_and_not_run(how, tmp_path):
    path, mark = tmp_path / "evil.pth", tmp_path / "was here"
    bad = {"weight": torch.zeros(2), "evil": _Payload(mark)}
    if how.startswith("pickle"):
        protocol = int(how.removeprefix("pickle") or 4)
        path.write_bytes(pickle.dumps({"evil": _Payload(mark)}, protocol=protocol))
    elif how == "within the state dict":
        torch.save({"state_dict": bad}, path)
    else:
        torch.save(bad, path, _use_new_zipfile_serialization=how == "torch")
    assert "holds more than weights: it asks for posix.system, which could run code" in refused(path)
    assert not mark.exists()


def test_whole_networks_are_refused(tmp_path):
    torch.save(create_model("lenet5"), tmp_path / "module.pth")
    assert "it asks for convatlas.models.lenet.LeNet5" in refused(tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html></html>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "but a pointer of git-lfs"),
        (b'{"model": "resnet"}', "but JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "but HDF5"),
        (bytes(100), "is damaged or no file of weights"),
        (bytes(range(40, 140)), "is damaged or no file of weights"),
        (b"PK\x03\x04 not really", "is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_said(content, said, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    assert said in refused(tmp_path / "x.pth")


@pytest.mark.parametrize("what", [[1.0], 3.0, {"a": 1}, {1: torch.zeros(1)}, {}, {"a": {"b": torch.zeros(1)}}])
def test_files_that_hold_something_else_are_refused(what, tmp_path):
    torch.save(what, tmp_path / "x.pth")
    assert re.search(r"no tensors by name|something else than tensors", refused(tmp_path / "x.pth"))


def test_archives_that_unfold_are_refused_before_they_do(tmp_path):
    path, _ = saved("resnet.pocket", tmp_path, suffix=".pth")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "is a compressed archive" in refused(path)


def test_a_giant_of_stride_zero_is_refused_by_its_shape(tmp_path):
    _, model = saved("resnet.pocket", tmp_path)
    giant = torch.zeros(1).expand(2**31)
    torch.save({**model.state_dict(), "stem.0.norm.bias": giant}, tmp_path / "x.pth")
    assert "stem.0.norm.bias is 2147483648, not 16" in refused(tmp_path / "x.pth")


def test_a_folder_is_no_file(tmp_path):
    assert "is a folder. Give a file of weights" in refused(tmp_path)
    saved("resnet.pocket", tmp_path)
    (tmp_path / "weights.safetensors").rename(tmp_path / "model.safetensors")
    assert f"Give the file in it: {tmp_path / 'model.safetensors'}" in refused(tmp_path)


def test_neither_a_file_nor_a_source():
    assert "is neither a file nor a source of weights. Give a path, True, torchvision, timm" in refused("imagenet")
    assert "no weights are published for 'resnet.pocket'" in refused(True)


def test_weights_for_large_images_in_a_network_for_small_ones(tmp_path):
    path, _ = saved("resnet18", tmp_path, image_size=224)
    text = refused(path, "resnet18", image_size=32)
    assert "stem.0.conv.weight is 64x3x7x7, not 64x3x3x3" in text
    assert text.endswith("Leave image_size out: up to 64 pixels another stem is built than that of the published weights.")


def test_the_sources_know_no_unsafe_reading():
    code = "\n".join(path.read_text() for path in Path(convatlas.__file__).parent.rglob("*.py"))
    for bad in ("weights_only=False", "pickle.load", "hub.load", "yaml.load(", "shell=True", " eval(", "exec("):
        assert bad not in code, bad
