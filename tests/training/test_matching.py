"""Widths at which networks cost the same."""

import pytest

from convatlas.errors import UserError
from convatlas.models import user_files
from convatlas.models.configuration import configured
from convatlas.models.papers import golden_rows
from convatlas.training.matching import width_for
from convatlas.training.prepare import costs

IMAGES = {"num_classes": 10, "in_chans": 3, "image_size": 32}
MEMBERS = ["resnet.pocket", "vgg.pocket", "densenet.pocket", "googlenet.pocket", "efficientnet.pocket", "convnext.pocket"]


@pytest.mark.parametrize("name", [*MEMBERS, "alexnet.pocket", "compact300k"])
@pytest.mark.parametrize(("measure", "target"), [("params", 270_000), ("params", 1_000_000), ("macs", 30e6)])
def test_a_width_is_found_for_every_family(name, measure, target):
    found, width, reached = width_for(name, measure=measure, target=target, tolerance=0.02, **IMAGES)
    assert abs(reached / target - 1) <= 0.02
    assert dict(zip(("params", "macs"), costs(found, **IMAGES), strict=True))[measure] == reached
    assert found == (name if width == 1 else configured(name, {"width": width}))


@pytest.mark.untraced  # long, and other tests reach its lines
def test_none_of_the_neighbours_is_nearer():
    _, width, reached = width_for("resnet.pocket", measure="params", target=500_000, tolerance=0.02, **IMAGES)
    for step in range(-400, 401):
        near = costs(configured("resnet.pocket", {"width": width + step / 10_000}), **IMAGES)[0] if step % 20 == 0 else 0
        assert abs(near - 500_000) >= abs(reached - 500_000) or not near


def test_what_fits_as_it_is_keeps_its_name():
    for name in ("resnet.pocket", "lenet.pocket"):
        params = golden_rows()[name].params
        assert width_for(name, measure="params", target=params, tolerance=0, **IMAGES) == (name, 1.0, params)


def test_a_width_that_was_given_is_replaced():
    found, _, _ = width_for("resnet{width: 3, act: tanh}", measure="params", target=270_000, tolerance=0.02, **IMAGES)
    assert found == 'resnet{"act": "tanh"}'


def test_what_only_training_uses_does_not_count():
    found, _, reached = width_for("googlenet", measure="params", target=270_000, tolerance=0.02, **IMAGES)
    assert costs(found, **IMAGES)[0] == reached


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("resnet.pocket", 270_000.5, r"resnet.* has 2\d\d,\d{3} parameters, and no width is nearer: 0.\d% off 270,000, and 0.0%"),
        (
            "lenet.pocket",
            270_000,
            r"lenet.pocket has 62,006 parameters: 77.0% off 270,000, and 0.0% are admitted. Its family keeps",
        ),
        ("vgg.pocket", 10, r"vgg.* has \d+ parameters, and no width is nearer"),
    ],
)
def test_what_cannot_be_met_says_what_it_came_to(name, target, said):
    with pytest.raises(UserError, match=said):
        width_for(name, measure="params", target=target, tolerance=0, **IMAGES)


def test_measures_are_named():
    with pytest.raises(UserError, match="1 flops cannot be met. Give a number above 0 of params or macs"):
        width_for("resnet.pocket", measure="flops", target=1, tolerance=0, **IMAGES)
    with pytest.raises(UserError, match="0 params cannot be met"):
        width_for("resnet.pocket", measure="params", target=0, tolerance=0, **IMAGES)


def test_a_users_own_network_has_the_width_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(user_files, "_TRUSTED", set())
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\ndef make(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    user_files.trust(path)
    name = f"{path}:make"
    assert costs(name, **IMAGES) == (30_730, 30_720)
    assert width_for(name, measure="params", target=30_000, tolerance=0.05, **IMAGES) == (name, 1.0, 30_730)
    with pytest.raises(UserError, match=r"has 30,730 parameters: .*A network from a file has the widths that the file gives it"):
        width_for(name, measure="params", target=60_000, tolerance=0.05, **IMAGES)
