"""What the engine chooses, why, and that it leaves everything as it was."""

import ctypes
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records import codec
from convatlas.records.engine import ConvChoice
from convatlas.records.run import Choices, RunSummary
from convatlas.training import allocator, engine, precision
from convatlas.training.checkpoint import load_state
from convatlas.training.engine import applied, choose, expected_seconds, settle
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.watch import Unwatched

from .makers import StopAfter, small_data, small_recipe


def batch(n=16, size=32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
    return x, torch.arange(n) % 6


def reasons(choices):
    return {reason.about: (reason.chosen, reason.why) for reason in choices.reasons}


class Listening(Unwatched):
    def __init__(self):
        self.tried = []
        self.choices = []

    def trying(self, what, done, total):
        self.tried.append(what)

    def chosen(self, choices):
        self.choices.append(choices)


@pytest.fixture
def quick_trials(monkeypatch):
    """A trial that finds the same for every shape, without measuring."""
    calls = []

    def tried(model, x, *, dtype, seconds_each, progress):
        calls.append((tuple(x.shape), dtype))
        progress(0, 1, "")
        size = "x".join(map(str, x.shape[1:]))
        return (ConvChoice(f"{size} -> 16, 3x3 stride 1 padding 1, {str(dtype).removeprefix('torch.')}", to_weights=8, gain=1.5),)

    monkeypatch.setattr(engine, "try_convolutions", tried)
    monkeypatch.setattr(precision, "cpu_multiplies_tiles", lambda: True)
    return calls


def test_every_choice_has_a_reason():
    said = reasons(choose(small_recipe(), create_model("resnet.pocket")))
    assert set(said) == {"device", "precision", "memory format", "threads", "optimizer", "allocator"}
    assert all(chosen and why for chosen, why in said.values())
    assert said["precision"] == ("fp32", "as the recipe says")
    pinned = reasons(choose(small_recipe(memory_format="contiguous", device="cpu"), create_model("resnet.pocket")))
    assert pinned["memory format"] == ("contiguous", "as the recipe says")
    assert pinned["device"] == ("cpu", "as the recipe says")


def test_bf16_laid_out_against_the_grain_is_warned_of(monkeypatch):
    monkeypatch.setattr(precision, "cpu_computes_bf16", lambda: True)
    recipe = small_recipe(precision="bf16", memory_format="contiguous")
    assert reasons(choose(recipe, create_model("resnet.pocket")))["memory format"] == ("contiguous", "slow in bf16 on CPUs")


@pytest.mark.parametrize(
    ("changes", "expected", "tried", "why"),
    [
        ({}, 10.0, False, "too short"),
        ({}, 1e4, True, "by trial"),
        ({"convolutions": "stock"}, 1e6, False, "as the recipe says"),
        ({"convolutions": "trial"}, 0.0, True, "by trial"),
        ({"memory_format": "contiguous"}, 1e4, False, "need channels_last"),
        ({"compile": "on", "convolutions": "trial"}, 1e4, False, "the network is compiled"),
    ],
)
def test_convolutions_are_tried_where_it_pays(quick_trials, changes, expected, tried, why):
    recipe, model, watch = (
        small_recipe(**{"compile": "off", **changes}),
        create_model("resnet.pocket", num_classes=6),
        Listening(),
    )
    choices = settle(choose(recipe, model), recipe, model, batches=[batch()], expected=expected, watch=watch)
    assert bool(quick_trials) == tried == bool(choices.convolutions) == bool(watch.tried)
    assert why in reasons(choices)["convolutions"][1]
    assert choices.settled


def test_without_amx_nothing_is_tried_unless_asked(quick_trials, monkeypatch):
    monkeypatch.setattr(precision, "cpu_multiplies_tiles", lambda: False)
    model = create_model("resnet.pocket", num_classes=6)
    for wanted, tried in (("auto", False), ("trial", True)):
        recipe = small_recipe(compile="off", convolutions=wanted)
        settle(choose(recipe, model), recipe, model, batches=[batch()], expected=1e6, watch=Unwatched())
        assert bool(quick_trials) == tried


def test_every_image_size_is_tried(quick_trials):
    recipe, model = small_recipe(compile="off", convolutions="trial"), create_model("resnet.pocket", num_classes=6)
    choices = settle(
        choose(recipe, model), recipe, model, batches=[batch(size=16), batch(size=32)], expected=0.0, watch=Unwatched()
    )
    assert [shape[-1] for shape, _ in quick_trials] == [16, 32]
    assert len(choices.convolutions) == 2


@pytest.mark.parametrize(
    ("changes", "expected", "tried", "why"),
    [
        ({"precision": "bf16"}, 4999.0, False, "too short"),
        ({"precision": "bf16"}, 5000.0, True, "by trial"),
        ({"precision": "bf16", "minutes": 16.0, "epochs": None}, 960.0, False, "too short"),
        ({"precision": "bf16", "minutes": 17.0, "epochs": None}, 1020.0, True, "by trial"),
        ({"precision": "fp32"}, 199.0, False, "too short"),
        ({"precision": "fp32"}, 200.0, True, "by trial"),
        ({"precision": "fp32", "sizes": ((0.5, 16),)}, 399.0, False, "too short"),
        ({"precision": "bf16", "convolutions": "trial"}, 0.0, True, "as the recipe says"),
        ({"precision": "fp32", "convolutions": "stock"}, 1e6, False, "as the recipe says"),
    ],
)
def test_cudnn_tries_its_kernels_where_it_pays(monkeypatch, changes, expected, tried, why):
    monkeypatch.setattr(precision, "choose", lambda recipe, model: Choices("cuda", recipe.precision, "channels_last", 1, "one"))
    recipe, model = small_recipe(compile="off", **changes), create_model("lenet.pocket")
    batches = [batch()] * (1 + len(recipe.sizes))
    choices = settle(choose(recipe, model), recipe, model, batches=batches, expected=expected, watch=Unwatched())
    assert choices.kernels_tried is tried
    assert why in reasons(choices)["convolutions"][1]
    for own in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", own)
        with applied(choices, model):
            assert torch.backends.cudnn.benchmark == (own or tried)
        assert torch.backends.cudnn.benchmark == own


@pytest.mark.parametrize(("device", "tried"), [("cuda", True), ("cpu", False)])
def test_a_run_that_began_before_goes_on_with_cudnns_trials(monkeypatch, device, tried):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    kept = codec.to_plain(Choices(device, "fp32", "channels_last", 1, "one"))
    del kept["kernels_tried"]
    old = codec.from_plain(Choices, kept, where="an old run")
    with applied(old, create_model("lenet.pocket")):
        assert torch.backends.cudnn.benchmark == tried


@pytest.mark.parametrize(
    ("changes", "expected", "gain", "on", "why"),
    [
        ({"compile": "on"}, 0.0, 1.0, True, "as the recipe says"),
        ({"compile": "off"}, 1e6, 2.0, False, "as the recipe says"),
        ({}, 60.0, 2.0, False, "too short"),
        ({}, 1e4, 2.0, True, "2.00 times as fast"),
        ({}, 1e4, 1.01, False, "1.01 times as fast"),
        ({"sizes": ((0.5, 16),)}, 1e6, 2.0, False, "images change their size"),
    ],
)
def test_compiling_is_decided_by_trial(monkeypatch, changes, expected, gain, on, why):
    monkeypatch.setattr(engine, "_compile_gain", lambda choices, model, batch: (gain, 20.0))
    recipe, model = small_recipe(convolutions="stock", **changes), create_model("resnet.pocket", num_classes=6)
    choices = settle(choose(recipe, model), recipe, model, batches=[batch()], expected=expected, watch=Unwatched())
    assert choices.compiled == on
    assert why in reasons(choices)["compile"][1]


def test_the_record_has_no_convolutions_that_a_compiled_network_does_not_use(monkeypatch, quick_trials):
    monkeypatch.setattr(engine, "_compile_gain", lambda choices, model, batch: (2.0, 20.0))
    recipe, model = small_recipe(convolutions="trial"), create_model("resnet.pocket", num_classes=6)
    choices = settle(choose(recipe, model), recipe, model, batches=[batch()], expected=1e4, watch=Unwatched())
    assert quick_trials and choices.compiled and choices.convolutions == ()
    assert reasons(choices)["convolutions"] == ("torch's own", "compiled, others do not pay")


def test_fp32_is_no_tf32_while_it_is_trained_in(quick_trials):
    model = create_model("resnet.pocket", num_classes=6)
    for precision_, allowed in (("fp32", False), ("bf16", True)):
        with applied(replace(choose(small_recipe(), model), precision=precision_), model):
            assert torch.backends.cudnn.allow_tf32 == allowed
        assert torch.backends.cudnn.allow_tf32


def test_a_compiled_pass_is_tried_on_a_copy(monkeypatch):
    """The caller's network, its statistics and random state stay; the compiled pass is really what is timed."""
    compiled = []

    def compile_(function, *, dynamic):
        compiled.append(dynamic)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    model = create_model("vgg.pocket", num_classes=6)
    before, state = deepcopy(model.state_dict()), torch.get_rng_state()
    gain, built = engine._compile_gain(choose(small_recipe(), model), model, batch())
    assert gain > 0 and built >= 0
    assert compiled and not any(compiled)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "more", "recorded", "why"),
    [
        ({}, {}, True, "launching kernels takes small networks longer"),
        ({"compile": "graphs"}, {}, True, "as the recipe says"),
        ({"compile": "off"}, {}, False, "as the recipe says"),
        ({"compile": "on"}, {}, False, "they are compiled"),
        ({}, {"processes": 2}, False, "processes wait for each other"),
        ({"optimizer": "adam"}, {}, False, "counts its steps on the processor"),
        ({"model": "net.py:make"}, {}, False, "a network of your own (--compile graphs)"),
    ],
)
def test_steps_are_recorded_on_a_gpu(changes, more, recorded, why):
    recipe = small_recipe(**changes)
    begun = replace(choose(small_recipe(), model := create_model("lenet.pocket")), device="cuda", **more)
    settled = settle(begun, recipe, model, batches=[batch()], expected=1.0, watch=Unwatched())
    assert settled.recorded is recorded
    assert why in reasons(settled)["steps"][1]


def test_nothing_is_recorded_on_a_processor():
    choices = choose(small_recipe(device="cpu"), model := create_model("lenet.pocket"))
    settled = settle(choices, small_recipe(device="cpu"), model, batches=[batch()], expected=1.0, watch=Unwatched())
    assert not settled.recorded
    assert "steps" not in reasons(settled)
    with pytest.raises(UserError, match="CUDA graphs need a GPU"):
        choose(small_recipe(device="cpu", compile="graphs"), model)


def test_steps_of_adam_are_not_recorded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with pytest.raises(UserError, match="steps of Adam"):
        choose(small_recipe(compile="graphs", optimizer="adam", device="cuda"), create_model("lenet.pocket"))


def test_how_long_a_run_takes_is_guessed_without_a_clock():
    assert expected_seconds(small_recipe(epochs=10), macs=10**8, images=10**4, device="cpu") == 6 * 10**8 * 10**5 / 2e11
    assert expected_seconds(small_recipe(minutes=2.0), macs=1, images=1, device="cpu") == 120.0


def test_choices_are_applied_and_undone(quick_trials):
    model = create_model("resnet.pocket", num_classes=6).train()
    x, _ = batch()
    shape = "16x32x32 -> 16, 3x3 stride 1 padding 1, float32"
    choices = replace(choose(small_recipe(), model), convolutions=(ConvChoice(shape, forward=8, to_data=8, to_weights=8),))
    plain = model.training_logits(x)[0][1]
    with applied(choices, model) as answer:
        changed = [m for m in model.modules() if "forward" in vars(m)]
        wide = answer(x)[0][1]
    assert changed and not [m for m in model.modules() if "forward" in vars(m)]
    torch.testing.assert_close(wide, plain)


def test_a_run_keeps_its_choices_and_resumes_with_them(tmp_path, quick_trials):
    recipe = small_recipe(convolutions="trial", model="resnet.pocket")
    watch = Listening()
    train(recipe, tmp_path / "whole", data=small_data(), watch=watch)
    kept = codec.read(RunSummary, tmp_path / "whole" / "summary.json").choices
    assert watch.choices == [kept]
    assert [c.to_weights for c in kept.convolutions] == [8]
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "cut", data=small_data(), watch=StopAfter(7))
    quick_trials.clear()
    resume(tmp_path / "cut", data=small_data())
    assert not quick_trials, "a resumed run goes on with what it began with"
    a, b = (load_state(tmp_path / name, note=print)["model"] for name in ("whole", "cut"))
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


KEPT = """
import ctypes, resource, sys
from convatlas.training.allocator import allocator, keep_memory
before = allocator().chosen
if sys.argv[1] == "keep":
    assert keep_memory()
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    x = torch.ones(2**24); del x
begun = faults()
for _ in range(5):
    x = torch.ones(2**24); del x
print(before, "|", allocator().chosen, "|", faults() - begun)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc only")
def test_kept_memory_is_not_asked_for_again():
    def run(how):
        command = [sys.executable, "-c", KEPT, how]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        before, after, faults = out.split("|")
        return before.strip(), after.strip(), int(faults)

    assert run("keep")[:2] == ("glibc, as it is", "glibc, keeping")
    assert run("leave")[1] == "glibc, as it is"
    assert run("keep")[2] < 100 < 2000 < run("leave")[2]


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_state", {"kept": False})  # another test in this process may have asked for it
    monkeypatch.setattr(allocator, "preloaded", lambda: "tcmalloc")
    assert not allocator.keep_memory()
    assert allocator.allocator().chosen == "tcmalloc"
    monkeypatch.setattr(allocator, "preloaded", lambda: None)
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_memory()
    assert allocator.allocator().chosen == "the system's"


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="batches of 128 images are larger than the 96 training images. Give --batch-size 96"):
        train(small_recipe(batch_size=128), tmp_path / "run", data=small_data())
    assert not (tmp_path / "run").exists()


def test_the_layer_where_numbers_end_is_named():
    from convatlas.training.diagnosis import first_not_finite

    model = create_model("resnet.pocket", num_classes=6).train()
    x, _ = batch()
    assert first_not_finite(model, x) is None
    statistics = deepcopy(dict(model.named_buffers()))
    with torch.no_grad():
        model.stages[1][0].conv2.conv.weight.mul_(float("inf"))
    assert first_not_finite(model, x) == "stages.1.0.conv2.conv (Conv2d) has weights that are not finite"
    assert all(torch.equal(a, b) for a, b in zip(statistics.values(), dict(model.named_buffers()).values(), strict=True))
    assert not [m for m in model.modules() if m._forward_hooks]
    tall = create_model("lenet.pocket", num_classes=6).train()
    with torch.no_grad():
        next(p for p in tall.parameters()).fill_(3e38)
    assert "gives values that are not finite" in first_not_finite(tall, x)


def test_an_exploding_rate_names_the_layer_and_keeps_the_last_good_state(tmp_path):
    recipe = small_recipe(model="vgg.pocket", optimizer="sgd", lr=1e6, clip_grad=0.0, warmup=0.0)
    with pytest.raises(UserError, match=r"the loss became (nan|inf) at step \d+ .*: (stem|stages|head)\S* \(\w+\) (has|gives)"):
        train(recipe, tmp_path / "run", data=small_data())
