"""What a hub knows, put aside and taken up again: rows of whatever database, and blobs."""

from resonator_hub.backup.making import back_up
from resonator_hub.backup.restoring import restore

__all__ = ["back_up", "restore"]
