"""The circuit breaker, on a clock that is moved by hand."""

from __future__ import annotations

import pytest

from reco_plugin.retrieval.guard import Breaker

ERROR = OSError("connection refused")


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """Opens after three failures, for ten seconds."""
    return Breaker(3, 10.0, clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket, ERROR)


def succeed(breaker: Breaker) -> None:
    ticket = breaker.admit()
    assert ticket is not None
    breaker.succeeded(ticket)


def test_it_opens_after_so_many_failures_in_a_row(breaker):
    fail(breaker, 2)
    assert breaker.circuit.state == "closed"
    succeed(breaker)
    fail(breaker, 2)  # the success began a new row
    assert breaker.circuit.state == "closed"
    fail(breaker)
    circuit = breaker.circuit
    assert (circuit.state, circuit.failures, circuit.opened) == ("open", 3, 1)
    assert (circuit.retry_in_s, circuit.last_error) == (10.0, "connection refused")


def test_then_one_probe_is_admitted_and_its_success_closes(breaker, clock):
    fail(breaker, 3)
    clock.now += 10.0
    probe = breaker.admit()
    assert probe is not None
    assert breaker.circuit.state == "half-open"
    assert breaker.admit() is None
    breaker.succeeded(probe)
    circuit = breaker.circuit
    assert (circuit.state, circuit.failures, circuit.retry_in_s) == ("closed", 0, None)
    fail(breaker, 2)  # a whole new row is needed
    assert breaker.circuit.state == "closed"


def test_a_failed_probe_opens_for_as_long_again(breaker, clock):
    fail(breaker, 3)
    clock.now += 11.0
    fail(breaker)
    circuit = breaker.circuit
    assert (circuit.state, circuit.retry_in_s, circuit.opened) == ("open", 10.0, 2)
    clock.now += 10.0
    succeed(breaker)
    assert breaker.circuit.state == "closed"


def test_a_probe_that_says_nothing_leaves_the_next_one_to_another(breaker, clock):
    fail(breaker, 3)
    clock.now += 10.0
    probe = breaker.admit()
    breaker.abandoned(probe)
    assert breaker.circuit.state == "open"
    succeed(breaker)
    assert breaker.circuit.state == "closed"


def test_calls_from_before_it_opened_count_no_more(breaker, clock):
    early, late = breaker.admit(), breaker.admit()
    fail(breaker, 3)
    breaker.succeeded(early)  # sent before the others failed: no sign of life
    assert breaker.circuit.state == "open"
    clock.now += 10.0
    probe = breaker.admit()
    breaker.failed(late, ERROR)  # nor does a late failure answer for the probe
    assert breaker.circuit.state == "half-open"
    breaker.succeeded(probe)
    assert breaker.circuit.state == "closed"
