"""The loss of fine-tuning against torch's own, and against the formulas written out."""

import pytest
import torch
import torch.nn.functional as F

from convatlas.transfer.losses import balanced_weights, tuned_loss


def answers(n=32, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (n,), generator=generator)


def soft(n=32, classes=5):
    return torch.rand(n, classes, generator=torch.Generator().manual_seed(3), dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_without_extras_it_is_torchs_cross_entropy(smoothing, labels):
    logits, y = answers()
    y = y if labels == "hard" else soft()
    logits.requires_grad_()
    ours, theirs = tuned_loss(logits, y, label_smoothing=smoothing), F.cross_entropy(logits, y, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-15)


def test_huge_logits_give_finite_losses_and_gradients():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    for focal in (0.0, 2.0):
        loss = tuned_loss(logits, torch.tensor([1]), focal=focal)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()
    right = tuned_loss(logits, torch.tensor([0]), focal=0.5)
    assert torch.isfinite(right)
    assert torch.isfinite(torch.autograd.grad(right, logits)[0]).all(), "the power's slope at 0 is infinite below 1"


@pytest.mark.parametrize("focal", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_formula_of_the_paper(focal):
    logits, y = answers()
    p = logits.softmax(1)[torch.arange(len(y)), y]
    torch.testing.assert_close(tuned_loss(logits, y, focal=focal), (-((1 - p) ** focal) * p.log()).mean(), rtol=1e-6, atol=0)


def test_focal_with_smoothed_labels_by_hand():
    logits, p = (
        torch.log(torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)),
        torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64),
    )
    shares = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)  # 1 - 0.3 + 0.1, 0.1, 0.1
    expected = -(shares * (1 - p) ** 2 * p.log()).sum()
    torch.testing.assert_close(tuned_loss(logits, torch.tensor([0]), label_smoothing=0.3, focal=2.0), expected)


def test_class_weights_multiply_each_images_own_loss():
    logits, y = answers()
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1], dtype=torch.float64)
    each = F.cross_entropy(logits, y, reduction="none") * weights[y]
    torch.testing.assert_close(tuned_loss(logits, y, class_weights=weights), each.mean())
    halves = [tuned_loss(logits[part], y[part], class_weights=weights) for part in (slice(0, 16), slice(16, 32))]
    torch.testing.assert_close(torch.stack(halves).mean(), each.mean())


def test_balanced_weights_count_each_class_alike_and_are_one_on_the_average():
    labels = torch.tensor([0] * 90 + [1] * 9 + [3])
    weights = balanced_weights(labels, 4)
    assert weights.dtype == torch.float32
    assert weights[labels].mean().item() == pytest.approx(1.0)
    sums = [weights[labels][labels == label].sum().item() for label in (0, 1, 3)]
    assert sums == pytest.approx([100 / 3] * 3)
    assert weights[2] == 0, "a class without images has nothing to count"


def test_balanced_data_have_weights_of_one():
    assert balanced_weights(torch.arange(12) % 3, 3).tolist() == [1.0, 1.0, 1.0]
