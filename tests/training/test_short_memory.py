"""When memory cannot hold a batch: first checkpointing, then parts; the update stays that of the whole batch."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import RunSummary, read_metrics
from convatlas.training import loop
from convatlas.training.method import Method
from convatlas.training.outcome import Stopped
from convatlas.transfer.freezing import freeze
from convatlas.transfer.tuning import method_of

from ..transfer.makers import go_on, photographs, prepared, same, tensors, tune, weights_file
from .makers import StopAfter, small_data, small_recipe

CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {name: weights_file(folder / f"{name}.safetensors", name) for name in ("resnet.pocket", "convnext.pocket")}


class Tight(Method):
    """Ordinary training in a memory that holds `most` images, and none without checkpointing unless it is `roomy`."""

    splits_batches = True

    def __init__(self, most=10**9, *, roomy=False, error=None, from_step=0, spoil=False, still=False):
        self.most, self.roomy, self.from_step, self.spoil, self.still = most, roomy, from_step, spoil, still
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.seen = []

    def begin_epoch(self, run):
        super().begin_epoch(run)
        if self.still:
            norms = [each for each in run.model.modules() if isinstance(each, _BatchNorm)]
            mine = {id(each) for norm in norms for each in norm.parameters()}
            freeze(run.model, [each for each in run.model.parameters() if id(each) not in mine], norms)

    def answer(self, run, answer):
        def squeezed(x):
            self.seen.append((run.position.step, len(x), run.model.recomputes))
            short = len(x) > self.most or not (self.roomy or run.model.recomputes)
            if short and run.position.step >= self.from_step:
                if self.spoil:
                    answer(x)  # as far as a real pass comes before memory ends: statistics have moved
                raise self.error
            return answer(x)

        return squeezed


def run(folder, method, *, n=48, watch=None, **changes):
    recipe = small_recipe(
        **({"epochs": 1, "model": "convnext.pocket", "optimizer": "sgd", "lr": 0.05, "compile": "off"} | changes)
    )
    return loop.train(recipe, folder, data=small_data(n=n), watch=watch, method=method)


def close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=name)


def memory_reason(summary):
    return [each for each in summary.choices.reasons if each.about == "memory"]


def test_where_there_is_room_nothing_changes(tmp_path):
    summary = run(tmp_path / "run", Tight(roomy=True))
    assert (summary.choices.checkpointing, summary.choices.parts, memory_reason(summary)) == (False, 1, [])


@pytest.mark.parametrize("model", ["convnext.pocket", "resnet.pocket"])
def test_checkpointing_comes_first_and_changes_no_number(tmp_path, model):
    watch = StopAfter(10**9)
    summary = run(tmp_path / "tight", Tight(spoil=True), model=model, watch=watch)
    run(tmp_path / "roomy", Tight(roomy=True), model=model)
    assert (summary.choices.checkpointing, summary.choices.parts) == (True, 1)
    (reason,) = memory_reason(summary)
    assert (reason.chosen, reason.why) == (
        "checkpointing", "a batch of 16 images did not fit: activations are computed twice instead of kept"
    )  # fmt: skip
    assert watch.notes == [f"memory is short: {reason.why}"]
    assert same(tensors(tmp_path / "tight"), tensors(tmp_path / "roomy"))


@pytest.mark.parametrize(("most", "parts"), [(8, 2), (7, 4), (4, 4), (2, 8)])
def test_in_parts_the_update_is_that_of_the_whole_batch(tmp_path, most, parts):
    """ConvNeXt normalises each image by itself."""
    method, watch = Tight(most), StopAfter(10**9)
    summary = run(tmp_path / "tight", method, watch=watch)
    run(tmp_path / "roomy", Tight(roomy=True))
    assert (summary.choices.checkpointing, summary.choices.parts) == (True, parts)
    (reason,) = memory_reason(summary)
    assert (reason.chosen, reason.why) == (
        f"{parts} parts", f"a batch of 16 images did not fit: it is computed in {parts} parts, whose gradients are added up"
    )  # fmt: skip
    assert len(watch.notes) == 1 + {2: 1, 4: 2, 8: 3}[parts]
    close(tensors(tmp_path / "tight"), tensors(tmp_path / "roomy"))
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl")[0] for name in ("tight", "roomy"))
    assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
    assert (ours.train_accuracy, ours.step) == (theirs.train_accuracy, theirs.step)
    after = [n for step, n, _ in method.seen if step >= 1]
    assert max(after) <= most, "what did not fit once is not tried again"
    assert codec.read(RunSummary, tmp_path / "tight" / "summary.json").choices == summary.choices


def test_with_frozen_batchnorm_parts_change_nothing(tmp_path):
    for name, method in (("tight", Tight(4, still=True)), ("roomy", Tight(roomy=True, still=True))):
        run(tmp_path / name, method, model="resnet.pocket")
    close(tensors(tmp_path / "tight"), tensors(tmp_path / "roomy"))


def test_clipping_takes_the_norm_of_the_whole_batch(tmp_path):
    for name, method in (("tight", Tight(4)), ("roomy", Tight(roomy=True))):
        run(tmp_path / name, method, clip_grad=0.01, lr=1.0)
    close(tensors(tmp_path / "tight"), tensors(tmp_path / "roomy"))


@pytest.mark.parametrize("words", [CPU, "could not create a primitive", "could not create a memory object", "std::bad_alloc"])
def test_errors_of_a_processor_without_memory_count_too(tmp_path, words):
    assert run(tmp_path / "run", Tight(8, error=RuntimeError(words))).choices.parts == 2


def test_what_torchs_own_allocator_raises_is_known(tmp_path):
    """A process that is really short of memory dies now and then within libraries, so that one tensor too large must do."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert run(tmp_path / "run", Tight(8, error=caught.value)).choices.parts == 2


@pytest.mark.parametrize("from_step", [0, 2])
def test_statistics_of_a_pass_that_failed_are_put_back(tmp_path, from_step):
    """Also of one that fails later on, such as when a strategy opens more layers than it had."""
    run(tmp_path / "tight", Tight(spoil=True, from_step=from_step), model="resnet.pocket")
    run(tmp_path / "roomy", Tight(roomy=True), model="resnet.pocket")
    ours, theirs = tensors(tmp_path / "tight"), tensors(tmp_path / "roomy")
    buffers = [name for name in ours if "running" in name or "num_batches" in name]
    assert buffers
    close({name: ours[name] for name in buffers}, {name: theirs[name] for name in buffers})


def test_gradients_of_parts_that_fitted_before_one_did_not_are_not_counted_twice(tmp_path):
    class Late(Tight):
        """Of each batch in two parts the first one fits."""

        def answer(self, run, answer):
            inner = super().answer(run, answer)

            def late(x):
                if len(x) == 8 and [n for _, n, _ in self.seen].count(8):
                    raise self.error
                return inner(x)

            return late

    summary = run(tmp_path / "tight", Late(8))
    run(tmp_path / "roomy", Tight(roomy=True))
    assert summary.choices.parts == 4
    close(tensors(tmp_path / "tight"), tensors(tmp_path / "roomy"))


@pytest.mark.parametrize("left", [2, 3, 5, 7])
def test_a_small_last_batch_is_parted_into_as_many_as_it_has(tmp_path, weights, left):
    """In 8 parts of 2 images, a rest of 3 has no eight parts."""
    recipe, data = prepared(
        "full",
        weights["convnext.pocket"],
        photographs(n=16 + left),
        model="convnext.pocket",
        settings={"epochs": 1, "optimizer": "sgd", "lr": 0.01},
    )
    squeezed(tmp_path / "tight", recipe, data, most=3)
    tune(recipe, tmp_path / "roomy", data)
    close(tensors(tmp_path / "tight"), tensors(tmp_path / "roomy"))


def squeezed(folder, recipe, data, *, most, watch=None):
    """The recipe's own method, in a memory that holds `most` images."""
    method = method_of(recipe, data)
    own = method.answer

    def answer(run, given):
        whole = own(run, given)

        def tight(x):
            if len(x) > most or not run.model.recomputes:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(x)

        return tight

    method.answer = answer
    return loop.train(recipe, folder, data=data, method=method, watch=watch)


def test_fine_tuning_goes_on_with_less_memory(tmp_path, weights):
    recipe, data = prepared("full", weights["convnext.pocket"], model="convnext.pocket", settings={"epochs": 1}, mixup=0.5)
    summary = squeezed(tmp_path / "tight", recipe, data, most=4)
    assert summary.choices.parts == 4
    tune(recipe, tmp_path / "roomy", data)
    ours, theirs = tensors(tmp_path / "tight"), tensors(tmp_path / "roomy")
    for name in ours:  # AdamW's first steps go by the sign of a gradient, however small
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=2 * recipe.lr, msg=name)


@pytest.mark.parametrize("most", [1, 0])
def test_a_batch_that_cannot_be_parted_further_ends_the_run_with_advice(tmp_path, most):
    with pytest.raises(UserError, match=r"out of memory: convnext\.pocket with batches of 16 images\. Try --batch-size 8"):
        run(tmp_path / "run", Tight(most))
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert summary.status == "failed"
    assert (summary.choices.checkpointing, summary.choices.parts) == (True, 8)


def test_another_error_is_not_taken_for_short_memory(tmp_path):
    with pytest.raises(RuntimeError, match="something else"):
        run(tmp_path / "run", Tight(4, error=RuntimeError("something else")))


def test_a_run_goes_on_with_the_parts_it_has_come_to(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path / "cut", Tight(4), watch=StopAfter(2))
    kept = codec.read(RunSummary, tmp_path / "cut" / "summary.json")
    assert (kept.status, kept.choices.checkpointing, kept.choices.parts) == ("interrupted", True, 4)
    again = Tight(4)
    summary = loop.resume(tmp_path / "cut", data=small_data(n=48), method=again)
    assert [n for _, n, _ in again.seen] == [4] * 4, "nothing that is known not to fit is tried again"
    assert all(recomputes for *_, recomputes in again.seen)
    assert summary.choices.parts == 4
    run(tmp_path / "whole", Tight(4))
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "whole"))


def test_ordinary_training_fails_with_the_advice(tmp_path):
    class Ordinary(Tight):
        splits_batches = False

    with pytest.raises(UserError, match="out of memory: convnext.pocket with batches of 16 images. Try --batch-size 8"):
        run(tmp_path / "run", Ordinary(4))
    assert not codec.read(RunSummary, tmp_path / "run" / "summary.json").choices.checkpointing
    assert not Method.splits_batches


def test_fine_tuning_that_was_cut_off_goes_on_in_its_parts(tmp_path, weights):
    recipe, data = prepared("full", weights["convnext.pocket"], model="convnext.pocket", settings={"epochs": 1})
    with pytest.raises(Stopped):
        squeezed(tmp_path / "cut", recipe, data, most=8, watch=StopAfter(2))
    assert go_on(recipe, tmp_path / "cut", data).choices.parts == 2
