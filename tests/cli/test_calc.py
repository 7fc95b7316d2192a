"""`convatlas calc`: formulas worked out, at terminals of several widths and as records; most of it in this process."""

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from convatlas.arith.receptive_field import PIXELS, through_window
from convatlas.cli import calculating
from convatlas.cli.main import main
from convatlas.inspection import timing
from convatlas.records import codec
from convatlas.records.calc import DepthwiseCalc, FieldCalc, StackCalc, WindowCalc

from .makers import convatlas, environment


@pytest.fixture
def calc(monkeypatch, capsys):
    """Runs `convatlas calc words...`; gives what it exits with, its output and its errors."""

    def run(*words, columns=80):
        monkeypatch.setattr(sys, "argv", ["convatlas", "calc", *words])
        monkeypatch.setattr(calculating.OUT, "_width", columns)
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


@pytest.fixture
def said(calc):
    """The output of a command that works, its white space made single."""

    def run(*words):
        code, out, err = calc(*words)
        assert (code, err) == (0, "")
        return " ".join(out.split())

    return run


@pytest.fixture
def record(calc):
    def run(kind, *words):
        code, out, err = calc(*words, "--json")
        assert (code, err.strip()) == (0, ""), "a bar that was taken away leaves an empty line"
        return codec.from_plain(kind, json.loads(out), where="x")

    return run


# One window


def test_the_issues_convolution(said):
    text = said("conv", "--size", "32", "--kernel", "5", "--stride", "1", "--padding", "0")
    assert "output 28x28, of 32x32" in text
    assert "floor((32 - 5 + 2*0) / 1) + 1 = 28" in text
    assert "output 0 reads 0 to 4, output 27 reads 27 to 31" in text
    assert "every pixel is read padding 2 keeps the size" in text


def test_rows_and_columns_and_costs(record, said):
    words = ["conv", "--size", "32x48", "--kernel", "3x5", "--stride", "2x1", "--padding", "1x2", "--in", "8", "--out", "12"]
    found = record(WindowCalc, *words, "--groups", "4")
    layer = nn.Conv2d(8, 12, (3, 5), (2, 1), (1, 2), groups=4)
    assert (found.rows.output, found.columns.output) == tuple(layer(torch.empty(1, 8, 32, 48)).shape[2:])
    assert (found.cost.weights, found.cost.biases) == (layer.weight.numel(), layer.bias.numel())
    assert found.cost.macs == layer.weight.numel() * 16 * 48
    text = said(*words, "--groups", "4")
    assert "parameters 12*2*3*5 = 360, and 12 biases: 372" in text
    assert f"MACs 16*48*12*2*3*5 = {found.cost.macs:,}" in text
    assert "biases" not in said(*words, "--no-bias")


def test_what_is_never_read_and_where(record, said):
    words = ["conv", "--size", "33", "--kernel", "1", "--stride", "3"]
    axis = record(WindowCalc, *words).rows
    assert (axis.unread_start, axis.unread_between, axis.unread_end, axis.unread) == (0, 20, 2, 22)
    assert "never read: 22 of 33 (20 between others, 2 at the end)" in said(*words)
    assert "1 at the start" in said("conv", "--size", "9", "--kernel", "1", "--stride", "2", "--padding", "1")
    assert "2 outputs of 11 read padding only" in said("conv", "--size", "9", "--kernel", "1", "--padding", "1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--size", "32", "--kernel", "4"], "no padding that is alike on both sides keeps the size"),
        (["--size", "32", "--kernel", "3", "--stride", "2"], "padding 1 gives 32/2 = 16, rounded up"),
        (["--size", "32", "--kernel", "3", "--dilation", "2"], "padding 2 keeps the size"),
    ],
)
def test_padding_that_keeps_the_size(words, expected, said):
    assert expected in said("conv", *words)


def test_poolings(record, said):
    found = record(WindowCalc, "pool", "--size", "112", "--kernel", "3", "--stride", "2", "--ceil")
    assert (found.rows.output, found.rows.formula) == (56, "ceil((112 - 3 + 2*0) / 2) + 1 = 56")
    assert record(WindowCalc, "pool", "--size", "7", "--kernel", "2").rows.stride == 2, "the kernel, as in torch"
    assert "never read: 1 of 7 (1 at the end)" in said("pool", "--size", "7", "--kernel", "2")
    assert "no padding" in said("pool", "--size", "32", "--kernel", "3", "--dilation", "3", "--stride", "1"), "3 is refused"


# Depthwise


def test_depthwise_by_formula_and_as_torch_has_it(record, said):
    words = ["depthwise", "--kernel", "3x5", "--in", "64", "--out", "128", "--size", "14", "--no-measure"]
    found = record(DepthwiseCalc, *words)
    layers = nn.Conv2d(64, 128, (3, 5)), nn.Conv2d(64, 64, (3, 5), groups=64), nn.Conv2d(64, 128, 1)
    costs = found.standard, found.depthwise, found.pointwise
    assert [cost.weights for cost in costs] == [layer.weight.numel() for layer in layers]
    assert [cost.macs for cost in costs] == [14 * 14 * cost.weights for cost in costs]
    assert found.ratio == pytest.approx((costs[1].macs + costs[2].macs) / costs[0].macs) == pytest.approx(1 / 128 + 1 / 15)
    assert (found.forward, found.training) == (None, None)
    text = said(*words)
    assert "1/128 + 1/(3*5) = 0.0745 of weights and MACs" in text
    assert "Measured" not in text


def test_depthwise_is_measured(record, monkeypatch):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    short = timing.compare_times
    monkeypatch.setattr(timing, "compare_times", lambda calls, **rest: short(calls, seconds=0, **rest))
    found = record(DepthwiseCalc, "depthwise", "--kernel", "3", "--in", "32", "--out", "32", "--size", "28")
    for times in (found.forward, found.training):
        assert [each.name for each in times.timings] == ["standard", "separable"]
        assert {each.n for each in times.timings} == {11}
        (ratio,) = times.ratios
        assert 0 < ratio.low <= ratio.median <= ratio.high
        assert times.threads == threads
    assert found.training.timings[0].median > found.forward.timings[0].median, "backward takes its time too"
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state), "random numbers go on as if nothing had been measured"


def comparison(*, low, median, high, load=0.0):
    timings = tuple(timing.Timing(name, 11, 0.001, 0.002, 0.003) for name in ("standard", "separable"))
    ratio = timing.TimeRatio("separable", "standard", median, low, high)
    return timing.TimingComparison(timings, (ratio,), 3, 1, 4, load, "2.0")


@pytest.mark.parametrize(
    ("times", "expected", "absent"),
    [
        (comparison(low=0.29, median=0.3, high=0.31), "2.6 times the formula's. That is usual: a depthwise", "busy"),
        (comparison(low=0.11, median=0.115, high=0.12), "The formula lies within the interval.", "usual"),
        (comparison(low=0.05, median=0.05, high=0.05), "0.43 times the formula's.", "usual"),
        (comparison(low=0.1, median=0.3, high=0.9), "too wide to compare", "usual"),
        (comparison(low=0.29, median=0.3, high=0.31, load=3.5), "The machine was busy (load 3.5, 4 cores)", "wide"),
    ],
)
def test_the_verdict_says_no_more_than_was_measured(times, expected, absent, said, monkeypatch):
    monkeypatch.setattr(calculating, "_measured", lambda *_: (times, times))
    text = said("depthwise", "--kernel", "3", "--in", "256", "--out", "256")
    assert expected in text
    assert absent not in text
    assert "n = 11): standard 2 ms (quartiles 1 to 3)" in text


# Stacks and receptive fields


def test_three_small_kernels_against_a_large_one(record, said):
    found = record(StackCalc, "stack", "3", "3", "3")
    assert (found.single.kernel, found.weights, found.single.weights) == (7, 3 * 9 * 64**2, 49 * 64**2)
    assert (found.macs, found.single.macs) == (found.weights * 56**2, found.single.weights * 56**2)
    text = said("stack", "3", "3", "3")
    assert "(3^2 + 3^2 + 3^2) * 64^2 = 110,592 weights; 346,816,512 MACs" in text
    assert "one 7x7 7^2 * 64^2 = 200,704 weights" in text
    assert "0.551 of weights, 0.551 of MACs non-linear 3 times, against once" in text


def test_a_stack_with_strides(record):
    found = record(StackCalc, "stack", "3", "3/2", "3", "--channels", "8", "--size", "15")
    assert [(each.receptive_field, each.jump, each.output) for each in found.layers] == [(3, 1, 15), (5, 2, 8), (9, 2, 8)]
    assert (found.single.kernel, found.single.stride, found.single.output) == (9, 2, 8)
    real = nn.Sequential(*(nn.Conv2d(8, 8, 3, stride, 1, bias=False) for stride in (1, 2, 1)))
    assert real(torch.empty(1, 8, 15, 15)).shape[-1] == 8
    assert found.weights == sum(p.numel() for p in real.parameters())
    assert found.macs == 9 * 64 * (15**2 + 8**2 + 8**2)


def test_receptive_fields_of_a_list(record, said):
    words = ["rf", "conv7/2p3", "pool3/2p1", "conv3p2d2", "pool2", "--size", "224"]
    rows = record(FieldCalc, *words).layers
    extent = PIXELS
    for row, window in zip(rows, [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 2, 2), (2, 2, 0, 1)], strict=True):
        extent = through_window(extent, **dict(zip(("kernel", "stride", "padding", "dilation"), window, strict=True)))
        assert (row.receptive_field, row.jump, row.start) == (extent.receptive_field, extent.jump, extent.start)
    assert [row.output for row in rows] == [(112, 112), (56, 56), (56, 56), (28, 28)]
    assert f"sees pixels {extent.start} + 8 i to {extent.stop - 1} + 8 i" in said(*words)


@pytest.mark.parametrize(("name", "field", "least"), [("resnet18", 435, 11), ("vgg16", 212, 212)])
def test_receptive_fields_of_models_through_their_branches(name, field, least, record):
    found = record(FieldCalc, "rf", name)
    last = [row for row in found.layers if row.name.startswith("stages")][-1]
    assert (last.receptive_field, last.least_field, last.jump) == (field, least, 32)
    assert not any("Identity" in row.what or "ReLU" in row.what for row in found.layers), "what changes nothing is left out"


def test_receptive_fields_of_ones_own_network(tmp_path, record):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU())\n"
    )
    (row,) = record(FieldCalc, "rf", f"{tmp_path / 'net.py'}:make", "--size", "16").layers
    assert (row.receptive_field, row.output, row.what) == (5, (12, 12), "Conv2d 5x5")


# What goes wrong, and where it is read

BAD = [
    ("rf " + " ".join(["conv10000/10000"] * 1100), "there are 1,100 layers. Give 200 or fewer"),
    ("stack " + " ".join(["9"] * 300), "there are 300 layers"),
    (
        "conv --size 3 --kernel 5",
        "spans 5 rows, and the padded map has 3 + 2*0 = 3. Give a --size of 5 or more, or a --padding of 1",
    ),
    ("conv --size 9x3 --kernel 5", "spans 5 columns"),
    ("conv --size 0 --kernel 5", "--size is '0'. Give a whole number from 1 to 100,000"),
    ("conv --size -4 --kernel 5", "--size is '-4'"),
    ("conv --size 999999999999 --kernel 5", "--size is '999999999999'"),
    ("conv --size 8x8x8 --kernel 5", "--size is '8x8x8'"),
    ("conv --size ٣ --kernel 1", "--size is"),
    ("conv --size 8 --kernel x", "--kernel is 'x'"),
    ("conv --size 8 --kernel 10001", "--kernel is '10001'. Give a whole number from 1 to 10,000"),
    ("conv --size 8 --kernel 3 --stride 0", "--stride is '0'"),
    ("conv --size 8 --kernel 3 --padding -1", "--padding is '-1'. Give a whole number from 0"),
    ("conv --size 8 --kernel 3 --dilation 0", "--dilation is '0'"),
    ("conv --kernel 3", "Missing option '--size'"),
    ("conv --size 8 --kernel 3 --in 4", "--out missing"),
    ("conv --size 8 --kernel 3 --out 4", "--in missing"),
    ("conv --size 8 --kernel 3 --groups 2", "--in and --out missing"),
    ("conv --size 8 --kernel 3 --in 4 --out 6 --groups 4", "4 groups do not divide 6 channels (--out)"),
    ("conv --size 8 --kernel 3 --in 6 --out 4 --groups 4", "4 groups do not divide 6 channels (--in)"),
    ("conv --size 8 --kernel 3 --in 4 --out 6 --groups 0", "--groups is 0"),
    ("conv --size 8 --kernel 3 --in -4 --out 6", "--in is -4"),
    ("pool --size 8 --kernel 2 --padding 2", "--padding is 2, more than half the kernel of 2. Give 1 or less"),
    ("pool --size 2 --kernel 5", "Give a --size of 5 or more, or a --padding of 2 or more."),
    ("pool --size 1 --kernel 3 --dilation 4", "Give a --size of 9 or more."),
    ("depthwise --kernel 4 --in 8 --out 8", "--kernel is 4. Give an odd number"),
    ("depthwise --kernel 3 --in 0 --out 8", "--in is 0"),
    ("depthwise --kernel 3 --in 8 --out 8 --batch-size 0", "--batch-size is 0"),
    ("depthwise --kernel 3 --in 60000 --out 8 --size 4096", "too much time or memory to be measured. Add --no-measure"),
    ("depthwise --kernel 9 --in 9000 --out 9000 --size 1", "too much time or memory"),
    ("stack 3 banana", "'banana' is no kernel"),
    ("stack 0", "'0' is no kernel"),
    ("stack 3/0", "'3/0' is no kernel"),
    ("stack 3 --channels 0", "--channels is 0"),
    ("stack 3 --size 0", "--size is 0"),
    ("rf cnov3", "no layer or model called 'cnov3'. Did you mean conv3?"),
    ("rf resnt18", "no layer or model called 'resnt18'. Did you mean resnet18"),
    ("rf conv3 pol2", "no layer called 'pol2'. Did you mean pool2?"),
    ("rf conv3 resnet18", "no layer called 'resnet18'"),
    ("rf conv0", "the kernel of conv0 is 0"),
    ("rf conv3/0", "the stride of conv3/0 is 0"),
    ("rf conv99999", "the kernel of conv99999 is 99999"),
    ("rf pool3p2", "the padding of pool3p2 is more than half its kernel"),
    ("rf conv9 --size 4", "at conv9 the output would have floor((4 - 9 + 2*0) / 1) + 1 = -4 pixels a side"),
    ("rf conv9 --size 0", "--size is 0"),
    ("", "Missing command"),
    ("cnv", "Did you mean 'conv'"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line(line, message, calc):
    code, out, err = calc(*line.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("columns", [40, 80])
def test_prose_and_formulas_fit_the_terminal(columns, calc):
    wide = ["conv", "--size", "32x48", "--kernel", "3x5", "--stride", "2", "--padding", "1x2", "--in", "3", "--out", "64"]
    for words in (wide, ["pool", "--size", "112", "--kernel", "3", "--stride", "2", "--ceil"]):
        _, out, _ = calc(*words, columns=columns)
        lines = [line.rstrip() for line in out.splitlines()]
        assert max(len(line) for line in lines) <= columns
    for words in (
        wide,
        ["stack", "3", "3/2", "3"],
        ["depthwise", "--kernel", "3", "--in", "256", "--out", "256", "--no-measure"],
    ):
        assert "…" not in calc(*words, columns=columns)[1], "no digit is lost"


def test_the_command_as_a_person_runs_it(tmp_path):
    """In a process of its own: the help names all five, and numbers alone do not wait for torch."""
    helped = convatlas("calc", "--help", folder=tmp_path)
    assert helped.returncode == 0
    assert all(re.search(rf"\b{name}\b", helped.stdout) for name in ("conv", "pool", "depthwise", "stack", "rf"))
    code = (
        "import sys; from convatlas.cli.main import main\n"
        "for words in (['conv', '--size', '32', '--kernel', '5'], ['stack', '3', '3'], ['rf', 'conv3', 'pool2'],\n"
        "              ['depthwise', '--kernel', '3', '--in', '8', '--out', '8', '--no-measure']):\n"
        "    sys.argv = ['convatlas', 'calc', *words]\n"
        "    try: main()\n"
        "    except SystemExit as e: assert e.code == 0, e.code\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
