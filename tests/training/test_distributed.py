"""Two processes train as one does. Run as a module, this file is one of the two processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Recipe, RunSummary, read_metrics
from convatlas.training import distributed
from convatlas.training.checkpoint import load_model, load_state
from convatlas.training.distributed import World, check_shared, joined, shared_choices
from convatlas.training.engine import choose
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.prepare import network_for

from .makers import StopAfter, small_data, small_recipe

ROOT = Path(__file__).parent.parent.parent
SGD = {"optimizer": "sgd", "lr": 0.001, "epochs": 2}
"""Slow enough that rounding is not blown up: at ten times the rate another memory layout alone moves losses by 1e-3."""
AS_ONE = {
    "lenet": {"model": "lenet.pocket", **SGD},
    "batchnorm": {"model": "resnet.pocket", "sync_batchnorm": True, **SGD, "epochs": 1},
    "norms without scale": {"model": "compact300k", "sync_batchnorm": True, "ema": 0.9, **SGD, "epochs": 1},
    "mixed": {"model": "lenet.pocket", "augment": "rand", "mixup": 0.4, "cutmix": 1.0, **SGD},
    "muon": {"model": "lenet.pocket", "optimizer": "muon", "lr": 0.002, "epochs": 2, "clip_grad": 0.0},
}
APART = {"model": "resnet.pocket", "epochs": 6, "lr": 0.01}
BROKEN = {"model": "efficientnet.pocket", "ema": 0.9, "epochs": 2}
"""Dropout, BatchNorm and an average: all that processes have of their own."""
DIGITS = ("train", "lenet.pocket", "--data", "digits", "--image-size", "32", "--precision", "fp32")


def run_all(folder):
    """What each of the two processes does: every run of this file, one after the other."""
    torch.set_num_threads(1)
    with joined() as world:
        for name, changes in AS_ONE.items():
            train(small_recipe(**changes), folder / name, data=small_data(), world=world)
        train(small_recipe(**APART), folder / "apart", data=small_data(), world=world)
        train(small_recipe(**BROKEN), folder / "whole", data=tiny(), world=world)
        # Only the second process is asked to stop.
        stop_broken(folder / "cut", world, StopAfter(4 if world.rank else 10**9))
        resume(folder / "cut", data=tiny(), world=world)
        stop_broken(folder / "left", world, StopAfter(9))
    os._exit(0)


def tiny():
    """Images of 16 pixels: what a run that was stopped holds does not depend on their size."""
    return small_data(size=16)


def stop_broken(folder, world, watch):
    try:
        train(small_recipe(**BROKEN), folder, data=tiny(), watch=watch, world=world)
    except Stopped:
        return
    raise AssertionError("the run did not stop")


def environment(**changes):
    wanted = ("PATH", "HOME", "LANG", "XDG_CACHE_HOME")
    kept = {key: value for key, value in os.environ.items() if key in wanted or key.startswith("COVERAGE_")}
    return {**kept, "OMP_NUM_THREADS": "1", **changes}


def torchrun(*words, processes=2):
    """A started torchrun whose processes run the module that `words` begin with."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen([*map(str, command)], cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True)


def ended(process):
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, out, err


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs of two processes."""
    folder = tmp_path_factory.mktemp("two")
    code, _, said = ended(torchrun("tests.training.test_distributed", folder))
    assert code == 0, said
    return folder


def outcome(folder):
    """What a run measured, without what a clock decides."""
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in vars(m).items() if k not in timed} for m in read_metrics(folder / "metrics.jsonl")]


def weights(folder):
    return load_model(folder)[0].state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", AS_ONE)
def test_two_processes_are_one_to_rounding(runs, tmp_path, name):
    train(small_recipe(**AS_ONE[name]), tmp_path / "one", data=small_data())
    for one, two in zip(outcome(tmp_path / "one"), outcome(runs / name), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    one, two = weights(tmp_path / "one"), weights(runs / name)
    assert list(one) == list(two)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.slow
def test_processes_with_batchnorms_of_their_own_learn(runs):
    metrics = read_metrics(runs / "apart" / "metrics.jsonl")
    assert metrics[-1].train_loss < 0.8 * metrics[0].train_loss
    assert metrics[-1].val_accuracy > 0.5
    assert [m.images_seen for m in metrics] == [96 * i for i in range(1, 7)]
    assert codec.read(RunSummary, runs / "apart" / "summary.json").choices.processes == 2


@pytest.mark.slow
def test_stopped_and_resumed_is_the_unbroken_run(runs):
    assert outcome(runs / "cut") == outcome(runs / "whole")
    one, two = weights(runs / "whole"), weights(runs / "cut")
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_each_process_keeps_what_is_its_own(runs):
    state = load_state(runs / "left", note=print)
    (other,) = state["others"]
    assert not torch.equal(other["random"], state["random"]), "both would drop the same units"
    name = next(name for name in other["buffers"][0] if name.endswith("running_mean"))
    assert not torch.equal(other["buffers"][0][name], state["model"][name])
    assert other["loss_sum"] != state["position"]["loss_sum"]


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_says_so(runs):
    watch = StopAfter(10**9)
    summary = resume(runs / "left", data=tiny(), watch=watch)
    assert watch.notes == ["not bit-exact: processes 2 -> 1"]
    assert (summary.status, summary.choices.processes, summary.images_seen) == ("finished", 1, 192)
    # The sums of both processes count: of only one, the loss of the epoch would be well below.
    whole, here = (read_metrics(folder / "metrics.jsonl")[1] for folder in (runs / "whole", runs / "left"))
    assert here.train_loss == pytest.approx(whole.train_loss, rel=0.1)


def choices_for(recipe, world):
    with torch.device("meta"):
        network = network_for(recipe.model, small_data(), size=32)
    return shared_choices(choose(recipe, network), world)


@pytest.mark.parametrize(
    ("changes", "images", "said"),
    [
        ({"minutes": 1.0}, 96, "the budget is in minutes, and 4 processes have 4 clocks. Give --epochs."),
        ({}, 3, "there are 4 processes and 3 training images. Start 3 processes or fewer."),
        ({"batch_size": 18}, 96, "batches of 18 images cannot be shared by 4 processes. Give --batch-size 16, or another"),
        ({"batch_size": 4}, 96, "4 processes have one image each of a batch of 4, and BatchNorm needs two"),
        ({"compile": "on", "sync_batchnorm": True}, 96, "synchronised BatchNorm cannot be compiled"),
    ],
)
def test_what_processes_cannot_share_is_refused(changes, images, said):
    recipe, world = small_recipe(**changes), World(1, 4)
    choices = choices_for(recipe, world)
    with pytest.raises(UserError, match=re.escape(said)):
        check_shared(recipe, choices, images=images, world=world)
    check_shared(recipe, choices, images=images, world=World())


def test_synchronised_batchnorm_takes_one_image_each():
    recipe, world = small_recipe(batch_size=4, sync_batchnorm=True), World(1, 4)
    check_shared(recipe, choices_for(recipe, world), images=96, world=world)


def test_the_number_of_processes_stands_among_the_choices():
    choices = choices_for(small_recipe(), World(1, 4))
    assert choices.processes == 4
    assert [reason.chosen for reason in choices.reasons if reason.about == "processes"] == ["4"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--batch-size", "127"),
        pytest.param(("--minutes", "1"), marks=pytest.mark.untraced),
        pytest.param(("--batch-size", "many"), marks=pytest.mark.untraced),
    ],
)
def test_bad_input_is_said_once_and_nothing_is_written(tmp_path, words):
    code, out, said = ended(torchrun("convatlas", *DIGITS, *words, "--out", tmp_path / "run"))
    assert len(errors(said)) == 1, said
    assert "convatlas.cli.main.Terminated" not in said
    assert re.search(r"rank +: 0 .*\n +exitcode +: 2 ", said), said
    assert (code, out) == (1, "")  # torchrun's own code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["compare", "look", "eval"])
def test_other_commands_are_refused_under_torchrun(tmp_path, command):
    many = environment(RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")
    done = subprocess.run([sys.executable, "-m", "convatlas", command], cwd=tmp_path, env=many, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    said = f"error: `convatlas {command}` is the work of one process, and torchrun started 2. Leave torchrun out; only"
    assert done.stderr.startswith(said), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_exploding_loss_ends_all_with_its_step(tmp_path):
    words = ["--optimizer", "sgd", "--lr", "1e6", "--clip-grad", "0", "--warmup", "0", "--out", tmp_path / "run"]
    _, _, said = ended(torchrun("convatlas", "train", "vgg.pocket", *DIGITS[2:], "--batch-size", "16", *words))
    (line,) = errors(said)
    assert re.search(r"the loss became \w+ at step \d+ \(epoch 1\)", line), said
    summary = codec.read(RunSummary, tmp_path / "run" / "summary.json")
    assert (summary.status, f"error: {summary.cause}") == ("failed", line)


def started(folder, process):
    """Wait until the run's first epoch is done."""
    deadline = time.monotonic() + 200
    while not (folder / "metrics.jsonl").exists() or not read_metrics(folder / "metrics.jsonl"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(dict(e.split("=", 1) for e in environ(child) if "=" in e).get("RANK", -1)): int(child) for child in children}


def environ(pid):
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


def test_what_nccl_failed_at_is_told(monkeypatch):
    """Such as two processes on one GPU, which a version of it refuses."""
    monkeypatch.setattr(distributed, "REASON_WITHIN", timedelta(milliseconds=10))
    error = dist.DistBackendError(
        "NCCL error in: NCCLUtils.cpp:94, invalid usage\nLast error:\nDuplicate GPU detected : rank 0\n"
    )
    said = "another process has ended, or NCCL failed: Duplicate GPU detected : rank 0. Give NCCL_DEBUG=WARN to be told more."
    with pytest.raises(UserError, match=re.escape(said)), World(0, 2, dist.HashStore()).heard():
        raise error


@pytest.mark.slow
def test_a_signal_stops_all_after_the_same_step_and_the_run_goes_on(tmp_path):
    process = torchrun("convatlas", *DIGITS, "--epochs", "500", "--out", tmp_path / "run")
    started(tmp_path / "run", process)
    process.send_signal(signal.SIGTERM)
    _, _, said = ended(process)
    assert said.count("stopped; what is done is kept") == 1, said
    assert "Traceback" not in said.split("stopped; what")[0]
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").status == "interrupted"
    assert len(load_state(tmp_path / "run", note=print)["others"]) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found in /proc")
def test_a_killed_process_ends_all_with_a_line(tmp_path):
    process = torchrun("convatlas", *DIGITS, "--epochs", "500", "--out", tmp_path / "run")
    started(tmp_path / "run", process)
    os.kill(workers(process)[1], signal.SIGKILL)
    begun = time.monotonic()
    _, _, said = ended(process)
    assert time.monotonic() - begun < 30
    assert errors(said) == ["error: another process has ended. If it was killed, torchrun says so; go on with --resume."], said
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").status == "failed"
    assert codec.read(Recipe, tmp_path / "run" / "recipe.json").model == "lenet.pocket"


@pytest.mark.slow
@pytest.mark.untraced  # who is killed writes no lines down
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found in /proc")
def test_with_torchrun_killed_nobody_goes_on_alone(tmp_path):
    process = torchrun("convatlas", *DIGITS, "--epochs", "5000", "--out", tmp_path / "run")
    started(tmp_path / "run", process)
    orphans = workers(process)
    assert len(orphans) == 2
    process.kill()
    deadline = time.monotonic() + 60
    while any(running(pid) for pid in orphans.values()):
        assert time.monotonic() < deadline, "orphans go on"
        time.sleep(0.1)
    process.communicate()
    # The processes' store dies with torchrun: who asks it for something at that moment has failed, and was not interrupted.
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").status in ("interrupted", "failed")


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


TEN_TIMES = """
import os, sys
import sklearn.datasets, torch._dynamo  # once, for all that are forked
from convatlas.cli import working
from convatlas.cli.main import main
from convatlas.training import loop
rank, folder, *ports = sys.argv[1:]
for i, port in enumerate(ports):
    child = os.fork()
    if child == 0:
        os.environ["MASTER_PORT"] = port
        sys.argv = ["convatlas", *WORDS, "--out", f"{folder}/{i}"]
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
@pytest.mark.untraced  # ten times what other tests do once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks spare twenty starts of Python")
def test_ten_runs_in_a_row_end_cleanly(tmp_path):
    script = TEN_TIMES.replace("WORDS", repr([*DIGITS, "--epochs", "1", "--batch-size", "640"]))
    ports, pipe = free_ports(10), subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), tmp_path, *ports],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1"),
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for rank in (0, 1)
    ]
    (_, first, said), (_, second, more) = (ended(process) for process in processes)
    assert re.findall(r"^-?\d+$", first, re.MULTILINE) == ["0"] * 10, said
    assert re.findall(r"^-?\d+$", second, re.MULTILINE) == ["0"] * 10, more
    # Where no names can be looked up (no network), torch itself warns of it, once a run.
    ours = re.sub(r"^\[W\S+ \S+ socket\.cpp:\d+\] .*hostname.*\n", "", more, flags=re.MULTILINE)
    assert (ours, second.replace("0\n", "")) == ("", ""), "only the first process speaks"
    assert sorted(path.name for path in tmp_path.glob("*/model.safetensors")) == ["model.safetensors"] * 10


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
