"""A fleet for `bench_load.py`: real sockets, codec and state machines, but boxes that only wait."""
