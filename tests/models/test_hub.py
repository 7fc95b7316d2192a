"""Weights of the Hugging Face hub, from its cache: what their config says becomes the preprocessing."""

import json

import pytest

from convatlas.models.pretrained import _hub_preprocessing
from convatlas.models.published import find_weights
from convatlas.models.registry import create_model
from tests.models.test_loading import SMALL, saved

CFG = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.1],
    "input_size": [3, 224, 224],
    "crop_pct": 0.875,
    "interpolation": "bicubic",
}


@pytest.mark.parametrize(
    ("change", "resize", "crop"),
    [
        ({}, 256, 224),
        ({"test_input_size": [3, 288, 288], "test_crop_pct": 0.95}, 303, 288),
        ({"test_input_size": None, "test_crop_pct": None}, 256, 224),
        ({"crop_mode": "squash"}, None, 224),
        ({"crop_mode": "center"}, 256, 224),
    ],
)
def test_timms_config_is_understood(change, resize, crop, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {**CFG, **change}}))
    how = _hub_preprocessing(tmp_path / "config.json")
    assert (how.resize, how.crop, how.mean, how.interpolation) == (resize, crop, (0.5, 0.4, 0.3), "bicubic")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pretrained_cfg": null}', '{"pretrained_cfg": {"mean": 3}}', "\x00"])
def test_what_is_not_understood_says_nothing(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert _hub_preprocessing(tmp_path / "config.json") is None
    assert _hub_preprocessing(None) is None


def test_a_repository_in_the_cache_is_loaded(tmp_path, monkeypatch):
    path, _ = saved("convnext.pocket", tmp_path, layout="timm")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": CFG}))
    monkeypatch.setattr("convatlas.models.pretrained.obtain_from_hub", lambda name: (path, tmp_path / "config.json"))
    model = create_model("convnext.pocket", pretrained="hf-hub:somebody/convnext", **SMALL)
    assert (model.loaded.source, model.loaded.layout) == ("hf-hub:somebody/convnext", "timm")
    assert model.loaded.preprocessing.crop == 224


def test_published_weights_bring_their_preprocessing_and_licence(tmp_path, monkeypatch):
    path, _ = saved("resnet20", tmp_path, layout="idelbayev", suffix=".pth")
    monkeypatch.setattr("convatlas.models.pretrained.obtain", lambda weights: path)
    model = create_model("resnet20", pretrained="idelbayev")
    row = find_weights("resnet20", "idelbayev")
    assert (model.loaded.source, model.loaded.preprocessing, model.loaded.licence) == (row.name, row.preprocessing, row.licence)
