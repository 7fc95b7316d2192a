from convatlas.data.catalog import CATALOG
from convatlas.data.download import download_entry
from convatlas.download import Digest


def test_only_missing_files_of_an_entry_are_fetched(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("convatlas.data.download.download", lambda urls, target, **rest: asked.update({target.name: rest}))
    items = CATALOG["mnist"].downloads
    (tmp_path / items[1].file).touch()
    download_entry("mnist", tmp_path, progress=None)
    assert list(asked) == [items[0].file, *(item.file for item in items[2:])]
    assert asked[items[0].file] == {"digest": Digest("md5", items[0].md5), "size": items[0].size, "progress": None}
