"""Gradient checkpointing: the same logits, gradients, statistics and random numbers, in every family, with less memory kept."""

from copy import deepcopy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from convatlas.models.papers import PAPERS
from convatlas.models.registry import MODELS, create_model, list_models

NAMES = [*list_models("*.pocket"), "lenet5.paper", "googlenet", "vgg11_bn", "efficientnet_lite0", "efficientnet_v2_s", "resnet20"]


def step(model, x, labels):
    """One training step's logits and how many bytes were kept for its gradients."""
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answers = model.training_logits(x)
        loss = sum(weight * torch.nn.functional.cross_entropy(logits, labels) for weight, logits in answers)
    loss.backward()
    return [logits.detach() for _, logits in answers], sum(kept.values())


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_nothing_but_memory(name):
    torch.manual_seed(0)
    options = {"drop_path_rate": 0.2} if MODELS[name].family in ("efficientnet", "convnext") else {}
    plain = create_model(name, num_classes=10, image_size=32, drop_rate=0.2, **options).train()
    saving = deepcopy(plain)
    saving.set_grad_checkpointing()
    x, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    (logits, kept), (same, less) = step(plain, x, labels), step(saving, x, labels)
    for a, b in zip(logits, same, strict=True):
        assert torch.equal(a, b)
    for (key, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), key
    for (key, p), q in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert torch.equal(p, q[1]), key
    assert less < kept
    momenta = {m.momentum for m in saving.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert 0.0 not in momenta


def test_every_family_is_among_them():
    assert {MODELS[name].family for name in NAMES} == set(PAPERS)


def test_it_can_be_switched_off_again():
    model = create_model("resnet.pocket", num_classes=10).train()
    x, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    _, kept = step(model, x, labels)
    model.set_grad_checkpointing()
    _, less = step(model, x, labels)
    model.set_grad_checkpointing(False)
    assert less < kept == step(model, x, labels)[1]


def test_a_graph_can_be_gone_through_twice():
    plain = create_model("resnet.pocket", num_classes=10).train()
    saving = deepcopy(plain)
    saving.set_grad_checkpointing()
    x = torch.randn(4, 3, 32, 32)
    for model in (plain, saving):
        loss = model(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    for p, q in zip(plain.buffers(), saving.buffers(), strict=True):
        assert torch.equal(p, q)


def test_nothing_is_recomputed_where_no_gradient_is_wanted():
    model = create_model("resnet.pocket", num_classes=10).eval()
    model.set_grad_checkpointing()
    calls = []
    model.stages[0][0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert len(calls) == 1
