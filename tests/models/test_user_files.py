"""Networks from Python files: which are run, what a factory is given, and that what it makes keeps the contract."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.models import user_files
from convatlas.models.configuration import model_name
from convatlas.models.configured import MOST_PARAMETERS
from convatlas.models.papers import titled
from convatlas.models.registry import create_model, find_variant
from convatlas.models.user_files import OwnNetwork, build_own, code_of, model_from_file, takes, trust

NET = '''
from __future__ import annotations
from dataclasses import dataclass
from torch import nn
import torch
from beside import WIDTH

print("being run")
RUNS = []
RUNS.append(1)

@dataclass
class Config:
    width: int = WIDTH

def make(num_classes, in_chans=3):
    """Of a width that stands beside."""
    width = Config().width
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )

class Fixed(nn.Module):
    def __init__(self, *, image_size: int = 8, num_classes: int = 5):
        super().__init__()
        self.rates = [float(each) for each in torch.linspace(0, 1, 3)]  # cannot be done on the meta device
        self.linear = nn.Linear(3 * image_size ** 2, num_classes)
    def forward(self, x):
        return self.linear(x.flatten(1))

def nothing():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 4))

def shaped(num_classes, in_chans=3, width=4, act="relu", sizes=(2, 2)):
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 1), nn.Tanh() if act == "tanh" else nn.ReLU(), nn.AdaptiveAvgPool2d(tuple(sizes)),
        nn.Flatten(), nn.Linear(width * sizes[0] * sizes[1], num_classes),
    )

def anything(**options):
    return nn.Identity() if not options else 1 / 0

def huge(num_classes=10):
    return nn.Linear(100_000, 100_000)

def broken():
    raise ValueError("no weights")

def exits():
    return 3

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

READY = nothing()
'''


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The file, trusted; what was trusted before is not."""
    monkeypatch.setattr(user_files, "_TRUSTED", set())
    monkeypatch.setattr(user_files, "_RUN", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    (tmp_path / "net.py").write_text(NET)
    trust(tmp_path / "net.py")
    yield tmp_path / "net.py"
    sys.modules.pop("beside", None)


# Trust


def test_a_file_that_was_not_named_is_not_run(net, monkeypatch):
    monkeypatch.setattr(user_files, "_TRUSTED", set())
    (net.parent / "net.py").write_text("open('run', 'w')")
    for act in (find_variant, create_model, model_from_file, takes, code_of):
        with pytest.raises(UserError) as refused:
            act("net.py:make")
        assert "\n" not in str(refused.value)
        assert "the Python file net.py, which would be run and was not named" in str(refused.value)
        assert str(refused.value).endswith("If you trust it, name it with --code net.py.")
    assert not (net.parent / "run").exists()


def test_another_file_of_the_same_name_stands_in_if_it_was_named(net, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert isinstance(create_model("net.py:make", num_classes=3), OwnNetwork)
    assert isinstance(create_model("some/other/net.py:make", num_classes=3), OwnNetwork)
    (tmp_path / "elsewhere" / "net.py").write_text(NET)
    trust(tmp_path / "elsewhere" / "net.py")
    with pytest.raises(UserError, match="was not named"):  # it is not clear which
        create_model("some/other/net.py:make", num_classes=3)
    with pytest.raises(UserError, match="was not named"):
        create_model("some/other/ned.py:make", num_classes=3)


def test_the_hash_is_that_of_the_file(net):
    before = code_of("net.py:make")
    assert before == code_of('net.py:make{"norm": "none"}') and len(before) == 64
    net.write_text(NET + "\n# more\n")
    assert code_of("net.py:make") != before


def test_a_trusted_file_that_is_gone(net):
    net.unlink()
    with pytest.raises(UserError, match=r"net.py is no file"):
        create_model("net.py:make")


# Factories


def test_a_factory_is_given_what_it_takes(net):
    assert takes("net.py:make") == {"num_classes": 1000, "in_chans": 3}
    assert takes("net.py:Fixed") == {"num_classes": 5, "image_size": 8}
    assert takes("net.py:nothing") == takes("net.py:anything") == takes("net.py:READY") == {}
    model = create_model("net.py:make", num_classes=7, in_chans=1, image_size=99)
    assert model(torch.randn(2, 1, 9, 9)).shape == (2, 7)
    assert create_model("net.py:Fixed", image_size=4, num_classes=2)(torch.randn(1, 3, 4, 4)).shape == (1, 2)
    assert create_model("net.py:nothing", image_size=4)(torch.randn(1, 3, 4, 4)).shape == (1, 4)
    variant = find_variant("net.py:Fixed")
    assert (variant.family, variant.image_size, variant.num_classes, variant.in_chans) == ("your own", 8, 5, 3)
    assert create_model("net.py:Fixed")(torch.randn(1, 3, 8, 8)).shape == (1, 5)
    assert titled(variant.family) == ("your own", None)


def test_the_file_is_run_once_for_each_content(net):
    for _ in range(3):
        create_model("net.py:make", num_classes=3)
    assert [len(module.RUNS) for module in user_files._RUN.values()] == [1]


def test_what_it_prints_is_no_result(net, capsys):
    create_model("net.py:make", num_classes=3)
    said = capsys.readouterr()
    assert said.out == "" and "being run" in said.err


def test_each_seed_has_its_own_weights(net):
    def first(seed, name):
        torch.manual_seed(seed)
        return next(create_model(name, num_classes=3).parameters())

    for name in ("net.py:make", "net.py:Fixed"):
        assert torch.equal(first(0, name), first(0, name))
        assert not torch.equal(first(0, name), first(1, name))
    with pytest.raises(UserError, match=r"net.py:READY is a network that is made already. Name a function that makes one"):
        create_model("net.py:READY")
    one, other = model_from_file("net.py:READY"), model_from_file("net.py:READY")
    assert one is not other


def test_the_contract_is_kept_and_a_networks_own_is_not_wrapped(net):
    model, x = create_model("net.py:make", num_classes=3).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x), model.head(model.stages(model.stem(x))))
    other = create_model("net.py:make", num_classes=3)
    other.load_state_dict(model.state_dict())
    assert [name for name, _ in model.named_children()] == ["stem", "stages", "head"]
    net.write_text("from convatlas import create_model\ndef make():\n    return create_model('lenet.pocket')\n")
    assert type(create_model("net.py:make")).__name__ == "LeNet5"


def test_on_the_meta_device_if_it_can_be(net):
    with torch.device("meta"):
        assert all(p.is_meta for p in create_model("net.py:make", num_classes=3).parameters())
        assert not any(p.is_meta for p in create_model("net.py:Fixed", num_classes=3).parameters())


def test_it_is_altered_from_outside(net):
    model = create_model("net.py:make{norm: none, act: tanh, kernel_size: 5, dropout: 0.125}", num_classes=3)
    said = [type(m).__name__ for m in model.stages[0]]
    assert said == ["Conv2d", "Identity", "Tanh", "Dropout", "AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert model.stages[0][0].kernel_size == (5, 5) and model.stages[0][3].p == 0.125
    with pytest.raises(UserError, match=r'norm would change nothing: net.py:nothing\{"norm": "none"\} has no BatchNorm'):
        create_model('net.py:nothing{"norm": "none"}', image_size=4)
    with pytest.raises(UserError, match="drop rates are for models of the atlas"):
        create_model("net.py:make", drop_rate=0.1)


def test_a_factory_is_given_what_stands_under_with(net):
    plain = create_model("net.py:shaped", num_classes=3)
    wide = create_model("net.py:shaped{with: {width: 8, act: tanh, sizes: [1, 2]}}", num_classes=3)
    assert plain.stages[0][0].out_channels == 4 and wide.stages[0][0].out_channels == 8
    assert isinstance(wide.stages[0][1], nn.Tanh)
    assert wide.stages[0][-1].in_features == 16
    assert (
        model_name("net.py:shaped{with: {sizes: [1, 2], act: tanh}}") == 'net.py:shaped{"with": {"act": "tanh", "sizes": [1, 2]}}'
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{widht: 8}", "no argument of net.py:shaped called 'widht'. Did you mean width?"),
        ("{num_classes: 8}", "num_classes is decided by the data"),
        ("{width: null}", "width is None. Give a number"),
        ("{width: {a: 1}}", "Give a number, a word, true, false, or a list of them."),
        ("{'two words': 1}", "is no name of an argument"),
        ("{}", "with is {}. Give names with values"),
        ("8", "with is 8. Give names with values"),
        ("{width: -1}", "shaped() of net.py failed"),
    ],
)
def test_bad_arguments_are_told(net, given, said):
    with pytest.raises(UserError) as refused:
        create_model(f"net.py:shaped{{with: {given}}}", num_classes=3)
    assert said in str(refused.value)


def test_a_network_that_no_machine_could_hold(net):
    with pytest.raises(UserError, match=r"net.py:huge would have 10,000,100,000 parameters"):
        create_model("net.py:huge")
    assert MOST_PARAMETERS == 2_000_000_000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.py:mak", "net.py has no 'mak'. Did you mean make?"),
        ("net.py:broken", "broken() of net.py failed: ValueError: no weights"),
        ("net.py:exits", "exits() of net.py gives a int. It must give a torch.nn.Module"),
        ("net.py:NET", "net.py has no 'NET'"),
        ("net.py:lazy", "net.py:lazy has lazy layers that have seen no image yet"),
    ],
)
def test_what_is_refused(net, name, said):
    with pytest.raises(UserError) as refused:
        create_model(name, num_classes=3)
    assert said in str(refused.value)


def test_a_file_that_cannot_be_run_leaves_nothing_behind(net):
    before = set(sys.modules)
    net.write_text("import json\n1 / 0\n")
    with pytest.raises(UserError, match=r"net.py cannot be run: ZeroDivisionError"):
        create_model("net.py:make")
    assert set(sys.modules) - before <= {"json"}


def test_nothing_is_run_by_building_from_a_name_alone(tmp_path):
    """Of a whole process: a name from somebody's config.json does not reach the file."""
    (tmp_path / "net.py").write_text("open('run', 'w')")
    code = "from convatlas import create_model\ntry:\n    create_model('net.py:make')\nexcept Exception as e:\n    print(type(e).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "UserError\n", done.stderr
    assert not (tmp_path / "run").exists()


def test_build_own_takes_the_request(net):
    from convatlas.layers.network import Request

    assert isinstance(build_own("net.py:make", Request(4, 3, 8)).stages[0][-1], nn.Linear)
