"""Every test here has a cache of its own, sees no data of this machine, and cannot reach the network by accident."""

import pytest

from convatlas.data import places


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("CONVATLAS_DATA", raising=False)
    monkeypatch.setattr(places, "SYSTEM_FOLDERS", ())
