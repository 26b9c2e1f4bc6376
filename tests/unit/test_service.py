"""What systemd and Kubernetes are told, and what they are told to ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from resonator.service import Service

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager that listens, at the address that NOTIFY_SOCKET has."""
    name = f"{tmp_path.name}-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name if request.param == "abstract" else name)
        listening.settimeout(10.0)
        yield ("@" + name if request.param == "abstract" else name), listening


def test_a_service_says_that_it_is_ready_and_that_it_stops(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    service = Service({"NOTIFY_SOCKET": address})
    service.ready()
    service.stopping()
    assert [listening.recv(100), listening.recv(100)] == [b"READY=1", b"STOPPING=1"]


async def test_the_watchdog_is_told_in_time_and_the_status_when_it_changes(
    manager: tuple[str, socket.socket],
) -> None:
    address, listening = manager
    service = Service({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())})
    assert service.watchdog_s == 0.03
    statuses = iter(["reading", "serving"])
    telling = asyncio.ensure_future(service.keep_alive(lambda: next(statuses, "serving")))
    said = [await asyncio.to_thread(listening.recv, 100) for _ in range(3)]
    telling.cancel()
    assert said == [b"WATCHDOG=1\nSTATUS=reading", b"WATCHDOG=1\nSTATUS=serving", b"WATCHDOG=1"]
    with contextlib.suppress(asyncio.CancelledError):
        await telling


async def test_a_watchdog_of_another_process_and_a_manager_that_is_gone_are_no_errors(tmp_path: Path) -> None:
    gone = Service({"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"})
    assert gone.watchdog_s == 0.0
    gone.ready()
    await Service({}).keep_alive(lambda: pytest.fail("nobody asked"))


async def test_a_status_that_cannot_be_made_does_not_silence_the_watchdog(
    manager: tuple[str, socket.socket],
) -> None:
    address, listening = manager
    service = Service({"NOTIFY_SOCKET": address})
    telling = asyncio.ensure_future(service.keep_alive(lambda: {}["sentence"]))
    said = await asyncio.to_thread(listening.recv, 100)
    telling.cancel()
    assert said == b"WATCHDOG=1\nSTATUS=the status cannot be told: see the log"
    with contextlib.suppress(asyncio.CancelledError):
        await telling


@pytest.mark.parametrize("unit", ["resonator-hub.service", "resonator-agent.service"])
def test_systemd_waits_for_a_service_and_restarts_one_that_hangs(unit: str) -> None:
    lines = (DEPLOY / unit).read_text().splitlines()
    assert "Type=notify" in lines
    assert "WatchdogSec=60" in lines
    assert "Restart=on-failure" in lines


def test_kubernetes_asks_where_the_hub_answers() -> None:
    hub = yaml.safe_load((DEPLOY / "kubernetes" / "hub.yaml").read_text())
    (container,) = hub["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    (port,) = container["ports"]
    assert variables["RESONATOR_STATUS"] == f"0.0.0.0:{port['containerPort']}"
    for probe, path in (
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
    volumes = {one["name"] for one in hub["spec"]["template"]["spec"]["volumes"]} | {
        one["metadata"]["name"] for one in hub["spec"]["volumeClaimTemplates"]
    }
    (first,) = hub["spec"]["template"]["spec"]["initContainers"]
    mounted = {mount["name"] for one in (first, container) for mount in one["volumeMounts"]}
    assert mounted == volumes
    assert hub["spec"]["selector"]["matchLabels"] == hub["spec"]["template"]["metadata"]["labels"]
