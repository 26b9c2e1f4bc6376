"""Where compute runs is chosen when a hub starts, and what stands against it is said then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from resonator.bus.blobs import BlobStore
from resonator.errors import InputInvalid
from resonator_hub import bootstrap
from resonator_hub.settings import HubSettings


def test_a_hub_without_dask_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("resonator_hub.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    settings = HubSettings(state=tmp_path, compute="dask://127.0.0.1:8786")
    with pytest.raises(InputInvalid, match=r"not installed \(distributed\): pip install 'resonator\[dask\]'"):
        bootstrap.compute_of(settings, (0,), BlobStore(tmp_path))
