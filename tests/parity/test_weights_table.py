"""The table of published weights is what the installed torchvision and timm say of themselves."""

import importlib.machinery
import importlib.util
import json
from pathlib import Path

import pytest

from convatlas.models.published import SOURCES, published

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    loader = importlib.machinery.SourceFileLoader("weights_script", str(ROOT / "scripts/weights"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_table_is_up_to_date(script):
    """If not, run scripts/weights and read the difference."""
    committed = script.TARGET.read_text(encoding="utf-8")
    assert json.loads(committed) == json.loads(script.table())
    assert committed == script.table()


def test_every_source_is_there():
    assert {row.source for row in published()} == set(SOURCES)


def test_preprocessing_is_what_timm_builds(script):
    """As timm itself builds it, not as its configuration reads: at the size that it tests at, or trained at."""
    compared = 0
    for row in published():
        if row.source == "timm":
            ours = row.preprocessing
            config = script.timm.get_pretrained_cfg(row.hub_repo.removeprefix("timm/")).to_dict()
            choices = [script.timm.data.resolve_data_config(pretrained_cfg=config, use_test_size=test) for test in (True, False)]
            settings = next(each for each in choices if each["input_size"] == (row.in_chans, ours.crop, ours.crop))
            resize, crop, _, normalize = script.timm.data.create_transform(**settings).transforms
            assert tuple(crop.size) == (ours.crop, ours.crop), row.name
            assert resize.size == ((ours.crop, ours.crop) if ours.resize is None else ours.resize), row.name
            assert resize.interpolation.value == ours.interpolation, row.name
            assert normalize.mean.tolist() == pytest.approx(ours.mean), row.name
            assert normalize.std.tolist() == pytest.approx(ours.std), row.name
            compared += settings is choices[0]
    assert compared == sum(row.source == "timm" for row in published()) - 1, "all but one are better at the size of the test"
