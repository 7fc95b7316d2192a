"""The real engines: processes of this machine, and a Ray cluster of two machines that are made up on this one."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from convatlas.errors import UserError
from convatlas.records import storage
from convatlas.study.engines import Local, Means, engine_called, ordered
from convatlas.study.folder import Job, jobs_of, read_plan
from convatlas.study.progress import states_of

from .small import records, until

PLAN = """
question: Which learning rate?
recipe: {data: digits, epochs: 1, batch_size: 64, precision: fp32}
model: {family: resnet, depths: [1, 1, 1], width: 0.25}
factors: {lr: [1e-3, 1e-2]}
seeds: 1
"""


def convatlas(*words, folder, **changes):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "convatlas", "study", *map(str, words)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **changes
    )


def done(process, seconds=240):
    out, said = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return out, said


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A study that this machine has made, by the command."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "plan.yaml").write_text(PLAN)
    out, said = done(convatlas("run", "plan.yaml", "--no-measure", "--out", "s", folder=folder))
    return folder, out, said


@pytest.mark.slow
def test_the_command_makes_runs_and_a_report_of_four_files(local):
    folder, out, said = local
    assert len(re.findall(r"^finished  lr=0\.0\d+, seed 0: [\d.]+% on test$", said, re.MULTILINE)) == 2, said
    assert {"report.html", "report.md", "results.csv", "findings.json", "plan.json"} <= {p.name for p in (folder / "s").iterdir()}
    assert "covers" in out or "images" in out, "with one seed it is said what the interval covers"
    findings = json.loads((folder / "s" / "findings.json").read_text())
    assert findings["complete"]
    out, _ = done(convatlas("status", "s", folder=folder))
    assert "2 of 2 runs done" in out


@pytest.mark.slow
@pytest.mark.untraced
def test_a_command_that_is_killed_leaves_no_process_and_goes_on(local, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN.replace("epochs: 1", "epochs: 40"))
    process = convatlas("run", "plan.yaml", "--no-measure", "--out", "s", folder=tmp_path)
    until(lambda: (tmp_path / "s" / "plan.json").exists() and any(s.state == "running" for s in states_of(tmp_path / "s")), 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    plan = read_plan(tmp_path / "s")
    until(lambda: not any(storage.is_held(tmp_path / "s" / job.claim) for job in jobs_of(plan)), 60)
    assert {state.state for state in states_of(tmp_path / "s")} <= {"interrupted", "waiting", "done"}


@pytest.mark.slow
def test_ctrl_c_stops_every_run_and_says_how_to_go_on(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN.replace("epochs: 1", "epochs: 400"))
    process = convatlas("run", "plan.yaml", "--no-measure", "--out", "s", folder=tmp_path)
    until(lambda: (tmp_path / "s" / "plan.json").exists() and any(s.state == "running" for s in states_of(tmp_path / "s")), 120)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "Go on with: convatlas study resume s" in said
    assert "Traceback" not in said
    plan = read_plan(tmp_path / "s")
    assert not any(storage.is_held(tmp_path / "s" / job.claim) for job in jobs_of(plan))


CLUSTER = """
import subprocess, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
code = subprocess.run([sys.executable, "-m", "convatlas", "study", "run", "plan.yaml", "--engine", "ray", "--address",
                       cluster.address, "--no-measure", "--out", "s"]).returncode
cluster.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_ray_cluster_of_two_machines_makes_the_same_records(local, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "plan.yaml").write_text(PLAN)
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "RAY_USAGE_STATS_ENABLED": "0",
        "XDG_CACHE_HOME": str(tmp_path / "c"),
    }
    result = subprocess.run(
        [sys.executable, "-c", CLUSTER], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=380
    )
    assert result.returncode == 0, result.stderr
    assert records(tmp_path / "s") == records(local[0] / "s")


@pytest.mark.slow
def test_a_run_may_take_two_processes(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN.replace("[1e-3, 1e-2]", "[1e-2]") + "processes: 2\n")
    done(convatlas("run", "plan.yaml", "--no-measure", "--out", "s", folder=tmp_path))
    (job,) = jobs_of(read_plan(tmp_path / "s"))
    summary = json.loads((tmp_path / "s" / job.folder / "summary.json").read_text())
    assert (summary["choices"]["processes"], summary["status"], summary["test_looks"]) == (2, "finished", 1)


def test_an_order_names_everything_that_the_process_needs(tmp_path):
    means = Means(tmp_path, (tmp_path / "net.py",), threads=3, processes=2)
    order = ordered(Job("a, b", 7), tmp_path / "s", means)
    words = list(order.command)
    assert words[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    assert words[5:13] == ["2", "-m", "convatlas", "study", "work", str(tmp_path / "s"), "a, b", "7"]
    assert words[13:] == ["--threads", "3", "--data-root", str(tmp_path), "--code", str(tmp_path / "net.py")]
    assert order.environment["OMP_NUM_THREADS"] == "3"
    search = ordered(Job("a", None), tmp_path / "s", means).command
    assert "torch.distributed.run" not in search, "a search is the work of one process"
    assert "tuning" in search


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("slurm", {}, "no engine called 'slurm'. Choose local or ray"),
        ("local", {"jobs": 0}, "--jobs is 0"),
        ("local", {"address": "auto"}, "--address is for the engine ray"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(name, options, said):
    with pytest.raises(UserError, match=re.escape(said)):
        engine_called(name, **{"jobs": None, "threads": 1, "processes": 1, "address": None, **options})


def test_as_many_runs_at_once_as_there_are_processors():
    engine = engine_called("local", jobs=None, threads=1, processes=1, address=None)
    assert isinstance(engine, Local)
    assert engine.slots >= 1
    assert engine_called("local", jobs=None, threads=10_000, processes=1, address=None).slots == 1
    assert engine_called("local", jobs=7, threads=1, processes=1, address=None).slots == 7
