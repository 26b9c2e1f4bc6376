"""The authority: what it gives out, what it takes back, and what it refuses."""

from __future__ import annotations

import json
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from resonator.errors import InputInvalid, Refused
from resonator.trust import CertificateInvalid, Credentials, Party, credentials_for, party_of
from resonator.trust.credentials import AUTHORITY, CERTIFICATE, KEY
from resonator_hub.authority import Authority
from resonator_hub.authority.broker_verbs import brokers
from resonator_hub.authority.certificate import root
from resonator_hub.authority.passphrase import PASSPHRASE
from resonator_hub.authority.verbs import ca

BOX = Party("device", "lab", "box")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Authority.create(tmp_path / "ca", "Test fleet", None)
    return tmp_path / "ca"


def revoked(folder: Path) -> set[int]:
    found = x509.load_pem_x509_crl((folder / "revoked.crl").read_bytes())
    return {one.serial_number for one in found}


def certificate(identity: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates((identity / CERTIFICATE).read_bytes())[0]


def test_keys_are_for_their_owner_alone(folder: Path, tmp_path: Path) -> None:
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "box")
    keys = [*folder.glob("*.key"), tmp_path / "box" / KEY]
    assert len(keys) == 3
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_identity_says_who_it_is_and_for_how_long(folder: Path, tmp_path: Path) -> None:
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "box", timedelta(days=3))
    found = Credentials.load(tmp_path / "box")
    assert found.party == BOX
    assert timedelta(days=2) < found.valid_until - datetime.now(timezone.utc) <= timedelta(days=3)
    assert found.context().verify_mode is ssl.CERT_REQUIRED
    chain = x509.load_pem_x509_certificates((tmp_path / "box" / CERTIFICATE).read_bytes())
    chain[0].verify_directly_issued_by(chain[1])
    uses = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.ExtendedKeyUsageOID.SERVER_AUTH not in uses, "a box cannot pose as a broker"


def test_one_name_has_one_certificate_until_it_is_revoked_or_renewed(folder: Path, tmp_path: Path) -> None:
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "box")
        first = certificate(tmp_path / "box").serial_number
        with pytest.raises(Refused, match="lab/dev/box has a valid certificate"):
            authority.enrol(BOX, tmp_path / "another")
        authority.renew_in(tmp_path / "box", BOX)
    second = certificate(tmp_path / "box").serial_number
    assert second != first
    assert Credentials.load(tmp_path / "box").context()
    with Authority.open(folder, None) as authority:
        assert {entry.number for entry in authority.revoke("box")} == {first, second}
        with pytest.raises(Refused, match="nobody has that name"):
            authority.revoke("box")
        with pytest.raises(Refused, match="no valid certificate to renew"):
            authority.renew_in(tmp_path / "box", BOX)
        authority.enrol(BOX, tmp_path / "again")
    assert revoked(folder) == {first, second}


def test_a_name_that_several_have_is_told_apart_by_the_whole_name(folder: Path, tmp_path: Path) -> None:
    twin = Party("device", "den", "box")
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "one")
        authority.enrol(twin, tmp_path / "two")
        with pytest.raises(Refused, match="den/dev/box, lab/dev/box"):
            authority.revoke("box")
        authority.revoke("den/dev/box")
        assert authority.users("device") == ["lab/dev/box"]


@pytest.mark.parametrize(
    ("site", "name", "sentence"),
    [
        ("a/b", "box", "site 'a/b' is not a name"),
        ("lab", "", "is not a name"),
        ("s" * 40, "n" * 40, "shorter"),
    ],
)
def test_enrol_refuses_names_that_no_topic_or_certificate_holds(site: str, name: str, sentence: str) -> None:
    with pytest.raises(InputInvalid, match=sentence):
        Party("device", site, name)


def test_a_certificate_of_somebody_elses_making_names_nobody() -> None:
    foreign = root("Another fleet", datetime.now(timezone.utc)).certificate
    with pytest.raises(CertificateInvalid, match="names nobody here"):
        party_of(foreign)


def test_an_authority_is_made_once_and_wants_its_passphrase(tmp_path: Path) -> None:
    Authority.create(tmp_path / "ca", "Fleet", b"secret")
    with pytest.raises(Refused, match="is not empty"):
        Authority.create(tmp_path / "ca", "Fleet", None)
    for passphrase, sentence in ((None, "is protected by"), (b"wrong", "the passphrase is wrong")):
        with pytest.raises(InputInvalid, match=sentence), Authority.open(tmp_path / "ca", passphrase):
            pytest.fail("it was opened")
    with Authority.open(tmp_path / "ca", b"secret") as authority:
        assert authority.issue(BOX, Ed25519PrivateKey.generate().public_key())
    with pytest.raises(InputInvalid, match="is no authority"), Authority.open(tmp_path, None):
        pytest.fail("it was opened")


def test_a_damaged_register_is_told_of(folder: Path) -> None:
    (folder / "issued.json").write_text('[{"serial": "xyz"}]')
    with pytest.raises(InputInvalid, match="is no register"), Authority.open(folder, None):
        pytest.fail("it was opened")


def test_an_identity_that_is_incomplete_open_or_mixed_up_is_refused(folder: Path, tmp_path: Path) -> None:
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "box")
        authority.enrol(Party("device", "lab", "other"), tmp_path / "other")
    box = tmp_path / "box"
    (box / KEY).chmod(0o640)
    with pytest.raises(InputInvalid, match="can be read by others; run `chmod 600"):
        Credentials.load(box)
    (box / KEY).chmod(0o600)
    (box / KEY).write_bytes((tmp_path / "other" / KEY).read_bytes())
    with pytest.raises(InputInvalid, match="do not fit"):
        Credentials.load(box).context()
    (box / CERTIFICATE).write_bytes(b"no certificate")
    with pytest.raises(InputInvalid, match="is not a certificate in PEM"):
        Credentials.load(box)
    (box / AUTHORITY).unlink()
    with pytest.raises(InputInvalid, match=r"ca\.crt is missing"):
        Credentials.load(box)


def test_the_way_to_a_broker_is_guarded_local_or_allowed(folder: Path, tmp_path: Path) -> None:
    with Authority.open(folder, None) as authority:
        authority.enrol(BOX, tmp_path / "box")
    for local in ("mqtt://127.0.0.1", "mqtt://localhost:1883", "mqtt://[::1]:1883"):
        assert credentials_for(local, None, insecure=False) is None
    for far in ("mqtt://10.0.0.1", "mqtt://broker.example.org"):
        with pytest.raises(InputInvalid, match="without TLS"):
            credentials_for(far, None, insecure=False)
        assert credentials_for(far, None, insecure=True) is None
    with pytest.raises(InputInvalid, match="--identity DIR"):
        credentials_for("mqtts://broker.example.org", None, insecure=True)
    assert credentials_for("mqtts://broker", tmp_path / "box", insecure=False, party=BOX) is not None
    with pytest.raises(InputInvalid, match="is the identity of lab/dev/box, not of lab/hub/main"):
        credentials_for("mqtts://broker", tmp_path / "box", insecure=False, party=Party("hub", "lab", "main"))


def test_the_commands_make_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESONATOR_CA", str(tmp_path / "ca"))
    monkeypatch.setenv("RESONATOR_SITE", "lab")
    monkeypatch.setenv(PASSPHRASE, "secret")
    monkeypatch.setenv("COLUMNS", "120")
    runner = CliRunner()

    def run(*arguments: str) -> str:
        done = runner.invoke(ca, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    run("init", "--passphrase")
    run("hub", "main")
    run("broker", "cloud", "--san", "broker.example.org", "--san", "10.0.0.1")
    run("device", "box")
    run("user", "vera", "--role", "viewer")
    run("renew", "cloud")
    run("revoke", "box")
    assert [entry["name"] for entry in json.loads(run("list", "--json"))] == [
        "main",
        "cloud",
        "box",
        "vera",
        "cloud",
    ]
    assert "revoked" in run("list")
    names = certificate(tmp_path / "ca/identities/lab/broker/cloud").extensions
    assert len(names.get_extension_for_class(x509.SubjectAlternativeName).value) == 2
    done = runner.invoke(brokers, ["config", "cloud", "--port", "8884"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    place = tmp_path / "ca/identities/lab/broker/cloud"
    assert "listener 8884 0.0.0.0" in (place / "mosquitto.conf").read_text()
    assert "user lab/hub/main" in (place / "acl").read_text()
    assert "user lab/client/vera" in (place / "acl").read_text()


def test_the_commands_refuse_what_makes_no_sense(folder: Path) -> None:
    def refused(*arguments: str) -> str:
        return str(CliRunner().invoke(ca, [*arguments, "--dir", str(folder)]).exception)

    assert "is none of operator, submitter, viewer" in refused("user", "ann", "--role", "king")
    assert "neither a host's name" in refused("broker", "cloud", "--san", "bröker")
    assert "is not a name" in refused("hub", "a b")
    assert "nobody has that name" in refused("revoke", "box")
