"""What is special about our own family: a stem that is computed from the data, and budgets that are kept."""

import re
from pathlib import Path
from statistics import fmean

import pytest
import torch

from convatlas.cli.console import clock
from convatlas.errors import UserError
from convatlas.inspection.trace import trace
from convatlas.layers.halved_conv import HalvedConv2d
from convatlas.models.compact import VARIANTS
from convatlas.models.papers import OURS, golden_rows, paper_of
from convatlas.models.registry import MODELS, create_model, list_models
from convatlas.training.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "docs/compact.md").read_text(encoding="utf-8")


def photographs(n, channels=3, size=32):
    """Smooth images: neighbouring pixels are alike, as in photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(n, channels, size // 4, size // 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear") + 0.1 * torch.randn(
        n, channels, size, size, generator=generator
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_stem_whitens_patches(channels):
    model, images = create_model("compact300k", in_chans=channels).eval(), photographs(64, channels)
    asked = []
    model.learn_from(lambda n: asked.append(n) or images[:n])
    assert asked == [5_000_000 // 32**2]
    with torch.no_grad():
        patches = model.stem.whitening(images).transpose(0, 1).flatten(1)
    half = 4 * channels
    assert torch.allclose(patches[:half], -patches[half:], atol=1e-5)
    correlation = patches[:half] @ patches[:half].T / patches.shape[1]
    # Directions whose variance is near the constant that is added to it come out smaller than 1.
    assert torch.allclose(correlation, torch.diag(correlation.diag()), atol=1e-3)
    assert 0.9 < correlation.diag()[:channels].min() <= correlation.diag().max() < 1.01


def test_large_images_are_sampled_sparingly():
    asked = []
    create_model("compact300k", image_size=224).learn_from(lambda n: asked.append(n) or photographs(2, size=224))
    assert asked == [5_000_000 // 224**2]


@pytest.mark.parametrize("name", VARIANTS)
def test_convolutions_begin_as_the_identity(name):
    model, images = create_model(name), torch.randn(1, VARIANTS[name].widths[0], 6, 6)
    conv = model.stages[1].conv1
    with torch.no_grad():
        assert torch.allclose(conv(images)[:, : images.shape[1]], images, atol=1e-6)


@pytest.mark.parametrize("size", [(15, 15), (14, 14), (7, 6), (6, 7), (5, 4), (3, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_what_pooling_would_not_read_is_not_computed(size, kernel):
    torch.manual_seed(0)
    whole, x = torch.nn.Conv2d(4, 5, kernel, padding=kernel // 2, bias=kernel == 5), torch.randn(2, 4, *size, requires_grad=True)
    part = HalvedConv2d(4, 5, kernel, padding=kernel // 2, bias=kernel == 5)
    part.load_state_dict(whole.state_dict())
    pool = torch.nn.MaxPool2d(2)
    assert part(x).shape[2:] == tuple(side // 2 * 2 for side in size)
    outcomes = []
    for conv in (whole, part):
        y = pool(conv(x))
        by_input, by_weights = torch.autograd.grad((y * torch.arange(y.numel()).view_as(y)).sum(), (x, conv.weight))
        outcomes.append((y, by_input, by_weights))
    for wanted, got in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [24, 32])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kernel", ["", "{kernel_size: 5}"])
def test_no_member_computes_what_it_does_not_pool(name, size, kernel):
    model, seen = create_model(name + kernel).eval(), {}
    for part, conv in model.named_modules():
        if isinstance(conv, torch.nn.Conv2d):
            assert conv.kernel_size[0] == (5 if kernel else 3)
            conv.register_forward_hook(lambda _, x, y, part=part: seen.__setitem__(part, (x[0].shape[-1], y.shape[-1])))
    with torch.no_grad():
        answers = model(photographs(2, size=size))
    assert answers.shape == (2, 10)
    for index, pooled in enumerate(VARIANTS[name].pooled):
        given, made = seen[f"stages.{index}.conv1"]
        assert made == (given // 2 * 2 if pooled else given)


@pytest.mark.parametrize("name", VARIANTS)
def test_images_too_small_to_be_pooled_are_told_as_such(name):
    for size in (2, 3, 4, 8):
        if size == 8 and not all(VARIANTS[name].pooled):
            continue
        with pytest.raises(UserError, match="too small"):
            trace(create_model(name), (3, size, size))


def test_tables_tell_what_a_convolution_leaves_out():
    rows = {layer.name: layer for layer in trace(create_model("compact94"), (3, 32, 32)).layers}
    first, second = (rows[f"stages.1.conv{number}"] for number in (1, 2))
    assert (first.operation, second.operation) == ("Conv2d", "Conv2d")
    assert first.settings == second.settings + " no odd edges" and "padding 1" in first.settings
    assert (first.input_shape[-1], first.output_shape[-1]) == (15, 14)


def test_budgets_are_kept():
    assert golden_rows()["compact1m"].params < 1_000_000
    assert golden_rows()["compact300k"].params < 300_000


def test_the_norm_has_no_scale_and_normalises():
    norm, x = create_model("compact300k").stages[0].norm1, 5 * torch.randn(8, 40, 9, 9) + 3
    norm.train()
    with torch.no_grad():
        y = norm(x)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(40), atol=1e-3, rtol=0)


def test_the_page_has_the_members_numbers():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|", PAGE, flags=re.M)
    found = {name: (int(params.replace(",", "")), int(macs.replace(",", ""))) for name, params, macs in rows}
    assert found == {name: (golden_rows()[name].params, golden_rows()[name].macs) for name in VARIANTS}


def test_the_page_has_what_the_recipes_reached():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) % \| (\d+) \| ([\d:]+), ([\w ]+) \|", PAGE, flags=re.M)
    assert {name for name, *_ in rows} == {"fast94", "fast96", "compact1m", "compact300k"}
    assert len(rows) == PAGE.count(" % | "), "a row was not understood"
    for name, percent, epochs, seconds, machine in rows:
        outcomes = [each for each in RECIPES[name].reached if (each.machine, epochs_of(name, each)) == (machine, epochs)]
        assert (percent, seconds) == (f"{100 * fmean(outcomes[0].accuracies):.2f}", clock(outcomes[0].seconds))


def epochs_of(name, outcome):
    """Of a recipe's outcome, as a word: its own, or those that its settings have instead."""
    told = re.search(r"(\d+) epochs", outcome.settings)
    return told.group(1) if told else str(RECIPES[name].recipe.epochs)


def test_the_pages_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    exec(compile(code, "compact.md", "exec"), {})


def test_every_family_has_a_paper_or_is_ours():
    assert {variant.family for variant in MODELS.values()} >= set(OURS)
    for variant in MODELS.values():
        assert paper_of(variant.family).family == variant.family
    for paper in OURS.values():
        assert {paper.landmark, paper.pocket} <= set(list_models("compact*"))
