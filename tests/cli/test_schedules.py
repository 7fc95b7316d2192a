"""`convatlas schedule` as a person uses it."""

import json
import subprocess
import sys

import pytest

from convatlas.arith.schedules import ABOUT, SCHEDULES, factor_at
from convatlas.cli.schedules import HIGHEST, LONGEST_WARMUP, LOWEST, MOST_EPOCHS
from convatlas.records import codec
from convatlas.records.schedule import ScheduleTable
from convatlas.training.recipe import RANGES

from .makers import convatlas, environment
from .zygote import command


def schedule(*words, folder, **more):
    return command("schedule", *words, folder=folder, **more)


def test_the_list(tmp_path):
    done = convatlas("schedule", folder=tmp_path, COLUMNS="160")  # how wide it is is settled when it starts
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    for name, about in ABOUT.items():
        assert about.shape in lines[name] and about.source in lines[name]
    assert json.loads(schedule("--json", folder=tmp_path).stdout) == codec.to_plain(ABOUT)


def test_one_with_its_numbers(tmp_path):
    done = schedule("multi-step", "--epochs", "64", "--lr", "0.1", "--warmup", "0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no warm-up, then" in done.stdout and "He et al. 2016 (ResNet), section 4.2" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["epochs", "done", "factor", "learning", "rate"] in rows
    assert ["30", "1.0000", "0.1"] in rows and ["35", "0.1000", "0.01"] in rows and ["64", "0.0100", "0.001"] in rows
    assert "next: convatlas train resnet.pocket --schedule multi-step --warmup 0 --epochs 64 --lr 0.1" in done.stdout


@pytest.mark.slow
def test_what_comes_next_can_be_typed(tmp_path):
    line = schedule("step", folder=tmp_path).stdout.splitlines()[-1]
    words = line.removeprefix("next: convatlas ").split()
    trained = command(*words, "--out", "run", "--epochs", "1", "--data-fraction", "0.01", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr


def test_several_side_by_side_and_no_name_twice(tmp_path):
    done = schedule("cosine", "step", "cosine", folder=tmp_path)
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("budget")] == [["budget", "cosine", "step"]]


def test_any_setting_without_a_name_means_all(tmp_path):
    done = schedule("--epochs", "10", folder=tmp_path)
    assert all(f"\n{name}: " in done.stdout for name in SCHEDULES)
    assert max(map(len, done.stdout.splitlines()[10:-2])) <= 80
    assert "plateau is constant here" in done.stdout


def test_json_is_the_record(tmp_path):
    done = schedule("cosine", "step", "--epochs", "4", "--lr", "0.5", "--json", folder=tmp_path)
    record = codec.from_plain(ScheduleTable, json.loads(done.stdout), where="x")
    assert (record.warmup, record.epochs, record.lr, record.progress) == (0.1, 4, 0.5, (0.0, 0.25, 0.5, 0.75, 1.0))
    assert [each.name for each in record.schedules] == ["cosine", "step"]
    assert record.schedules[0].rates[2] == 0.5 * factor_at("cosine", 0.5, warmup=0.1)
    alone = codec.from_plain(ScheduleTable, json.loads(schedule("plateau", "--json", folder=tmp_path).stdout), where="x")
    assert len(alone.progress) == 101 and alone.schedules[0].rates is None


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("columns", ["1", "20", "80", "200"])
def test_a_plot_in_any_terminal(tmp_path, encoding, columns):
    # A process of its own, since the encoding is decided when Python starts.
    settings = {"PYTHONIOENCODING": encoding, "COLUMNS": columns, "TERM": "dumb"}
    words = [sys.executable, "-m", "convatlas", "schedule", "cosine-restarts", "--plot"]
    done = subprocess.run(words, env=environment(tmp_path, **settings), cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.decode(encoding).splitlines()
    drawn = [row for row in rows if "│" in row or "|" in row]
    assert len(drawn) == 12
    assert any("⡇" in row or "⢸" in row for row in drawn) == (encoding == "utf-8")
    assert max(map(len, drawn)) <= max(min(int(columns), 80), 11)


def test_plots_of_all(tmp_path):
    done = schedule("--plot", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("100 % of the budget") == len(SCHEDULES)


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_a_picture(tmp_path, kind):
    done = schedule("cosine", "one-cycle", "--out", f"lr.{kind}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"written: lr.{kind}" in done.stdout
    content = (tmp_path / f"lr.{kind}").read_text(encoding="utf-8")
    assert "aria-label" in content and "one-cycle" in content
    assert ("convatlas schedule cosine one-cycle --out lr.html" in content) == (kind == "html")


def test_a_file_that_is_there_stays(tmp_path):
    (tmp_path / "lr.svg").write_text("mine")
    done = schedule("cosine", "--out", "lr.svg", folder=tmp_path)
    assert done.returncode == 2 and "exists already" in done.stderr
    assert (tmp_path / "lr.svg").read_text() == "mine"


BAD = [
    (["cosin"], "no schedule called 'cosin'. Did you mean cosine or cosine-restarts? `convatlas schedule` lists them."),
    (["cosine", "xyzzy"], "no schedule called 'xyzzy'. `convatlas schedule` lists them."),
    (["cosine", "--warmup", "1"], "--warmup is 1. Give a share of the budget from 0 to 0.99."),
    (["cosine", "--warmup", "-0.1"], "--warmup is -0.1"),
    (["cosine", "--warmup", "nan"], "--warmup is nan"),
    (["cosine", "--epochs", "0"], "--epochs is 0. Give a whole number from 1 to 100000."),
    (["cosine", "--epochs", "100001"], "--epochs is 100001"),
    (["cosine", "--lr", "0"], "--lr is 0. Give a number from 1e-12 to 1e+06."),
    (["cosine", "--lr", "inf"], "--lr is inf"),
    (["cosine", "--out", "lr.png"], "'lr.png' is neither .svg nor .html"),
    (["cosine", "--out", "none/lr.svg"], "the folder none does not exist"),
    (["cosine", "--plot", "--json"], "Leave one of them out."),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words, message, tmp_path):
    before = set(tmp_path.iterdir())
    done = schedule(*words, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    assert set(tmp_path.iterdir()) == before


def test_the_limits_are_a_recipes():
    assert RANGES["lr"][:2] == (LOWEST, HIGHEST)
    assert RANGES["warmup"][:2] == (0, LONGEST_WARMUP)
    assert RANGES["epochs"][:2] == (1, MOST_EPOCHS)


@pytest.mark.parametrize("words", [["--help"], [], ["step", "--plot", "--out", "step.html"]], ids=" ".join)
def test_no_torch(words, tmp_path):
    code = (
        "import sys; from convatlas.cli.main import main\n"
        f"sys.argv = ['convatlas', 'schedule', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "assert not {'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_training_offers_all_of_them(tmp_path):
    done = command("train", "--help", folder=tmp_path, COLUMNS="300")
    assert f"{', '.join(SCHEDULES)}: see `convatlas schedule`." in done.stdout
