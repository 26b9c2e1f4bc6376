"""The cost model on synthetic features: groups, growth and limits."""

from __future__ import annotations

import numpy as np
import pytest

from resonator_hub import cost_model
from resonator_hub.cost_model import Sample, memory, pack_features, unpack_features
from resonator_hub.cost_model.features import WIDTH
from resonator_hub.cost_model.memory import Memory


def samples(count: int, seed: int, group: str, scale: float = 1.0) -> list[Sample]:
    """Return kernels of one or two stores whose latency grows with their first feature."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = np.zeros((int(random.integers(1, 3)), WIDTH), np.float32)
        rows[:, :8] = random.random((len(rows), 8))
        made.append(Sample(pack_features(rows), float(scale * (0.1 + rows[:, 0].sum())), group))
    return made


def in_order(model: bytes, held_out: list[Sample]) -> float:
    scores = cost_model.predict(model, [sample.features for sample in held_out])
    pairs = [
        scores[a] > scores[b]
        for a, fast in enumerate(held_out)
        for b, slow in enumerate(held_out)
        if fast.latency_s < slow.latency_s
    ]
    return sum(pairs) / len(pairs)


def test_it_ranks_what_it_has_not_seen() -> None:
    assert in_order(cost_model.update(samples(200, 1, "a"), None), samples(40, 2, "a")) > 0.75


def test_tasks_of_very_different_latency_share_one_model() -> None:
    both = samples(60, 1, "a") + samples(60, 2, "b", scale=1e-6)
    model = cost_model.update(both, None)
    assert in_order(model, samples(40, 3, "a")) > 0.6
    assert in_order(model, samples(40, 4, "b", scale=1e-6)) > 0.6


def test_more_samples_extend_it_and_make_it_better() -> None:
    held_out = samples(60, 9, "a")
    model = first = cost_model.update(samples(8, 1, "a"), None)
    for seed in range(2, 14):
        model = cost_model.update(samples(16, seed, "a"), model)
    assert in_order(model, held_out) > max(0.7, in_order(first, held_out))


def test_it_stops_growing_and_goes_on_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 64)
    model, sizes = None, []
    for seed in range(24):
        model = cost_model.update(samples(16, seed, "a"), model)
        sizes.append(len(model))
    assert max(sizes[12:]) <= 1.2 * max(sizes[:12])
    assert in_order(model or b"", samples(40, 99, "a")) > 0.6


def test_what_is_full_keeps_as_much_of_each_task_and_every_small_one_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LIMIT", 50)
    known = Memory.empty().extended(samples(8, 1, "small"))
    for seed in range(5):
        known = known.extended(samples(40, seed, "large") + samples(30, seed, "larger"))
    counts = {group: known.groups.count(group) for group in ("small", "large", "larger")}
    assert counts == {"small": 8, "large": 21, "larger": 21}
    assert known.taught == 8 + 5 * 70
    # The best of what was forgotten is known, so that the scores stay what they were.
    assert known.best_s["large"] == min(s.latency_s for seed in range(5) for s in samples(40, seed, "large"))
    assert (known.scores() <= 0).all()


def test_of_more_tasks_than_it_can_remember_it_keeps_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 3)
    known = Memory.empty()
    for group in "abcde":
        known = known.extended(samples(2, 1, group))
    assert len(known.groups) == 3
    assert known.groups[-1] == "e"


def test_the_trees_alone_predict_the_same() -> None:
    model = cost_model.update(samples(300, 1, "a"), None)
    features = [sample.features for sample in samples(9, 2, "a")]
    part = cost_model.trees(model)
    assert len(part) < len(model)
    assert cost_model.predict(part, features) == cost_model.predict(model, features)


def test_equal_samples_give_equal_models() -> None:
    assert cost_model.update(samples(20, 1, "a"), None) == cost_model.update(samples(20, 1, "a"), None)


def test_nothing_to_learn_is_refused_and_nothing_to_predict_is_empty() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        cost_model.update([], None)
    assert cost_model.predict(b"", []) == []


def test_features_come_back_and_other_bytes_are_refused() -> None:
    rows = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)
    assert (unpack_features(pack_features(rows)) == rows).all()
    with pytest.raises(ValueError, match="features have the shape"):
        pack_features(rows[:, 1:])
    for damaged in (b"", b"no features", pack_features(rows)[:-9]):
        with pytest.raises(ValueError, match="these are no features"):
            unpack_features(damaged)
