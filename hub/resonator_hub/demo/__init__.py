"""`resonator demo`: a hub and its agents on this machine tune a real model, as real processes."""

from resonator_hub.demo.verb import demo

__all__ = ["demo"]
