"""What is installed, and what ships."""

import importlib.metadata
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import convatlas

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="with a GPU the CUDA build is what is wanted")
def test_no_cuda_packages_came_along():
    assert [d.name for d in importlib.metadata.distributions() if (d.name or "").lower().startswith("nvidia-")] == []


def test_floors_are_as_high_as_known_holes_demand():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in dependencies)
    assert floors["torch"] == "2.10"
    assert floors["pillow"] == "12.3"
    assert floors["numpy"] == "2.0"


def test_constraints_pin_what_pulls_cuda():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["torch==2.13.0", "torchvision==0.28.0", "timm==1.0.31"]


def test_version_stands_in_one_place_twice():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == convatlas.__version__


@pytest.mark.parametrize("name", convatlas.__all__)
def test_public_names_are_there(name):
    assert getattr(convatlas, name) is not None


def test_unknown_public_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'creat_model'"):
        convatlas.creat_model  # noqa: B018
