"""Uploading: only what others need, only when asked, and in one line what is in the way. No network: the hub's client is watched."""

import sys
from dataclasses import replace

import pytest
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Recipe
from convatlas.records.tuning import Tuning
from convatlas.records.weights import Preprocessing
from convatlas.training.loop import train
from convatlas.transfer.sharing import SHARED, push_to_hub
from tests.cli.zygote import command
from tests.training.makers import small_data, small_recipe

httpx = sys.modules[hub_errors.HTTPError.__module__.split(".")[0]]
"""The HTTP library that the hub's library uses, which changed its name."""


def finished_run(folder):
    """A small network's run."""
    train(small_recipe(model="lenet.pocket", epochs=1), folder / "run", data=small_data(n=32))
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that no test changes."""
    return finished_run(tmp_path_factory.mktemp("finished"))


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


def answered(status, kind=HfHubHTTPError):
    """What the hub's library raises for such an answer."""
    request = httpx.Request("POST", "https://huggingface.co/api/repos/create")
    return kind(f"{status} Client Error.\n\nand more", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LocalTokenNotFoundError("no token"), "does not know who you are. Run: hf auth login"),
        (answered(401, RepositoryNotFoundError), "does not know who you are. Run: hf auth login"),
        (answered(403), "you may not write there. Name a repository of your own"),
        (answered(500), "the hub answered 500: 500 Client Error"),
        (httpx.ConnectError("[Errno -3] Temporary failure in name resolution"), r"cannot be reached \(ConnectError: .*network"),
        (httpx.ReadTimeout("timed out"), "cannot be reached .*Check the network, then run it again"),
        (ConnectionResetError("reset by peer"), "cannot be reached"),
        (TimeoutError(), r"cannot be reached \(TimeoutError: TimeoutError\)"),
        (HFValidationError("Repo id must use alphanumeric chars"), "Repo id must use .* Give another name"),
        (RuntimeError("Data processing error"), "could not be uploaded: Data processing error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_told_in_a_line_with_what_to_do(finished, hub, error, reason):
    hub.error = error
    with pytest.raises(UserError, match=reason) as caught:
        push_to_hub(finished, "someone/ants")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("someone/ants could not be uploaded: ")


def test_the_command_without_a_network(finished, tmp_path):
    """Nobody answers at the address at which the hub's library is told to look; one line, no traceback."""
    place = tmp_path / "work"
    place.mkdir()
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": None, "HF_TOKEN": "hf_none", "HF_HOME": str(tmp_path)}
    done = command("push", finished, "someone/ants", folder=place, **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "error: someone/ants could not be uploaded: the hub cannot be reached" in done.stderr


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
