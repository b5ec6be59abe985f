"""Ticks and layers that the plots of a report share."""

import pytest

from train.report.plots import log_ticks, plain, set_colors


@pytest.mark.parametrize("values", [(3.2, 4.1), (0.3, 8.0), (1e-9, 1e3), (2.0, 2.0), (700.0, 701.0)])
def test_every_axis_has_a_number_on_it(values: tuple[float, float]) -> None:
    ticks = log_ticks(values)
    assert any(0.99 * values[0] <= tick <= 1.01 * values[1] for tick in ticks)


def test_sets_keep_their_colors() -> None:
    colors = set_colors(["train", "valid", "hot", "cold"])
    assert len(set(colors.values())) == 4
    assert set_colors(["hot"])["hot"] == colors["hot"]


def test_set_names_are_no_mathematics() -> None:
    assert plain("_$x$") == r" _\$x\$"
