"""How training looks: a log of thousands of epochs stays readable, and a narrow terminal shows the time left."""

import io

import pytest
from rich.console import Console

from convatlas.cli import progress
from convatlas.cli.progress import LiveWatch, PlainWatch
from convatlas.records.run import EpochMetrics
from convatlas.training.watch import Progress


def at(epoch, *, epochs=None, model="efficientnet_lite0", fraction=0.5, seconds=10.0):
    return Progress(model, 0, epoch, epochs, fraction, 1.2345, 0.456, 1234.5, seconds, 83.0)


def metrics(epoch, val=0.441):
    return EpochMetrics(epoch, 10, 100, 1.0, 0.01, 1.2, 0.5, None if val is None else 1.1, val, 100.0)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def epochs_of(lines):
    return [int(line.split("epoch ")[1].split()[0].split("/")[0]) for line in lines]


def test_of_many_epochs_every_hundredth_and_the_last_have_a_line(said):
    with PlainWatch(1, explain=False) as watch:
        for epoch in range(1, 346):
            watch.epoch(at(epoch), metrics(epoch))
    assert epochs_of(said) == [*range(1, 101), 200, 300, 345]
    assert "validation 44.10%" in said[-1]


def test_slow_epochs_have_a_line_each_however_many_there_are(said):
    with PlainWatch(1, explain=False) as watch:
        for epoch in range(1, 131):
            watch.epoch(at(epoch, seconds=60.0 * epoch), metrics(epoch))
        assert epochs_of(said) == [*range(1, 131)]


def test_the_last_of_a_known_number_is_said_at_once_and_no_line_twice(said):
    with PlainWatch(1, explain=False) as watch:
        for epoch in range(1, 151):
            watch.epoch(at(epoch, epochs=150), metrics(epoch))
        assert epochs_of(said) == [*range(1, 101), 150]
    assert len(said) == 101


def test_each_run_has_its_last_line_before_what_comes_next(said):
    with PlainWatch(2, explain=False) as watch:
        watch.epoch(at(101), metrics(101))
        watch.run_done("one is done")
        watch.epoch(at(102), metrics(102))
        watch.epoch(at(1), metrics(1))
    assert said[1] == "one is done" and epochs_of([said[0], *said[2:]]) == [101, 102, 1]


def shown(monkeypatch, width, val):
    """The live line after an epoch, and the first step of the next."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, highlight=False)
    monkeypatch.setattr(progress, "ERR", console)
    watch = LiveWatch(1, explain=False)
    watch.step(at(1, epochs=10))
    watch.epoch(at(1, epochs=10), metrics(1, val))
    watch.step(at(2, epochs=10))
    console.print(watch.bars.get_renderable())
    return watch, console


def test_eighty_columns_hold_the_time_left_and_the_accuracies(monkeypatch):
    _, console = shown(monkeypatch, 80, 0.441)
    (line,) = console.file.getvalue().strip().splitlines()
    assert line.rstrip().endswith("epoch 2/10  1:23 left  train 45.6%  val 44.1%") and "…" not in line


def test_a_wide_terminal_shows_all(monkeypatch):
    watch, console = shown(monkeypatch, 130, 0.441)
    (line,) = console.file.getvalue().strip().splitlines()
    assert "1:23 left  loss 1.234  accuracy 45.6%  val 44.1%  1,234 images/s" in line
    watch.run_done("done")
    watch.step(at(1, epochs=10))
    assert "val" not in watch.bars.tasks[-1].fields["state"], "the next run has not been validated yet"


def test_without_validation_none_is_shown(monkeypatch):
    _, console = shown(monkeypatch, 80, None)
    assert "train 45.6%" in console.file.getvalue() and "val" not in console.file.getvalue()


def test_a_log_has_a_sign_of_life_every_half_minute(said, monkeypatch):
    clock = iter([0.0, 10.0, 30.0, 59.0, 60.0, 61.0, 92.0, 300.0, 331.0])
    monkeypatch.setattr("convatlas.cli.progress.perf_counter", lambda: next(clock))
    with PlainWatch(1, explain=False) as watch:
        for i in range(5):
            watch.computing("features", i, 2000)
        watch.computing("answers", 0, 7)
        watch.computing("answers", 6, 7)
        watch.computing("answers", 1, 7)
        watch.computing("answers", 2, 7)
    assert said == ["features: 2 of 2,000", "features: 4 of 2,000", "answers: 6 of 7", "answers: 2 of 7"]
