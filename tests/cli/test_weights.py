"""`convatlas weights`: what is published, and fetching it."""

import json
import pty
import subprocess
import sys

import pytest

from convatlas.models.published import cache_place, find_weights, published

from ..bad_server import CONTENT, serving
from .makers import convatlas, environment


def torchs(folder):
    return folder / "torch" / "hub" / "checkpoints"


def run(*words, folder, **changes):
    return convatlas("weights", *words, folder=folder, TORCH_HOME=str(folder / "torch"), HF_HOME=str(folder / "hf"), **changes)


def test_every_file_is_listed_below_its_model(tmp_path):
    lines = run(folder=tmp_path, COLUMNS="120").stdout.splitlines()
    listed, model = [], None
    for line in lines[3 : lines.index("")]:
        model = model if line.startswith("  ") else line.strip()
        if line.startswith("  "):
            listed.append((model, line.split()[0]))
    assert listed == [(row.model, row.name) for row in published()]


def test_a_row_has_the_figures_the_size_the_licence_and_whether_it_is_here(tmp_path):
    out = run("resnet50", folder=tmp_path, COLUMNS="80").stdout
    row = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ")}
    assert row["torchvision:IMAGENET1K_V2"] == ["*", "80.86", "95.43", "224", "BSD-3-Clause", "-"]
    assert row["timm:fb_swsl_ig1b_ft_in1k"] == ["81.15", "95.98", "224", "CC-BY-NC-4.0", "-"]
    assert "one centre crop" in out


def test_weights_on_this_machine_are_shown_with_their_place(tmp_path):
    file = torchs(tmp_path) / "resnet50-11ad3fa6.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    out = run("resnet50", folder=tmp_path, COLUMNS="80").stdout
    assert [line.split()[0] for line in out.splitlines() if line.rstrip().endswith("yes")] == ["torchvision:IMAGENET1K_V2"]
    assert f"torchvision:IMAGENET1K_V2 is at {file}" in out.splitlines()
    rows = json.loads(run("resnet50", "--source", "torchvision", "--json", folder=tmp_path).stdout)
    assert [(row["tag"], row["place"]) for row in rows] == [("IMAGENET1K_V1", None), ("IMAGENET1K_V2", str(file))]
    assert rows[0]["preprocessing"] == {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "resize": 256,
        "crop": 224,
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize(
    "words", [["--source", "timm"], ["resnet18", "--source", "timm"], ["--source", "timm:a1_in1k"]], ids=" ".join
)
def test_a_source_can_be_named(tmp_path, words):
    rows = json.loads(run(*words, "--json", folder=tmp_path).stdout)
    assert {row["source"] for row in rows} == {"timm"}
    assert any(row["model"] == "resnet18" for row in rows)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_offline_a_download_is_refused_with_what_to_fetch_and_where_to_put_it(tmp_path, source, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    row = find_weights("resnet18", source)
    result = run("resnet18", "--download", "--source", source, folder=tmp_path, HF_HUB_OFFLINE="1")
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "HF_HUB_OFFLINE" in line and row.url in line and str(torchs(tmp_path) / row.file) in line
    assert str(cache_place(row)) in line


PATCHED = """
import dataclasses, functools, hashlib, sys
from convatlas.cli.main import main
from convatlas.models import published
address, digest = sys.argv[1:3]
change = lambda row: dataclasses.replace(row, url=address, sha256=digest)
published._table = functools.cache(lambda rows=published._table(): tuple(map(change, rows)))
published.download = functools.partial(published.download, schemes={"http"})
sys.argv = ["convatlas", "weights", "resnet18", "--source", "torchvision", "--download"]
main()
"""


def test_a_download_shows_a_bar_at_a_terminal_and_then_where_the_file_is(tmp_path):
    """In a process of its own that is told another address, and takes it without a certificate."""
    import hashlib

    digest = hashlib.sha256(CONTENT).hexdigest()
    here, there = pty.openpty()
    with serving() as server, open(here, "rb", buffering=0) as screen:
        command = [sys.executable, "-c", PATCHED, f"{server.address}/good/x", digest]
        env = environment(tmp_path, TORCH_HOME=str(tmp_path / "torch"), HF_HOME=str(tmp_path / "hf"), TERM="xterm")
        result = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=there, timeout=60)
        shown = screen.read(100_000).decode()
    assert result.returncode == 0, shown
    file = torchs(tmp_path) / "resnet18-f37072fd.pth"
    assert file.read_bytes() == CONTENT
    assert f"torchvision:IMAGENET1K_V1 is at {file}" in result.stdout.decode()
    assert "resnet18-f37072fd.pth" in shown and "1.0/1.0 MB" in shown
