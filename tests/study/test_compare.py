import json

import pytest

from convatlas.errors import StorageError, UserError
from convatlas.records import codec
from convatlas.records.study import Comparison
from convatlas.study.compare import Plan, begin, check_plan, read_runs, run_comparison, run_name, summarise
from convatlas.training.outcome import Stopped

from ..training.makers import StopAfter, small_data, small_recipe


def small_plan(**changes):
    recipe = small_recipe(epochs=1, **changes)
    return Plan("test", "2026-01-01", "convatlas compare", ("lenet.pocket", "resnet.pocket"), (0, 1), recipe)


def run(folder, data, watch=None):
    heard = []
    run_comparison(folder, data=data, watch=watch or StopAfter(10**9), each=heard.append)
    return heard


def test_every_model_and_seed_is_run_once_and_looked_at_once(tmp_path):
    data, plan, folder = small_data(), small_plan(), tmp_path / "c"
    check_plan(plan, data)
    begin(plan, folder)
    heard = run(folder, data)
    assert [(s.model, s.seed, s.test_looks) for s in heard] == [
        ("lenet.pocket", 0, 1),
        ("resnet.pocket", 0, 1),
        ("lenet.pocket", 1, 1),
        ("resnet.pocket", 1, 1),
    ]
    comparison = summarise(folder, data=data)
    assert comparison.complete
    assert [row.model for row in comparison.rows] == ["lenet.pocket", "resnet.pocket"]
    for row in comparison.rows:
        assert row.accuracy.mean == pytest.approx(sum(row.accuracies) / 2)
        assert row.accuracy.n == 2
        assert row.images_seen == 96
        assert all((folder / name / "test.json").exists() for name in row.runs)
    assert codec.from_text(Comparison, codec.to_text(comparison), where="x") == comparison
    assert [s.test_looks for s in run(folder, data)] == [1, 1, 1, 1], "running it again makes and looks at nothing"


def test_stopped_and_run_again_makes_only_what_is_missing(tmp_path):
    data = small_data()
    begin(small_plan(), tmp_path / "whole")
    run(tmp_path / "whole", data)
    begin(small_plan(), tmp_path / "cut")
    for steps in (3, 8, 2):
        with pytest.raises(Stopped):
            run(tmp_path / "cut", data, StopAfter(steps))
        assert not summarise(tmp_path / "cut", data=data).complete
    run(tmp_path / "cut", data)
    whole, cut = (summarise(tmp_path / name, data=data) for name in ("whole", "cut"))
    assert cut.complete
    assert [row.accuracies for row in cut.rows] == [row.accuracies for row in whole.rows]


def test_a_run_that_was_cut_off_before_its_recipe_is_begun_anew(tmp_path):
    plan, data = small_plan(), small_data()
    begin(plan, tmp_path / "c")
    (tmp_path / "c" / run_name(next(iter(plan.recipes())))).mkdir(parents=True)
    assert all(s.status == "finished" for s in run(tmp_path / "c", data))


def test_one_failed_model_does_not_stop_the_others(tmp_path):
    data, plan = small_data(), small_plan(optimizer="sgd", lr=1e6, clip_grad=0.0, warmup=0.0)
    begin(plan, tmp_path / "c")
    watch = StopAfter(10**9)
    run(tmp_path / "c", data, watch)
    rows = {row.model: row for row in summarise(tmp_path / "c", data=data).rows}
    failed = [row for row in rows.values() if row.accuracy is None]
    assert failed, "a learning rate of a million breaks at least one network"
    assert all("the loss became" in row.cause for row in failed)
    assert any("failed: the loss became" in note for note in watch.notes)
    assert len(read_runs(tmp_path / "c")) == 4


def test_a_full_disk_stops_all_and_the_run_goes_on_once_there_is_room(tmp_path, monkeypatch):
    data, folder = small_data(), tmp_path / "c"
    begin(small_plan(), folder)

    def full(*args):
        raise StorageError("the disk is full", fix="Make room.")

    monkeypatch.setattr("convatlas.training.checkpoint.save_state", full)
    with pytest.raises(StorageError):
        run(folder, data)
    assert [r.summary.status for r in read_runs(folder).values()] == ["interrupted"]
    monkeypatch.undo()
    run(folder, data)
    assert summarise(folder, data=data).complete


@pytest.mark.parametrize(
    ("models", "seeds", "said"),
    [
        (("resnet.pocket", "resnet.pocket"), (0,), "resnet.pocket stands twice in --models"),
        (("resnet.pocket",), (1, 1), "1 stands twice in --seeds"),
        ((), (0,), "no models to compare"),
        (("vgg16",), (0,), "do not fit vgg16"),
    ],
)
def test_plans_that_cannot_be_are_refused_before_anything_is_made(tmp_path, models, seeds, said):
    plan = Plan("test", "2026-01-01", "", models, seeds, small_recipe())
    with pytest.raises(UserError, match=said):
        check_plan(plan, small_data(size=8))


def test_a_comparison_folder_is_never_written_over(tmp_path):
    begin(small_plan(), tmp_path / "c")
    with pytest.raises(UserError, match="exists already"):
        begin(small_plan(), tmp_path / "c")
    assert json.loads((tmp_path / "c" / "plan.json").read_text())["models"] == ["lenet.pocket", "resnet.pocket"]
