"""Asks the full TVM what it knows of this box, in a short-lived process (`python -m`).

The agent itself never imports TVM: the compiler takes memory that an edge box has better uses for.
"""

from __future__ import annotations

import json
from typing import Any


def facts() -> dict[str, Any]:
    """Return LLVM's name of this CPU with the features that implies, and whether CUDA runs."""
    import tvm
    from tvm.target import codegen

    found: dict[str, Any] = {"mcpu": "", "features": [], "cuda": bool(tvm.cuda(0).exist)}
    try:
        found["mcpu"] = str(codegen.llvm_get_system_cpu())
        target = tvm.target.Target({"kind": "llvm", "mcpu": found["mcpu"]})
        found["features"] = sorted(str(name) for name in codegen.llvm_get_cpu_features(target))
    except (AttributeError, RuntimeError, ValueError):
        pass  # a TVM built without LLVM: the agent falls back on /proc/cpuinfo
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
