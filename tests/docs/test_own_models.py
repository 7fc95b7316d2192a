"""docs/own-models.md: its keys are those of the code, its files are models, its commands work."""

import re
import shlex
from pathlib import Path

import pytest
from tests.cli.zygote import command

from convatlas.errors import UserError
from convatlas.models import alterations
from convatlas.models.configuration import CONFIGURATION_KEYS, model_name, parsed
from convatlas.models.families import FAMILIES
from convatlas.models.registry import create_model
from convatlas.models.settings import OUTSIDE, keys_of

PAGE = (Path(__file__).parents[2] / "docs/own-models.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (.+) \| ([\w, ]+) \|$", PAGE, flags=re.M)
VALUES = {"drop_path": 0.1, "shortcut": False, "width": 1.5}


def block(word):
    (found,) = re.findall(rf"```{word}\n(.*?)```", PAGE, flags=re.S)
    return found


def takes(family, key):
    """Whether the family's member can be built with this key."""
    if key not in VALUES:
        return key in keys_of(family)
    try:
        model_name({"family": family, key: VALUES[key]})
    except UserError:
        return False
    return True


def test_the_table_has_every_key_once():
    assert [key for key, _, _ in ROWS] == list(CONFIGURATION_KEYS)


@pytest.mark.parametrize(("key", "value", "where"), ROWS, ids=[row[0] for row in ROWS])
def test_each_key_is_for_what_the_table_says(key, value, where):
    families = [family for family in FAMILIES if takes(family, key)]
    said = where.split(", ")
    assert said == ["all", "own"] if key in OUTSIDE else said == families
    if key in ("act", "norm"):
        known = alterations.ACTIVATIONS if key == "act" else alterations.NORMS
        assert re.findall(r"\w+", value.split(", for every")[0].replace(" or ", ", ")) == list(known)


def test_the_forms_are_names():
    forms = re.findall(r"^\| .+ \| `(.+)` \|$", PAGE, flags=re.M)
    assert len(forms) == 5
    for form in forms:
        if form != "net.yaml":
            assert parsed(form)[0] in ("resnet.pocket", "net.py:make")


@pytest.mark.untraced  # long, and other tests reach its lines
def test_the_files_are_models_and_the_commands_work(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "net.yaml").write_text(block("yaml"))
    (folder / "net.py").write_text(block("python"))
    create_model(str(folder / "net.yaml"))
    for text in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S):
        for line in text.splitlines():
            done = command(*shlex.split(line)[1:], folder=folder)
            assert done.returncode == 0, (line, done.stderr)
