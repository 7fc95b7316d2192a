"""What a ledger refuses, in one line each, and what it warns of."""

import contextlib
import threading

import pytest
import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.inspection.hints import IDLE_BIAS, NARROW_VIEW, SKIPPED, SMALL_MAP, WIDE_PADDING
from convatlas.inspection.ledger import ledger
from convatlas.models.registry import create_model

from .strangers import Decides, PicksByMask


class Two(nn.Module):
    def forward(self, image, mask):
        return image * mask


class Raising(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        raise KeyError("temperature")


class Asks(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3), how

    def forward(self, x):
        x = self.conv(x)
        self.how(x)
        return x


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lock = nn.Conv2d(3, 4, 3), threading.Lock()

    def forward(self, x):
        return self.conv(x)


def swallowing(x):
    with contextlib.suppress(Exception):
        bool(x.mean() > 0)


REFUSED = {
    "two inputs": (Two(), (3, 8, 8), r"forward of Two takes 2 inputs \(image, mask\), and there is one image"),
    "rows and columns only": (nn.Conv2d(3, 4, 3), (224, 224), r"input shape is \(224, 224\)\. Give \(channels, height, width\)"),
    "one number": (nn.Conv2d(3, 4, 3), 224, "input shape is 224"),
    "a text": (nn.Conv2d(3, 4, 3), "3x4x4", "input shape is '3x4x4'"),
    "nothing": (nn.Conv2d(3, 4, 3), (), r"input shape is \(\)"),
    "no pixels": (nn.Conv2d(3, 4, 3), (3, 0, 8), r"input shape is \(3, 0, 8\)"),
    "fractions": (nn.Conv2d(3, 4, 3), (3, 8.0, 8), r"input shape is \(3, 8.0, 8\)"),
    "far too many pixels": (nn.Conv2d(3, 4, 3), (3, 10**9, 8), "input shape is"),
    "other channels": (nn.Sequential(nn.Conv2d(1, 4, 3)), (3, 8, 8), "layer 0 takes 1 channels, and is given 3"),
    "too small": (
        nn.Sequential(nn.Conv2d(3, 4, 5)),
        (3, 4, 9),
        r"layer 0 \(Conv2d\) the map is 4x9.*floor\(\(4 - 5 \+ 2\*0\) / 1\)",
    ),
    "other features": (nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), (3, 4, 4), r"fails at 1 \(Linear\): mat1 and mat2"),
    "its own error": (Raising(), (3, 8, 8), "the network fails: 'temperature'"),
    "decides": (Decides(), (3, 8, 8), "the forward of the network makes Python numbers of the values of its maps"),
    "masks": (PicksByMask(), (3, 8, 8), "picks units by the values of its maps"),
    "nonzero": (Asks(torch.nonzero), (3, 8, 8), r"picks units by the values of its maps \(nonzero\)"),
    "item": (Asks(lambda x: x.max().item()), (3, 8, 8), r"Python numbers of the values of its maps \(item\)"),
    "lists": (Asks(lambda x: x.tolist()), (3, 8, 8), "tolist"),
    "compares": (Asks(lambda x: torch.equal(x, x)), (3, 8, 8), "equal"),
    "an index by values": (Asks(lambda x: x[:, :, x[0, 0, 0].argmax() :]), (3, 8, 8), "Python numbers of the values of its maps"),
    "narrowed by values": (Asks(lambda x: x.narrow(2, int(x.argmax() % 3), 1)), (3, 8, 8), "Python numbers of the values"),
    "split by values": (Asks(lambda x: torch.tensor_split(x, x[0, 0, 0, :1].long(), 2)), (3, 8, 8), "the values of its maps"),
    "where": (Asks(lambda x: torch.where(x > 0)), (3, 8, 8), "picks units by the values|the values of its maps"),
    "nearly equal": (Asks(lambda x: torch.allclose(x, x)), (3, 8, 8), "the values of its maps"),
    "swallowed": (Asks(swallowing), (3, 8, 8), "Python numbers of the values of its maps"),
    "a lock": (Locked(), (3, 8, 8), "the network cannot be copied: cannot pickle"),
    "a class": (nn.ReLU, (3, 8, 8), "is no torch.nn.Module. Give a module, not its class"),
    "lazy": (nn.Sequential(nn.LazyConv2d(4, 3)), (3, 8, 8), "lazy layers that have seen no image yet. Pass one image"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    model, shape, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        ledger(model, shape)
    assert "\n" not in str(caught.value)


def test_a_module_on_another_device():
    """Wherever it is: nothing of it is read."""
    on_cpu = ledger(create_model("lenet.pocket"), (3, 32, 32))
    assert ledger(create_model("lenet.pocket").to("meta"), (3, 32, 32)) == on_cpu


# Hints

BATCH_NORMED = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4))
HINTS = {
    "a linear layer along columns": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(3, 4), nn.BatchNorm2d(4)), (3, 5, 5), {(1, "narrow view", NARROW_VIEW)}),
    "idle bias": (BATCH_NORMED, (3, 7, 7), {(0, "idle bias", IDLE_BIAS), (4, "narrow view", NARROW_VIEW)}),
    "a bias that is used elsewhere too": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        (3, 3, 3),
        {(2, "small map", SMALL_MAP)},
    ),
    "skipped pixels": (nn.Sequential(nn.Conv2d(3, 4, 1, stride=2)), (3, 4, 4), {(0, "skipped pixels", SKIPPED), (0, "narrow view", NARROW_VIEW)}),
    "a dilated kernel that skips nothing": (nn.Sequential(nn.Conv2d(3, 4, 2, stride=3, dilation=2)), (3, 3, 6), {(0, "small map", SMALL_MAP), (0, "narrow view", NARROW_VIEW)}),
    "wide padding": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=2)), (3, 3, 3), {(0, "wide padding", WIDE_PADDING)}),
    "half the kernel": (nn.Sequential(nn.Conv2d(3, 4, 4, padding=2)), (3, 4, 4), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", HINTS)
def test_hints(name):
    model, shape, expected = HINTS[name]
    assert {(hint.row, hint.kind, hint.reason) for hint in ledger(model, shape).hints} == expected


def test_resnet18_for_large_images_on_small_ones():
    """torchvision's ResNet-18 accepts 32x32 without a word, and ends on a map of one pixel."""
    model = create_model("resnet18")
    kinds = {hint.kind: hint.what for hint in ledger(model, (3, 32, 32)).hints}
    assert kinds["small map"] == "the last map is 1x1"
    assert "small map" not in {hint.kind for hint in ledger(create_model("resnet18", image_size=32), (3, 32, 32)).hints}


def test_every_reason_is_one_sentence():
    for reason in (IDLE_BIAS, NARROW_VIEW, SKIPPED, SMALL_MAP, WIDE_PADDING):
        assert reason.endswith(".")
        assert reason.count(".") == 1
