import re

import pytest

from convatlas.data.catalog import CATALOG


def test_the_catalogue_names_what_the_documentation_promises():
    assert set(CATALOG) == {"cifar10", "cifar100", "mnist", "fashion-mnist", "digits", "shapes", "folder", "csv"}


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.kind == "files"])
def test_published_files_have_checksums_sizes_and_https_mirrors(name):
    entry = CATALOG[name]
    assert entry.downloads
    for item in entry.downloads:
        assert re.fullmatch("[0-9a-f]{32}", item.md5)
        assert 1_000 < item.size < 200_000_000
        assert len(item.urls) > 1
        assert all(url.startswith("https://") and url.endswith(item.file) for url in item.urls)
    for known in entry.known:
        assert set(known.md5) == set(entry.known[0].md5)
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in known.md5.values())
