"""What `resonator doctor` looks at where a hub runs: its settings, database, disk, identity and health."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import alembic.config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from resonator.doctor import Examination, Finding, Where, failed, ok, warning
from resonator.doctor.broker import look_at_broker
from resonator.doctor.disk import look_at_disk
from resonator.doctor.identity import look_at_identity
from resonator.errors import InputInvalid
from resonator.trust import Party
from resonator_hub import database_url, settings
from resonator_hub.database import JOURNAL
from resonator_hub.settings import EMBEDDED, HubSettings
from resonator_hub.watch.endpoint import parse_address

_DATABASE = "hub database"
_MIGRATIONS = Path(__file__).with_name("migrations")
_SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
_VERSION = "SELECT version_num FROM alembic_version"


def examinations(where: Where) -> Sequence[Examination]:
    """Return what to look at; nothing where no hub has its state here, and none was named."""
    try:
        chosen = settings.load(state=where.hub)
    except InputInvalid as error:
        wrong = failed("hub settings", str(error), "correct what it names")
        return [Examination("hub settings", lambda: [wrong])]
    if where.hub is None and not chosen.state.is_dir():
        return []
    return list(_of_hub(chosen, where.timeout))


def _of_hub(chosen: HubSettings, timeout: float) -> Iterator[Examination]:
    yield Examination("hub disk", partial(look_at_disk, "hub disk", chosen.state))
    if chosen.database_url is None:
        yield Examination(_DATABASE, partial(look_at_sqlite, chosen.state / JOURNAL, timeout))
    else:
        yield Examination(
            _DATABASE, partial(look_at_database, chosen.database_url.get_secret_value(), timeout)
        )
    if chosen.scheduler is None:
        yield Examination("hub cores", partial(_look_at_cores, chosen))
    if chosen.identity is not None:
        party = Party("hub", chosen.site, chosen.hub)
        yield Examination("hub certificate", partial(look_at_identity, chosen.identity, party))
        # As the hub it may see what a user may not: whether it is let in at all.
        look = partial(look_at_broker, chosen.broker, chosen.identity, chosen.site)
        if chosen.broker != EMBEDDED:
            yield Examination("hub broker", partial(look, insecure=chosen.insecure, timeout=timeout))
    if chosen.status is not None:
        yield Examination("hub health", partial(look_at_health, chosen.status, timeout))


def look_at_database(url: str, timeout: float) -> list[Finding]:
    """Examine a database by its URL: whether it answers, is writable and up to date."""
    try:
        read = database_url.read(url)
    except InputInvalid as error:
        return [failed(_DATABASE, str(error), "correct RESONATOR_DATABASE_URL")]
    if read.get_backend_name() == "sqlite":
        return look_at_sqlite(Path(str(read.database)), timeout)
    shown, seconds = database_url.shown(read), max(1, round(timeout))
    engine = create_engine(read, connect_args={"connect_timeout": seconds})
    try:
        with engine.connect() as connection:
            connection.execute(text(f"SET statement_timeout = {seconds * 1000}"))
            version = connection.execute(text(_VERSION)).scalar()
            locked = connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on"
            may = connection.execute(text("SELECT has_table_privilege('events', 'INSERT')")).scalar_one()
            size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        advice = "start it, or correct address, account and database in RESONATOR_DATABASE_URL"
        return [failed(_DATABASE, f"{shown} cannot be used: {said}", advice)]
    finally:
        engine.dispose()
    if locked or not may:
        says = f"{shown} may be read only"
        return [failed(_DATABASE, says, "is it a replica? Else grant the hub's account its tables")]
    return [_judged(shown, str(version), int(size))]


def look_at_sqlite(path: Path, timeout: float) -> list[Finding]:
    """Examine a SQLite file, whether or not its hub is running; it is opened to be read alone."""
    if not path.is_file():
        return [
            warning(
                _DATABASE, f"there is none at {path} yet", "start the hub there once, or name its --hub DIR"
            )
        ]
    give_up = time.monotonic() + timeout
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > give_up, 100_000)
            version = connection.execute(_VERSION).fetchone()[0]
            size = connection.execute(_SIZE).fetchone()[0]
            sound = _sound(connection)
    except sqlite3.Error as error:
        advice = "restore a backup (`resonator restore`), or free the disk if that is what is wrong"
        return [failed(_DATABASE, f"{path} cannot be read: {error}", advice)]
    if sound not in (None, "ok"):
        return [failed(_DATABASE, f"{path} is damaged: {sound}", "restore a backup (`resonator restore`)")]
    if sound is None:
        says = f"{path} is too large ({size / 2**30:.1f} GiB) to be checked in {timeout:g} s"
        return [warning(_DATABASE, says, "give it more time with --timeout")]
    return [_judged(str(path), version, size)]


def _sound(connection: sqlite3.Connection) -> str | None:
    """Return `ok`, what is damaged, or None where there was no time to find out."""
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise


def _judged(shown: str, version: str, size: int) -> Finding:
    """Judge a database that can be read by its tables' version."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    newest = str(scripts.get_current_head())
    says = f"{shown}, {size / 2**20:.1f} MiB, tables of version {version}"
    if version == newest:
        return ok(_DATABASE, says)
    if version in {script.revision for script in scripts.walk_revisions()}:
        advice = "back it up (`resonator backup`); the hub brings it up to date when it starts"
        return warning(_DATABASE, f"{says}, this hub's are {newest}", advice)
    return failed(
        _DATABASE, f"{says}, of which this hub knows nothing", "install the hub that made it, or a later one"
    )


def _look_at_cores(chosen: HubSettings) -> list[Finding]:
    try:
        cores = chosen.usable_cores()
    except InputInvalid as error:
        return [failed("hub cores", str(error), "correct --cores")]
    slots = chosen.slots or len(cores)
    says = f"{slots} compute slots on {len(cores)} cores"
    if slots > len(cores):
        return [warning("hub cores", says, "give it no more slots than cores: they only wait for each other")]
    return [ok("hub cores", says)]


def look_at_health(status: str, timeout: float) -> list[Finding]:
    """Ask a hub that runs whether it is ready."""
    name, (host, port) = "hub health", parse_address(status)
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        said: dict[str, Any] = json.loads(connection.getresponse().read(100_000))
    except (OSError, http.client.HTTPException, ValueError) as error:
        says = f"nothing answers at {status}: {error}"
        return [failed(name, says, "start the hub; if it runs and hangs, restart it and keep its log")]
    finally:
        connection.close()
    if said.get("ready") is True:
        return [ok(name, f"the hub at {status} is ready")]
    missing = "; ".join(map(str, said.get("waiting_for", {}).values()))
    return [warning(name, f"the hub at {status} is not ready: {missing}", "see what it waits for")]
