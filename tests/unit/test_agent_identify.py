"""What boxes are, from recorded descriptions of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from resonator_agent.identify import (
    Gpu,
    TvmFacts,
    cpu_target,
    cuda_target,
    find_gpus,
    identify,
    memory_bytes,
    read_cpu,
    read_gpus,
    tvm_facts,
)

ELKHART_LAKE = """\
processor\t: 0
model name\t: Intel Atom(R) x6425E Processor @ 2.00GHz
flags\t\t: fpu cx16 sse2 ssse3 sse4_1 sse4_2 movbe popcnt aes rdrand sha_ni gfni

processor\t: 1
model name\t: Intel Atom(R) x6425E Processor @ 2.00GHz
flags\t\t: fpu cx16 sse2 ssse3 sse4_1 sse4_2 movbe popcnt aes rdrand sha_ni gfni
"""
SERVER_FLAGS = "sse4_2 ssse3 popcnt cx16 avx avx2 bmi1 bmi2 f16c fma movbe"
RASPBERRY_PI = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd08

Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def x86(flags: str) -> str:
    return f"processor\t: 0\nmodel name\t: Test\nflags\t\t: {flags}\n"


def test_an_x86_box_is_read_from_cpuinfo() -> None:
    cpu = read_cpu(ELKHART_LAKE, "x86_64")

    assert (cpu.model, cpu.cores) == ("Intel Atom(R) x6425E Processor @ 2.00GHz", 2)
    assert "sse4_2" in cpu.extensions


def test_an_arm_board_is_read_from_cpuinfo() -> None:
    cpu = read_cpu(RASPBERRY_PI, "aarch64")

    assert (cpu.model, cpu.cores, cpu.part) == ("Raspberry Pi 4 Model B Rev 1.4", 2, "0xd08")
    assert cpu.extensions == ("asimd", "cpuid", "crc32", "evtstrm", "fp")


def test_an_unknown_machine_still_has_a_name_and_a_core() -> None:
    cpu = read_cpu("", "riscv64")

    assert (cpu.model, cpu.cores, cpu.extensions) == ("riscv64", 1, ())
    assert cpu_target(cpu, "riscv64", TvmFacts(), 1)["mcpu"] == "generic"


def test_the_target_is_the_processor_that_llvm_sees() -> None:
    target = cpu_target(read_cpu(ELKHART_LAKE, "x86_64"), "x86_64", TvmFacts(mcpu="tremont"), 2)

    assert target == {"kind": "llvm", "mcpu": "tremont", "num-cores": 2}


def test_extensions_that_a_hypervisor_hides_are_switched_off() -> None:
    facts = TvmFacts(mcpu="znver4", features=("avx", "avx2", "avx512vnni", "bmi", "sse4.2", "sse4a", "64bit"))

    target = cpu_target(read_cpu(x86(SERVER_FLAGS), "x86_64"), "x86_64", facts, 1)

    assert target["mattr"] == ["-avx512vnni", "-sse4a"]


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (SERVER_FLAGS + " avx512f avx512bw avx512cd avx512dq avx512vl", "x86-64-v4"),
        (SERVER_FLAGS, "x86-64-v3"),
        ("sse4_2 ssse3 popcnt cx16", "x86-64-v2"),
        ("sse2", "x86-64"),
    ],
)
def test_without_llvm_the_target_is_the_level_of_the_extensions(flags: str, level: str) -> None:
    assert cpu_target(read_cpu(x86(flags), "x86_64"), "x86_64", TvmFacts(), 1)["mcpu"] == level


def test_an_arm_target_names_its_triple_and_its_core() -> None:
    target = cpu_target(read_cpu(RASPBERRY_PI, "aarch64"), "aarch64", TvmFacts(mcpu="generic"), 4)

    assert target == {
        "kind": "llvm",
        "mtriple": "aarch64-linux-gnu",
        "mcpu": "cortex-a72",
        "mattr": ["+neon"],
        "num-cores": 4,
    }


def test_gpus_are_read_from_the_drivers_listing() -> None:
    listing = "NVIDIA GeForce RTX 3060, 8.6\nOrin (nvgpu), 8.7\nnot a gpu\n"

    assert read_gpus(listing) == (Gpu("NVIDIA GeForce RTX 3060", "sm_86"), Gpu("Orin (nvgpu)", "sm_87"))
    assert cuda_target(Gpu("Orin", "sm_87"))["arch"] == "sm_87"


def test_a_box_without_a_driver_has_no_gpus() -> None:
    def absent(command: Sequence[str]) -> str:
        raise FileNotFoundError(command[0])

    def broken(command: Sequence[str]) -> str:
        raise subprocess.CalledProcessError(9, command[0])

    assert find_gpus(absent) == ()
    assert find_gpus(broken) == ()


@pytest.mark.parametrize(("runs_cuda", "kinds"), [(True, ["cpu", "cuda"]), (False, ["cpu"])])
def test_a_gpu_is_offered_only_where_tvm_can_use_it(
    tmp_path: Path, runs_cuda: bool, kinds: list[str]
) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Orin Nano Developer Kit\0")
    facts = TvmFacts(mcpu="cortex-a78ae", cuda=runs_cuda)

    found = identify(
        (4, 5), {"rack": "1"}, facts, gpus=(Gpu("Orin", "sm_87"),), machine="aarch64", root=tmp_path
    )

    assert [offer.kind for offer in found.offers] == kinds
    assert [offer.tag for offer in found.offers] == [None, "nvidia/jetson-orin-nano"][: len(kinds)]
    assert (found.gpus, found.cores_used, found.labels) == (("Orin",), (4, 5), {"rack": "1"})


def test_memory_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16384 kB\nMemFree: 1 kB\n")

    assert memory_bytes(tmp_path) == 16 * 2**20
    assert memory_bytes(tmp_path / "elsewhere") == 0


def test_tvm_is_asked_once_and_remembered(tmp_path: Path) -> None:
    cache, cpu = tmp_path / "tvm.json", read_cpu(x86(SERVER_FLAGS), "x86_64")

    asked = tvm_facts(cache, cpu)
    kept = json.loads(cache.read_text())
    kept["facts"]["mcpu"] = "remembered"
    cache.write_text(json.dumps(kept))

    assert asked.mcpu
    assert tvm_facts(cache, cpu).mcpu == "remembered"
    assert tvm_facts(cache, read_cpu(x86("sse2"), "x86_64")).mcpu == asked.mcpu
