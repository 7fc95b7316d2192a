"""A result on other images: every one is counted where there are no splits, classes are matched by name, strangers refused."""

import shutil
from dataclasses import replace

import pytest
import torch.nn.functional as F

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.findings import Answers
from convatlas.records.run import Evaluation, RunSummary
from convatlas.training.apply import evaluate_run, predict_pictures
from convatlas.training.checkpoint import load_config, load_model, save_config
from convatlas.training.evaluate import predict_logits
from convatlas.transfer.judging import EVERYTHING, evaluate_on
from convatlas.transfer.plan import load_for_tuning, recipe_for, start_from

from ..cli.makers import picture_folder
from .makers import tune, weights_file


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A network that knows the three classes of the pictures beside it."""
    folder = tmp_path_factory.mktemp("judging")
    picture_folder(folder / "pets", each=12, size=40)
    start = start_from("resnet.pocket", weights_file(folder / "weights.safetensors"), image_size=32)
    data = load_for_tuning(str(folder / "pets"), start.preprocessing)
    settings = {"epochs": 2, "batch_size": 8, "precision": "fp32"}
    tune(recipe_for("full", "resnet.pocket", start, data, settings=settings), folder / "run", data)
    return folder


def test_all_images_of_a_folder_without_splits_are_judged_as_they_are_predicted(result, tmp_path):
    others = tmp_path / "others"
    picture_folder(others, each=5, size=64)
    found = evaluate_on(result / "run", str(others))
    pictures = sorted(others.rglob("*.png"))
    said = predict_pictures(result / "run", pictures, top=1)
    right = sum(each.classes[0] == path.parent.name for each, path in zip(said, pictures, strict=True))
    assert found.split == EVERYTHING and found.n == len(pictures) == 15
    assert found.top1 == pytest.approx(right / 15) and sum(map(sum, found.confusion)) == 15


def test_images_of_one_class_are_judged(result, tmp_path):
    """In a folder or in a list, and be it a single one: to train a classifier they would not do."""
    picture_folder(tmp_path / "all", each=3, size=40)
    name = sorted(path.name for path in (tmp_path / "all").iterdir())[1]
    shutil.copytree(tmp_path / "all" / name, tmp_path / "one" / name)
    whole, one = evaluate_on(result / "run", str(tmp_path / "all")), evaluate_on(result / "run", str(tmp_path / "one"))
    assert one.n == 3 and one.confusion[1] == whole.confusion[1] and sum(map(sum, one.confusion)) == 3
    first = sorted((tmp_path / "one").rglob("*.png"))[0]
    (tmp_path / "list.csv").write_text(f"path,label\n{first.relative_to(tmp_path)},{name}\n")
    assert evaluate_on(result / "run", str(tmp_path / "list.csv")).n == 1
    with pytest.raises(UserError, match="one class only"):
        load_for_tuning(str(tmp_path / "one"), load_config(result / "run").preprocessing)


def test_the_test_split_is_judged_where_there_is_one(result, tmp_path):
    picture_folder(tmp_path / "parted" / "train", each=4, size=40)
    picture_folder(tmp_path / "parted" / "test", each=3, size=40)
    found = evaluate_on(result / "run", str(tmp_path / "parted"))
    assert (found.split, found.n) == ("test", 9)


def test_a_look_at_the_runs_own_test_images_counts(result, tmp_path):
    picture_folder(tmp_path / "parted" / "train", each=6, size=40)
    picture_folder(tmp_path / "parted" / "test", each=3, size=40)
    start = start_from("resnet.pocket", weights_file(tmp_path / "weights.safetensors"), image_size=32)
    data = load_for_tuning(str(tmp_path / "parted"), start.preprocessing)
    settings = {"epochs": 1, "batch_size": 8, "precision": "fp32"}
    tune(recipe_for("full", "resnet.pocket", start, data, settings=settings), tmp_path / "run", data)
    before, notes = codec.read(RunSummary, tmp_path / "run" / "summary.json").test_looks, []
    evaluate_on(tmp_path / "run", str(tmp_path / "parted"), note=notes.append)
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").test_looks == before + 1
    assert f"looks at them so far: {before + 1}" in notes[-1]
    evaluate_on(result / "run", str(tmp_path / "parted"))  # another network's: nobody counts
    assert not (result / "run" / "test_looks.jsonl").exists()


def test_it_is_told_which_images_were_left_aside_and_which_the_network_knows(result, tmp_path):
    notes = []
    evaluate_on(result / "run", str(result / "pets"), note=notes.append)
    trained = codec.read(RunSummary, result / "run" / "summary.json").n_train
    assert notes == [f"note: the network was made with these images, and trained on {trained} of them: that flatters the figures"]
    notes.clear()
    picture_folder(tmp_path / "parted" / "train", each=4, size=40)
    picture_folder(tmp_path / "parted" / "test", each=3, size=40)
    evaluate_on(result / "run", str(tmp_path / "parted"), note=notes.append)
    assert notes == ["judged are the 9 test images; the 12 of training and validation are left aside"]
    notes.clear()
    picture_folder(tmp_path / "new", each=4, size=44)
    evaluate_on(result / "run", str(tmp_path / "new"), note=notes.append)
    assert notes == []


def test_confidences_and_loss_are_those_of_the_probabilities_that_are_predicted(result, tmp_path):
    """`answers.json` once had another probability for an image than `predict`: without the temperature."""
    run = shutil.copytree(result / "run", tmp_path / "run")
    save_config(run, replace(load_config(run), temperature=3.0))
    data = load_for_tuning(str(result / "pets"), load_config(run).preprocessing)
    outcome = evaluate_run(run, data=data, split="test")
    answers = codec.read(Answers, run / "answers.json")
    said = predict_pictures(run, [result / "pets" / name for name in data.split["test"]], top=3)
    assert [each.probabilities[0] for each in said] == pytest.approx(answers.confidence, abs=1e-5)
    model, config = load_model(run)
    logits = predict_logits(model, data.test, mean=config.mean, std=config.std, size=config.image_size)
    assert outcome.loss == pytest.approx(F.cross_entropy(logits / 3, data.test.labels).item(), rel=1e-5)


def test_classes_are_matched_by_name(result, tmp_path):
    """With the first class missing, labels of the folder are not those of the network."""
    others = tmp_path / "others"
    picture_folder(others, each=6, size=40)
    whole = evaluate_on(result / "run", str(others))
    first = min(folder.name for folder in others.iterdir())
    (others / first).rename(tmp_path / "aside")
    part = evaluate_on(result / "run", str(others))
    place = whole.classes.index(first)
    assert part.classes == whole.classes and part.confusion[place] == (0,) * len(whole.classes)
    assert [row for i, row in enumerate(part.confusion) if i != place] == [
        row for i, row in enumerate(whole.confusion) if i != place
    ]


def test_a_class_that_it_does_not_know_is_refused(result, tmp_path):
    picture_folder(tmp_path / "others", each=4, size=40)
    next((tmp_path / "others").iterdir()).rename(tmp_path / "others" / "zebra")
    with pytest.raises(UserError, match="does not know the class zebra. It knows "):
        evaluate_on(result / "run", str(tmp_path / "others"))


def test_grey_images_for_a_network_of_colours_are_refused(result):
    with pytest.raises(UserError, match="the images have 1 channels, and the network takes 3"):
        evaluate_on(result / "run", "digits")


def test_the_command(result, tmp_path):
    from ..cli.zygote import command

    (tmp_path / "work").mkdir()
    picture_folder(tmp_path / "work" / "others", each=4, size=40)
    done = command("eval", result / "run", "others", "--json", folder=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    found = codec.from_text(Evaluation, done.stdout, where="the command")
    assert found.top1 == evaluate_on(result / "run", str(tmp_path / "work" / "others")).top1
    refused = command("eval", result / "run", "others", "--split", "val", folder=tmp_path / "work")
    assert refused.returncode == 2 and "--split is for the data that the run was made with" in refused.stderr
