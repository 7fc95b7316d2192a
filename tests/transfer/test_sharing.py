"""Uploading: only what others need, only when asked, and in one line what is in the way. No network: the hub's client is watched."""

from dataclasses import replace

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Recipe
from convatlas.records.tuning import Tuning
from convatlas.records.weights import Preprocessing
from convatlas.training.loop import train
from convatlas.transfer.sharing import SHARED, push_to_hub
from tests.training.makers import small_data, small_recipe


def finished_run(folder):
    """A small network's run."""
    train(small_recipe(model="lenet.pocket", epochs=1), folder / "run", data=small_data(n=32))
    return folder / "run"


class Hub:
    def __init__(self, error=None):
        self.error, self.calls = error, []

    def create_repo(self, name, **options):
        self.calls.append(("create", name, options))
        if self.error is not None:
            raise self.error

    def upload_file(self, **options):
        self.calls.append(("file", options))

    def upload_folder(self, **options):
        self.calls.append(("upload", options))
        return "https://huggingface.co/someone/ants"


@pytest.fixture
def hub(monkeypatch):
    found = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: found)
    return found


def test_what_is_needed_is_uploaded_privately(tmp_path, hub):
    folder = finished_run(tmp_path)
    assert push_to_hub(folder, "someone/ants") == "https://huggingface.co/someone/ants"
    (_, name, options), (_, recipe), (_, upload) = hub.calls
    assert recipe["path_in_repo"] == "recipe.json" and b"lenet.pocket" in recipe["path_or_fileobj"]
    assert name == "someone/ants" and options["private"] is True
    assert upload["repo_id"] == "someone/ants" and upload["folder_path"] == folder
    assert upload["allow_patterns"] == list(SHARED) and not any("state" in each or "answers" in each for each in SHARED)


def test_a_damaged_folder_is_not_uploaded(tmp_path, hub):
    folder = finished_run(tmp_path)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        push_to_hub(folder, "someone/ants")
    assert not hub.calls


@pytest.mark.parametrize("name", ["ants", "/ants", "someone/", "a/b/c", ""])
def test_a_name_that_is_none(tmp_path, hub, name):
    with pytest.raises(UserError, match="names no repository"):
        push_to_hub(finished_run(tmp_path), name)
    assert not hub.calls


def test_nobody_is_logged_in(tmp_path, hub):
    hub.error = LocalTokenNotFoundError("no token")
    with pytest.raises(UserError, match="hf auth login"):
        push_to_hub(finished_run(tmp_path), "someone/ants")


def test_other_failures_are_told_in_a_line(tmp_path, hub):
    hub.error = OSError("the line is dead\nand more")
    with pytest.raises(UserError, match="could not be uploaded: the line is dead") as caught:
        push_to_hub(finished_run(tmp_path), "someone/ants")
    assert "\n" not in str(caught.value)


def test_without_a_network(tmp_path, hub, monkeypatch):
    monkeypatch.setattr("convatlas.transfer.sharing.offline", lambda: True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        push_to_hub(finished_run(tmp_path), "someone/ants", public=True)
    assert not hub.calls


def test_where_the_weights_lay_is_kept_back(tmp_path, hub):
    how = Preprocessing((0.5,) * 3, (0.5,) * 3, 32, 32, "bicubic")
    folder = finished_run(tmp_path)
    recipe = codec.read(Recipe, folder / "recipe.json")
    tuned = replace(recipe, tuning=Tuning("probe", "/home/somebody/secret/net.safetensors", None, how))
    (folder / "recipe.json").write_text(codec.to_text(tuned))
    push_to_hub(folder, "someone/ants")
    sent = hub.calls[1][1]["path_or_fileobj"]
    assert b"net.safetensors" in sent and b"somebody" not in sent
