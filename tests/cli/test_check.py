"""`convatlas check`: the table, the page and the record, and what it refuses."""

import json

import pytest

from convatlas.cli.checking import check
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.data_check import DataCheck, across

from .makers import picture_folder
from .zygote import command


@pytest.fixture
def folder(tmp_path):
    root = picture_folder(tmp_path / "data", each=16)
    (root / "ant" / "copy.png").write_bytes((root / "bee" / "3.png").read_bytes())
    (root / "ant" / "torn.png").write_bytes(b"")
    return root


def test_what_was_found_stands_on_the_terminal(folder, capsys):
    check(str(folder), no_near=True)
    out = capsys.readouterr().out
    for words in ("under two classes", "'ant/torn.png'", "exact", "within", "near duplicates: not looked for, as asked"):
        assert words in out
    check("digits", no_near=True)
    assert "Nothing else was found." in capsys.readouterr().out


def test_the_page_and_the_record(folder, tmp_path, capsys):
    out = tmp_path / "check.html"
    check(None, "folder", folder, out)
    assert f"written: {out} and {tmp_path / 'check.json'}" in capsys.readouterr().out
    record = codec.read(DataCheck, tmp_path / "check.json")
    exact = [pair for pair in record.pairs if pair.kind == "exact"]
    assert [sorted((pair.first.file, pair.second.file)) for pair in exact] == [["ant/copy.png", "bee/3.png"]]
    page = out.read_text(encoding="utf-8")
    assert "Under two classes" in page and "<script" not in page
    assert isinstance(across(record), tuple)
    for again in (out, tmp_path / "check.htm", tmp_path / "nowhere" / "check.html"):
        with pytest.raises(UserError):
            check(None, "folder", folder, again)
    (tmp_path / "other.json").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        check(None, "folder", folder, tmp_path / "other.html")


def test_json(folder, capsys):
    check(None, "folder", folder, as_json=True, no_near=True)
    record = codec.from_plain(DataCheck, json.loads(capsys.readouterr().out), where="x")
    assert record.data == "folder" and record.threshold is None


def test_a_name_that_could_act_on_a_terminal(folder, capsys):
    (folder / "ant" / "\x1b[31m[red].png").write_bytes(b"")
    check(None, "folder", folder, no_near=True)
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out and "[red]" in out


def test_refusals(tmp_path):
    for arguments in (("shapes", tmp_path), ("folder", None), ("folder", tmp_path / "nowhere"), ("nothing", None), ("", None)):
        with pytest.raises(UserError):
            check(None, *arguments)
    for place in ("nothing", "", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="no data set called .*a folder of pictures or a .csv list is named by its path"):
            check(place)


def test_the_place_is_named_as_for_finetune(folder, capsys):
    check(None, "folder", folder, as_json=True, no_near=True)
    named = capsys.readouterr().out
    check(str(folder), as_json=True, no_near=True)
    alike = [{**json.loads(text), "seconds": 0} for text in (named, capsys.readouterr().out)]
    assert alike[0] == alike[1]
    lines = ["path,label", *(f"{name}/{i}.png,{name}" for name in ("ant", "bee") for i in range(16))]
    (folder / "list.csv").write_text("\n".join(lines))
    check(str(folder / "list.csv"), no_near=True)
    assert "csv: a list of pictures" in capsys.readouterr().out


def test_the_place_is_named_once(folder):
    with pytest.raises(UserError, match="named twice, .* and --data folder. Leave one"):
        check(str(folder), "folder")
    with pytest.raises(UserError, match="is a place already. Leave --data-root out"):
        check(str(folder), None, folder)


def test_the_command(folder, tmp_path):
    (tmp_path / "digits").mkdir()
    done = command("check", "data", "--no-near", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"] == "folder"
    done = command("check", "digits", "--no-near", folder=tmp_path)
    assert done.returncode == 0 and "note: digits is the set of that name; for the folder here give ./digits" in done.stderr
    assert "digits: " in done.stdout
    assert command("check", "--no-near", folder=tmp_path).stdout.count("shapes: ") == 1
