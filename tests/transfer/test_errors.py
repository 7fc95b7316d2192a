"""Looking at errors: of a network whose answers are known beforehand, with wrong labels planted."""

import base64
import builtins
import re
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convatlas.arith.proportion import wilson
from convatlas.data.dataset import ImageSet
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.errors_look import ErrorReport
from convatlas.training.evaluate import predict_logits
from convatlas.transfer.calibration import calibration
from convatlas.transfer.errors import SHOWN, SIDE, examine_errors
from convatlas.transfer.suspects import label_suspects

CLASSES = ("red", "green", "blue")
COLOURS = torch.eye(3)


class Nearest(nn.Module):
    """The logit of a class is how far the mean colour is on its side; `conv` keeps the picture and gives the maps."""

    def __init__(self, colours=COLOURS, sharpness=20.0):
        super().__init__()
        channels = colours.shape[1]
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, len(colours))
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels)[:, :, None, None])
            self.conv.bias.zero_()
            self.head.weight.copy_(sharpness * colours)
            self.head.bias.copy_(-sharpness * colours.square().sum(1) / 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


def pictures(n, *, size=16, border=0, seed=0, classes=3):
    """Noisy squares of their class's colour, some hardly so, in a border of the next class's."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    strength = 0.35 + 0.6 * torch.rand(n, generator=generator)
    inner = torch.full((n, 3, size, size), 0.3)
    inner[torch.arange(n), labels] = strength[:, None, None]
    inner = (inner + 0.05 * torch.randn(inner.shape, generator=generator)).clamp(0, 1)
    whole = torch.zeros(n, 3, size + 2 * border, size + 2 * border)
    whole[torch.arange(n), (labels + 1) % classes] = 1.0
    whole[:, :, border : border + size, border : border + size] = inner
    return ImageSet((255 * whole).round().to(torch.uint8), labels)


def look(images=None, model=None, **changes):
    images = pictures(60) if images is None else images
    given = {
        "names": tuple(f"folder/{i}.jpg" for i in range(len(images))),
        "classes": CLASSES,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "size": 16,
        "temperature": 1.5,
        "split": "test",
    }
    return examine_errors(model or Nearest(), images, **(given | changes))


def planted(n=120, count=6):
    images = pictures(n)
    wrong = list(range(0, count * 7, 7))
    labels = images.labels.clone()
    labels[wrong] = (labels[wrong] + 1) % 3
    return ImageSet(images.images, labels), wrong


def pixels(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_planted_labels_are_found_and_nothing_else():
    """By a network that is sure; another finds those alone of which it is as sure as usual."""
    images, wrong = planted()
    assert {each.index for each in look(images).suspects} < set(wrong)
    report = look(images, Nearest(sharpness=400.0))
    assert sorted(each.index for each in report.suspects) == wrong
    for each in report.suspects:
        assert each.suggested == CLASSES[each.index % 3] and each.given == CLASSES[(each.index + 1) % 3]
        assert each.image == f"folder/{each.index}.jpg"
        assert 0 < each.margin <= 1 - each.probability and each.picture is not None
    margins = [each.margin for each in report.suspects]
    assert margins == sorted(margins, reverse=True)


def test_everything_is_counted():
    images, _ = planted()
    report = look(images)
    logits = predict_logits(Nearest(), images, mean=(0.0,) * 3, std=(1.0,) * 3)
    said = logits.argmax(1)
    assert report.n == 120 and report.accuracy.mean == pytest.approx(114 / 120)
    assert (report.accuracy.low, report.accuracy.high) == pytest.approx(wilson(114 / 120, 120))
    for i in range(3):
        assert report.confusion[i] == tuple(int(((images.labels == i) & (said == j)).sum()) for j in range(3))
    for i, each in enumerate(report.scores):
        column = sum(row[i] for row in report.confusion)
        assert (each.n, each.answers, each.found) == (sum(report.confusion[i]), column, report.confusion[i][i])
        assert each.recall.mean == each.found / each.n and each.precision.mean == each.found / column
        harmonic = 2 / (1 / each.recall.mean + 1 / each.precision.mean)
        assert each.f1 == pytest.approx(harmonic)
        assert (each.recall.low, each.recall.high) == pytest.approx(wilson(each.recall.mean, each.n))
        assert (each.precision.low, each.precision.high) == pytest.approx(wilson(each.precision.mean, column))
    assert report.before == calibration(logits, images.labels, temperature=1.0)
    assert report.after == calibration(logits, images.labels, temperature=1.5)
    assert (report.temperature, report.fitted_on, report.split, report.size) == (1.5, "val", "test", 16)


def test_the_worst_are_wrong_and_surest_first_and_the_least_certain_are_closest():
    images, wrong = planted()
    report = look(images)
    probabilities = (predict_logits(Nearest(), images, mean=(0.0,) * 3, std=(1.0,) * 3).double() / 1.5).softmax(1)
    assert sorted(each.index for each in report.worst) == wrong
    assert [each.probability for each in report.worst] == sorted((each.probability for each in report.worst), reverse=True)
    for each in (*report.worst, *report.unsure):
        ordered = probabilities[each.index].argsort(descending=True).tolist()
        assert [CLASSES[i] for i in ordered[:2]] == [each.predicted, each.runner_up]
        assert each.probability == pytest.approx(float(probabilities[each.index].max()))
        assert each.truth == CLASSES[int(images.labels[each.index])]
    first, second = probabilities.topk(2).values.T
    assert [each.index for each in report.unsure] == (first - second).argsort(stable=True)[:SHOWN].tolist()
    assert [each.margin for each in report.unsure] == sorted(each.margin for each in report.unsure)


def test_no_more_than_twelve_of_each_are_shown():
    images = pictures(90)
    report = look(ImageSet(images.images, (images.labels + 1) % 3))
    assert len(report.worst) == len(report.unsure) == SHOWN
    assert report.accuracy.mean == 0
    some = planted(300, 20)[0]
    suspects = look(some, Nearest(sharpness=400.0)).suspects
    assert len(suspects) == 20 and [each.picture is not None for each in suspects] == [True] * SHOWN + [False] * 8


def test_the_network_sees_the_middle_alone():
    plain, framed = look(pictures(60)), look(pictures(60, border=9))
    assert plain.accuracy.mean == 1 == framed.accuracy.mean
    assert framed.before == plain.before
    assert look(pictures(60, border=9), size=34).accuracy.mean < 0.5


def test_pictures_and_maps_are_as_large_as_the_page_wants_them():
    report = look(pictures(9, size=224), size=224)
    for each in report.unsure:
        assert pixels(each.picture).shape == pixels(each.map).shape == (SIDE, SIDE, 3)
    shown = pixels(report.unsure[0].picture).reshape(-1, 3).mean(0)
    assert CLASSES[shown.argmax()] == report.unsure[0].truth
    assert pixels(look().unsure[0].picture).shape == (112, 112, 3), "small ones are enlarged"
    assert look().layer == "norm" and look().notes == ()


@pytest.mark.parametrize("colour", [0, 2])
def test_the_map_is_where_the_answer_comes_from(colour):
    """Grey, with the colour in the upper left quarter alone; the label is another."""
    image = torch.full((1, 3, 224, 224), 60, dtype=torch.uint8)
    image[0, colour, :112, :112] = 250
    one = look(ImageSet(image, torch.tensor([1])), size=224, model=Nearest(COLOURS - 0.5)).unsure[0]
    seen = pixels(one.map).astype(int)
    strength = (seen.max(2) - seen.min(2)) + seen.sum(2) / 3
    assert one.predicted == CLASSES[colour]
    assert strength[10:46, 10:46].mean() > 1.5 * strength[66:, 66:].mean()


def test_the_model_is_left_as_it_was():
    """Also modes that differ from layer to layer, as where BatchNorm is frozen while the rest is trained."""
    model = Nearest().train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.head.register_forward_hook(lambda module, args, output: None)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    look(model=model)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks == [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_images_are_left_as_they_were():
    images = pictures(12)
    before = images.images.clone()
    look(images)
    assert torch.equal(images.images, before)


def test_twice_is_the_same_and_the_record_is_read_back():
    images, _ = planted()
    report = look(images)
    assert report == look(images)
    assert codec.from_text(ErrorReport, codec.to_text(report), where="a test") == report


def test_one_image():
    report = look(pictures(1))
    assert report.n == 1 and report.accuracy.mean == 1 and report.accuracy.low < 0.3
    assert len(report.unsure) == 1 and report.worst == () and report.suspects == ()
    assert [each.n for each in report.after.bins] == [1]
    assert report.scores[1].recall is None and report.scores[1].precision is None and report.scores[1].f1 is None


def test_a_class_without_an_image_that_is_answered_nevertheless():
    images = pictures(40)
    labels = torch.where(images.labels == 2, 0, images.labels)
    report = look(ImageSet(images.images, labels))
    blue = report.scores[2]
    assert blue.n == 0 and blue.recall is None and blue.f1 is None
    assert blue.answers == 13 and blue.precision.mean == 0
    assert "blue" not in {each.suggested for each in report.suspects}, "nobody knows how sure it is of blue ones"


def test_all_answers_right():
    report = look()
    assert report.worst == () and report.suspects == () and report.accuracy.mean == 1
    assert report.accuracy.high == pytest.approx(1) and report.accuracy.low == pytest.approx(0.94, abs=0.001)
    assert len(report.unsure) == SHOWN


def test_grey_images():
    images = ImageSet(
        torch.tensor([20, 60, 200, 240], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 16, 16), torch.tensor([0, 0, 1, 1])
    )
    report = look(images, Nearest(torch.tensor([[0.1], [0.9]])), classes=("dark", "light"), mean=(0.0,), std=(1.0,))
    assert report.accuracy.mean == 1
    assert pixels(report.unsure[0].picture).shape == (112, 112, 3)


def test_a_network_without_places_has_no_maps_and_a_note():
    report = look(model=nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)))
    assert report.layer is None and all(each.map is None for each in report.unsure)
    assert re.match("There are no maps: no layer gives a map", report.notes[0])


def test_without_captum(monkeypatch):
    original = builtins.__import__

    def no_captum(name, *args, **kwargs):
        if name.startswith("captum"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("captum")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", no_captum)
    report = look()
    assert report.layer is None and "pip install 'convatlas[look]'" in report.notes[0]
    assert report.unsure[0].picture and report.unsure[0].map is None


def test_a_map_of_nothing_is_none():
    """A classifier that looks at nothing: its gradient by the map is nought."""
    model = Nearest()
    nn.init.zeros_(model.head.weight)
    report = look(model=model)
    assert report.layer == "norm" and all(each.map is None for each in report.unsure)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ("a",)}, "there are 1 names for 60 images"),
        ({"classes": ("red",), "names": tuple("a" * 60)}, "there is 1 class"),
        ({"classes": ("a", "b", "c", "d")}, "the network gives (1, 3) for an image of 4 classes"),
        ({"size": 17}, "the middle 17 pixels of images of 16x16 do not exist"),
        ({"size": 0}, "the middle 0 pixels"),
        ({"mean": (0.0,)}, "there are 1 means and 3 deviations for 3 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "the deviations are (1.0, 0.0, 1.0)"),
        ({"temperature": 0.0}, "the temperature is 0.0"),
        ({"temperature": float("nan")}, "the temperature is nan"),
    ],
)
def test_refused(changes, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        look(**changes)
    assert "\n" not in str(error.value)


def test_no_images_and_labels_of_no_class_are_refused():
    with pytest.raises(UserError, match="there are no images"):
        look(pictures(0))
    images = pictures(6)
    with pytest.raises(UserError, match="the labels do not fit"):
        look(ImageSet(images.images, images.labels + 1))


def test_weights_that_are_no_numbers_are_refused():
    model = Nearest()
    nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(UserError, match="not finite"):
        look(model=model)


class Fussy(nn.Module):
    """Fails on all images."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        raise ValueError("nothing\nwill do")


def test_a_network_that_fails_is_told_in_a_line():
    with pytest.raises(UserError, match=re.escape("the network fails on images of (3, 16, 16): nothing.")):
        look(model=Fussy())


# Confident learning alone


def test_suspects_worked_out_by_hand():
    """Thresholds: 0.7 for the first class (0.9, 0.8, 0.4), 0.6 for the second (0.6, 0.6), 0.5 for the third."""
    probabilities = torch.tensor(
        [
            [0.9, 0.1, 0.0],
            [0.8, 0.1, 0.1],
            [0.4, 0.6, 0.0],  # labelled first; reaches the second's threshold
            [0.2, 0.6, 0.2],
            [0.4, 0.6, 0.0],
            [0.45, 0.05, 0.5],
        ],
        dtype=torch.float64,
    )
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert label_suspects(probabilities, labels) == ((2, 1),)


def test_a_class_is_suggested_only_where_it_is_likelier_than_the_label():
    """The second class's threshold is low, since nobody is sure of it: reaching it says little."""
    probabilities = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.75, 0.25], [0.7, 0.3]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    assert label_suspects(probabilities, labels) == ()


def test_of_several_classes_the_likeliest_that_reaches_its_threshold_is_suggested():
    probabilities = torch.tensor([[0.0, 0.45, 0.55], [1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.1, 0.0, 0.9]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 2])
    # 0.55 is likelier and does not reach the third's 0.9; 0.45 does reach the second's 0.4.
    assert dict(label_suspects(probabilities, labels))[0] == 1
