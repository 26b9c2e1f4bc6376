"""A program that brings up the loopback of a new network namespace, and runs what it is told there."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
"""netdevice(7)"""


def main() -> None:
    """Run the command in the arguments; end as it ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    raise SystemExit(os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:]))


if __name__ == "__main__":
    main()
