"""Frozen is frozen: what stands still computes the same, the receipt proves it, and whatever moves it ends the run."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records import codec
from convatlas.records.run import RunSummary
from convatlas.records.tuning import Receipt
from convatlas.training.loop import train
from convatlas.transfer.freezing import check_still, fingerprints, freeze, frozen_tensors, sealed
from convatlas.transfer.groups import classifier_of
from convatlas.transfer.strategies import opening
from convatlas.transfer.tuning import RECEIPT, FineTuning, method_of

from .makers import bare_recipe, go_on, prepared, same, tensors, tune, weights_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights") / "pretrained.safetensors")


def probed(name="resnet.pocket"):
    """A network of which the classifier alone learns."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=4)
    now = opening(model, bare_recipe("probe")[1], 0.0)
    freeze(model, now.trained, now.still)
    return model


def receipt(folder):
    return codec.read(Receipt, folder / RECEIPT)


def statistics(model):
    return {name: each.clone() for name, each in model.named_buffers()}


@pytest.mark.parametrize("name", ["resnet.pocket", "efficientnet.pocket", "vgg.pocket"])
def test_a_frozen_network_computes_in_training_what_it_does_in_evaluation(name):
    model, x = probed(name), torch.rand(6, 3, 32, 32)
    before, seen = statistics(model), model(x)
    assert same(before, statistics(model))
    assert model.training
    assert torch.equal(seen, model.eval()(x))


def test_parameters_that_merely_do_not_learn_let_statistics_move():
    """Why `freeze` is more than requires_grad: this is the mistake that it keeps people from."""
    model, x = probed(), torch.rand(6, 3, 32, 32)
    model.train()
    before, seen = statistics(model), model(x)
    assert not any(each.requires_grad for each in model.stages.parameters())
    assert not same(before, statistics(model))
    assert not torch.allclose(seen, model.eval()(x))


def test_what_is_frozen_are_all_tensors_but_the_classifiers():
    model = probed()
    assert set(model.state_dict()) - set(frozen_tensors(model)) == {"head.classifier.weight", "head.classifier.bias"}
    now = opening(model, bare_recipe("full")[1], 0.0)
    freeze(model, now.trained, now.still)
    assert frozen_tensors(model) == {}


def test_fingerprints_tell_shape_kind_and_every_bit():
    zero = torch.zeros(2, 3)
    prints = fingerprints({"a": zero, "b": zero.reshape(3, 2), "c": zero.half(), "d": -zero, "e": zero.clone(), "f": zero[:, :2]})
    assert len(set(prints.values())) == 5
    assert prints["a"] == prints["e"]
    assert fingerprints({"n": torch.tensor(3)}) != fingerprints({"n": torch.tensor(4)})
    turned = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert fingerprints({"x": turned}) == fingerprints({"x": turned.contiguous()})
    assert sealed({"a": "1", "b": "2"}) == sealed({"b": "2", "a": "1"}) != sealed({"a": "2", "b": "1"})


def test_all_that_moved_is_counted_and_three_are_named():
    before = {f"layer{i}": "old" for i in range(6)}
    check_still(before, before)
    with pytest.raises(
        UserError, match=r"5 of 6 frozen tensors are not what they were: layer1, layer2, layer3 and 2 more\. "
    ) as caught:
        check_still(before, dict.fromkeys(before, "new") | {"layer0": "old"})
    assert "\n" not in str(caught.value)


class Meddled(FineTuning):
    """As fine-tuning, with a hook by which something moves a tensor while the network trains."""

    def begin_epoch(self, run):
        super().begin_epoch(run)
        if run.position.epoch == 0:
            first = next(module for module in run.model.modules() if isinstance(module, _BatchNorm))
            run.model.register_forward_hook(lambda *_: self.meddle(first))

    def meddle(self, norm):
        with torch.no_grad():
            self.tensor_of(norm)[0] += 1e-3


def meddled(kind, recipe):
    method = Meddled(recipe.tuning)
    method.tensor_of = lambda norm: norm.running_mean if kind == "running_mean" else norm.weight
    return method


@pytest.mark.parametrize("kind", ["running_mean", "weight"])
@pytest.mark.parametrize("strategy", ["probe", "last-stages"])
def test_a_hook_that_moves_a_thousandth_of_a_frozen_tensor_fails_the_run_by_name(tmp_path, weights, kind, strategy):
    recipe, data = prepared(strategy, weights, settings={"epochs": 1})
    with pytest.raises(UserError, match=rf"1 of \d+ frozen tensors are not what they were: stem\.\S*{kind}\. ") as caught:
        train(recipe, tmp_path / "run", data=data, method=meddled(kind, recipe))
    assert "\n" not in str(caught.value)
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert (summary.status, summary.cause) == ("failed", str(caught.value))
    assert not receipt(tmp_path / "run").holds
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_failed_receipt_is_not_healed_by_going_on(tmp_path, weights):
    recipe, data = prepared("probe", weights, settings={"epochs": 1})
    with pytest.raises(UserError, match="are not what they were"):
        train(recipe, tmp_path / "run", data=data, method=meddled("weight", recipe))
    assert go_on(recipe, tmp_path / "run", data).status == "finished", "from the beginning, without the hook"
    assert receipt(tmp_path / "run").holds
    pretrained, kept = load_file(weights), tensors(tmp_path / "run")
    assert all(torch.equal(kept[name], pretrained[name]) for name in kept if not name.startswith("head.classifier"))


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("probe", {}),
        ("probe", {"settings": {"epochs": 2, "ema": 0.9}}),
        ("probe", {"cached": True, "policy": "none"}),
        ("last-stages", {"settings": {"optimizer": "sgd", "weight_decay": 0.5, "lr": 0.05}}),
        ("bn-bias", {}),
        ("probe", {"settings": {"epochs": 3, "patience": 1}}),
    ],
    ids=["probe", "average", "cached", "stages", "bn-bias", "patience"],
)
def test_what_was_frozen_leaves_the_run_as_it_was_in_the_pretrained_file(tmp_path, weights, strategy, more):
    recipe, data = prepared(strategy, weights, **more)
    assert tune(recipe, tmp_path / "run", data).status == "finished"
    pretrained, kept = load_file(weights), tensors(tmp_path / "run")
    (phase,) = receipt(tmp_path / "run").phases
    assert phase.holds
    model = create_model("resnet.pocket", num_classes=data.num_classes)
    now = opening(model, recipe.tuning, 0.0)
    freeze(model, now.trained, now.still)
    frozen = frozen_tensors(model)
    assert (phase.frozen, phase.tensors) == (len(frozen), len(kept))
    assert phase.trained_parameters == sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert frozen and all(torch.equal(kept[name], pretrained[name]) for name in frozen)
    assert not any(torch.equal(kept[name], pretrained[name]) for name, each in model.named_parameters()
                   if each.requires_grad and kept[name].shape == pretrained[name].shape)  # fmt: skip


def test_gradual_leaves_a_receipt_for_each_phase(tmp_path, weights):
    recipe, data = prepared("gradual", weights, settings={"epochs": 8})
    tune(recipe, tmp_path / "run", data)
    phases = receipt(tmp_path / "run").phases
    assert len(phases) == 5
    assert [(each.first_epoch, each.last_epoch) for each in phases] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 8)]
    assert all(each.holds for each in phases)
    frozen = [each.frozen for each in phases]
    assert frozen == sorted(frozen, reverse=True) and frozen[-1] == 0
    learning = [each.trained_parameters for each in phases]
    assert learning == sorted(learning)
    assert learning[-1] == sum(each.numel() for each in create_model("resnet.pocket", num_classes=data.num_classes).parameters())


@pytest.mark.parametrize(
    ("strategy", "epochs", "more", "phases"),
    [
        ("lp-ft", 1, {}, [(1, 1), (1, 1)]),
        ("lp-ft", 5, {"probe_share": 0.9}, [(1, 5), (5, 5)]),
        ("lp-ft", 1, {"probe_share": 0.99}, [(1, 1), (1, 1)]),
        ("gradual", 1, {}, [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_every_phase_comes_however_few_epochs_there_are(tmp_path, weights, strategy, epochs, more, phases):
    """Three steps are an epoch. A phase begins at the step at which its share is spent, the last one with the last step."""
    recipe, data = prepared(strategy, weights, settings={"epochs": epochs}, **more)
    tune(recipe, tmp_path / "run", data)
    found = receipt(tmp_path / "run").phases
    assert [(each.first_epoch, each.last_epoch) for each in found] == phases
    assert all(each.holds for each in found)
    assert found[0].frozen == found[0].tensors - 2, "all but the classifier, statistics too"
    assert found[-1].frozen == 0
    first, kept = load_file(weights), tensors(tmp_path / "run")
    assert not torch.equal(first["stem.0.conv.weight"], kept["stem.0.conv.weight"])


def test_a_first_phase_that_does_not_hold_ends_the_run_before_the_next(tmp_path, weights):
    recipe, data = prepared("lp-ft", weights, settings={"epochs": 4}, probe_share=0.5)
    with pytest.raises(UserError, match="are not what they were"):
        train(recipe, tmp_path / "run", data=data, method=meddled("running_mean", recipe))
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert (summary.status, summary.epochs_done) == ("failed", 2)
    assert len(receipt(tmp_path / "run").phases) == 1


def test_auxiliary_heads_stand_still(tmp_path):
    """GoogLeNet's are not fine-tuned, and are proven not to have been."""
    model = create_model("googlenet", num_classes=3, image_size=32)
    now = opening(model, bare_recipe("full", model="googlenet")[1], 0.0)
    freeze(model, now.trained, now.still)
    assert set(frozen_tensors(model)) == {name for name in model.state_dict() if name.startswith("auxiliary")}
    assert method_of(bare_recipe("full", model="googlenet")[0], None).splits_batches
    assert isinstance(classifier_of(model), nn.Linear)
