"""What each device said it is, kept for those who ask, also while it is away."""

from __future__ import annotations

from sqlalchemy import select

from resonator.ids import DeviceId
from resonator.messages import DeviceReport, Identity, Telemetry
from resonator_hub.database import Database, put
from resonator_hub.tables import DEVICES


class Registry:
    """Identities (on disk), the latest telemetry and when it was heard (in memory) by device."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._telemetry: dict[DeviceId, Telemetry] = {}
        self._heard: dict[DeviceId, float] = {}
        with database.transaction() as connection:
            rows = connection.execute(select(DEVICES.c.device, DEVICES.c.identity)).all()
        self._identities = {DeviceId(row.device): Identity.model_validate_json(row.identity) for row in rows}

    def __contains__(self, device: DeviceId) -> bool:
        return device in self._identities

    def identity(self, device: DeviceId) -> Identity | None:
        """Return what a device last said it is."""
        return self._identities.get(device)

    def keep(self, device: DeviceId, identity: Identity) -> None:
        """Keep what a device is, on disk if it is news."""
        if self._identities.get(device) == identity:
            return
        row = {"device": device, "identity": identity.model_dump_json()}
        # Lost with the power, it is told again; the event that speaks of it would be lost, too.
        self._database.write(lambda connection: put(connection, DEVICES, ("device",), row), lasting=False)
        self._identities[device] = identity

    def note(self, device: DeviceId, telemetry: Telemetry, at: float) -> None:
        """Keep how a device fares, by the hub's clock `at`."""
        self._telemetry[device] = telemetry
        self._heard[device] = at

    def telemetry(self, device: DeviceId) -> Telemetry | None:
        """Return how a device fared when it last said so."""
        return self._telemetry.get(device)

    def heard(self, device: DeviceId) -> float | None:
        """Return when a device last said how it fares, in seconds since the epoch."""
        return self._heard.get(device)

    def complete(self, report: DeviceReport) -> DeviceReport:
        """Return the scheduler's report with what the device itself said."""
        device = DeviceId(report.device)
        telemetry, doing = self._telemetry.get(device), report.doing
        if not doing and telemetry is not None and telemetry.candidate and telemetry.epoch == report.epoch:
            doing = f"measuring {telemetry.candidate}" if report.state == "running" else ""
        refused = 0 if telemetry is None else telemetry.refused
        said = {"identity": self._identities.get(device), "doing": doing, "refused": refused}
        return report.model_copy(update=said)
