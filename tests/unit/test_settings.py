"""Settings of clients: command line over environment over file over default, and a sentence for bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from resonator import settings
from resonator.errors import InputInvalid


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "client.toml"
    for field in settings.ClientSettings.model_fields:
        monkeypatch.delenv(f"RESONATOR_{field.upper()}", raising=False)
    path.write_text("")
    monkeypatch.setenv(settings.ClientSettings.file_variable, str(path))
    return path


def test_without_anything_the_defaults_hold(file: Path) -> None:
    chosen = settings.load()

    assert (chosen.broker, chosen.site) == ("mqtt://127.0.0.1:1883", "local")


def test_each_source_wins_over_the_one_behind_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('broker = "mqtt://file"\nsite = "file"\ntimeout = 3')
    monkeypatch.setenv("RESONATOR_SITE", "environment")

    chosen = settings.load(site=None)

    assert (chosen.broker, chosen.site, chosen.timeout) == ("mqtt://file", "environment", 3.0)
    assert settings.load(site="given").site == "given"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("timeout = 0", "timeout: input should be greater than 0, not 0"),
        ('site = "a/b"', "site: a name is made of letters, digits, .* not 'a/b'"),
        ('broke = "mqtt://x"', "broke: extra inputs are not permitted"),
        ("broker = ", "is not a readable TOML file"),
        ('"', "is not a readable TOML file"),
    ],
)
def test_a_bad_file_is_answered_with_one_sentence(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)

    with pytest.raises(InputInvalid, match=sentence) as raised:
        settings.load()

    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_named_must_be_there(file: Path) -> None:
    file.unlink()

    with pytest.raises(InputInvalid, match=r"RESONATOR_CONFIG names .* which is not a file"):
        settings.load()


def test_a_file_that_nobody_named_need_not_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(settings.ClientSettings.file_variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert settings.load(broker="mqtt://given").broker == "mqtt://given"
