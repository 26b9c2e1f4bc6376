"""What the benchmarks compute of their measurements, and how they show it."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import curves
import figures
import ratios
import run_all


def test_a_ratio_is_the_geometric_mean_over_kinds_and_seeds() -> None:
    ours = {"a": [1.0, 4.0], "b": [8.0, 8.0]}
    theirs = {"a": [4.0, 4.0], "b": [4.0, 4.0]}

    ratio = ratios.geometric_ratio(ours, theirs)

    assert ratio.mean == pytest.approx(1.0)
    assert ratio.low < 1.0 < ratio.high


def test_samples_without_spread_leave_no_doubt() -> None:
    ratio = ratios.geometric_ratio({"a": [1.0, 1.0]}, {"a": [2.0, 2.0]})

    assert (ratio.low, ratio.mean, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_median_curve_begins_when_most_have_begun() -> None:
    slow, usual, fast = [(3.0, 9.0)], [(2.0, 5.0), (4.0, 3.0)], [(1.0, 4.0)]

    assert curves.median_curve([slow, usual, fast]) == [(2.0, 5.0), (4.0, 4.0)]


def test_curves_are_drawn_as_one_line_a_seed_and_one_for_their_median() -> None:
    panel = {"peer": [[(1.0, 2e-3), (10.0, 1e-3)], [(2.0, 3e-3)]], "ours": [[(0.5, 1e-3)]]}

    drawing = ElementTree.fromstring(curves.draw({"conv": panel}, "Curves"))

    lines = drawing.findall("{*}g/{*}polyline")
    assert [line.get("class") for line in lines] == ["thin s0", "thin s0", "thick s0", "thin s1", "thick s1"]


def test_results_are_shown_by_row_with_the_goals_that_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(figures, "TABLE", tmp_path / "RESULTS.md")

    figures.keep("scheduler", [figures.Figure("an event", 120.0, "us", 100.0)])
    figures.keep("makespan", [figures.Figure("ratio", 0.1, "x", 0.2), figures.Figure("wall", 1.0, "s")])
    figures.keep("scheduler", [figures.Figure("an event", 130.0, "us", 100.0)])

    text = (tmp_path / "RESULTS.md").read_text()
    assert "1 of 2 goals are met." in text
    assert text.index(figures.ROWS["makespan"]) < text.index(figures.ROWS["scheduler"])
    assert "| an event | 130 us | at most 100 | **no** |" in text
    assert "120 us" not in text


def test_a_script_that_fails_costs_its_own_figures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(figures, "TABLE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    (tmp_path / "bench_makespan.py").write_text("raise SystemExit(3)")
    (tmp_path / "bench_scheduler.py").write_text("print('measured all the same')")

    with pytest.raises(SystemExit, match=r"makespan \(exit status 3\)"):
        run_all.main()

    assert "measured all the same" in capfd.readouterr().out
    assert "duration of bench_scheduler.py" in (tmp_path / "RESULTS.md").read_text()


def test_what_has_no_short_form_is_left_out_of_a_quick_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUICK", raising=False)
    everything = run_all.chosen()
    monkeypatch.setenv("QUICK", "1")

    assert set(everything) - set(run_all.chosen()) == set(run_all.LONG)
