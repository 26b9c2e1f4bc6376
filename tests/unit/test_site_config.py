"""`resonator site config`: what it writes, and what it refuses."""

from __future__ import annotations

from getpass import getuser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from resonator.errors import InputInvalid
from resonator.trust import Party
from resonator_hub.authority import Authority
from resonator_hub.authority.authority import LIFE
from resonator_hub.authority.brokers import configure
from resonator_hub.sites.verbs import sites

EDGE, HUB = Party("broker", "plant", "edge"), Party("hub", "lab", "main")
CLOUD = "mqtts://cloud.example.org"


@pytest.fixture(autouse=True)
def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    (tmp_path / "client.toml").touch()
    monkeypatch.setenv("RESONATOR_CONFIG", str(tmp_path / "client.toml"))


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """The identity of a site's broker, with all that the authority wrote beside it."""
    Authority.create(tmp_path / "ca", "Test fleet", None)
    with Authority.open(tmp_path / "ca", None) as authority:
        authority.enrol(EDGE, tmp_path / "edge", LIFE, ["edge.example.org"])
        authority.enrol(HUB, tmp_path / "hub")
        configure(tmp_path / "edge", authority.lists(), "0.0.0.0", 8883, getuser())
    return tmp_path / "edge"


def write(*arguments: str) -> str:
    """Run `resonator site config` and return what it says."""
    done = CliRunner().invoke(sites, ["config", *arguments])
    if isinstance(done.exception, InputInvalid):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def lines(folder: Path) -> list[str]:
    return (folder / "mosquitto.conf").read_text().splitlines()


def test_up_goes_out_and_dn_comes_in(tmp_path: Path) -> None:
    said = write("plant", "--cloud", "mqtt://127.0.0.1:1999", "--out", str(tmp_path / "site"))
    assert f"mosquitto -c {tmp_path}/site/mosquitto.conf" in said
    below = "resonator/v1/plant/"
    assert [line for line in lines(tmp_path / "site") if line.startswith("topic ")] == [
        f"topic +/+/up/# out 1 {below} {below}",
        f"topic +/+/dn/# in 1 {below} {below}",
        f"topic jobs/+/status in 1 {below} {below}",
        "topic +/hub/+/state in 1 resonator/v1/ resonator/v1/",
    ]


def test_both_sides_keep_what_the_other_has_missed(tmp_path: Path) -> None:
    limits = ["--max-queued", "500", "--keepalive", "7"]
    write("plant", "--cloud", "mqtt://127.0.0.1:1999", "--out", str(tmp_path / "site"), *limits)
    assert {
        "listener 1883 127.0.0.1",
        "address 127.0.0.1:1999",
        "persistence true",
        "autosave_interval 1",
        "max_queued_messages 500",
        "bridge_protocol_version mqttv311",
        "cleansession false",
        "local_cleansession false",
        "keepalive_interval 7",
        "notifications true",
        "notification_topic resonator/v1/plant/bridge/edge/state",
        "set_tcp_nodelay true",
    } <= set(lines(tmp_path / "site"))


def test_bridges_of_sites_do_not_take_each_others_place(tmp_path: Path) -> None:
    names = []
    for site in ("plant", "press"):
        write(site, "--cloud", "mqtt://127.0.0.1:1999", "--out", str(tmp_path / site))
        names += [line for line in lines(tmp_path / site) if line.startswith("remote_clientid ")]
    assert names == ["remote_clientid plant/broker/edge", "remote_clientid press/broker/edge"]


def test_one_identity_serves_the_sites_boxes_and_the_bridge(edge: Path) -> None:
    write("plant", "--cloud", CLOUD, "--identity", str(edge))
    assert {
        "listener 8883 0.0.0.0",
        f"certfile {edge}/own.crt",
        "require_certificate true",
        f"acl_file {edge}/acl",
        "address cloud.example.org:8883",
        f"bridge_certfile {edge}/own.crt",
        f"bridge_keyfile {edge}/own.key",
        f"bridge_cafile {edge}/ca.crt",
        "bridge_insecure false",
    } <= set(lines(edge))
    assert "allow_anonymous true" not in lines(edge)


def test_the_clouds_broker_lets_a_sites_broker_carry_its_own_site(edge: Path) -> None:
    rules = (edge / "acl").read_text().partition("user plant/broker/edge\n")[2]
    allowed = [line for line in rules.splitlines() if line.startswith("topic ")]
    assert "topic write resonator/v1/plant/dev/+/up/result" in allowed
    assert "topic write resonator/v1/plant/bridge/edge/state" in allowed
    assert "topic read resonator/v1/plant/+/+/dn/#" in allowed
    assert all("/v1/plant/" in line for line in allowed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a/b", "--cloud", "mqtt://127.0.0.1"], "site 'a/b' is not a name"),
        (["plant", "--cloud", "http://cloud"], "is not an address of a broker"),
        (["plant", "--cloud", "mqtt://10.0.0.1"], "allow it with --insecure"),
        (["plant", "--cloud", "mqtt://127.0.0.1", "--host", "0.0.0.0"], "allow it with --insecure"),
        (["plant", "--cloud", CLOUD], "give an identity by --identity DIR"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match=sentence):
        write(*arguments, "--out", str(tmp_path / "site"))
    assert not (tmp_path / "site").exists()


def test_somebody_elses_identity_is_refused(edge: Path, tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="broker plant/broker/edge, not of a broker of site press"):
        write("press", "--cloud", CLOUD, "--identity", str(edge))
    with pytest.raises(InputInvalid, match="the identity of hub lab/hub/main, not of a broker of site plant"):
        write("plant", "--cloud", CLOUD, "--identity", str(tmp_path / "hub"))


def test_an_identity_without_its_lists_is_refused(edge: Path) -> None:
    (edge / "revoked.crl").unlink()
    with pytest.raises(InputInvalid, match=r"revoked\.crl is missing: take along all"):
        write("plant", "--cloud", CLOUD, "--identity", str(edge))


def test_an_identity_says_where_the_configuration_goes(edge: Path, tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="with an identity the configuration goes where that is"):
        write("plant", "--cloud", CLOUD, "--identity", str(edge), "--out", str(tmp_path / "site"))
