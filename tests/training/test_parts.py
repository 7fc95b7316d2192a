"""Recipes, precision, evaluation, averaging, checkpoints."""

import base64
import io
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.training import checkpoint, precision
from convatlas.training.apply import predict_pictures
from convatlas.training.evaluate import evaluate
from convatlas.training.loop import train
from convatlas.training.optim import MovingAverage, make_optimizer
from convatlas.training.recipe import check_recipe

from .makers import CLASSES, coloured, small_data, small_recipe


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs is 0. Give a whole number of 1 or more"),
        ({"minutes": -1.0}, "minutes is -1.0. Give a number above 0"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -3}, "batch_size is -3"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"label_smoothing": 1.2}, "label_smoothing is 1.2"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"validation": -0.1}, "validation is -0.1"),
        ({"crop": -1}, "crop is -1"),
        ({"optimizer": "adamx"}, "no optimizer called 'adamx'. Did you mean adam or adamw?"),
        ({"schedule": "cosin"}, "no schedule called 'cosin'. Did you mean cosine or cosine-restarts?"),
        ({"precision": "fp16"}, "no precision called 'fp16'"),
        ({"device": "gpu"}, "no device called 'gpu'"),
        ({"epochs": None}, "the budget is not clear"),
        ({"epochs": 3, "minutes": 1.0}, "the budget is not clear"),
        ({"bias_lr": -1.0}, "bias_lr is -1.0"),
        ({"flip_rule": "alternate"}, "no flip rule called 'alternate'. Did you mean alternating?"),
        ({"crop_fill": "ones"}, "no crop fill called 'ones'"),
        ({"test_average": "ten"}, "no test average called 'ten'"),
        ({"compile": "yes"}, "no compile called 'yes'"),
        ({"convolutions": "fast"}, "no convolutions called 'fast'"),
        ({"minutes": 1.0, "sizes": ((0.5, 16),)}, "sizes change with the epochs"),
        ({"sizes": ((0.5, 16), (0.4, 24))}, "Give pairs of a share of the epochs, rising"),
        ({"sizes": ((0.5, 16.5),)}, "and whole pixels"),
        ({"sizes": ((0.0, 16),)}, "Give pairs"),
        ({"sizes": ((1.1, 16),)}, "Give pairs"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, said):
    with pytest.raises(UserError) as error:
        check_recipe(small_recipe(**changes))
    assert said in str(error.value)


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="there is no CUDA device here"):
        precision.choose(small_recipe(device="cuda"), nn.Identity())


@pytest.mark.parametrize(
    ("able", "model", "wanted", "expected"),
    [
        (True, "resnet.pocket", "auto", "bf16"),
        (True, "efficientnet.pocket", "auto", "fp32"),
        (True, "convnext.pocket", "auto", "bf16"),
        (False, "resnet.pocket", "auto", "fp32"),
        (True, "efficientnet.pocket", "bf16", "bf16"),
        (True, "resnet.pocket", "fp32", "fp32"),
    ],
)
def test_precision_is_what_gains(monkeypatch, able, model, wanted, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: able)
    choices = precision.choose(small_recipe(precision=wanted), create_model(model))
    assert choices.precision == expected
    assert choices.reason


def test_bf16_without_the_instructions_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: False)
    with pytest.raises(UserError, match="no bf16 instructions"):
        precision.choose(small_recipe(precision="bf16"), nn.Identity())


class Oracle(nn.Module):
    """Calls every image by its brightest channel, and is sure of it; class 3 and above it never calls."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        return torch.cat([x.mean((2, 3)) * self.scale, torch.full((len(x), 3), -50.0)], dim=1)


def test_evaluation_counts_by_hand():
    data, model = small_data(), Oracle()
    model.train()
    outcome = evaluate(model, data, split="test")
    assert model.training, "the caller's mode is given back"
    assert outcome.n == 36
    assert [row[i] for i, row in enumerate(outcome.confusion)] == [6, 6, 6, 0, 0, 0]
    assert [sum(row) for row in outcome.confusion] == [6] * 6
    assert outcome.top1 == 0.5
    assert 0.5 <= outcome.top5 <= 1.0
    assert outcome.classes == CLASSES
    assert len(outcome.worst) == 12
    assert all(mistake.truth in CLASSES[3:] and mistake.predicted in CLASSES[:3] for mistake in outcome.worst)
    sureness = [mistake.confidence for mistake in outcome.worst]
    assert sureness == sorted(sureness, reverse=True)


def test_pictures_of_mistakes_are_the_images():
    data = small_data()
    mistake = evaluate(Oracle(), data, split="test").worst[0]
    content = base64.b64decode(mistake.picture.removeprefix("data:image/png;base64,"))
    pixels = torch.tensor(list(Image.open(io.BytesIO(content)).tobytes()), dtype=torch.uint8).view(32, 32, 3).permute(2, 0, 1)
    assert torch.equal(pixels, data.test.images[mistake.index])


def test_biases_and_norms_are_not_decayed():
    model = create_model("convnext.pocket")
    decayed, free = make_optimizer(model, small_recipe(weight_decay=0.1)).param_groups
    assert (decayed["lr_factor"], free["lr_factor"]) == (1.0, 1.0)
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert {p.ndim for p in free["params"]} == {1}
    assert min(p.ndim for p in decayed["params"]) > 1
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_moving_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 1.0)
    average.update(1)
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11)
    for step in range(2, 100):
        average.update(step)
    assert average.model.weight.item() == pytest.approx(1.0)


def test_predictions_of_files_are_those_of_the_run(tmp_path):
    data = small_data()
    train(small_recipe(epochs=4, lr=0.01), tmp_path / "run", data=data)
    paths = []
    for i, image in enumerate(coloured(12, size=32, seed=3).images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    (tmp_path / "no.png").write_text("no picture")
    *read, unread = predict_pictures(tmp_path / "run", [*paths, tmp_path / "no.png"], top=3)
    assert unread.error is not None
    assert unread.classes == ()
    model, _ = checkpoint.load_model(tmp_path / "run")
    x = (coloured(12, size=32, seed=3).images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = model(x).softmax(1)
    for prediction, row in zip(read, expected, strict=True):
        assert len(prediction.classes) == 3
        assert prediction.classes[0] == CLASSES[int(row.argmax())]
        assert prediction.probabilities[0] == pytest.approx(row.max().item(), abs=1e-4)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04.", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_state_is_refused(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    notes = []
    with pytest.raises(UserError, match="no training state in .* is intact"):
        checkpoint.load_state(tmp_path, note=notes.append)
    assert "damaged" in notes[0]


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "marker"), "w"))

    torch.save({"format": 1, "model": Payload()}, tmp_path / "state.pt")
    notes = []
    with pytest.raises(UserError, match="no training state in .* is intact"):
        checkpoint.load_state(tmp_path, note=notes.append)
    assert "damaged" in notes[0]
    assert not (tmp_path / "marker").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    train(small_recipe(epochs=1), tmp_path / "a", data=small_data())
    train(small_recipe(epochs=1, model="vgg.pocket"), tmp_path / "b", data=small_data())
    checkpoint.save_config(tmp_path / "a", replace(checkpoint.load_config(tmp_path / "a"), weights_sha256=None))
    (tmp_path / "a" / "manifest.json").unlink()
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="does not hold the weights of resnet.pocket"):
        checkpoint.load_model(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="does not hold the weights"):
        checkpoint.load_model(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no finished model"):
        checkpoint.load_model(tmp_path / "a")
    (tmp_path / "b" / "config.json").unlink()
    with pytest.raises(UserError, match="b holds no finished model. Finish it with `convatlas train --resume"):
        checkpoint.load_model(tmp_path / "b")
