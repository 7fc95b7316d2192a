"""What every variant of the atlas must do. A new variant is tested by being in the registry."""

import json
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import convatlas
from convatlas.errors import UserError
from convatlas.inspection.trace import trace
from convatlas.layers.drop_path import DropPath
from convatlas.models.papers import PAPERS, golden_rows
from convatlas.models.registry import MODELS, create_model, list_models
from tests.every import VARIANTS
from tests.kept_memory import kept_memory

from .undrawn import undrawn

EVERY = pytest.mark.parametrize("name", VARIANTS)
POCKET = pytest.mark.parametrize("name", list_models("*.pocket"))
POCKET_PARAMS = 270_000
PUBLISHED = {  # parameters and, at 224 pixels, MACs, as the papers' and the libraries' published numbers have them
    "lenet5": (61_706, None),
    "alexnet": (61_100_840, 0.714e9),
    "vgg11": (132_863_336, 7.609e9),
    "vgg16": (138_357_544, 15.470e9),
    "googlenet": (6_624_904, 1.498e9),
    "resnet18": (11_689_512, 1.814e9),
    "resnet50": (25_557_032, 4.089e9),
    "densenet121": (7_978_856, 2.834e9),
    "efficientnet_b0": (5_288_548, 0.386e9),
    "convnext_tiny": (28_589_128, 4.456e9),
}


def small(name, **options):
    """The variant for 32x32 images, seeded, in evaluation mode."""
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": 10, "image_size": 32, **options}).eval()


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options).eval()


ROWS = golden_rows()
COMPUTED = [
    each for each, name in zip(VARIANTS, MODELS, strict=True) if ROWS[name].params <= 30e6 or name in ("vgg11", "vgg16_bn")
]
"""The largest are of the blocks of smaller ones, and compared with two libraries, gradients and all, in tests/parity."""


@pytest.fixture(scope="module", autouse=True)
def networks_one_after_another():
    with kept_memory():
        yield


@pytest.fixture(scope="module", params=COMPUTED)
def model(request):
    """A variant, which the tests leave as it is: pytest runs all of them on one before it makes the next."""
    return request.param, small(request.param)


def test_forward_is_stem_stages_head(model):
    (_, model), x = model, torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        y = model(x)
        assert torch.equal(y, model.head(model.stages(model.stem(x))))
    assert y.shape == (2, 10)
    assert torch.isfinite(y).all()
    assert [child for child, _ in model.named_children()][:3] == ["stem", "stages", "head"]


def test_zero_classes_give_features_that_the_classifier_reads(model):
    name, full = model
    with undrawn():
        features = small(name, num_classes=0)
    misfit = features.load_state_dict(full.state_dict(), strict=False)
    assert misfit.missing_keys == []
    assert {
        key.removesuffix("weight").removesuffix("bias") for key in misfit.unexpected_keys if not key.startswith("auxiliary")
    } == {"head.classifier."}
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(full.head.classifier(features(x)), full(x))


@pytest.mark.parametrize("in_chans", [1, 5])
def test_other_channels(model, in_chans):
    with torch.no_grad(), undrawn():
        assert small(model[0], in_chans=in_chans)(torch.randn(1, in_chans, 32, 32)).shape == (1, 10)


def test_every_parameter_learns(model):
    torch.manual_seed(0)
    model = deepcopy(model[1]).train()
    answers = model.training_logits(torch.randn(4, 3, 32, 32))
    labels = torch.tensor([0, 1, 2, 3])
    sum(weight * torch.nn.functional.cross_entropy(logits, labels) for weight, logits in answers).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_training_mode_never_changes_what_forward_returns(model):
    with undrawn():
        other = small(model[0], drop_rate=0.0)
    other.load_state_dict(model[1].state_dict())
    model = other.train()
    x = torch.randn(4, 3, 32, 32)
    logits = model(x)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (4, 10)
    assert model.training_logits(x)[0][0] == 1.0


def test_same_seed_same_weights(model):
    first, second = model[1].state_dict(), small(model[0]).state_dict()
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


@EVERY
def test_golden_numbers_are_the_networks_and_macs_half_of_the_flop_counters(name):
    """And it is built on the meta device in less than a second."""
    row, variant, begun = ROWS[name], MODELS[name], time.perf_counter()
    model, shape = on_meta(name, in_chans=row.in_chans), (row.in_chans, row.image_size, row.image_size)
    assert time.perf_counter() - begun < 1
    record = trace(model, shape)
    assert (record.params, record.auxiliary_params, record.macs) == (row.params, row.auxiliary_params, row.macs)
    assert record.stage_shapes == row.stage_shapes
    assert (record.receptive_field, record.unfollowed) == (row.receptive_field, None)
    expected = (variant.family, variant.in_chans, variant.image_size, variant.num_classes)
    assert (row.family, row.in_chans, row.image_size, row.num_classes) == expected
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    assert counter.get_total_flops() == 2 * row.macs


def test_golden_table_has_every_variant_and_no_other():
    assert list(ROWS) == list(MODELS)
    golden = Path(convatlas.__file__).parent / "models" / "golden.json"
    assert len(json.loads(golden.read_text())) == len(MODELS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    params, macs = PUBLISHED[name]
    row = ROWS[name]
    assert row.params == params
    if macs is not None:
        assert row.macs == pytest.approx(macs, abs=0.5e6)


def test_published_numbers_of_parts():
    assert ROWS["googlenet"].params + ROWS["googlenet"].auxiliary_params == 13_004_888
    assert sum(p.numel() for p in on_meta("lenet5", in_chans=3).parameters()) == 62_006


@POCKET
def test_pocket_members_have_equal_parameters(name):
    params = ROWS[name].params
    assert params == 62_006 if name == "lenet.pocket" else abs(params - POCKET_PARAMS) <= 0.05 * POCKET_PARAMS


@EVERY
def test_small_images_do_not_end_on_one_pixel(name):
    model = on_meta(name, image_size=32)
    with torch.no_grad():
        last = model.stages(model.stem(torch.empty(1, 3, 32, 32, device="meta")))
    assert min(last.shape[2:]) >= 2


@EVERY
def test_stages_never_grow_the_map(name):
    sizes = [shape[1] for shape in ROWS[name].stage_shapes]
    assert sizes == sorted(sizes, reverse=True)


def test_a_copy_and_a_saved_copy_answer_alike(model, tmp_path):
    (name, model), x = model, torch.randn(1, 3, 32, 32)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with undrawn():
        other = create_model(name, num_classes=10, image_size=32).eval()
    other.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    with torch.no_grad():
        answer = model(x)
        assert torch.equal(answer, other(x))
        assert torch.equal(answer, deepcopy(model)(x))


def test_googlenet_has_auxiliary_logits_in_training_only():
    model, x = small("googlenet"), torch.randn(2, 3, 32, 32)
    assert len(model.training_logits(x)) == 1
    answers = model.train().training_logits(x)
    assert [weight for weight, _ in answers] == [1.0, 0.3, 0.3]
    assert all(logits.shape == (2, 10) for _, logits in answers)
    assert small("googlenet", num_classes=0).auxiliary_parameters() == []


def test_drop_rates_reach_the_network():
    assert small("resnet18", drop_rate=0.25).head.dropout.p == 0.25
    rates = [m.rate for m in small("convnext_tiny", drop_path_rate=0.4).modules() if isinstance(m, DropPath)]
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(0.4)
    assert rates == sorted(rates)


@pytest.mark.parametrize("family", [f for f in PAPERS if f not in ("efficientnet", "convnext")])
def test_drop_path_is_refused_where_there_is_none_to_drop(family):
    with pytest.raises(UserError, match="no drop path"):
        create_model(PAPERS[family].pocket, drop_path_rate=0.1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": True}, "num_classes is True"),
        ({"in_chans": 0}, "in_chans is 0"),
        ({"in_chans": 2.0}, "in_chans is 2.0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"drop_rate": 1.0}, "drop_rate is 1.0"),
        ({"drop_rate": float("nan")}, "drop_rate is nan"),
        ({"drop_path_rate": -0.1}, "drop_path_rate is -0.1"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(UserError, match=said):
        create_model("convnext.pocket", **options)


def test_unknown_names_are_met_with_the_nearest():
    with pytest.raises(UserError, match=r"no model called 'resnet180'. Did you mean resnet18"):
        create_model("resnet180")


def test_list_models_takes_patterns():
    assert list_models("resnet50*") == ["resnet50", "resnet50.paper"]
    assert list_models("resnet*")[-1] == "resnet.pocket"
    assert len(list_models()) >= 60
    assert len(list_models("*.pocket")) == 8
    assert list_models("none*") == []


def test_every_paper_names_a_landmark_and_a_pocket_member():
    for family, paper in PAPERS.items():
        assert MODELS[paper.landmark].family == MODELS[paper.pocket].family == family
    assert [p.year for p in PAPERS.values()] == sorted(p.year for p in PAPERS.values())
    single_crop = {p.landmark: p.library_figure.top1 for p in PAPERS.values() if p.library_figure}
    assert single_crop == {
        "alexnet": 56.52,
        "vgg16": 71.59,
        "googlenet": 69.78,
        "resnet50": 76.13,
        "densenet121": 74.43,
        "efficientnet_b0": 77.69,
        "convnext_tiny": 82.52,
    }
