"""Reading the box's conditions from trees of files made up for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from resonator_agent.conditions import ConditionsProbe, LoadSample, foreign_load

AGENT, PROFILER = 10, 11


class Box:
    """A made-up box: two cores, a clock that is set by hand, processor time in ticks of 10 ms."""

    def __init__(self, root: Path):
        self.root = root
        self.now = 100.0
        self.load(busy=0, own=0)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(self, *, busy: int, own: int) -> None:
        self.write("proc/stat", f"cpu  {busy} 0 0 0 0 0 0 0 0 0\ncpu0 9 9 9 9 9 9 9 9 0 0\n")
        with open(self.root / "proc/stat", "a") as file:
            file.write(f"cpu1 {busy} 0 0 500 3 0 0 0 0 0\nintr 1 2\n")
        self.write(f"proc/{AGENT}/stat", f"{AGENT} (a (b) c) S " + "0 " * 10 + "0 0 " + "0 " * 30)
        self.write(f"proc/{PROFILER}/stat", f"{PROFILER} (python) R " + "0 " * 10 + f"{own} 0 " + "0 " * 30)

    def probe(self, cores: tuple[int, ...] = (1,)) -> ConditionsProbe:
        return ConditionsProbe(
            cores, clock=lambda: self.now, own_pids=lambda: [AGENT, PROFILER], root=self.root
        )


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_load_of_others_is_what_the_agent_did_not_use(box: Box) -> None:
    probe = box.probe()
    probe.load()
    box.now += 1.0
    box.load(busy=100, own=70)

    assert probe.load() == pytest.approx(0.3)


def test_a_span_of_a_few_ticks_is_no_evidence(box: Box) -> None:
    probe = box.probe()
    probe.load()
    box.now += 0.2
    box.load(busy=20, own=0)

    assert probe.load() is None


def test_short_kernels_are_judged_over_a_sliding_span(box: Box) -> None:
    probe = box.probe()
    for _ in range(4):
        probe.load()
        box.now += 0.1
    box.load(busy=40, own=20)

    assert probe.load(since=box.now - 0.1) == pytest.approx(0.5)


def test_a_long_kernel_is_judged_as_a_whole(box: Box) -> None:
    probe = box.probe()
    probe.load()
    began, box.now = box.now, box.now + 10.0
    box.load(busy=1000, own=900)

    assert probe.load(since=began) == pytest.approx(0.1)


def test_what_happened_long_before_does_not_dilute_the_load(box: Box) -> None:
    probe = box.probe()
    probe.load()
    box.now += 60.0
    box.load(busy=100, own=0)

    assert probe.load() is None


def test_a_replaced_process_makes_earlier_samples_worthless(box: Box) -> None:
    probe = box.probe()
    probe.load()
    probe.forget()
    box.now += 1.0

    assert probe.load() is None


def test_the_load_stays_between_none_and_all() -> None:
    before = LoadSample(at=0.0, busy=0.0, own=0.0)

    assert foreign_load(before, LoadSample(at=1.0, busy=1.0, own=1.2), 1) == 0.0
    assert foreign_load(before, LoadSample(at=1.0, busy=1.3, own=0.0), 1) == 1.0
    assert foreign_load(before, LoadSample(at=1.0, busy=1.0, own=0.0), 4) == 0.25


def test_the_frequency_is_the_mean_over_the_cores_used(box: Box) -> None:
    box.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "800000\n")
    box.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "1000000\n")

    assert box.probe((1,)).frequency_hz() == 1e9
    assert box.probe((0, 1)).frequency_hz() == 9e8


def test_without_cpufreq_the_frequency_is_that_of_cpuinfo(box: Box) -> None:
    box.write("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 1.0\n\nprocessor\t: 1\ncpu MHz\t\t: 2596.134\n")

    assert box.probe().frequency_hz() == pytest.approx(2.596134e9)


def test_the_temperature_is_the_hottest_plausible_sensor(box: Box) -> None:
    box.write("sys/class/thermal/thermal_zone0/temp", "41500\n")
    box.write("sys/class/thermal/thermal_zone1/temp", "-256000\n")
    box.write("sys/class/hwmon/hwmon0/temp1_input", "55000\n")

    assert box.probe().temperature_c() == pytest.approx(55.0)


def test_a_system_that_shows_nothing_has_no_conditions(tmp_path: Path) -> None:
    probe = ConditionsProbe((0,), clock=lambda: 0.0, own_pids=lambda: [1], root=tmp_path)

    assert probe.read().model_dump() == {"frequency_hz": None, "temperature_c": None, "foreign_load": None}
