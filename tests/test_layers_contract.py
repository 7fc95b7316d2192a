"""The house keeps its layers, and notices when it does not: each rule is broken on purpose in a copy."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BREAKS = {
    "torch in arith": ("arith/cost.py", "import torch\n", "does not reach torch BROKEN"),
    "one family imports another": (
        "models/vgg.py",
        "from convatlas.models import resnet\n",
        "family files do not import each other BROKEN",
    ),
    "report imports training": (
        "report/table.py",
        "from convatlas.training import loop\n",
        "does not reach torch BROKEN",
    ),
    "a new utils package": ("utils/__init__.py", "", "neighbours do not import each other BROKEN"),
    "data imports models": (
        "data/augment.py",
        "from convatlas.models import registry\n",
        "neighbours do not import each other BROKEN",
    ),
    "torch where weights are listed": ("models/published.py", "import torch\n", "does not reach torch BROKEN"),
    "downloads know the layers": (
        "download.py",
        "from convatlas.layers import drop_path\n",
        "neighbours do not import each other BROKEN",
    ),
    "numpy in arith": ("arith/shapes.py", "import numpy\n", "arith is plain Python BROKEN"),
}


def lint(folder):
    command = [Path(sys.executable).parent / "lint-imports", "--config", folder / "pyproject.toml", "--no-cache"]
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("what", BREAKS)
def test_breaking_a_layer_is_noticed(what, tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    place, line, rule = BREAKS[what]
    file = tmp_path / "src/convatlas" / place
    file.parent.mkdir(exist_ok=True)
    file.write_text((file.read_text() if file.exists() else "") + "\n" + line)
    result = lint(tmp_path)
    said = re.sub(r"\s+", " ", result.stdout + result.stderr)
    assert result.returncode != 0, said
    assert re.search(rule, said), said


def test_no_package_is_called_utils_or_helpers():
    names = {path.stem for path in (ROOT / "src").rglob("*.py")} | {path.name for path in (ROOT / "src").rglob("*")}
    assert not {"utils", "helpers", "util", "helper", "misc", "common"} & names


def test_nothing_dangerous_is_called():
    banned = re.compile(r"pickle\.load|weights_only=False|torch\.hub\.load|yaml\.load\(|(?<![\w.])eval\(|shell=True")
    found = [
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if banned.search(line)
    ]
    assert found == []
