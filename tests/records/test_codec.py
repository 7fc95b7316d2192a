import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Recipe, read_metrics


@dataclass(frozen=True)
class Inner:
    name: str
    share: float


@dataclass(frozen=True)
class Outer:
    count: int
    flag: bool
    maybe: float | None
    inner: tuple[Inner, ...]
    by_name: dict[str, int]
    spare: int = 7


EXAMPLE = Outer(3, True, None, (Inner("a", 0.5), Inner("ä\n<", 1.0)), {"x": 1})


def test_there_and_back():
    assert codec.from_text(Outer, codec.to_text(EXAMPLE), where="here") == EXAMPLE


@given(st.builds(Recipe, epochs=st.integers(1, 5), lr=st.floats(allow_nan=False, allow_infinity=False), seed=st.integers()))
def test_any_recipe_comes_back(recipe):
    assert codec.from_text(Recipe, codec.to_text(recipe), where="here") == recipe


def test_a_missing_key_with_a_default_takes_it():
    plain = codec.to_plain(EXAMPLE)
    del plain["spare"]
    assert codec.from_plain(Outer, plain, where="here").spare == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cuont": 1}, "unknown key 'cuont'. Did you mean 'count'?"),
        ({"zzz": 1}, "unknown key 'zzz'. Known keys: count"),
        ({"count": "3"}, "count is '3', which is no int"),
        ({"count": True}, "count is 'True', which is no int"),
        ({"count": 1.5}, "count is '1.5', which is no int"),
        ({"flag": 1}, "flag is '1', which is no bool"),
        ({"maybe": "x"}, "maybe is 'x', which is no float"),
        ({"inner": {}}, "inner is '{}'"),
        ({"inner": [{"name": "a"}]}, "inner[0] lacks the key 'share'"),
        ({"by_name": {"x": None}}, "by_name.x is 'None'"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    plain = {**codec.to_plain(EXAMPLE), **change}
    with pytest.raises(UserError) as error:
        codec.from_plain(Outer, plain, where="file.json")
    assert said in str(error.value)
    assert "file.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", "nul"])
def test_what_is_not_json_is_said_to_be_so(text):
    with pytest.raises(UserError, match=r"file\.json is not JSON"):
        codec.from_text(Outer, text, where="file.json")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_json_has_no_number_for_is_refused(word):
    with pytest.raises(UserError, match=f"{word} is no number of JSON's"):
        codec.from_text(Inner, f'{{"name": "a", "share": {word}}}', where="here")


def test_infinities_and_nan_become_null():
    assert json.loads(codec.to_text({"a": float("nan"), "b": [float("inf"), 1.0]})) == {"a": None, "b": [None, 1.0]}


def test_reading_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        codec.read(Recipe, tmp_path / "recipe.json")
    with pytest.raises(UserError, match="is no regular file"):
        codec.read(Recipe, tmp_path)


def test_a_torn_last_line_of_metrics_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = '{"epoch": 1, "step": 2, "images_seen": 3, "seconds": 0.5, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, '
    line += '"val_loss": null, "val_accuracy": null, "images_per_second": 9.0}\n'
    for cut in range(len(line)):
        path.write_text(line + line[:cut])
        assert [m.epoch for m in read_metrics(path)] == [1]
    assert read_metrics(tmp_path / "none.jsonl") == ()
