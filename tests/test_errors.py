"""Errors meant for users come out of worker processes whole, and stay on one line."""

import pickle

from convatlas.errors import StorageError, UserError


def test_an_error_survives_the_way_out_of_a_process():
    for kind in (UserError, StorageError):
        again = pickle.loads(pickle.dumps(kind("it broke", fix="Mend it.")))
        assert type(again) is kind
        assert (str(again), again.what, again.fix) == ("it broke. Mend it.", "it broke", "Mend it.")


def test_names_with_line_breaks_and_escapes_are_spelled_out():
    assert str(UserError("a\nb\x1b[31m", fix="c\r.")) == "a\\nb\\x1b[31m. c\\r."
