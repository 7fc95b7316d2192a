"""docs/parity.md is the table that `scripts/parity` writes: every comparison has its row, and every row holds."""

import re
from pathlib import Path

import pytest

from convatlas.models.papers import golden_rows
from tests.parity.comparing import IMAGE_SIZE, IN_FLOAT64, PAIRS, SMALL_IMAGE_SIZE

TEXT = (Path(__file__).parents[2] / "docs/parity.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in TEXT.splitlines() if line.startswith("| `")]


def test_every_comparison_has_a_row():
    assert [(row[0].strip("`"), row[1]) for row in ROWS] == PAIRS
    assert len({row[0] for row in ROWS}) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_a_row_says_what_the_tests_hold(row):
    name = row[0].strip("`")
    numbers = golden_rows()[name]
    assert int(row[2].replace(",", "")) == numbers.params + numbers.auxiliary_params
    size = IMAGE_SIZE.get(name, SMALL_IMAGE_SIZE)
    assert row[3] == f"{size}x{size}"
    assert row[4] == ("float64" if name in IN_FLOAT64 else "float32")
    figures = [float(cell) for cell in row[5:]]
    assert max(figures[:-1]) == figures[-1] < (1e-9 if name in IN_FLOAT64 else 1e-4)


def test_versions_are_those_of_the_constraints():
    pinned = dict(re.findall(r"^(\w+)==([\d.]+)$", (Path(__file__).parents[2] / "constraints.txt").read_text(), flags=re.M))
    for library in ("torch", "torchvision", "timm"):
        assert re.search(rf"\b{library} {re.escape(pinned[library])}", TEXT)
