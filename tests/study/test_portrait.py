from dataclasses import replace

import pytest
import torch

from convatlas.data.dataset import ImageSet
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.look import Look
from convatlas.study import portrait
from convatlas.study.portrait import MOST_BYTES, portrait_images, write_portrait
from convatlas.training.loop import train

from ..training.makers import small_data, small_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs on the same data."""
    root, data = tmp_path_factory.mktemp("runs"), small_data()
    for model in ("resnet.pocket", "vgg.pocket"):
        train(small_recipe(model=model, epochs=1), root / model, data=data)
    return root, data


def test_portrait_has_stem_and_stages_of_the_same_images(runs):
    root, data = runs
    one, other = (write_portrait(root / name, data) for name in ("resnet.pocket", "vgg.pocket"))
    assert codec.read(Look, root / "resnet.pocket" / "look.json") == one
    assert (root / "vgg.pocket" / "look.json").stat().st_size < MOST_BYTES
    assert [each.image for each in one.images] == [each.image for each in other.images]
    assert [each.picture for each in one.images] == [each.picture for each in other.images]
    assert [each.layer for each in one.images[0].maps] == ["stem", "stages.0", "stages.1", "stages.2"]
    assert [each.layer for each in other.images[0].maps] == [f"stages.{i}" for i in range(5)], "VGG has no stem"
    maps = one.images[0].maps[0]
    assert (maps.channels, maps.side, len(maps.shown)) == (16, (32, 32), 12)
    assert one.filters is not None and one.trained and not one.notes
    for each in one.images:
        assert len(each.prediction.classes) == 5 and set(each.prediction.classes) <= set(data.classes)
        assert list(each.prediction.probabilities) == sorted(each.prediction.probabilities, reverse=True)


def test_images_are_one_of_each_class_before_a_second_of_any():
    data = small_data()
    _, names = portrait_images(data, count=8)
    assert [name.rpartition(", ")[2] for name in names] == [*data.classes, "red", "green"]
    sorted_by_class = replace(data, val=data.val.subset(data.val.labels.argsort(stable=True)))
    images, names = portrait_images(sorted_by_class, count=4)
    assert [name.rpartition(", ")[2] for name in names] == list(data.classes[:4]) and len(images) == 4
    assert names[1] == "validation image 4, green"


def test_without_validation_training_images_are_shown_and_never_test_images():
    data = small_data()
    none = ImageSet(data.val.images[:0], data.val.labels[:0])
    images, names = portrait_images(replace(data, val=none), count=2)
    assert names == ("training image 0, red", "training image 1, green")
    assert torch.equal(images.images, data.train.images[:2])


def test_the_file_is_kept_small_by_showing_fewer_images(runs, monkeypatch):
    root, data = runs
    whole = len(codec.to_line(write_portrait(root / "resnet.pocket", data)))
    monkeypatch.setattr(portrait, "MOST_BYTES", whole * 2 // 3)
    look = write_portrait(root / "resnet.pocket", data)
    assert 1 <= len(look.images) < 4 and (root / "resnet.pocket" / "look.json").stat().st_size <= whole * 2 // 3
    assert look.notes == (f"{len(look.images)} of 4 images, so that the file stays small",)


def test_large_maps_and_images_are_averaged_but_told_as_they_were():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 80 * 80, 6)
    )
    data = small_data()
    grey = ImageSet(
        torch.randint(0, 255, (6, 1, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    )
    data = replace(data, val=grey, mean=(0.5,), std=(0.25,))
    look = portrait._looked(model.eval(), data, name="mine", weights="mine", count=2, wanted=2)
    assert [(each.layer, each.side) for each in look.images[0].maps] == [("1", (80, 80))]
    assert len(look.images[0].maps[0].picture) < 40_000
    assert portrait._picture(grey.images[0]).shape == (3, 64, 64)


def test_a_network_without_maps_or_with_broken_ones_still_has_its_answers():
    data = small_data()
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 6)).eval()
    look = portrait._looked(flat, data, name="flat", weights="flat", count=2, wanted=2)
    assert look.filters is None and look.images[0].maps == () and "no feature maps" in look.notes[0]
    assert len(look.images[0].prediction.classes) == 5
    conv = torch.nn.Conv2d(3, 4, 3)
    torch.nn.init.constant_(conv.weight, 3e38)
    broken = torch.nn.Sequential(conv, torch.nn.Flatten(), torch.nn.Linear(4 * 30 * 30, 6)).eval()
    look = portrait._looked(broken, data, name="broken", weights="broken", count=1, wanted=1)
    assert look.images[0].maps == () and "are no numbers" in look.notes[0]


def test_of_many_stages_some_are_shown_and_the_last_among_them():
    stages = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(12)))
    model = torch.nn.Module()
    model.stem, model.stages = torch.nn.Identity(), stages
    chosen = portrait._layers(model, torch.zeros(1, 3, 8, 8))
    assert len(chosen) == 5 and chosen[-1] == "stages.11" and chosen == sorted(set(chosen), key=chosen.index)


def test_a_run_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished model"):
        write_portrait(tmp_path, small_data())
