"""Numbers and durations as the report prints them."""

import pytest

from train.report.markup import duration, number, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0"),
        (1.23456, "1.235"),
        (123456.0, "123,456"),
        (-0.05, "-0.05"),
        (1.5e-7, "1.500e-07"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (3.21, "3.2 s"), (754.2, "12 min 34 s"), (7300.0, "2 h 1 min")]
)
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_rows_have_the_cells_they_are_given() -> None:
    assert table(["a", "b"], [["1", "2"]]).count("<td") == 2
