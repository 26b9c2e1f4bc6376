"""Whole fleets in a simulated world: the real hub, agents and users on a clock, network and disks of its own."""
