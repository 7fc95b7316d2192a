"""Trials of convolutions: what is tried, what is chosen, and what is remembered."""

import json
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records.engine import ConvChoice
from convatlas.training import conv_trial, wide
from convatlas.training.conv_trial import conv_calls, remember, remembered, try_convolutions


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(conv_trial, "_memory", {})


@pytest.fixture
def timed(monkeypatch):
    """Which convolutions are really timed."""
    seen, tried = [], conv_trial._tried
    monkeypatch.setattr(conv_trial, "_tried", lambda call, seconds: seen.append(call.key) or tried(call, seconds))
    return seen


@pytest.fixture
def named(monkeypatch):
    """Which convolutions would be timed: for what is kept of a choice, whatever it is."""
    seen = []
    monkeypatch.setattr(conv_trial, "_tried", lambda call, _: seen.append(call.key) or ConvChoice(call.shape, to_weights=4))
    return seen


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


def tried(model=None, **changes):
    return try_convolutions(model or small(), images(8, 3, 4, 4), **{"dtype": torch.float32, "seconds_each": 0.0, **changes})


FIRST, SECOND = "3x4x4 -> 8, 3x3 stride 1 padding 1, float32", "8x4x4 -> 4, 1x1 stride 1 padding 0, float32"


def test_what_training_meets():
    first, second = conv_calls(small(), images(8, 3, 4, 4), autocast_dtype=None)
    assert (first.shape, first.to_data, first.bias) == (FIRST, False, True)
    assert (first.x, first.weight, first.stride, first.padding) == ((8, 3, 4, 4), (8, 3, 3, 3), (1, 1), (1, 1))
    assert (second.shape, second.to_data, second.bias, second.dtype) == (SECOND, True, False, torch.float32)
    assert (first.key, second.key) == (f"{FIRST}, no gradient by the input", SECOND)


def test_autocasts_format_is_named():
    calls = conv_calls(small(), images(8, 3, 4, 4), autocast_dtype=torch.bfloat16)
    assert [call.dtype for call in calls] == [torch.bfloat16] * 2
    assert all(call.shape.endswith("bfloat16") for call in calls)


def test_what_cannot_be_widened_is_not_tried():
    x = images(8, 4, 80, 3)
    assert len(conv_calls(nn.Conv2d(4, 4, 3), x, autocast_dtype=None)) == 1
    assert conv_calls(nn.Conv2d(4, 4, 3, groups=2), x, autocast_dtype=None) == ()
    assert conv_calls(nn.Conv2d(4, 4, 3), images(8, 4, 3, 65), autocast_dtype=None) == (), "a wide map"
    assert conv_calls(nn.Conv2d(4, 4, 3), x.contiguous(), autocast_dtype=None) == (), "channels first"


def test_a_shape_that_is_met_twice_counts_once_and_with_its_gradients():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    (call,) = conv_calls(model, images(8, 3, 4, 4), autocast_dtype=None)
    assert call.to_data


def test_what_only_training_computes_is_met_too():
    model = create_model("googlenet.pocket", num_classes=10, image_size=32)
    asked = []
    model.training_logits = lambda x: asked.append(x) or ((1.0, model(x)),)
    conv_calls(model, images(2, 3, 32, 32), autocast_dtype=None)
    assert len(asked) == 1


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(*small(), nn.Dropout(0.5)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    tried(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert all(not each._forward_pre_hooks and "forward" not in vars(each) for each in model.modules())
    assert all(each.grad is None for each in model.parameters())


def test_what_is_no_batch_is_refused():
    with pytest.raises(UserError, match="the images have the shape"):
        conv_calls(small(), images(8, 3, 4, 4)[0], autocast_dtype=None)


def slow(monkeypatch, name, *, groups, when=lambda **given: True):
    """Make a pass of `wide` take 5 ms longer in these groups."""
    quick = getattr(wide, name)

    def slower(*args, group, **given):
        if group in groups and when(**given):
            time.sleep(0.005)
        return quick(*args, group=group, **given)

    monkeypatch.setattr(wide, name, slower)


def test_each_pass_gets_what_is_fastest_for_it(monkeypatch):
    slow(monkeypatch, "forward_pass", groups=(8,))
    slow(monkeypatch, "backward_pass", groups=(8,), when=lambda wanted, **_: wanted[0])
    slow(monkeypatch, "backward_pass", groups=(1,), when=lambda wanted, **_: wanted[1])
    first, second = tried()
    assert (first.shape, first.forward, first.to_data, first.to_weights) == (FIRST, 1, 1, 8)
    assert (second.shape, second.forward, second.to_data, second.to_weights) == (SECOND, 1, 1, 8)
    assert first.gain > 1.5
    assert second.gain > 1.5


def test_a_small_advantage_is_not_worth_it(monkeypatch):
    record = conv_trial.compare_times({str(group): lambda: None for group in (1, 8, 4)}, least=6, most=6)
    ratios = dict.fromkeys(("8", "4"), 0.0)

    sure = [True]

    def compared(runs, **_):
        high = 0.99 if sure[0] else 1.01
        return replace(record, ratios=tuple(replace(each, median=ratios[each.name], high=high) for each in record.ratios))

    monkeypatch.setattr(conv_trial, "compare_times", compared)
    for eight, four, chosen in ((0.96, 0.97, 1), (0.95, 0.96, 8), (0.95, 0.9, 4), (1.2, 1.1, 1)):
        ratios.update({"8": eight, "4": four})
        assert conv_trial._best(lambda group: None, 8, seconds=0.0).group == chosen
    ratios.update({"8": 0.5, "4": 0.6})
    sure[0] = False
    assert conv_trial._best(lambda group: None, 8, seconds=0.0).group == 1, "its interval reaches 1"


def test_groups_divide_the_batch(monkeypatch):
    seen = []
    record = conv_trial.compare_times({"1": lambda: None, "5": lambda: None}, least=6, most=6)
    monkeypatch.setattr(conv_trial, "compare_times", lambda runs, **_: seen.append([*runs]) or record)
    conv_trial._best(lambda group: None, 100, seconds=0.0)
    assert seen == [["1", "5", "10", "25", "100"]]


def test_progress_goes_from_shape_to_shape():
    told = []
    tried(progress=lambda *args: told.append(args))
    assert told == [(0, 2, FIRST), (1, 2, SECOND), (2, 2, "")]


def test_a_trial_is_made_once(timed, monkeypatch, tmp_path):
    first = tried()
    assert len(timed) == 2
    assert tried() == first
    monkeypatch.setattr(conv_trial, "_memory", {})
    assert tried() == first, "from disk"
    assert len(timed) == 2
    assert [path.name for path in (tmp_path / "cache" / "convatlas").iterdir()] == ["convolutions.json"]
    tried(dtype=torch.bfloat16)
    assert len(timed) == 4


def test_another_machine_or_number_of_threads_tries_itself(timed, monkeypatch):
    tried()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    monkeypatch.setattr(conv_trial, "_tried", lambda call, seconds: ConvChoice(call.shape, to_weights=4))
    assert [each.to_weights for each in tried()] == [4, 4]
    kept = json.loads(conv_trial._file().read_text())
    assert [key.rsplit(", ", 1)[1] for key in kept] == ["1 threads", "77 threads"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"a": 3}', b"[" * 100_000])
def test_a_damaged_file_is_made_anew(content, named):
    conv_trial._file().parent.mkdir(parents=True)
    conv_trial._file().write_bytes(content)
    tried()
    assert len(named) == 2
    assert set(json.loads(conv_trial._file().read_text())[conv_trial._machine()]) == set(named)


@pytest.mark.parametrize(
    "record", [3, {"shape": 3}, {"shape": "x", "more": 1}, {"shape": SECOND, "forward": "8"}, {"shape": FIRST}]
)
def test_a_damaged_choice_is_made_anew(record, named):
    tried()
    kept = json.loads(conv_trial._file().read_text())
    kept[conv_trial._machine()][SECOND] = record
    conv_trial._file().write_text(json.dumps(kept))
    conv_trial._memory.clear()
    tried()
    assert named[2:] == [SECOND]


def test_what_other_machines_found_is_kept():
    conv_trial._file().parent.mkdir(parents=True)
    conv_trial._file().write_text('{"another": {"x": 1}}')
    remember({SECOND: ConvChoice(SECOND, 2, 3, 4, 1.5)})
    assert json.loads(conv_trial._file().read_text())["another"] == {"x": 1}
    conv_trial._memory.clear()
    assert remembered() == {SECOND: ConvChoice(SECOND, 2, 3, 4, 1.5)}


def test_a_folder_that_cannot_be_written_is_no_error(timed, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = tried()
    assert tried() == first
    assert len(timed) == 2, "remembered in this process"


def test_a_full_disk_is_no_error(monkeypatch):
    def full(path, text):
        with conv_trial.storage.explained(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(conv_trial.storage, "write_text", full)
    remember({SECOND: ConvChoice(SECOND)})
    assert remembered() == {SECOND: ConvChoice(SECOND)}
