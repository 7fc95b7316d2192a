"""A recorded step against the same one as it stands. What records here is a stand-in; CUDA's own was tried by hand (docs/LOG.md)."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convatlas.training.optim import make_optimizer
from convatlas.training.recorded import AS_IT_STANDS, Recorded
from tests.training.makers import small_recipe


class TapeRecorder:
    """Does not do the work when it records it, as CUDA does not, and writes its results to one place whenever it is replayed."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, work):
        results = (torch.full((), float("nan")), torch.full((), -1))
        self.recorded += 1

        def replay():
            self.replayed += 1
            for here, now in zip(results, work(), strict=True):
                here.copy_(now)

        return results, replay


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def learn(model, optimizer, x, y):
    logits = model(x)
    loss = F.cross_entropy(logits, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), (logits.argmax(1) == y).sum()


def trained(optimizer_name, *, record, sizes):
    """Losses, weights and the optimizer after a step on a batch of each of `sizes`, at learning rates that fall."""
    model = net()
    optimizer = make_optimizer(model, small_recipe(optimizer=optimizer_name))
    step = partial(learn, model, optimizer)
    step = step if record is None else Recorded(step, optimizer, note=pytest.fail, record=record)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for i, size in enumerate(sizes):
        x, y = torch.randn(6, 3, size, size, generator=generator), torch.randint(0, 4, (6,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + i)
        loss, hits = step(x, y)
        losses.append((loss.item(), hits.item()))
    return losses, model.state_dict(), optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_a_recorded_step_is_the_step(name):
    sizes = [8] * 6 + [12] * 6 + [8] * 3
    tape = TapeRecorder()
    plain, weights, _ = trained(name, record=None, sizes=sizes)
    recorded, same, optimizer = trained(name, record=tape, sizes=sizes)
    assert tape.recorded == 2
    assert tape.replayed == len(sizes) - 2 * AS_IT_STANDS
    assert [loss for loss, _ in recorded] == pytest.approx([loss for loss, _ in plain], rel=1e-5)
    assert [hits for _, hits in recorded] == [hits for _, hits in plain]
    for key, tensor in weights.items():
        torch.testing.assert_close(same[key], tensor, rtol=1e-4, atol=1e-6)
    assert {type(group["lr"]) for group in optimizer.param_groups} == {float}
    assert not any(group.get("capturable") for group in optimizer.param_groups)


def test_what_cannot_be_recorded_goes_on_as_it_stands():
    model, notes = net(), []
    optimizer = make_optimizer(model, small_recipe(optimizer="sgd"))
    calls = []

    def refuse(work):
        calls.append(work)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    step = Recorded(partial(learn, model, optimizer), optimizer, note=notes.append, record=refuse)
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    losses = [step(x, y)[0].item() for _ in range(8)]
    assert losses[-1] < losses[0]
    assert len(calls) == 1
    [note] = notes
    assert "could not be recorded (operation not permitted when stream is capturing)" in note
    assert "more" not in note
