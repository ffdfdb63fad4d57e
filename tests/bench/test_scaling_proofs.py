"""How the scaling proofs reckon, on runs that are made up; `make proof-scaling` has real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import many_documents
import pytest
import scaling
from watched import Moment, Watched

START = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1 << 20


def moment(second: int, commits: int, driver_mib: float) -> Moment:
    spent = {"driver": 0.5 * second}
    machine = (2.0 * second, 1.5 * second)
    at = START + timedelta(seconds=second)
    return Moment(at, commits, spent, round(driver_mib * MIB), 0, machine)


def watched(driver_mib: list[float]) -> Watched:
    moments = [moment(second, 10 * second, mib) for second, mib in enumerate(driver_mib)]
    return Watched(START, 100.0, {}, moments)


def test_a_rate_leaves_start_up_and_the_end_out() -> None:
    """Two actors at five pages a second each, after 30 s of start-up and before a slow end."""
    steady = [START + timedelta(seconds=30 + number / 10) for number in range(900)]
    slow = [steady[-1] + timedelta(seconds=number) for number in range(100)]
    found = scaling.reckon(2, [*steady, *slow], watched([200.0] * 200))
    assert found.pages_per_s == pytest.approx(10, rel=0.01)
    assert found.of_linear == pytest.approx(1, rel=0.01)
    assert found.start_s == pytest.approx(30)
    assert found.idle == pytest.approx(0.75)
    assert found.cpu_ms["driver"] == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize(("last_mib", "flat"), [(205.0, True), (300.0, False)])
def test_a_driver_that_grows_with_its_documents_is_told(last_mib: float, flat: bool) -> None:
    rising = [200 + (last_mib - 200) * second / 100 for second in range(101)]
    rows = {"documents": 16_000, "pages": 16_000}
    found = many_documents.reckon(watched(rising), 16_000, rows)
    assert found.flat is flat
    assert found.conserved
    assert found.driver_mib[16_000] == pytest.approx(last_mib)


def test_a_document_without_a_row_is_told() -> None:
    rows = {"documents": 15_999, "pages": 16_000}
    assert not many_documents.reckon(watched([200.0] * 101), 16_000, rows).conserved
