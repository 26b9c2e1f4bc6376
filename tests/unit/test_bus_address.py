import random

import pytest

from resonator.bus.backoff import Backoff
from resonator.bus.url import BrokerAddress, parse_broker_url
from resonator.errors import InputInvalid


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884),
        ("mqtt://broker.example.org", "broker.example.org", 1883),
        ("mqtt://[::1]:1883/", "::1", 1883),
        ("mqtts://broker.example.org", "broker.example.org", 8883),
    ],
)
def test_addresses_of_brokers(url: str, host: str, port: int) -> None:
    address = parse_broker_url(url)

    assert address == BrokerAddress(host, port, tls=url.startswith("mqtts"))
    assert parse_broker_url(str(address)) == address


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://broker", "is not an address of a broker"),
        ("localhost:1883", "is not an address of a broker"),
        ("", "is not an address of a broker"),
        ("mqtt://", "is not an address of a broker"),
        ("mqtt://user:secret@broker", "user names are not supported"),
        ("mqtt://broker/path", "nothing may follow the port"),
        ("mqtt://broker:99999", "the port is not a number from 1 to 65535"),
        ("mqtt://broker:0", "the port is not a number from 1 to 65535"),
        ("mqtt://broker:x", "the port is not a number from 1 to 65535"),
        ("mqtt://" + "a" * 64, "the host name is not valid"),
        ("mqtt://a..b", "the host name is not valid"),
        ("mqtt://[::1", "is not an address of a broker"),
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be(url: str, sentence: str) -> None:
    with pytest.raises(InputInvalid, match=sentence) as caught:
        parse_broker_url(url)

    assert "mqtt://127.0.0.1:1883" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_waits_double_up_to_the_most_and_start_again_after_success() -> None:
    backoff = Backoff(1.0, 8.0, random.Random(0))

    waits = [backoff.next() for _ in range(6)]

    for wait, step in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert step / 2 <= wait <= step
    backoff.reset()
    assert backoff.next() <= 1.0
