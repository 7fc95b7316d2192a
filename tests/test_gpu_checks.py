"""The checks for GPUs, with the processor held against itself: they pass, and they can fail."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .benchmark_files import imported

pytestmark = pytest.mark.untraced  # other tests reach the lines


@pytest.fixture(scope="module")
def checks():
    with imported("gpu_checks") as module:
        yield module


def ended(checks, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py", *words])
    with pytest.raises(SystemExit) as end:
        checks.main()
    return end.value.code


def test_a_processor_is_like_itself(checks, monkeypatch, capsys):
    assert ended(checks, monkeypatch, "--device", "cpu") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("torch ")
    assert [line.split()[:2] for line in lines] == [["ok", f"{name}:"] for name in checks.CHECKS]


def test_images_that_differ_by_more_than_a_grey_level_fail(checks, monkeypatch, capsys):
    made = checks.training_batches
    places = iter([0.0, 2 / 255] * 10)

    def brighter(*args, **kwargs):
        extra = next(places)
        return ((x + extra, y) for x, y in made(*args, **kwargs))

    monkeypatch.setattr(checks, "training_batches", brighter)
    assert ended(checks, monkeypatch, "--device", "cpu", "--only", "batches") == 1
    assert "FAILED  batches: largest difference 2.000 grey levels" in capsys.readouterr().out


def test_gradients_of_fewer_bits_fail(checks, monkeypatch):
    monkeypatch.setattr(checks, "applied", lambda choices, model: Rounded(model))
    with pytest.raises(checks.Failed, match="relative error of the gradients"):
        checks.fp32("cpu", Path())


class Rounded:
    """The network with its weights rounded to as many bits as TF32 has."""

    def __init__(self, model):
        for parameter in model.parameters():
            bits = parameter.data.view(torch.int32)
            bits.bitwise_and_(~((1 << 13) - 1))
        self.model = model

    def __enter__(self):
        return self.model.training_logits

    def __exit__(self, *_):
        pass


def test_trainings_that_come_apart_fail(checks, monkeypatch, tmp_path):
    kept, calls = checks.read_metrics, []

    def other(path):
        calls.append(path)
        found = kept(path)
        return found if len(calls) == 1 else found[::-1]

    monkeypatch.setattr(checks, "read_metrics", other)
    with pytest.raises(checks.Failed, match="nats with compile off"):
        checks.losses("cpu", tmp_path)


def test_a_run_that_is_not_stopped_fails(checks, monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "StopAfter", lambda steps: checks.Unwatched())
    with pytest.raises(checks.Failed, match="the run was not stopped"):
        checks.resumed("cpu", tmp_path)


def test_an_error_of_one_check_ends_no_other(checks, monkeypatch, capsys):
    monkeypatch.setattr(checks, "create_model", lambda *args, **kwargs: torch.zeros(1) @ torch.zeros(2))
    assert ended(checks, monkeypatch, "--device", "cpu", "--only", "fp32", "batches") == 1
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("FAILED  fp32: ") and second.startswith("ok      batches: ")


def test_a_resumed_run_that_ends_elsewhere_fails(checks, monkeypatch, tmp_path):
    states = checks.load_model

    def another(folder):
        model, config = states(folder)
        if folder.name == "stopped":
            next(model.parameters()).data[0] += 0.01
        return model, config

    monkeypatch.setattr(checks, "load_model", another)
    with pytest.raises(checks.Failed, match="largest difference of a weight 1.0e-02"):
        checks.resumed("cpu", tmp_path)


def test_processes_that_end_in_an_error_fail(checks, monkeypatch, tmp_path):
    monkeypatch.setattr(checks.sys, "executable", "false")
    with pytest.raises(checks.Failed, match="one: "):
        checks.several("cpu", tmp_path)


def test_judgements_that_differ_fail(checks, monkeypatch, tmp_path):
    looks = checks.evaluate_run

    def worse(folder, *, engine, **rest):
        found = looks(folder, engine=engine, **rest)
        return found if engine is None else replace(found, top1=found.top1 - 0.1)

    monkeypatch.setattr(checks, "evaluate_run", worse)
    with pytest.raises(checks.Failed, match="by itself"):
        checks.judged("cpu", tmp_path)


def test_without_a_gpu_it_says_so(checks, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ended(checks, monkeypatch) == 2
    assert "there is no GPU here" in capsys.readouterr().err
