"""Reading energy from trees of files made up for the purpose: RAPL counters, INA sensors, or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError

from resonator.messages import KernelResult
from resonator_agent import energy
from resonator_agent.energy import EnergyMeter, Integral, Zone, consumed

POWERCAP, HWMON = "sys/class/powercap", "sys/class/hwmon"


class Box:
    """A made-up box with a clock that is set by hand."""

    def __init__(self, root: Path):
        self.root = root
        self.now = 50.0

    def write(self, path: str, value: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    def zone(self, zone: str, name: str, energy_uj: int, range_uj: int = 1000_000_000) -> None:
        self.write(f"{POWERCAP}/{zone}/name", name)
        self.write(f"{POWERCAP}/{zone}/energy_uj", energy_uj)
        self.write(f"{POWERCAP}/{zone}/max_energy_range_uj", range_uj)

    def rail(self, channel: int, label: str, millivolts: int, milliamperes: int) -> None:
        self.write(f"{HWMON}/hwmon3/name", "ina3221")
        self.write(f"{HWMON}/hwmon3/in{channel}_label", label)
        self.write(f"{HWMON}/hwmon3/in{channel}_input", millivolts)
        self.write(f"{HWMON}/hwmon3/curr{channel}_input", milliamperes)

    def meter(self) -> EnergyMeter:
        return EnergyMeter(clock=lambda: self.now, root=self.root)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_box_without_sensors_tells_nothing(box: Box) -> None:
    with box.meter().measuring() as spent:
        box.now += 1.0
    assert spent.joules is None


def test_packages_and_memory_are_added_but_nothing_twice(box: Box) -> None:
    # Given two packages, one with its cores and memory, and the platform's own counter
    zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
    zones |= {"intel-rapl:1": "package-1", "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0"}
    for zone, name in zones.items():
        box.zone(zone, name, 1_000_000)
    # When every counter goes on by three joules
    with box.meter().measuring() as spent:
        box.now += 1.0
        for zone, name in zones.items():
            box.zone(zone, name, 4_000_000)
    # Then
    assert spent.joules == pytest.approx(9.0)


def test_a_counter_that_wrapped_around_goes_on(box: Box) -> None:
    box.zone("intel-rapl:0", "package-0", 9_000_000, range_uj=10_000_000)
    with box.meter().measuring() as spent:
        box.now += 1.0
        box.zone("intel-rapl:0", "package-0", 500_000, range_uj=10_000_000)
    assert spent.joules == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("range_uj", "after"), [(0.0, 1.0), (10.0, None)], ids=["range unknown", "gone meanwhile"]
)
def test_what_cannot_be_told_is_none(range_uj: float, after: float | None) -> None:
    assert consumed((Zone(Path("x"), range_uj),), [5.0], [after]) is None


def test_counters_for_privileged_eyes_only_do_not_count(box: Box) -> None:
    box.zone("intel-rapl:0", "package-0", 1)
    box.zone("intel-rapl:1", "package-1", 1)
    (box.root / POWERCAP / "intel-rapl:1/energy_uj").unlink()  # root reads whatever has no mode bits
    with box.meter().measuring() as spent:
        box.now += 1.0
    assert spent.joules is None


def test_a_counter_that_was_reset_is_not_believed(box: Box) -> None:
    box.zone("intel-rapl:0", "package-0", 5_000_000, range_uj=2**50)
    with box.meter().measuring() as spent:
        box.now += 1.0
        box.zone("intel-rapl:0", "package-0", 0, range_uj=2**50)
    assert spent.joules is None


async def test_a_jetson_is_measured_where_all_its_power_comes_in(box: Box) -> None:
    # Given 5 V at 2 A coming in, of which a part goes to the processor
    box.rail(1, "VDD_IN", 5000, 2000)
    box.rail(2, "VDD_CPU_GPU_CV", 5000, 1000)
    # When power doubles in a second
    with box.meter().measuring() as spent:
        box.now += 1.0
        box.rail(1, "VDD_IN", 5000, 4000)
    # Then
    assert spent.joules == pytest.approx(15.0)


async def test_rails_beside_one_another_are_added(box: Box) -> None:
    box.rail(1, "VDD_GPU_SOC", 10_000, 500)
    box.rail(2, "VDD_CPU_CV", 10_000, 100)
    box.write(f"{HWMON}/hwmon4/name", "ina226")
    box.write(f"{HWMON}/hwmon4/power1_input", 4_000_000)
    box.write(f"{HWMON}/hwmon0/name", "nvme")
    box.write(f"{HWMON}/hwmon0/power1_input", 9_000_000)
    with box.meter().measuring() as spent:
        box.now += 2.0
    assert spent.joules == pytest.approx(20.0)


async def test_sensors_are_read_in_between(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SAMPLE_S", 0.0)
    box.rail(1, "VDD_IN", 1000, 0)
    with box.meter().measuring() as spent:
        box.now += 1.0
        box.rail(1, "VDD_IN", 1000, 8000)
        for _ in range(3):
            await asyncio.sleep(0)
        box.rail(1, "VDD_IN", 1000, 0)
        box.now += 1.0
    # Two triangles of one second each, where beginning and end alone would tell nothing.
    assert spent.joules == pytest.approx(8.0)


def test_an_integral_with_a_gap_is_none() -> None:
    integral = Integral()
    integral.add(0.0, 1.0)
    integral.add(1.0, None)
    integral.add(2.0, 1.0)
    assert integral.joules is None


async def test_a_kernel_that_is_given_up_ends_the_sampling(box: Box) -> None:
    box.rail(1, "VDD_IN", 5000, 2000)
    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="given up"), box.meter().measuring() as spent:
        raise ValueError("given up")
    await asyncio.wait_for(asyncio.wait(asyncio.all_tasks() - before), 5.0)
    assert asyncio.all_tasks() == before
    assert spent.joules is None


@pytest.mark.parametrize("joules", [-1.0, float("inf"), float("nan"), 20_001.0])
def test_energy_that_no_box_can_have_drawn_is_refused_at_the_door(joules: float) -> None:
    with pytest.raises(ValidationError, match="joules"):
        KernelResult(job="j", candidate="j/t0/c0", epoch=1, device_time=1.0, joules=joules)
