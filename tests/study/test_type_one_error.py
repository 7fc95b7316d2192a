"""The verdicts of simulated studies: as many errors as promised, and no more."""

import sys

import pytest

from ..benchmark_files import imported


@pytest.fixture(scope="module")
def benchmark():
    with imported("type_one_error") as module:
        yield module


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("part", ["false_differences", "one_network_each", "means", "real_differences", "equivalences"])
def test_verdicts_err_as_often_as_promised(benchmark, part):
    assert part in [function.__name__ for function in benchmark.PARTS]
    for line in getattr(benchmark, part)(2000, 1000):
        assert line.n == 2000
        assert line.holds, line


def test_the_bounds_are_the_binomials(benchmark):
    two = benchmark.line("", [True] * 5 + [False] * 95, chance=0.05)
    assert (two.share, two.least, two.most, two.holds) == (0.05, 0.0, 0.13, True)
    assert benchmark.line("", [True] * 13 + [False] * 87, chance=0.05).holds
    assert not benchmark.line("", [True] * 14 + [False] * 86, chance=0.05).holds
    assert not benchmark.line("", [False] * 2000, chance=0.05).holds
    assert benchmark.line("", [False] * 2000, chance=0.05, at_most=True).holds


def test_the_table_is_printed(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["type_one_error.py", "--studies", "5"])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| what | of | share | must lie in | holds |"
    assert len(lines) == 2 + 13
    assert all(line.count("|") == 6 for line in lines)


def test_too_few_images_are_refused(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["type_one_error.py", "--images", "100"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "fewer than 1000 images" in capsys.readouterr().err
