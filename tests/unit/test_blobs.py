import random
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resonator.bus.assembly import Assembly
from resonator.bus.blobs import BlobMissing, BlobStore, digest_of, serve
from resonator.bus.pull import MOST_ATTEMPTS, MOST_WINDOW, Pull
from resonator.errors import InputInvalid
from resonator.failures import FailureKind
from resonator.messages import MAX_CHUNK, BlobAbsent, BlobChunk, BlobRequest


def test_a_store_that_need_not_last_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(_handle: int) -> None:
        raise AssertionError("it waited")

    monkeypatch.setattr("os.fsync", waits)
    store = BlobStore(tmp_path, lasting=False)
    assert store.get(store.put(b"kernel")) == b"kernel"
    with pytest.raises(AssertionError, match="it waited"):
        BlobStore(tmp_path).put(b"model")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "near")


@pytest.fixture
def peer(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "far")


def blob(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def carry(assembly: Assembly, peer: BlobStore, now: float = 0.0) -> int:
    """Answer all requests over a perfect network; returns how many there were."""
    count = 0
    while requests := assembly.requests(now):
        for request in requests:
            assembly.accept(serve(peer, request))
            count += 1
    return count


# --- the store ------------------------------------------------------------------------------------------


def test_what_was_put_is_found_by_its_digest(store: BlobStore) -> None:
    digest = store.put(b"kernel")

    assert digest == digest_of(b"kernel")
    assert store.has(digest)
    assert store.get(digest) == b"kernel"
    assert store.path(digest).parent.name == digest[:2]


def test_a_blob_is_for_its_owner_only(store: BlobStore) -> None:
    digest = store.put(b"kernel")

    assert stat.S_IMODE(store.path(digest).stat().st_mode) == 0o600


def test_putting_twice_changes_nothing(store: BlobStore, tmp_path: Path) -> None:
    assert store.put(b"kernel") == store.put(b"kernel")
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 1


def test_a_missing_blob_is_named(store: BlobStore) -> None:
    with pytest.raises(BlobMissing, match="0000 is not in"):
        store.get("0" * 64)


def test_a_damaged_blob_is_not_handed_out(store: BlobStore) -> None:
    digest = store.put(b"kernel")
    store.path(digest).write_bytes(b"kernal")

    with pytest.raises(BlobMissing, match="damaged"):
        store.get(digest)
    assert not store.has(digest)


def test_deleting_is_final_and_may_be_repeated(store: BlobStore) -> None:
    digest = store.put(b"kernel")

    store.delete(digest)
    store.delete(digest)

    assert not store.has(digest)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_touches_no_file(store: BlobStore, name: str) -> None:
    with pytest.raises(InputInvalid, match="64 lower-case hexadecimal digits"):
        store.get(name)


def test_serving_cuts_at_the_end_and_says_what_is_absent(peer: BlobStore) -> None:
    digest = peer.put(b"0123456789")

    assert serve(peer, BlobRequest(digest=digest, offset=8, length=5)) == BlobChunk(
        digest=digest, offset=8, total=10, data=b"89"
    )
    absent = "0" * 64
    assert serve(peer, BlobRequest(digest=absent, offset=0, length=5)) == BlobAbsent(digest=absent)


# --- pulling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 5 * MAX_CHUNK + 7])
def test_any_size_arrives_whole(store: BlobStore, peer: BlobStore, size: int) -> None:
    data = blob(size)
    assembly = Assembly(store, peer.put(data), size)

    carry(assembly, peer)

    assert assembly.done
    assert store.get(digest_of(data)) == data


def test_what_is_there_already_is_not_asked_for(store: BlobStore) -> None:
    assembly = Assembly(store, store.put(b"kernel"), 6)

    assert assembly.done
    assert assembly.requests(0.0) == []


def test_several_requests_are_on_their_way_at_once_but_not_without_bound() -> None:
    pull = Pull("0" * 64, 100 * MAX_CHUNK)
    waiting = pull.requests(0.0)
    assert len(waiting) > 1

    for _ in range(50):
        request = waiting.pop(0)
        pull.accept(
            BlobChunk(digest=pull.digest, offset=request.offset, total=pull.size, data=bytes(request.length))
        )
        waiting += pull.requests(0.0)

    assert len(waiting) == MOST_WINDOW


def test_a_gap_bounds_what_is_kept_in_memory() -> None:
    pull = Pull("0" * 64, 100 * MAX_CHUNK)
    lost, *waiting = pull.requests(0.0)
    answered = 0

    while waiting:
        request = waiting.pop()
        written = pull.accept(
            BlobChunk(digest=pull.digest, offset=request.offset, total=pull.size, data=bytes(request.length))
        )
        assert written == b""
        answered += 1
        waiting += pull.requests(0.0)

    assert lost.offset == 0
    assert answered < MOST_WINDOW


def test_it_goes_on_where_an_earlier_attempt_ended(store: BlobStore, peer: BlobStore) -> None:
    data = blob(4 * MAX_CHUNK)
    digest = peer.put(data)
    interrupted = Assembly(store, digest, len(data))
    for request in interrupted.requests(0.0):
        interrupted.accept(serve(peer, request))

    resumed = Assembly(store, digest, len(data))

    assert carry(resumed, peer) == 2
    assert store.get(digest) == data


def test_a_damaged_beginning_on_disk_costs_a_failure_and_nothing_more(
    store: BlobStore, peer: BlobStore
) -> None:
    data = blob(3 * MAX_CHUNK)
    digest = peer.put(data)
    beginning = store.partial_path(digest)
    beginning.parent.mkdir()
    beginning.write_bytes(b"damaged")

    first = Assembly(store, digest, len(data))
    carry(first, peer)
    assert first.failure is not None
    assert first.failure.kind is FailureKind.BLOB_CORRUPT
    assert not store.has(digest)

    again = Assembly(store, digest, len(data))
    carry(again, peer)
    assert store.get(digest) == data


def test_a_complete_but_unfinished_file_is_adopted(store: BlobStore) -> None:
    data = blob(1000)
    partial = store.partial_path(digest_of(data))
    partial.parent.mkdir()
    partial.write_bytes(data)

    assembly = Assembly(store, digest_of(data), len(data))

    assert assembly.done
    assert store.get(digest_of(data)) == data


def test_an_overdue_range_is_asked_for_again_and_less_is_asked_for_at_once() -> None:
    pull = Pull("0" * 64, 10 * MAX_CHUNK)
    first = pull.requests(0.0)
    due = pull.wake_at
    assert due is not None

    assert pull.requests(due - 0.001) == []
    assert pull.requests(due) == first


def test_a_range_that_never_comes_ends_in_a_failure() -> None:
    pull = Pull("0" * 64, 10)
    asked = 0
    while (requests := pull.requests(pull.wake_at or 0.0)) and asked < 100:
        asked += len(requests)

    assert asked == MOST_ATTEMPTS
    assert pull.failure is not None
    assert "did not come after 10 requests" in pull.failure.detail


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (BlobAbsent(digest="0" * 64), "does not have it"),
        (BlobChunk(digest="0" * 64, offset=0, total=11, data=b"x" * 10), "11 bytes where 10"),
        (BlobChunk(digest="0" * 64, offset=0, total=10, data=b"x" * 9), "9 bytes came for 10"),
    ],
)
def test_answers_that_cannot_be_right_end_in_a_failure(answer: BlobChunk | BlobAbsent, detail: str) -> None:
    pull = Pull("0" * 64, 10)
    pull.requests(0.0)

    assert pull.accept(answer) == b""

    assert pull.failure is not None
    assert pull.failure.kind is FailureKind.BLOB_CORRUPT
    assert detail in pull.failure.detail
    assert pull.requests(100.0) == []


@pytest.mark.parametrize(
    "answer",
    [
        BlobAbsent(digest="1" * 64),
        BlobChunk(digest="1" * 64, offset=0, total=10, data=b"x" * 10),
        BlobChunk(digest="0" * 64, offset=3, total=10, data=b"x" * 7),
    ],
)
def test_answers_to_other_questions_are_ignored(answer: BlobChunk | BlobAbsent) -> None:
    pull = Pull("0" * 64, 10)
    pull.requests(0.0)

    assert pull.accept(answer) == b""

    assert pull.failure is None


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 6 * MAX_CHUNK),
    seed=st.integers(0, 2**32),
    lose=st.sampled_from([0.0, 0.1, 0.5, 0.95]),
    repeat=st.sampled_from([0.0, 0.5]),
    corrupt=st.sampled_from([0.0, 0.0, 0.1]),
)
def test_whatever_the_network_does_the_bytes_are_right_or_the_failure_is_typed(
    tmp_path_factory: pytest.TempPathFactory, size: int, seed: int, lose: float, repeat: float, corrupt: float
) -> None:
    root = tmp_path_factory.mktemp("pull")
    store, peer = BlobStore(root / "near"), BlobStore(root / "far")
    data = blob(size, seed)
    digest = peer.put(data)
    dice = random.Random(seed)
    assembly = Assembly(store, digest, size)
    under_way: list[BlobChunk | BlobAbsent] = []
    now = 0.0

    while not assembly.over:
        for request in assembly.requests(now):
            if dice.random() < lose:
                continue
            answer = serve(peer, request)
            if isinstance(answer, BlobChunk) and dice.random() < corrupt:
                answer = answer.model_copy(update={"data": bytes(len(answer.data))})
            under_way += [answer] * (2 if dice.random() < repeat else 1)
        if under_way:
            assembly.accept(under_way.pop(dice.randrange(len(under_way))))
        else:
            now = max(now, assembly.wake_at or now)

    if assembly.done:
        assert store.get(digest) == data
    else:
        assert assembly.failure is not None
        assert assembly.failure.kind is FailureKind.BLOB_CORRUPT
        assert not store.has(digest)
        assert lose or corrupt
