"""Kernels of mixed speed: most of them random schedules of both operators, a few found by evolution.

Each is compiled once; the same object becomes TVM's archive and Resonator's shared library.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from operators import OPERATORS, model

from resonator_hub import cost_model, ir, warm
from resonator_hub.build.link import link
from resonator_hub.frontends.onnx import extract
from resonator_hub.search import Tried, select

EVOLVED = 0.2
"""The share of the kernels that evolution finds after the random ones."""


@dataclass(frozen=True)
class Built:
    """A kernel as files: `library` for Resonator's agent, `archive` for TVM's runners."""

    operator: str
    library: str
    archive: str
    arguments: list[tuple[list[int], str]]


Measure = Callable[[Sequence[Built]], list[float | None]]
"""Returns the latencies of kernels in seconds, None for those that fail."""


def pack(kernels: Sequence[Built]) -> str:
    """Return kernels as JSON, for another process."""
    return json.dumps([asdict(kernel) for kernel in kernels])


def unpack(text: str) -> list[Built]:
    """Return what `pack` packed."""
    return [Built(**row) for row in json.loads(text)]


def make(folder: Path, count: int, target: str, measure: Measure) -> list[Built]:
    """Build `count` kernels, as many of each operator, in the order in which a tuning run finds them."""
    warm.load()
    families = [
        _Family(name, target, folder).grow(count // len(OPERATORS), seed, measure)
        for seed, name in enumerate(OPERATORS, start=1)
    ]
    return [kernel for each in zip(*families, strict=True) for kernel in each]


class _Family:
    """The kernels of one operator."""

    def __init__(self, name: str, target: str, folder: Path) -> None:
        self._name = name
        self._target = target
        self._folder = folder
        self._packed = extract(model(name), {}, target).tasks[0].module
        self._module = ir.unpack_module(self._packed)
        self._kernels: dict[str, Built] = {}

    def grow(self, count: int, seed: int, measure: Measure) -> list[Built]:
        """Return `count` kernels: random ones, and after them what a search proposes that knows them."""
        from tvm.s_tir import meta_schedule as ms

        context = ms.TuneContext(
            mod=self._module,
            target=ir.parse_target(self._target),
            space_generator="post-order-apply",
            search_strategy=ms.search_strategy.ReplayTrace(),
            num_threads=1,
            rand_state=seed,
        )
        context.pre_tuning(
            max_trials=count, num_trials_per_iter=count, design_spaces=context.generate_design_space()
        )
        drawn: list[Any] = []
        for candidate in context.generate_measure_candidates():
            if len(drawn) < round(count * (1 - EVOLVED)) and self._add(candidate.sch.mod):
                drawn.append(candidate)
        latencies = measure(list(self._kernels.values()))
        for trace in self._evolve(context, drawn, latencies, seed):
            self._add(ir.apply_trace(trace, self._module).mod)
            if len(self._kernels) == count:
                break
        print(f"{self._name}: {len(drawn)} random, {count - len(drawn)} evolved kernels", flush=True)
        return list(self._kernels.values())

    def _evolve(
        self, context: Any, drawn: list[Any], latencies: list[float | None], seed: int
    ) -> Iterator[bytes]:
        """Yield the traces of candidates that should be fast, after what is known of others."""
        from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature

        features = [array.numpy() for array in PerStoreFeature().extract_from(context, drawn)]
        rows = zip(drawn, map(cost_model.pack_features, features), latencies, strict=True)
        known = [(candidate, row, latency) for candidate, row, latency in rows if latency is not None]
        learned = cost_model.update(
            [cost_model.Sample(row, latency, self._name) for _, row, latency in known], None
        )
        tried = [Tried(ir.pack_trace(candidate.sch), latency) for candidate, _, latency in known]
        seen: frozenset[str] = frozenset()
        while True:
            proposals = select(self._packed, self._target, tried, learned, 16, seed, seen)
            assert proposals, "the search finds nothing new"
            yield from (proposal.trace for proposal in proposals)
            seen |= {proposal.digest for proposal in proposals}

    def _add(self, scheduled: Any) -> bool:
        """Build as TVM's LocalBuilder does, and link the same object as Resonator does; False if known."""
        from tvm.s_tir.meta_schedule.arg_info import ArgInfo
        from tvm.s_tir.meta_schedule.builder.local_builder import default_build, default_export

        infos = ArgInfo.from_entry_func(scheduled, remove_preproc=True)
        made = Path(default_export(default_build(scheduled, ir.parse_target(self._target), None)))
        with tarfile.open(made) as archive:
            archive.extractall(made.parent, filter="data")
        library = made.with_suffix(".so")
        link(library, sorted(made.parent.glob("*.o")), self._target)
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        kept = [str(shutil.move(file, self._folder / (digest + file.suffix))) for file in (library, made)]
        shutil.rmtree(made.parent)
        known = digest in self._kernels
        arguments = [([int(extent) for extent in info.shape], str(info.dtype)) for info in infos]
        self._kernels.setdefault(digest, Built(self._name, kept[0], kept[1], arguments))
        return not known
