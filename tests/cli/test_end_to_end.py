"""The command line on real work: compare, train, stop, go on, judge, predict."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convatlas.records import storage

from .makers import convatlas, environment, picture_folder
from .zygote import command

DIGITS = ["--data", "digits", "--image-size", "32"]
SMALL = ["--models", "lenet.pocket,alexnet.pocket", "--epochs", "1", *DIGITS]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One comparison that all tests of its files read."""
    folder = tmp_path_factory.mktemp("compared")
    result = command("compare", *SMALL, "--seeds", "2", "--out", "c", "--json", folder=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_compare_writes_its_three_files(compared):
    folder, result = compared
    said = json.loads(result.stdout)
    kept = json.loads((folder / "c" / "results.json").read_text())
    assert {key: said[key] for key in kept} == kept
    assert kept["complete"]
    assert [row["model"] for row in kept["rows"]] == ["lenet.pocket", "alexnet.pocket"]
    with (folder / "c" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["seed"]) for r in rows] == [(m, s) for m in ("lenet.pocket", "alexnet.pocket") for s in "01"]
    for row in rows:
        test = json.loads((folder / "c" / row["run_folder"] / "test.json").read_text())
        assert float(row["test_accuracy"]) == pytest.approx(test["top1"])
    page = (folder / "c" / "report.html").read_text()
    assert "LeNet-5" in page
    assert "AlexNet" in page


def test_compare_says_one_plain_line_an_epoch(compared):
    _, result = compared
    lines = [line for line in result.stderr.splitlines() if "epoch 1/1" in line]
    assert len(lines) == 4
    assert all(re.search(r"loss \d.*accuracy .*images/s.*validation", line) for line in lines)
    assert "\x1b" not in result.stderr


def test_report_is_made_anew_without_torch(compared):
    folder, _ = compared
    before = (folder / "c" / "report.html").read_text()
    (folder / "c" / "report.html").unlink()
    (folder / "blocked").mkdir(exist_ok=True)
    (folder / "blocked" / "torch.py").write_text("raise ImportError('no torch on this machine')")
    result = convatlas("report", "c", folder=folder, PYTHONPATH=str(folder / "blocked"))
    assert result.returncode == 0, result.stderr
    assert (folder / "c" / "report.html").read_text() == before


def test_nothing_of_this_machine_stands_in_the_results(compared):
    folder, _ = compared
    for path in (folder / "c").rglob("*"):
        if path.suffix in (".json", ".jsonl", ".html", ".csv"):
            text = path.read_text()
            assert str(folder) not in text, path
            assert os.path.expanduser("~") + "/" not in text, path


@pytest.mark.untraced  # long, and other tests reach its lines
def test_the_command_in_the_report_makes_the_same_again(compared):
    folder, _ = compared
    first = json.loads((folder / "c" / "results.json").read_text())
    words = first["command"].split()[1:]
    result = command(*words, "--out", "again", "--json", folder=folder)
    assert result.returncode == 0, result.stderr
    second = json.loads(result.stdout)
    assert [row["accuracies"] for row in second["rows"]] == [row["accuracies"] for row in first["rows"]]


def test_train_eval_predict_on_own_pictures(tmp_path):
    root = picture_folder(tmp_path / "pictures", each=20)
    words = [
        "--data",
        "folder",
        "--data-root",
        root,
        "--epochs",
        "12",
        "--batch-size",
        "8",
        "--image-size",
        "32",
        "--lr",
        "0.003",
    ]
    made = command("train", "lenet5", *words, "--validation", "0.3", "--out", "run", "--json", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["status"] == "finished"
    assert "no splits: parted 55/30/15 into train, val and test; 33 training, 18 validation, 9 test images" in made.stderr
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["parted"] == 0.3
    assert json.loads(command("eval", "run", "--split", "val", "--json", folder=tmp_path).stdout)["n"] == 18
    assert (tmp_path / "run" / "split.json").exists()
    # The data's place is remembered by the cache, not by the run folder.
    judged = command("eval", "run", "--split", "test", "--json", folder=tmp_path)
    assert judged.returncode == 0, judged.stderr
    outcome = json.loads(judged.stdout)
    assert outcome["top1"] > 0.9
    assert outcome["n"] == sum(map(sum, outcome["confusion"]))
    assert "looks at the test split so far: 2" in command("eval", "run", "--split", "test", folder=tmp_path).stderr
    picture = root / "bee" / "5.png"
    predicted = json.loads(command("predict", "run", picture, "--json", folder=tmp_path).stdout)
    assert predicted[0]["classes"][0] == "bee"
    assert sum(predicted[0]["probabilities"]) == pytest.approx(1.0, abs=1e-4)


def test_strong_augmentation_stands_in_the_recipe(tmp_path):
    words = ["--augment", "trivial", "--mixup", "0.2", "--cutmix", "1", "--validation", "0.2"]
    result = command("train", "lenet.pocket", "--data", "shapes", "--epochs", "1", *words, "--out", "strong", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    recipe = json.loads((tmp_path / "strong/recipe.json").read_text())
    assert (recipe["augment"], recipe["mixup"], recipe["cutmix"]) == ("trivial", 0.2, 1.0)
    (metrics,) = map(json.loads, (tmp_path / "strong/metrics.jsonl").read_text().splitlines())
    assert 0 < metrics["train_loss"] < 3


def test_eval_without_its_data_says_how_to_give_it(tmp_path):
    root = picture_folder(tmp_path / "pictures")
    words = ["--data", "folder", "--data-root", root, "--epochs", "1", "--batch-size", "8", "--image-size", "32"]
    assert command("train", "lenet5", *words, "--out", "run", folder=tmp_path).returncode == 0
    lost = command("eval", "run", folder=tmp_path, XDG_CACHE_HOME=str(tmp_path / "elsewhere"))
    assert lost.returncode == 2
    assert "--data-root" in lost.stderr
    (root / "ant" / "0.png").unlink()
    changed = command("eval", "run", "--data-root", root, folder=tmp_path)
    assert changed.returncode == 2
    assert "was made with other data" in changed.stderr


def begin(folder, *words):
    command = [Path(sys.executable).parent / "convatlas", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(folder), start_new_session=True, **pipes)


def wait_for(path, process, lines):
    """Until the file has so many lines, or the process has ended."""
    for _ in range(600):
        if process.poll() is not None or (path.exists() and path.read_text().count("\n") >= lines):
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never had {lines} lines")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.untraced)]
)
def test_a_stopped_training_goes_on(tmp_path, number, code):
    process = begin(tmp_path, "train", "lenet.pocket", *DIGITS, "--epochs", "20", "--out", "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", process, 2)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "Go on with: convatlas train --resume run" in err
    recipe = tmp_path / "run" / "recipe.json"
    sound = recipe.read_text()
    recipe.write_text(sound.replace('"epochs": 20', '"epochs": 5'))
    refused = command("train", "--resume", "run", folder=tmp_path)
    assert refused.returncode == 2
    assert "recipe.json was changed since the state was saved: epochs 20 -> 5" in refused.stderr
    recipe.write_text(sound)
    result = command("train", "--resume", "run", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 20


@pytest.mark.untraced  # long, and other tests reach its lines
def test_a_resumed_run_has_the_threads_that_it_began_with(tmp_path):
    process = begin(tmp_path, "train", "lenet.pocket", *DIGITS, "--epochs", "20", "--threads", "1", "--out", "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", process, 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    result = convatlas("train", "--resume", "run", folder=tmp_path, OMP_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr
    assert "not bit-exact" not in result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["choices"]["threads"] == 1


@pytest.mark.untraced  # long, and other tests reach its lines
def test_a_training_to_which_nobody_listens_any_more_goes_on(tmp_path):
    words = "train lenet.pocket --data digits --image-size 32 --epochs 4 --explain --out run"
    command = f"{sys.executable} -m convatlas {words} 2>&1 | head -1"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=120)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"


DEAF = """
import signal, sys
from pathlib import Path
from convatlas.cli.working import watching
with watching(1, Path("run"), "go on"):
    print("ready", flush=True)
    while True:
        try:
            signal.pause()
        except BaseException:
            pass  # as compilers do
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.untraced)]
)
def test_a_second_signal_ends_also_what_is_deaf_to_it(tmp_path, number, code):
    with subprocess.Popen(
        [sys.executable, "-c", DEAF], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(number)
        begun = time.monotonic()
        assert process.wait(timeout=30) in (code, -number)
        assert time.monotonic() - begun < 10


@pytest.mark.untraced  # long, and other tests reach its lines
def test_a_killed_training_goes_on_to_the_same_result(tmp_path):
    whole = command("train", "alexnet.pocket", *DIGITS, "--epochs", "5", "--threads", "1", "--out", "whole", folder=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = begin(tmp_path, "train", "alexnet.pocket", *DIGITS, "--epochs", "5", "--threads", "1", "--out", "cut")
    wait_for(tmp_path / "cut" / "metrics.jsonl", process, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    resumed = command("train", "--resume", "cut", "--threads", "1", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_stopped_comparison_keeps_what_is_finished_and_goes_on(tmp_path):
    models = "lenet.pocket,alexnet.pocket,lenet5"
    process = begin(tmp_path, "compare", "--models", models, *DIGITS, "--epochs", "3", "--threads", "2", "--out", "c")
    for _ in range(600):
        if process.poll() is not None or (tmp_path / "c/runs/alexnet.pocket-seed0/summary.json").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Go on with: convatlas compare --resume c" in err
    partial = json.loads((tmp_path / "c" / "results.json").read_text())
    assert not partial["complete"]
    assert partial["rows"][0]["accuracy"] is not None
    assert "convatlas compare --resume c" in (tmp_path / "c" / "report.html").read_text()
    again = command("compare", "--resume", "c", "--json", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "not bit-exact" not in again.stderr
    said = json.loads(again.stdout)
    assert said["complete"]
    begun = [json.loads(each.read_text())["choices"]["threads"] for each in (tmp_path / "c" / "runs").glob("*/summary.json")]
    assert begun == [2, 2, 2], "runs that had not begun have as many as the first"
    assert said["rows"][0]["accuracy"] == partial["rows"][0]["accuracy"]


def test_a_comparison_in_use_is_refused_and_left_alone(compared):
    folder, _ = compared
    before = (folder / "c" / "results.json").stat().st_mtime_ns
    with storage.held(folder / "c"):
        result = command("compare", "--resume", "c", folder=folder)
    assert result.returncode == 2
    assert f"c is in use by process {os.getpid()}" in result.stderr
    assert (folder / "c" / "results.json").stat().st_mtime_ns == before


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """The state of a run is made not to fit, as a full disk would."""
    code = (
        "import errno, os, sys\n"
        "from convatlas.records import storage\n"
        "real = storage.write_bytes\n"
        "def write(path, content):\n"
        "    if path.suffix != '.pt': return real(path, content)\n"
        "    with storage.explained(path): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "storage.write_bytes = write\n"
        "from convatlas.cli.main import main\n"
        "sys.argv = ['convatlas', 'train', 'lenet.pocket', '--data', 'digits', '--image-size', '32', '--epochs', '1', '--out', 'run']\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 2, result.stderr
    assert "error: the disk is full: run/state-1.pt" in result.stderr
    assert "Traceback" not in result.stderr
    resumed = command("train", "--resume", "run", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
