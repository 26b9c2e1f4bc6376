"""`resonator doctor` at real brokers: a fleet that is well, and each thing on the way to it broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fakes.brokers import Mosquitto, free_port, mosquitto
from fakes.fleet_authority import HOST, Fleet, guarded
from fakes.hub import SITE as LOCAL
from fakes.hub import TalkingHub, talking_hub
from fakes.scene import ANN, GOOD, HUB, staged
from fakes.shell import SITE
from resonator.bus import topics
from resonator.cli.exits import ExitCode
from resonator.cli.main import make_app
from resonator.doctor import Finding
from resonator.doctor.broker import look_at_broker
from resonator.messages import HubState, SiteList, SiteQuery
from resonator.trust.credentials import AUTHORITY

TIMEOUT_S = 10.0
SHORT_S = 1.0
"""For what never answers."""


async def look(
    url: str, identity: Path | None = None, site: str = SITE, timeout: float = TIMEOUT_S
) -> dict[str, Finding]:
    """Look at a broker from another thread, as the command does; return what was found by its name."""
    findings = await asyncio.to_thread(look_at_broker, url, identity, site, insecure=False, timeout=timeout)
    return {finding.check: finding for finding in findings}


# --- a fleet with certificates ----------------------------------------------------------------------------


async def test_in_a_fleet_that_is_well_everybody_is_told_so(tmp_path: Path) -> None:
    async with staged(tmp_path, captured=False) as scene:
        before = dict(scene.hub.peer.refused)
        for party in (ANN, GOOD, HUB):
            found = await look(scene.url, scene.fleet.place(party))
            assert found["broker"].level == "ok", found
            assert "TLSv1.3" in found["broker"].says
            assert found["hub"].level == "ok", found
            asks = party is not HUB
            assert ("answers in" in found["hub"].says) == asks
            assert ("of the hub's" in found["clock"].says) == (asks and found["clock"].level == "ok")
        assert dict(scene.hub.peer.refused) == before, "nobody was disturbed"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    made.enrol(ANN)
    made.enrol(GOOD)
    return made


async def test_who_is_not_let_in_is_told_where_it_fails(fleet: Fleet, tmp_path: Path) -> None:
    stranger = Fleet(tmp_path)
    stranger.enrol(ANN)
    async with guarded(fleet) as url:
        # Given an identity of another fleet, whose authority did not issue the broker's certificate
        found = (await look(url, stranger.place(ANN)))["broker"]
        assert (found.level, "not to be trusted" in found.says) == ("failed", True)
        # Given one that trusts the broker, which does not trust it
        (stranger.place(ANN) / AUTHORITY).write_bytes((fleet.place(ANN) / AUTHORITY).read_bytes())
        found = (await look(url, stranger.place(ANN)))["broker"]
        assert found.level == "failed"
        # Given no identity, and none that fits the name
        assert "asks who this is" in (await look(url))["broker"].says
        other_name = url.replace(HOST, "localhost")
        found = (await look(other_name, fleet.place(ANN)))["broker"]
        assert (found.level, "not to be trusted" in found.says) == ("failed", True)


async def test_a_fleet_without_a_hub_is_told(fleet: Fleet) -> None:
    async with guarded(fleet) as url:
        found = await look(url, fleet.place(ANN), timeout=3 * SHORT_S)
    assert found["broker"].level == "ok"
    assert found["hub"].says == "no hub is online: none was ever here"


# --- brokers without TLS ----------------------------------------------------------------------------------


@pytest.fixture
async def broker() -> AsyncIterator[Mosquitto]:
    async with mosquitto() as server:
        yield server


@contextlib.asynccontextmanager
async def answering(url: str, *, release: str) -> AsyncIterator[TalkingHub]:
    """A hub of some release that answers what the doctor asks."""
    async with talking_hub(url, online=False) as hub:

        async def answer(received: object) -> None:
            await hub._answer(received, SiteList(sites=()))  # type: ignore[arg-type]

        hub.peer.on(SiteQuery, answer)
        state = HubState(status="online", session=1, version=release)
        await hub.peer.send(topics.hub_state(LOCAL, "main"), state, retain=True)
        yield hub


async def test_an_open_broker_on_this_machine_is_well(broker: Mosquitto) -> None:
    async with answering(broker.url, release=version("resonator")) as hub:
        found = await look(broker.url, site=LOCAL)
        assert [found[name].level for name in ("broker", "hub")] == ["ok", "ok"]
        # Given that it has gone, with a goodbye
        await hub.announce(online=False)
        found = await look(broker.url, site=LOCAL, timeout=SHORT_S)
        assert found["hub"].says == "no hub is online: local/main has gone offline"


async def test_a_hub_of_another_version_and_a_second_one_are_told(broker: Mosquitto) -> None:
    async with answering(broker.url, release="9.9.9") as hub:
        found = (await look(broker.url, site=LOCAL))["hub"]
        assert (found.level, "version 9.9.9" in found.says) == ("warning", True)
        second = HubState(status="online", session=1, version="9.9.9")
        await hub.peer.send(topics.hub_state(LOCAL, "second"), second, retain=True)
        found = (await look(broker.url, site=LOCAL))["hub"]
        assert found.says == "2 hubs are online: local/main, local/second"


async def test_a_hub_that_does_not_answer_is_told(broker: Mosquitto) -> None:
    async with talking_hub(broker.url):
        pass  # its presence stays at the broker
    found = (await look(broker.url, site=LOCAL, timeout=SHORT_S))["hub"]
    assert (found.level, "did not answer a question" in found.says) == ("failed", True)


async def test_a_broker_that_is_not_there_not_known_or_none_is_told() -> None:
    port = free_port()
    found = (await look(f"mqtt://127.0.0.1:{port}"))["broker"]
    assert found.says == f"nobody answers at mqtt://127.0.0.1:{port}: Connection refused"
    assert "is not an address" in (await look("http://here"))["broker"].says
    assert "on another machine and without TLS" in (await look("mqtt://192.0.2.1"))["broker"].says
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"mqtt://127.0.0.1:{mute.getsockname()[1]}"
        found = (await look(url, timeout=SHORT_S))["broker"]
        assert found.says == f"{url} took the connection and did not answer"


async def test_a_broker_without_tls_where_there_should_be_some_is_told(
    broker: Mosquitto, fleet: Fleet
) -> None:
    url = broker.url.replace("mqtt://", "mqtts://")
    found = (await look(url, fleet.place(ANN)))["broker"]
    assert (found.level, "does not speak TLS" in found.says) == ("failed", True)


# --- the command ------------------------------------------------------------------------------------------


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, make_app(), ["doctor", *arguments])


@pytest.fixture(autouse=True)
def nobody_lives_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings, hubs or agents but the tests' own."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))


async def test_the_command_prints_what_it_found_and_fails_when_something_has(
    broker: Mosquitto, tmp_path: Path
) -> None:
    async with answering(broker.url, release=version("resonator")):
        well = await run("--broker", broker.url, "--site", LOCAL, "--hub", str(tmp_path), "--json")
    assert well.exit_code == ExitCode.FINE, well.output
    found = {finding["check"]: finding for finding in json.loads(well.stdout)}
    assert {"broker", "hub", "clock", "hub disk", "hub database", "hub cores"} <= set(found)
    assert found["broker"]["level"] == "ok"
    ill = await run("--broker", f"mqtt://127.0.0.1:{free_port()}")
    assert ill.exit_code == ExitCode.UNEXPECTED
    assert "do: start the broker there" in ill.stdout
    assert "1 failed" in ill.stdout


async def test_settings_that_are_wrong_are_told_as_a_finding() -> None:
    ill = await run("--site", "no name", "--json")
    assert ill.exit_code == ExitCode.UNEXPECTED
    (finding,) = json.loads(ill.stdout)
    assert (finding["check"], finding["level"]) == ("settings", "failed")
