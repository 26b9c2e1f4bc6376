"""Kernels waiting on the device, within the credit that was announced."""

from __future__ import annotations

from dataclasses import dataclass, field

from resonator.messages import BlobRef, KernelPush
from resonator_agent.commands import Fetch

MAX_STAGED = 4096
"""Kernels may be tiny; their number is bounded, too."""


@dataclass
class _Staged:
    push: KernelPush
    missing: set[str] = field(default_factory=set)


def refs(push: KernelPush) -> tuple[BlobRef, ...]:
    """Return the blobs that a kernel needs before it can run."""
    return (push.blob,) if push.reference is None else (push.blob, push.reference)


def size(push: KernelPush) -> int:
    """Return the bytes that a kernel takes from the credit: its blob's and its reference's, uncompressed."""
    return sum(ref.size for ref in refs(push))


class Stage:
    """Holds pushed kernels in order of arrival, and knows which of their blobs are here."""

    def __init__(self, credit: int):
        self._credit = credit
        self._staged: dict[str, _Staged] = {}
        self._here: set[str] = set()

    def __contains__(self, candidate: str) -> bool:
        return candidate in self._staged

    def __len__(self) -> int:
        return len(self._staged)

    @property
    def bytes(self) -> int:
        """The credit in use."""
        return sum(size(staged.push) for staged in self._staged.values())

    def objection(self, push: KernelPush) -> str | None:
        """Say why a kernel cannot be staged, or None when it can."""
        if len(self._staged) >= MAX_STAGED:
            return f"{push.candidate}: {MAX_STAGED} kernels are staged already"
        free = self._credit - self.bytes
        if size(push) > free:
            return f"{push.candidate} needs {size(push)} bytes, of {self._credit} bytes {free} are free"
        return None

    def add(self, push: KernelPush) -> list[Fetch]:
        """Stage a kernel; return what has to be fetched for it and is not under way already."""
        wanted = {ref.digest: ref for ref in refs(push) if ref.digest not in self._here}
        under_way = self._needed()
        self._staged[push.candidate] = _Staged(push, set(wanted))
        return [Fetch(ref) for digest, ref in wanted.items() if digest not in under_way]

    def arrived(self, digest: str) -> None:
        """Note that a blob is here."""
        if digest in self._needed():
            self._here.add(digest)
        for staged in self._staged.values():
            staged.missing.discard(digest)

    def waiting_for(self, digest: str) -> list[KernelPush]:
        """Return the kernels that cannot run without this blob."""
        return [staged.push for staged in self._staged.values() if digest in staged.missing]

    def next_ready(self) -> KernelPush | None:
        """Return the earliest kernel whose blobs are all here."""
        return next((staged.push for staged in self._staged.values() if not staged.missing), None)

    def remove(self, candidate: str) -> list[str]:
        """Forget a kernel; return the digests that nothing needs any more."""
        gone = self._staged.pop(candidate)
        freed = sorted({ref.digest for ref in refs(gone.push)} - self._needed())
        self._here.difference_update(freed)
        return freed

    def clear(self) -> list[str]:
        """Forget every kernel; return the digests that were needed."""
        freed = sorted(self._needed())
        self._staged.clear()
        self._here.clear()
        return freed

    def _needed(self) -> set[str]:
        return {ref.digest for staged in self._staged.values() for ref in refs(staged.push)}
