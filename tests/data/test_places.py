import pytest

from convatlas.data import places
from convatlas.data.places import cache_folder, locate, present, recall, remember
from convatlas.errors import UserError

from .makers import cifar10_contents, gzipped, idx_contents, write_folder, write_tar


def test_nothing_is_present_on_a_bare_machine():
    assert {name: present(name) for name in ("cifar10", "cifar100", "mnist", "fashion-mnist", "shapes")} == dict.fromkeys(
        ("cifar10", "cifar100", "mnist", "fashion-mnist", "shapes")
    )


def test_the_variable_comes_before_the_cache_and_the_cache_before_the_system(tmp_path, monkeypatch):
    system = write_folder(tmp_path / "system" / "mnist", gzipped(idx_contents()))
    monkeypatch.setattr(places, "SYSTEM_FOLDERS", (tmp_path / "system",))
    assert present("mnist") == system
    cached = write_folder(cache_folder() / "mnist", idx_contents())
    assert present("mnist") == cached
    chosen = write_folder(tmp_path / "chosen" / "MNIST" / "raw", idx_contents())
    monkeypatch.setenv("CONVATLAS_DATA", str(tmp_path / "chosen"))
    assert present("mnist") == chosen


@pytest.mark.parametrize("depth", ["", "cifar-10-batches-py"])
def test_a_root_may_be_the_folder_or_the_one_above(tmp_path, depth):
    folder = write_folder(tmp_path / "cifar-10-batches-py", cifar10_contents())
    assert locate("cifar10", tmp_path / depth) == folder


def test_a_root_may_be_the_archive_or_its_folder(tmp_path):
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_contents())
    assert locate("cifar10", archive) == archive
    assert locate("cifar10", tmp_path) == archive


def test_a_root_is_the_only_place_searched(tmp_path):
    write_folder(cache_folder() / "cifar10", cifar10_contents())
    with pytest.raises(UserError, match=r"holds none of its files: no CIFAR-10 there. It needs cifar-10-python.tar.gz or"):
        locate("cifar10", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        locate("cifar10", tmp_path / "nowhere")


def test_what_is_nowhere_is_answered_with_where_was_looked_and_how_to_get_it():
    with pytest.raises(UserError, match=r"not on this machine \(looked in .*convatlas.*--download.*--data-root") as caught:
        locate("cifar100", None)
    assert "\n" not in str(caught.value)


def test_where_data_was_found_is_remembered_until_it_is_gone(tmp_path):
    place = tmp_path / "here"
    place.mkdir()
    assert recall("abc") is None
    remember("abc", place)
    remember("def", tmp_path)
    assert recall("abc") == place
    place.rmdir()
    assert recall("abc") is None
    assert recall("def") == tmp_path


def test_a_cache_that_cannot_be_written_or_read_is_no_hindrance(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember("abc", tmp_path)
    assert recall("abc") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "convatlas").mkdir()
    (tmp_path / "convatlas" / "places.json").write_text("torn {")
    assert recall("abc") is None
    remember("abc", tmp_path)
    assert recall("abc") == tmp_path
