"""A soak: random faults on real processes with three sites, every guarantee checked at the end."""
