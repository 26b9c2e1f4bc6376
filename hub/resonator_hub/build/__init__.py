"""Build: a candidate becomes a kernel."""

from resonator_hub.build.kernel import Kernel, build
from resonator_hub.build.link import LinkerMissing, LinkFailed

__all__ = ["Kernel", "LinkFailed", "LinkerMissing", "build"]
