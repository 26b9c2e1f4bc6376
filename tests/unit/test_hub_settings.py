"""The hub's settings: what was given, then the environment, then the file; one sentence for what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resonator.errors import InputInvalid
from resonator_hub import settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("RESONATOR_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "hub.toml"
    path.touch()
    monkeypatch.setenv(settings.HubSettings.file_variable, str(path))
    return path


def test_the_defaults_serve_one_machine(config: Path) -> None:
    found = settings.load()
    assert (found.broker, found.port, found.policy, found.site) == ("embedded", 1883, "load_aware", "local")
    assert found.usable_cores() == tuple(sorted(os.sched_getaffinity(0)))


def test_what_is_given_wins_over_environment_and_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('site = "file"\npolicy = "fair"\nbatch = 8\ncores = [0, 1]\n')
    monkeypatch.setenv("RESONATOR_SITE", "environment")
    monkeypatch.setenv("RESONATOR_POLICY", "greedy")
    found = settings.load(site="given", policy=None)
    assert (found.site, found.policy, found.batch, found.cores) == ("given", "greedy", 8, (0, 1))


def test_where_blobs_and_compute_are_does_not_depend_on_where_a_process_runs(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.load(state=Path("state")).blob_place == str(tmp_path / "state" / "blobs")
    assert settings.load(blobs="shared").blob_place == str(tmp_path / "shared")
    assert settings.load(blobs="s3://bucket/blobs").blob_place == "s3://bucket/blobs"
    assert settings.load().scheduler is None
    monkeypatch.setenv("RESONATOR_COMPUTE", "dask://10.0.0.1:8786")
    assert settings.load().scheduler == "tcp://10.0.0.1:8786"
    assert settings.load(compute="tls://cluster:8786").scheduler == "tls://cluster:8786"


def test_cores_may_be_a_list_with_commas(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load(cores="0, 2").cores == (0, 2)
    monkeypatch.setenv("RESONATOR_CORES", "1,3")
    assert settings.load().cores == (1, 3)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"policy": "fastest"}, "policy: input should be 'sequential'"),
        ({"slots": 0}, "slots: input should be greater than 0, not 0"),
        ({"site": "a/b"}, "site"),
        ({"cores": "one"}, "cores"),
        ({"window": float("inf")}, "window"),
        ({"compute": "dask"}, "compute: .*write `local`, dask://HOST:PORT or tls://HOST:PORT"),
        ({"compute": "dask://me:secret@host:8786"}, "compute"),
        ({"blobs": ""}, "blobs"),
    ],
)
def test_what_is_wrong_is_named(config: Path, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputInvalid, match=sentence):
        settings.load(**given)


def test_a_core_that_is_not_there_is_named(config: Path) -> None:
    with pytest.raises(InputInvalid, match=r"cores: \[4000\] are not among those"):
        settings.load(cores="4000").usable_cores()


def test_a_bad_file_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("site = ")
    with pytest.raises(InputInvalid, match="not a readable TOML file"):
        settings.load()
    config.write_text("sight = 1")
    with pytest.raises(InputInvalid, match="sight"):
        settings.load()
    monkeypatch.setenv(settings.HubSettings.file_variable, str(config.with_name("none.toml")))
    with pytest.raises(InputInvalid, match=r"names .*none\.toml, which is not a file"):
        settings.load()
