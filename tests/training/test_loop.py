import json
import os
from dataclasses import replace

import pytest
import torch

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records import codec, storage
from convatlas.records.run import Recipe, RunSummary, read_metrics, read_run, read_test_looks
from convatlas.training import closing, loop
from convatlas.training.apply import evaluate_run, judge_once
from convatlas.training.checkpoint import load_model, load_state
from convatlas.training.evaluate import evaluate
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.recipe import check_recipe

from .makers import CLASSES, StopAfter, small_data, small_recipe


def weights(folder):
    return load_model(folder)[0].state_dict()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def outcome(folder):
    """What a run measured, without what a clock decides."""
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in vars(m).items() if k not in timed} for m in read_metrics(folder / "metrics.jsonl")]


def test_a_run_learns_and_leaves_its_files(tmp_path):
    data = small_data()
    summary = train(small_recipe(epochs=6, lr=0.01), tmp_path / "run", data=data)
    expected = {"recipe.json", "metrics.jsonl", "summary.json", "model.safetensors", "config.json", "manifest.json", ".lock"}
    assert {p.name for p in (tmp_path / "run").iterdir() if not p.match("state-*.pt")} == expected
    assert summary.status == "finished"
    assert (summary.epochs_done, summary.images_seen) == (6, 6 * 96)
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [m.epoch for m in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1].train_loss < 0.8 * metrics[0].train_loss
    assert summary.val_accuracy == metrics[-1].val_accuracy
    assert summary.val_accuracy > 0.5
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json") == summary


def test_same_seed_same_run_other_seed_other_run(tmp_path):
    data = small_data(size=16)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)  # whatever the caller drew before must not matter
        train(small_recipe(seed=seed), tmp_path / name, data=data)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9},
        {"optimizer": "sgd", "lr": 0.05, "schedule": "cosine"},
        {"model": "vgg.pocket"},  # dropout draws from torch's own random state
        {"model": "efficientnet.pocket", "cutout": 8},
        {"precision": "bf16", "model": "lenet.pocket"},
        {"augment": "trivial", "mixup": 0.4, "cutmix": 1.0},
    ],
    ids=["adamw", "ema", "sgd", "dropout", "cutout", "bf16", "mixed"],
)
def test_stopped_and_resumed_is_the_unbroken_run(tmp_path, changes, monkeypatch):
    """On small images, since what a state holds does not depend on their size; LeNet-5 takes no smaller ones than 32x32."""
    monkeypatch.setattr("convatlas.training.precision.cpu_computes_bf16", lambda: True)
    data, recipe = small_data(size=32 if changes.get("model") == "lenet.pocket" else 16), small_recipe(**changes)
    train(recipe, tmp_path / "whole", data=data)
    for steps in (1, 6, 8, 13, 18):  # the last one is the run's very last step, whose epoch is still to be closed
        cut = tmp_path / f"cut after {steps}"
        with pytest.raises(Stopped):
            train(recipe, cut, data=data, watch=StopAfter(steps))
        assert codec.read(RunSummary, cut / "summary.json").status == "interrupted"
        assert resume(cut, data=data).status == "finished"
        assert equal(weights(tmp_path / "whole"), weights(cut))
        assert outcome(tmp_path / "whole") == outcome(cut)


def test_stopped_as_its_minutes_end_a_run_still_closes_its_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_STEPS_TOLD", 0.0)

    class AtTheEnd(StopAfter):
        def step(self, progress):
            self.left = 1 if progress.fraction >= 1.0 else 10**9

    data = small_data()
    with pytest.raises(Stopped):
        train(small_recipe(minutes=0.01, model="lenet.pocket"), tmp_path / "run", data=data, watch=AtTheEnd(10**9))
    begun = len(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    summary = resume(tmp_path / "run", data=data)
    assert summary.epochs_done == len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == begun + 1
    assert summary.val_accuracy is not None


def test_choices_are_made_anew_where_no_batch_is_left_of_the_epoch(tmp_path):
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16), watch=StopAfter(6))
    path = tmp_path / "run" / "summary.json"
    summary = codec.read(RunSummary, path)
    path.write_text(codec.to_text(replace(summary, choices=replace(summary.choices, threads=63))))
    assert resume(tmp_path / "run", data=small_data(size=16)).epochs_done == 3


def test_a_run_goes_on_with_the_images_that_it_began_with(tmp_path):
    """Parted otherwise, the same images would be judged that were trained on."""
    data = small_data(size=16)
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=data, watch=StopAfter(2))
    with pytest.raises(UserError, match="was begun with 96 training and 24 validation images, and these are 96 training and 36"):
        resume(tmp_path / "run", data=replace(data, val=data.test))
    assert resume(tmp_path / "run", data=data).status == "finished"


@pytest.mark.parametrize(("changes", "said"), [({"crop": 20}, "by 20 pixels"), ({"cutout": 17, "sizes": ((0.5, 12),)}, "of 17")])
def test_augmentation_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        train(small_recipe(**changes), tmp_path / "run", data=small_data(size=16))
    assert list(tmp_path.iterdir()) == []


def test_strong_augmentation_makes_training_harder_and_networks_still_learn(tmp_path):
    changes = {
        "plain": {},
        "one": {"augment": "trivial"},
        "two": {"augment": "rand"},
        "up": {"mixup": 0.4},
        "cut": {"cutmix": 1.0},
    }
    made = {
        name: train(small_recipe(epochs=6, **settings), tmp_path / name, data=small_data(size=16))
        for name, settings in changes.items()
    }
    losses = {name: read_metrics(tmp_path / name / "metrics.jsonl")[-1].train_loss for name in made}
    assert all(losses[name] > losses["plain"] + 0.05 for name in made if name != "plain")
    assert all(summary.val_accuracy > 0.5 for summary in made.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": "light"}, "no augment called 'light'"),
        ({"mixup": -0.1}, "mixup is -0.1"),
        ({"cutmix": float("nan")}, "cutmix is nan"),
        ({"cutmix": 101.0}, "cutmix is 101.0. Give an alpha above 0, at most 100, or 0 to do without.$"),
    ],
)
def test_augmentation_that_does_not_exist_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        check_recipe(small_recipe(**changes))


def test_a_state_of_an_earlier_version_goes_on(tmp_path):
    """Its optimizer's groups do not say yet which multiple of the learning rate they take."""
    data, recipe = small_data(size=16), small_recipe()
    train(recipe, tmp_path / "whole", data=data)
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "cut", data=data, watch=StopAfter(7))
    state = load_state(tmp_path / "cut", note=print)
    for group in state["optimizer"]["param_groups"]:
        del group["lr_factor"], group["filters"]
    del state["recipe"]
    for path in (*(tmp_path / "cut").glob("state-*.pt"), tmp_path / "cut" / "manifest.json"):
        path.unlink()
    torch.save(state, tmp_path / "cut" / "state.pt")
    resume(tmp_path / "cut", data=data)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_crash_goes_back_to_the_last_state(tmp_path, monkeypatch):
    """Epochs whose state was not yet saved are dropped from the metrics, and made again."""
    data, recipe = small_data(size=16), small_recipe()
    train(recipe, tmp_path / "whole", data=data)
    monkeypatch.setattr(closing, "SECONDS_BETWEEN_STATES", 1e9)

    class Crash(StopAfter):
        def epoch(self, progress, metrics):
            if metrics.epoch == 2:
                raise SystemError("power cut")

    with pytest.raises(SystemError):
        train(recipe, tmp_path / "cut", data=data, watch=Crash(10**9))
    assert len(read_metrics(tmp_path / "cut" / "metrics.jsonl")) == 2
    resume(tmp_path / "cut", data=data)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")


def test_the_callers_random_state_is_given_back(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(small_recipe(epochs=1), tmp_path / "run", data=small_data(size=16))
    assert torch.equal(torch.rand(3), expected)


def test_minutes_end_when_they_are_spent(tmp_path):
    summary = train(small_recipe(minutes=0.03, model="lenet.pocket"), tmp_path / "run", data=small_data())
    assert summary.train_seconds == pytest.approx(1.8, abs=0.5)
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(metrics) > 3
    assert metrics[-1].lr < 0.1 * max(m.lr for m in metrics), "the schedule ends when the budget does"


def test_the_schedule_ends_with_the_epochs(tmp_path):
    train(small_recipe(warmup=0.0, epochs=2), tmp_path / "run", data=small_data(size=16))
    first, last = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert last.lr < first.lr < 0.003


def test_a_folder_is_never_written_over(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="exists already"):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_finished_run_is_not_resumed(tmp_path):
    train(small_recipe(epochs=1), tmp_path / "run", data=small_data(size=16))
    with pytest.raises(UserError, match="is finished already"):
        resume(tmp_path / "run", data=small_data(size=16))


def test_a_run_in_use_is_refused_and_a_dead_holder_holds_nothing(tmp_path):
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16), watch=StopAfter(2))
    with storage.held(tmp_path / "run"), pytest.raises(UserError, match=rf"in use by process {os.getpid()}"):
        resume(tmp_path / "run", data=small_data(size=16))
    assert resume(tmp_path / "run", data=small_data(size=16)).status == "finished"


def test_metrics_that_are_no_text_are_named(tmp_path):
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16), watch=StopAfter(8))
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
        resume(tmp_path / "run", data=small_data(size=16))


def test_lines_of_metrics_that_are_lost_are_named(tmp_path):
    """A crash tears off only what was not acknowledged; what is gone of the rest was damaged."""
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16), watch=StopAfter(14))
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    path.write_bytes(lines[0] + lines[1][:40])
    watch = StopAfter(10**9)
    assert resume(tmp_path / "run", data=small_data(size=16), watch=watch).status == "finished"
    assert watch.notes == [f"warning: {path} is damaged: it lacks 1 of 2 epochs, from epoch 2 on"]
    assert [each.epoch for each in read_metrics(path)] == [1, 3]


def test_other_data_is_refused(tmp_path):
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16), watch=StopAfter(2))
    with pytest.raises(UserError, match="not the data that the run was made with"):
        resume(tmp_path / "run", data=small_data(fingerprint="0" * 32))


def test_what_makes_a_resumed_run_differ_in_its_bits_is_said(tmp_path):
    with pytest.raises(Stopped):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16), watch=StopAfter(2))
    path = tmp_path / "run" / "summary.json"
    summary = codec.read(RunSummary, path)
    other = replace(summary, choices=replace(summary.choices, threads=63))
    path.write_text(codec.to_text(other))
    watch = StopAfter(10**9)
    resume(tmp_path / "run", data=small_data(size=16), watch=watch)
    assert watch.notes == ["not bit-exact: threads 63 -> 1"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_exploding_loss_stops_with_the_step_and_keeps_no_model(tmp_path, monkeypatch, precision):
    monkeypatch.setattr("convatlas.training.precision.cpu_computes_bf16", lambda: True)
    with pytest.raises(
        UserError, match=r"the loss became (nan|inf) at step \d+ .*: \S+ \(\w+\) (gives|has) .*Give a smaller --lr"
    ):
        train(
            small_recipe(model="vgg.pocket", optimizer="sgd", lr=1e6, clip_grad=0.0, warmup=0.0, precision=precision),
            tmp_path / "run",
            data=small_data(size=16),
        )
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert summary.status == "failed"
    assert "the loss became" in summary.cause
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_out_of_memory_says_which_batch_was_too_large(tmp_path, monkeypatch):
    def step(*args):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loop, "_step", step)
    with pytest.raises(UserError, match="out of memory: resnet.pocket with batches of 16 images. Try --batch-size 8"):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16))
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").status == "failed"


def test_other_runtime_errors_are_not_hidden(tmp_path, monkeypatch):
    def step(*args):
        raise RuntimeError("something else")

    monkeypatch.setattr(loop, "_step", step)
    with pytest.raises(RuntimeError, match="something else"):
        train(small_recipe(), tmp_path / "run", data=small_data(size=16))
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert (summary.status, summary.cause) == ("failed", "something else")


def test_looks_at_test_are_counted_and_dated(tmp_path):
    data, folder = small_data(size=16), tmp_path / "run"
    train(small_recipe(epochs=1), folder, data=data)
    assert read_run(folder).summary.test_looks == 0
    assert read_run(folder).test is None
    evaluate_run(folder, data=data, split="val")
    assert read_run(folder).summary.test_looks == 0
    first = evaluate_run(folder, data=data, split="test")
    evaluate_run(folder, data=data, split="test")
    run = read_run(folder)
    assert run.summary.test_looks == 2
    assert run.summary.test_accuracy == first.top1 == run.test.top1
    looks = [json.loads(line) for line in (folder / "test_looks.jsonl").read_text().splitlines()]
    assert [look["look"] for look in looks] == [1, 2]
    assert all(look["date"].startswith("20") for look in looks)
    with pytest.raises(UserError, match="was made with other data"):
        evaluate_run(folder, data=small_data(fingerprint="0" * 32), split="test")


def test_a_look_counts_before_anything_can_be_seen_of_it(tmp_path, monkeypatch):
    data, folder = small_data(size=16), tmp_path / "run"
    train(small_recipe(epochs=1), folder, data=data)
    write = storage.write_text
    monkeypatch.setattr(
        storage, "write_text", lambda path, text: interrupt() if path.name == "summary.json" else write(path, text)
    )

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_run(folder, data=data, split="test")
    monkeypatch.undo()
    assert (folder / "test.json").exists()
    judge_once(folder, data=data)
    assert read_run(folder).summary.test_looks == 1
    evaluate_run(folder, data=data, split="test")
    assert read_run(folder).summary.test_looks == 2
    assert [each.look for each in read_test_looks(folder / "test_looks.jsonl")] == [1, 2]


def test_two_looks_at_once_are_not_counted_as_one(tmp_path):
    train(small_recipe(epochs=1), tmp_path / "run", data=small_data(size=16))
    with storage.held(tmp_path / "run"), pytest.raises(UserError, match="is in use by process"):
        evaluate_run(tmp_path / "run", data=small_data(size=16), split="test")
    assert evaluate_run(tmp_path / "run", data=small_data(size=16), split="test").n == 36


def test_images_that_were_trained_on_are_not_taken_for_validation(tmp_path):
    data = small_data(size=16)
    empty = replace(data, val=data.val.subset(torch.arange(0)))
    train(small_recipe(epochs=1), tmp_path / "all", data=empty)
    with pytest.raises(UserError, match="was trained on all images but the test images"):
        evaluate_run(tmp_path / "all", data=data, split="val")
    train(small_recipe(epochs=1), tmp_path / "part", data=replace(data, val=data.test))
    with pytest.raises(UserError, match="has parted the images otherwise: 96 to train on, 36 for validation"):
        evaluate_run(tmp_path / "part", data=data, split="val")


def test_judging_is_in_full_fp32(tmp_path, monkeypatch):
    """On a GPU torch computes convolutions in TF32 unless it is told not to."""
    allowed = []
    model = create_model("lenet.pocket", num_classes=6)
    model.register_forward_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    evaluate(model, small_data(), split="test")
    assert allowed == [False] and torch.backends.cudnn.allow_tf32


def test_images_too_small_name_the_layer_the_formula_and_the_least_size(tmp_path):
    with pytest.raises(
        UserError,
        match=r"images of 8 pixels do not fit vgg16: .*stages\.4\.6 .*floor\(\(1 - 2.* It takes 16 or more: --image-size 16",
    ):
        train(small_recipe(model="vgg16"), tmp_path / "run", data=small_data(size=8))
    assert not (tmp_path / "run").exists()


def test_nothing_of_this_machine_stands_in_the_run_folder(tmp_path):
    train(small_recipe(epochs=1), tmp_path / "run", data=small_data(size=16))
    for path in (tmp_path / "run").glob("*.json*"):
        assert str(tmp_path) not in path.read_text()
    assert codec.read(Recipe, tmp_path / "run" / "recipe.json") == small_recipe(epochs=1)
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").num_classes == len(CLASSES)
