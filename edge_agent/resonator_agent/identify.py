"""What this box is: architecture, cores, memory, GPUs, and the exact TVM target of each device in it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from resonator.errors import ResonatorError
from resonator.messages import Identity, Offer

PROBE_S = 120.0
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")

# What the board says of itself in the device tree, and TVM's tag for it.
_BOARDS = {
    "Orin Nano": "nvidia/jetson-orin-nano",
    "AGX Orin": "nvidia/jetson-agx-orin-64gb",
    "AGX Xavier": "nvidia/jetson-agx-xavier",
    "Jetson Nano": "nvidia/jetson-nano",
    "Jetson TX2": "nvidia/jetson-tx2",
    "Raspberry Pi 4": "raspberry-pi/4b-aarch64",
}
# Extensions whose absence makes code crash, and that hypervisors are known to hide.
_CRITICAL = re.compile(r"^(avx|fma|f16c|amx|vaes|gfni|vpclmul|bmi|sse4)")
_X86_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
    ("x86-64-v2", {"sse42", "ssse3", "popcnt", "cx16"}),
)
# MIDR part numbers (implementer 0x41, ARM) of the cores found on edge boards.
_ARM_PARTS = {
    "0xd03": "cortex-a53",
    "0xd05": "cortex-a55",
    "0xd07": "cortex-a57",
    "0xd08": "cortex-a72",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd40": "neoverse-v1",
    "0xd41": "cortex-a78",
    "0xd42": "cortex-a78ae",
    "0xd49": "neoverse-n2",
}


class TvmFacts(BaseModel):
    """What `tvm_probe` printed; `mcpu` is empty where TVM has no LLVM."""

    mcpu: str = ""
    features: tuple[str, ...] = ()
    cuda: bool = False


@dataclass(frozen=True)
class Cpu:
    """A processor as /proc/cpuinfo describes it."""

    model: str
    extensions: tuple[str, ...]
    cores: int
    part: str = ""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; `arch` as CUDA names it, such as `sm_87`."""

    name: str
    arch: str


def identify(
    cores: Sequence[int],
    labels: Mapping[str, str],
    facts: TvmFacts,
    *,
    gpus: Sequence[Gpu] = (),
    machine: str = platform.machine(),
    root: Path = Path("/"),
) -> Identity:
    """Return what the box below `root` is; kernels will be measured on `cores`."""
    cpu = read_cpu(_text(root / "proc/cpuinfo"), machine)
    board = _text(root / "proc/device-tree/model").strip("\0\n ")
    tag = next((tag for words, tag in _BOARDS.items() if words in board), None)
    target = json.dumps(cpu_target(cpu, machine, facts, len(cores)), sort_keys=True)
    # A Jetson's tag stands for its GPU, which TVM may not be able to use.
    tag_kind = "cuda" if tag and tag.startswith("nvidia/") else "cpu"
    offers = [Offer(kind="cpu", target=target, tag=tag if tag_kind == "cpu" else None)]
    if facts.cuda and gpus:
        target = json.dumps(cuda_target(gpus[0]), sort_keys=True)
        offers.append(Offer(kind="cuda", target=target, tag=tag if tag_kind == "cuda" else None))
    return Identity(
        architecture=machine,
        cpu_model=cpu.model,
        extensions=cpu.extensions,
        cores=cpu.cores,
        cores_used=tuple(cores),
        memory=memory_bytes(root),
        gpus=tuple(gpu.name for gpu in gpus),
        tvm_version=importlib.metadata.version("apache-tvm"),
        agent_version=importlib.metadata.version("resonator"),
        labels=dict(labels),
        offers=tuple(offers),
    )


def read_cpu(cpuinfo: str, machine: str) -> Cpu:
    """Read /proc/cpuinfo of an x86 or an ARM machine; what is not there stays empty."""
    fields: dict[str, str] = {}
    cores = 0
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            cores += key.strip() == "processor"
            fields.setdefault(key.strip(), value.strip())
    part = fields.get("CPU part", "")
    extensions = (fields.get("flags") or fields.get("Features") or "").split()
    model = fields.get("model name") or fields.get("Model") or _ARM_PARTS.get(part) or machine
    return Cpu(model, tuple(sorted(extensions)[:512]), max(cores, 1), part)


def this_cpu(root: Path = Path("/")) -> Cpu:
    """Return the processor of the box below `root`."""
    return read_cpu(_text(root / "proc/cpuinfo"), platform.machine())


def cpu_target(cpu: Cpu, machine: str, facts: TvmFacts, cores: int) -> dict[str, Any]:
    """Return the TVM target of `cores` cores of this processor as a dictionary."""
    target: dict[str, Any] = {"kind": "llvm", "num-cores": cores}
    if machine == "aarch64":
        target["mtriple"] = "aarch64-linux-gnu"
        target["mcpu"] = _known(facts.mcpu) or _ARM_PARTS.get(cpu.part, "generic")
        dotprod = target["mcpu"] == "generic" and "asimddp" in cpu.extensions
        target["mattr"] = ["+neon", "+v8.2a", "+dotprod"] if dotprod else ["+neon"]
        return target
    if machine != "x86_64":
        target["mcpu"] = _known(facts.mcpu) or "generic"
        return target
    present = {_plain(name) for name in cpu.extensions}
    target["mcpu"] = _known(facts.mcpu) or _x86_level(present)
    hidden = sorted(
        name for name in facts.features if _CRITICAL.match(name) and not _shown(_plain(name), present)
    )
    if hidden:
        target["mattr"] = [f"-{name}" for name in hidden]
    return target


def cuda_target(gpu: Gpu) -> dict[str, Any]:
    """Return the TVM target of a GPU, with the limits of every CUDA architecture since sm_50."""
    return {
        "kind": "cuda",
        "arch": gpu.arch,
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": 49152,
        "thread_warp_size": 32,
    }


def read_gpus(listing: str) -> tuple[Gpu, ...]:
    """Read what `nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader` printed."""
    found = []
    for line in listing.splitlines():
        name, comma, capability = line.rpartition(",")
        if comma and re.match(r"^\s*\d+\.\d+\s*$", capability):
            found.append(Gpu(name.strip(), "sm_" + capability.strip().replace(".", "")))
    return tuple(found)


def find_gpus(run: Callable[[Sequence[str]], str] | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that the NVIDIA driver lists; none where there is no driver."""
    try:
        return read_gpus((run or _run)(_GPU_QUERY))
    except (OSError, subprocess.SubprocessError):
        return ()


def tvm_facts(cache: Path, cpu: Cpu) -> TvmFacts:
    """Return what TVM knows of this box, asked in a process of its own once per TVM version and processor.

    Raises ResonatorError where TVM cannot be imported.
    """
    key = f"{importlib.metadata.version('apache-tvm')} {cpu.model} {' '.join(cpu.extensions)}"
    try:
        kept = json.loads(cache.read_text())
        if kept["key"] == key:
            return TvmFacts.model_validate(kept["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or not one of ours: ask again
    try:
        facts = TvmFacts.model_validate_json(_run((sys.executable, "-m", "resonator_agent.tvm_probe")))
    except (OSError, subprocess.SubprocessError, ValidationError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise ResonatorError(f"TVM does not work on this box: {said[-1] if said else error}") from None
    cache.write_text(json.dumps({"key": key, "facts": facts.model_dump()}))
    return facts


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the box's memory in bytes, 0 where the system does not say."""
    match = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _known(mcpu: str) -> str:
    return "" if mcpu == "generic" else mcpu


def _plain(name: str) -> str:
    """Bring LLVM's and Linux's spellings together: `sse4.2` and `sse4_2`, `avx512vnni` and `avx512_vnni`."""
    return re.sub(r"[._-]", "", name)


def _shown(feature: str, present: set[str]) -> bool:
    return feature in present or (feature == "bmi" and "bmi1" in present)


def _x86_level(present: set[str]) -> str:
    return next((level for level, needs in _X86_LEVELS if needs <= present), "x86-64")


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=True)
    return done.stdout


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
