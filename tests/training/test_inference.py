"""Running a network that only has to answer: folding, the trial and its rules, and the two commands that use it."""

import json
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from convatlas.errors import UserError
from convatlas.models.registry import MODELS, create_model
from convatlas.records import codec
from convatlas.records.inference import InferenceChoice
from convatlas.training import inference, inference_ways
from convatlas.training.apply import evaluate_run, predict_pictures
from convatlas.training.folding import folded
from convatlas.training.inference import Engine, prepare
from convatlas.training.inference_ways import WAYS, Way, as_it_is, ways_of
from convatlas.training.loop import train

from ..cli.makers import picture_folder
from ..cli.zygote import command
from .makers import small_data, small_recipe

POCKET = [name for name in MODELS if name.endswith(".pocket")]
LEFT = {"densenet.pocket": 21, "densenet121": 62}
"""Norms that stand before a convolution, or after a joined map, stay."""
QUICK = ("eager fp32", "folded fp32")


def lively(model):
    """The model in float64 and evaluation mode, its norms far from trivial."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    return model.double().eval()


def norms(model):
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def images(n=3, *, size=32, channels=3):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def tiny():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("name", [*POCKET, "resnet18", "densenet121"])
def test_folded_networks_answer_the_same(name):
    torch.manual_seed(0)
    model = lively(create_model(name, num_classes=10, image_size=32))
    before = deepcopy(model.state_dict())
    x = images(2).double()
    copy = folded(model, x)
    with torch.no_grad():
        wanted, got = model(x), copy(x)
    assert (got - wanted).abs().max() <= 1e-9 * wanted.std()
    assert norms(copy) == LEFT.get(name, 0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*model.modules(), *copy.modules()])


class Wired(nn.Module):
    """A convolution and norms, put together as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), how

    def forward(self, x):
        return self.how(self, x)


def in_place(net, x):
    y = net.conv(x)
    y.mul_(2)
    return net.norm(y)


def both(net, x):
    y = net.conv(x)
    return net.norm(y) + y


def returned(net, x):
    y = net.conv(x)
    return torch.cat([net.norm(y), y], 1)


KEPT = {
    "the map is added to the norm of it": both,
    "the map is joined to the norm of it": returned,
    "the map is changed in between": in_place,
    "another shape in between": lambda net, x: net.norm(net.conv(x).transpose(2, 3)),
    "the norm runs twice": lambda net, x: net.norm(net.norm(net.conv(x))),
    "the convolution runs twice": lambda net, x: net.norm(net.conv(net.conv(x))),
    "the norm comes first": lambda net, x: net.conv(net.norm(x)),
    "the filters are used elsewhere": lambda net, x: net.norm(net.conv(x)) + net.conv.weight.sum(),
}


@pytest.mark.parametrize("how", KEPT.values(), ids=KEPT)
def test_norms_that_cannot_be_folded_stay(how):
    model = lively(Wired(how))
    x = images().double()
    copy = folded(model, x)
    assert norms(copy) == 1
    assert torch.equal(copy(x), model(x))


@pytest.mark.parametrize("change", [lambda m: weight_norm(m.conv), lambda m: m.conv.register_forward_hook(lambda *_: None)])
def test_layers_that_are_not_what_they_seem_are_not_folded(change):
    model = Wired(lambda net, x: net.norm(net.conv(x)))
    change(model)
    model = lively(model)
    assert norms(folded(model, images().double())) == 1


def test_a_norm_without_weights_is_folded():
    model = lively(Wired(lambda net, x: net.norm(net.conv(x))))
    model.norm.weight = model.norm.bias = None
    x = images().double()
    copy = folded(model, x)
    assert norms(copy) == 0
    assert (copy(x) - model(x)).abs().max() < 1e-12


def test_the_trial_states_times_and_errors_and_takes_the_fastest():
    model = tiny()
    before = deepcopy(model.state_dict())
    prepared = prepare(model, images(16), ways=QUICK, seconds=0.01)
    record = prepared.record
    found = {trial.name: trial for trial in record.trials}
    assert set(found) == set(QUICK)
    assert found["folded fp32"].error < 1e-4
    assert found["folded fp32"].agreement == 1
    assert found["folded fp32"].low <= found["folded fp32"].speed_up <= found["folded fp32"].high
    assert record.way == ("folded fp32" if found["folded fp32"].speed_up > 1 else "eager fp32")
    assert (record.timed, record.checked, record.batch_size) == (16, 16, 16)
    assert codec.from_text(InferenceChoice, codec.to_text(record), where="here") == record
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert prepared(images(37)).shape == (37, 4)


def test_the_model_keeps_its_mode():
    model = tiny().train()
    prepare(model, images(4), ways=("folded fp32",))
    assert model.training


@pytest.fixture
def ways(monkeypatch):
    """A table of ways to which a test adds its own."""
    table = {name: WAYS[name] for name in QUICK}
    monkeypatch.setattr(inference, "WAYS", table)
    return table


def free():
    return None


def test_a_way_that_returns_garbage_is_rejected(ways):
    ways["wrong"] = Way("folded", "fp32", lambda net, x: lambda y: torch.randn(len(y), 4), free)
    ways["nothing"] = Way("folded", "fp32", lambda net, x: lambda y: torch.full((len(y), 4), torch.nan), free)
    ways["broken"] = Way("folded", "fp32", lambda net, x: 1 / 0, free)
    record = prepare(tiny(), images(16), seconds=0.01).record
    notes = {trial.name: trial.note for trial in record.trials}
    assert record.way in QUICK
    assert "more than 0.001" in notes["wrong"]
    assert "differ from fp32's by nan" in notes["nothing"]
    assert notes["broken"] == "it failed: division by zero"
    for name in ("wrong", "nothing", "broken"):
        with pytest.raises(UserError, match=f"{name} cannot be taken"):
            prepare(tiny(), images(16), ways=(name,))


@pytest.mark.parametrize(("error", "taken"), [(0.04, True), (0.06, False)])
def test_bf16_may_be_wrong_by_five_hundredths_of_the_spread(ways, error, taken):
    def build(net, x):
        return lambda y: as_it_is(net, x)(y) + error * as_it_is(net, x)(x).std(correction=0)

    ways["off"] = Way("bf16", "bf16", build, free)
    assert (prepare(tiny(), images(16), seconds=0.01).record.trials[-1].note == "") == taken


def slow_way(setup, built):
    """A way that says it takes `setup` seconds to set up, and takes whole batches only."""

    def build(net, x):
        built.append(len(x))

        def ask(y):
            assert y.shape == x.shape, "not a whole batch"
            return as_it_is(net, x)(y)

        return ask

    return Way("compile", "fp32", build, free, setup_seconds=setup, static=True)


def test_an_incomplete_batch_is_filled_up(ways):
    ways["slow"] = slow_way(1.0, [])
    model = tiny()
    prepared = prepare(model, images(8), ways=("slow",))
    x = images(21)
    assert torch.allclose(prepared(x), model(x), atol=1e-6)
    assert prepared(x[:3]).shape == (3, 4)


def test_set_up_must_pay():
    way = slow_way(30.0, [])
    assert not inference.pays(way, 129)  # 129 s at 1.3 times the speed are won back 29.8
    assert inference.pays(way, 131)


@pytest.mark.parametrize(("ahead", "tried"), [(None, True), (64_000_000, True), (64_000, False)])
def test_slow_ways_are_tried_for_much_work_only(ways, monkeypatch, ahead, tried):
    built = []
    ways["slow"] = slow_way(100.0, built)
    monkeypatch.setattr(inference, "SHORT_JOB", 0.0)
    told = []
    record = prepare(tiny(), images(16), seconds=0.01, images_ahead=ahead, progress=told.append).record
    assert bool(built) == tried
    assert told == (["setting up slow, about 100 s"] if tried else [])
    slow = next(trial for trial in record.trials if trial.name == "slow")
    assert (slow.seconds is not None) == tried
    assert tried or "setting up takes about 100 s" in slow.note


def test_little_work_is_done_as_it_is(ways, monkeypatch):
    few = prepare(tiny(), images(3), images_ahead=3).record
    assert (few.way, few.checked) == ("eager fp32", 0)
    assert "fewer than 64 images" in few.reason
    short = prepare(tiny(), images(16), images_ahead=100).record
    assert short.way == "eager fp32"
    assert "too little for a trial" in short.reason
    monkeypatch.setattr(inference, "SHORT_JOB", 0.0)
    part = prepare(tiny(), images(16), images_ahead=256, seconds=0.01).record
    assert (part.timed, part.checked) == (4, 16)


def test_engines_and_their_ways(monkeypatch):
    monkeypatch.setattr(inference_ways, "cpu_computes_bf16", lambda: True)
    assert ways_of("auto", exact=False) == tuple(WAYS)
    assert {WAYS[name].precision for name in ways_of("auto", exact=True)} == {"fp32"}
    assert ways_of("compile", exact=False) == ("compiled bf16",)
    assert ways_of("compile", exact=True) == ("compiled fp32",)
    with pytest.raises(UserError, match="no engine called 'fastest'"):
        ways_of("fastest", exact=True)
    with pytest.raises(UserError, match="kept are computed in fp32"):
        ways_of("bf16", exact=True)
    monkeypatch.setattr(inference_ways, "cpu_computes_bf16", lambda: False)
    assert ways_of("openvino", exact=False) == ("openvino fp32",)
    with pytest.raises(UserError, match="no bf16 instructions"):
        prepare(tiny(), images(2), ways=ways_of("bf16", exact=False))


def test_without_openvino_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(inference_ways.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"OpenVINO is not installed. Install it with `pip install 'convatlas\[openvino\]'`"):
        prepare(tiny(), images(2), ways=("openvino fp32",))


def test_without_a_compiler_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(inference_ways.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"no C\+\+ compiler here. Install"):
        prepare(tiny(), images(2), ways=("compiled fp32",))


@pytest.mark.slow
def test_openvino_answers_the_same():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = create_model("resnet.pocket", num_classes=10, image_size=32).eval()
    x = images(5)
    prepared = prepare(model, images(4), ways=("openvino fp32",))
    with torch.no_grad():
        assert torch.allclose(prepared(x), model(x), atol=1e-4)


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.slow
def test_compiled_networks_answer_the_same_and_are_compiled_once():
    assert inference_ways._compiler() is None, "these tests need a C++ compiler"
    model = tiny()
    x = images(21)
    # More networks than torch keeps for one piece of code; the same kernels are compiled once.
    for _ in range(2):
        prepared = prepare(model, images(8), ways=("compiled fp32",))
        with torch._dynamo.config.patch(error_on_recompile=True), torch.no_grad():
            assert torch.allclose(prepared(x), model(x), atol=1e-6)
            assert torch.allclose(prepared(x.to(memory_format=torch.channels_last)), model(x), atol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "run"
    train(small_recipe(epochs=1), folder, data=small_data())
    return folder


def test_a_run_is_judged_the_same_by_every_exact_way(run):
    plain = evaluate_run(run, data=small_data(), split="val")
    heard = []
    quick = evaluate_run(run, data=small_data(), split="val", engine=Engine("folded", chosen=heard.append))
    assert heard[0].way == "folded fp32"
    assert (quick.top1, quick.confusion) == (plain.top1, plain.confusion)
    assert quick.loss == pytest.approx(plain.loss, abs=1e-5)


def test_a_named_engine_is_heeded_where_there_is_a_gpu(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    heard, moved = [], []
    monkeypatch.setattr(nn.Module, "to", lambda self, *where, **_: moved.append(where[:1]) or self)
    evaluate_run(run, data=small_data(), split="val", engine=Engine("folded", chosen=heard.append))
    assert heard[0].way == "folded fp32" and ("cuda",) not in moved
    for engine in (None, Engine("auto", chosen=heard.append)):
        moved.clear()
        evaluate_run(run, data=small_data(), split="val", engine=engine)
        assert ("cuda",) in moved and len(heard) == 1


def test_predictions_keep_their_order_around_what_cannot_be_read(run, tmp_path):
    paths = sorted(picture_folder(tmp_path / "pictures", each=3).glob("*/*.png"))
    paths.insert(4, tmp_path / "no.png")
    plain = predict_pictures(run, paths)
    heard = []
    quick = predict_pictures(run, paths, engine=Engine("folded", chosen=heard.append))
    assert len(heard) == 1
    assert [p.image for p in quick] == [str(path) for path in paths]
    assert [p.error is None for p in quick] == [path.exists() for path in paths]
    assert [p.classes for p in quick] == [p.classes for p in plain]


@pytest.mark.slow
def test_the_commands_take_engines(tmp_path):
    made = command("train", "lenet.pocket", "--epochs", "1", "--out", "run", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    judged = command("eval", "run", "--engine", "folded", "--explain", "--json", folder=tmp_path)
    assert judged.returncode == 0, judged.stderr
    assert 0 <= json.loads(judged.stdout)["top1"] <= 1
    assert "computed by folded fp32: logits within" in judged.stderr
    wrong = command("eval", "run", "--engine", "bf16", folder=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    picture = next(picture_folder(tmp_path / "pictures", each=1).rglob("*.png"))
    seen = command("predict", "run", picture, "--explain", folder=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert "computed by eager fp32 (fewer than 64 images" in seen.stderr
