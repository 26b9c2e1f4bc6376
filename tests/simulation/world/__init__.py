"""Whole fleets in a simulated world: the real hub and agents on a clock, network and disks of its own."""
