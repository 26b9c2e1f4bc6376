"""The compiled model that a job delivers: one file that the TVM runtime alone can run."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat, ValidationError

from resonator.errors import ResonatorError, quotable
from resonator.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST, LIBRARY = "manifest.json", "model.so"
MEMBERS = (MANIFEST, LIBRARY)
"""What a bundle holds, in this order, and nothing else."""
MAX_MANIFEST_BYTES = 2**20
MAX_LIBRARY_BYTES = 2**31
MAX_TENSORS = 1024
MAX_BYTES = MAX_MANIFEST_BYTES + MAX_LIBRARY_BYTES + 2**16
"""Of a whole bundle, with what the format adds."""


class BundleInvalid(ResonatorError):
    """A file is no bundle, or a damaged one; the sentence says what is wrong with it."""


class TensorsInvalid(ResonatorError):
    """The arrays given to a model are not what it takes; the sentence names the input."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Part):
    """What one run of the model takes on the device, in seconds."""

    untuned: float | None = Field(default=None, gt=0)
    """Compiled without any record; None where it was not measured."""
    tuned: float | None = Field(default=None, gt=0)
    spread: float | None = Field(default=None, ge=0)
    """Standard deviation of the tuned latency over its repeats."""


Count = Annotated[int, Field(ge=0, lt=2**62)]
_Tensors = Annotated[tuple[TensorSpec, ...], FailFast(), Field(max_length=MAX_TENSORS)]


class Manifest(_Part):
    """What the compiled model is, and the evidence of how fast it is."""

    apiVersion: Literal["resonator/v1"] = "resonator/v1"
    name: str = Field(min_length=1, max_length=253)
    job: str = ""
    target: str
    """JSON of the TVM target dictionary that the model was compiled for."""
    device: str = ""
    """The device that the latencies were measured on."""
    inputs: _Tensors
    outputs: _Tensors
    latency: Latency = Latency()
    conditions: dict[str, FiniteFloat | str | None] = Field(default_factory=dict)
    records: Count = 0
    """How many of the model's operators run by a record of their own."""
    trials: Count = 0
    versions: dict[str, str] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256, in hex, of each other member; `pack` fills it in."""


def pack(library: bytes, manifest: Manifest) -> bytes:
    """Return the bundle, a tar file; equal arguments give equal bytes."""
    complete = manifest.model_copy(update={"digests": {LIBRARY: hashlib.sha256(library).hexdigest()}})
    text = complete.model_dump_json(indent=2) + "\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in ((MANIFEST, text.encode()), (LIBRARY, library)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def read(source: bytes | str | os.PathLike[str]) -> tuple[Manifest, bytes]:
    """Return the manifest and the library of a bundle, given as bytes or by its path.

    Nothing is written anywhere. Raises `BundleInvalid` for anything but a whole and undamaged bundle.
    """
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise BundleInvalid(f"The bundle {os.fspath(source)!r} cannot be read: {error.strerror}.") from None
    with stream:
        text, library = _members(stream)
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = quotable(".".join(map(str, first["loc"])), 200) or MANIFEST
        raise BundleInvalid(f"The bundle's manifest is not valid: {field}: {first['msg']}.") from None
    if manifest.digests != {LIBRARY: hashlib.sha256(library).hexdigest()}:
        raise BundleInvalid(f"The bundle is damaged: {LIBRARY} does not have the digest in the manifest.")
    return manifest, library


def _members(stream: io.BufferedIOBase) -> tuple[bytes, bytes]:
    contents: list[bytes] = []
    for name, most in zip(MEMBERS, (MAX_MANIFEST_BYTES, MAX_LIBRARY_BYTES), strict=True):
        member = _header(stream)
        if member is None:
            raise BundleInvalid(f"The bundle is incomplete: {name} is missing.")
        if member.name != name or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise _foreign(member)
        if not 0 <= member.size <= most:
            raise BundleInvalid(f"The bundle's {name} has {member.size} bytes; at most {most} are accepted.")
        contents.append(stream.read(member.size))
        if len(contents[-1]) != member.size:
            raise BundleInvalid(f"The bundle is truncated inside {name}.")
        stream.read(-member.size % tarfile.BLOCKSIZE)
    if (member := _header(stream)) is not None:
        raise _foreign(member)
    return contents[0], contents[1]


def _header(stream: io.BufferedIOBase) -> tarfile.TarInfo | None:
    """Read what begins a member; None at the end.

    By itself: of the extensions that tarfile follows (sparse files, names as long as wanted, headers of
    headers) a bundle has none.
    """
    block = stream.read(tarfile.BLOCKSIZE)
    if not block.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError:
        raise BundleInvalid("This is no bundle: it is not a tar file, or it is truncated.") from None


def _foreign(member: tarfile.TarInfo) -> BundleInvalid:
    name = quotable(member.name, 80)
    return BundleInvalid(f"This is no bundle: it holds {name!r}, not {' and '.join(MEMBERS)} alone.")


class Model:
    """A compiled model in this process, from a bundle's manifest and its library in a file.

    Raises `BundleInvalid` where it does not load. Not for use by several threads at once.
    """

    def __init__(self, manifest: Manifest, library: Path) -> None:
        tvm = _runtime()
        self.manifest = manifest
        self._tvm = tvm
        self._device = tvm.cpu()
        try:
            module = tvm.runtime.load_module(str(library))
            self._machine = _virtual_machine(module, self._device)
        except (OSError, RuntimeError, AttributeError) as error:
            raise BundleInvalid(f"The model does not load on this machine: {_last_line(error)}.") from None
        self._main = self._machine["main"]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model once and return its outputs by name. Raises `TensorsInvalid`."""
        result = self._main(*self._arguments(inputs))
        tensors = [result] if isinstance(result, self._tvm.runtime.Tensor) else list(result)
        names = (spec.name for spec in self.manifest.outputs)
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

    def time(
        self, inputs: Mapping[str, NDArray[Any]] | None = None, *, repeat: int = 10, number: int = 1
    ) -> list[float]:
        """Return `repeat` latencies in seconds, each the mean of `number` runs, after one run to warm up.

        Without `inputs` the model runs on zeros. Raises `TensorsInvalid`.
        """
        arguments = self._arguments(self._zeros() if inputs is None else inputs)
        self._main(*arguments)
        latencies = []
        for _ in range(repeat):
            start = time.perf_counter()
            for _ in range(number):
                self._main(*arguments)
            latencies.append((time.perf_counter() - start) / number)
        return latencies

    def _zeros(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.manifest.inputs}

    def _arguments(self, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
        import numpy as np

        known = [spec.name for spec in self.manifest.inputs]
        for name in inputs:
            if name not in known:
                raise TensorsInvalid(f"The model has no input {name!r}; its inputs are: {', '.join(known)}.")
        arguments = []
        for spec in self.manifest.inputs:
            if spec.name not in inputs:
                raise TensorsInvalid(f"Input {spec.name!r} is missing; it is {spec.dtype}{list(spec.shape)}.")
            array = np.asarray(inputs[spec.name])
            _check_array(spec, array)
            arguments.append(self._tvm.runtime.tensor(np.ascontiguousarray(array), self._device))
        return arguments


def load(path: str | os.PathLike[str]) -> Model:
    """Return the model in the bundle at `path`, ready to run. Raises `BundleInvalid`."""
    manifest, library = read(path)
    with tempfile.TemporaryDirectory(prefix="resonator-") as folder:
        unpacked = Path(folder, LIBRARY)
        unpacked.write_bytes(library)
        return Model(manifest, unpacked)


def _check_array(spec: TensorSpec, array: NDArray[np.generic]) -> None:
    if array.shape != spec.shape:
        raise TensorsInvalid(
            f"Input {spec.name!r} has the shape {list(array.shape)}; the model takes {list(spec.shape)}."
        )
    if array.dtype.name != spec.dtype:
        raise TensorsInvalid(f"Input {spec.name!r} is {array.dtype.name}; the model takes {spec.dtype}.")


def _runtime() -> Any:
    """Return TVM; only its runtime is loaded, unless the compiler already is."""
    variable, before = "TVM_USE_RUNTIME_LIB", os.environ.get("TVM_USE_RUNTIME_LIB")
    os.environ[variable] = "1"
    try:
        import tvm
    except ImportError as error:
        raise ResonatorError(
            f"TVM is needed to run a model; install resonator[agent] (import failed: {error})."
        ) from None
    finally:  # the processes that this one starts choose for themselves
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
    return tvm


def _virtual_machine(module: Any, device: Any) -> Any:
    from tvm.runtime.vm import VirtualMachine

    return VirtualMachine(module, device)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")
