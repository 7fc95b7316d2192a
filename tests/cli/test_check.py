"""`convatlas check`: the table, the page and the record, and what it refuses."""

import json

import pytest

from convatlas.cli.checking import check
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.data_check import DataCheck, across

from .makers import picture_folder


@pytest.fixture
def folder(tmp_path):
    root = picture_folder(tmp_path / "data", each=16)
    (root / "ant" / "copy.png").write_bytes((root / "bee" / "3.png").read_bytes())
    (root / "ant" / "torn.png").write_bytes(b"")
    return root


def test_what_was_found_stands_on_the_terminal(folder, capsys):
    check("folder", folder, no_near=True)
    out = capsys.readouterr().out
    for words in ("under two classes", "'ant/torn.png'", "exact", "within", "near duplicates: not looked for, as asked"):
        assert words in out
    check("digits", no_near=True)
    assert "Nothing else was found." in capsys.readouterr().out


def test_the_page_and_the_record(folder, tmp_path, capsys):
    out = tmp_path / "check.html"
    check("folder", folder, out)
    assert f"written: {out} and {tmp_path / 'check.json'}" in capsys.readouterr().out
    record = codec.read(DataCheck, tmp_path / "check.json")
    exact = [pair for pair in record.pairs if pair.kind == "exact"]
    assert [sorted((pair.first.file, pair.second.file)) for pair in exact] == [["ant/copy.png", "bee/3.png"]]
    page = out.read_text(encoding="utf-8")
    assert "Under two classes" in page and "<script" not in page
    assert isinstance(across(record), tuple)
    for again in (out, tmp_path / "check.htm", tmp_path / "nowhere" / "check.html"):
        with pytest.raises(UserError):
            check("folder", folder, again)
    (tmp_path / "other.json").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        check("folder", folder, tmp_path / "other.html")


def test_json(folder, capsys):
    check("folder", folder, as_json=True, no_near=True)
    record = codec.from_plain(DataCheck, json.loads(capsys.readouterr().out), where="x")
    assert record.data == "folder" and record.threshold is None


def test_a_name_that_could_act_on_a_terminal(folder, capsys):
    (folder / "ant" / "\x1b[31m[red].png").write_bytes(b"")
    check("folder", folder, no_near=True)
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out and "[red]" in out


def test_refusals(tmp_path):
    for arguments in (("shapes", tmp_path), ("folder", None), ("folder", tmp_path / "nowhere"), ("nothing", None)):
        with pytest.raises(UserError):
            check(*arguments)
