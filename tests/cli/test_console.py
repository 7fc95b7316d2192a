"""What the command line says, and where it puts what nobody named a place for."""

import os

from convatlas.cli import console, options


def test_words_between_colons_stay_what_they_are(capsys):
    """Rich would make a picture of `metrics.jsonl:100:`, and a cross of a class that is called so."""
    console.tell("metrics.jsonl:100: a line; the class :x:")
    assert capsys.readouterr().out == "metrics.jsonl:100: a line; the class :x:\n"


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = set()
    for process in (7, 8):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        names.add(options.fresh_folder("resnet50").name)
    assert len(names) == 2
