"""When a provider is left out, and how it comes back. Time is a number."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.circuit import EJECTION, FAILURES, FORGIVEN_AFTER, MOST_EJECTIONS, Circuit, Verdict

NOW = 1_700_000_000.0


def fail(circuit: Circuit, times: int = FAILURES, now: float = NOW) -> None:
    for _ in range(times):
        circuit.failed(circuit.generation, now)


def opened(times: int = 1) -> Circuit:
    """Open for the `times`-th time in a row; its pauses are over and every probe but the last has failed."""
    circuit = Circuit()
    fail(circuit)
    for _ in range(times - 1):
        circuit.probe = "a request"
        fail(circuit, 1, circuit.verdict.until)
    return circuit


def test_five_failures_in_a_row_open_it() -> None:
    circuit = Circuit()
    fail(circuit, 4)
    assert circuit.usable(NOW), "four are not enough"
    fail(circuit, 1)
    assert not circuit.usable(NOW), "five are"
    assert circuit.changed, "the fleet must hear of it"


def test_a_success_between_them_begins_the_count_anew() -> None:
    circuit = Circuit()
    fail(circuit, 4)
    circuit.succeeded(circuit.generation)
    fail(circuit, 4)
    assert circuit.usable(NOW)


def test_a_first_token_alone_is_no_success_of_a_healthy_provider() -> None:
    """Streams that all break midway must open it."""
    circuit = Circuit()
    for _ in range(5):
        circuit.first_token(circuit.generation, NOW)
        fail(circuit, 1)
    assert not circuit.usable(NOW)


@pytest.mark.parametrize("ejections", [1, 2, 3, MOST_EJECTIONS, MOST_EJECTIONS + 5])
def test_each_ejection_is_longer_up_to_a_limit(ejections: int) -> None:
    pauses = []
    for _ in range(50):
        circuit = opened(ejections - 1) if ejections > 1 else Circuit()
        now = circuit.verdict.until
        if ejections > 1:
            circuit.probe = "a request"
            fail(circuit, 1, now)
        else:
            fail(circuit, now=now)
        pauses.append((circuit.verdict.until - now) / (EJECTION * min(ejections, MOST_EJECTIONS)))
    assert 0.9 <= min(pauses) < max(pauses) <= 1.1, f"pauses are jittered by a tenth, not {min(pauses)}..{max(pauses)}"


def test_results_from_before_an_opening_say_nothing() -> None:
    circuit = Circuit()
    before = circuit.generation
    fail(circuit)
    verdict = circuit.verdict
    circuit.first_token(before, NOW)
    circuit.succeeded(before)
    for _ in range(5):
        circuit.failed(before, NOW)
    assert circuit.verdict is verdict, "an attempt that began before the opening changed the verdict"


def test_a_success_from_before_does_not_clear_todays_failures() -> None:
    circuit = opened()
    before = circuit.generation
    circuit.first_token(circuit.generation, NOW)
    fail(circuit, 4)
    circuit.succeeded(before)
    fail(circuit, 1)
    assert not circuit.usable(NOW)


def test_after_the_pause_one_probe() -> None:
    circuit = opened()
    due = circuit.verdict.until
    assert not circuit.usable(due - 0.1)
    assert circuit.usable(due)
    circuit.probe = "a request"
    assert not circuit.usable(due), "a second request may not probe"


def test_another_replicas_probe_is_waited_for() -> None:
    circuit = opened()
    circuit.ask_again = circuit.verdict.until + 1
    assert not circuit.usable(circuit.verdict.until + 0.9)
    assert circuit.usable(circuit.verdict.until + 1)


def test_a_probe_succeeds_with_its_first_token() -> None:
    circuit = opened()
    circuit.probe = "a request"
    circuit.first_token(circuit.generation, circuit.verdict.until)
    assert circuit.usable(NOW)
    assert circuit.probe is None
    assert circuit.verdict.ejections == 1, "the ejections are remembered for the next time"


def test_what_the_probe_does_later_is_from_before() -> None:
    circuit = opened()
    circuit.probe = "a request"
    mine = circuit.generation
    circuit.first_token(mine, NOW)
    for _ in range(5):
        circuit.failed(mine, NOW)
    assert circuit.usable(NOW)


def test_a_probe_that_fails_opens_it_again_for_longer() -> None:
    circuit = opened(2)
    assert circuit.verdict.ejections == 2
    assert circuit.probe is None, "the next probe must be possible"


def test_while_open_failures_of_others_change_nothing() -> None:
    circuit = opened()
    verdict = circuit.verdict
    fail(circuit)
    assert circuit.verdict is verdict, "it was asked because all were open; that is no probe"


def test_while_open_any_first_token_brings_it_back() -> None:
    circuit = opened()
    circuit.first_token(circuit.generation, NOW)
    assert circuit.usable(NOW)


@pytest.mark.parametrize(("served", "ejections"), [(FORGIVEN_AFTER - 1, 2), (FORGIVEN_AFTER + 1, 1)])
def test_long_service_forgives_ejections(served: float, ejections: int) -> None:
    circuit = opened()
    circuit.first_token(circuit.generation, NOW)
    fail(circuit, now=NOW + served)
    assert circuit.verdict.ejections == ejections


def test_a_changed_provider_is_forgiven_at_once() -> None:
    circuit = opened(3)
    generation = circuit.generation
    circuit.forgive(NOW)
    assert circuit.usable(NOW)
    assert circuit.verdict.ejections == 0
    assert circuit.generation > generation, "what was asked before says nothing"
    circuit.changed = False
    circuit.forgive(NOW)
    assert not circuit.changed, "there was nothing to forgive"


def test_it_learns_newer_verdicts_only() -> None:
    circuit = opened()
    mine = circuit.verdict
    circuit.learn(Verdict(generation=0, open=False))
    assert circuit.verdict is mine, "an older verdict was taken"
    closed = Verdict(generation=mine.generation + 1, open=False, since=NOW)
    circuit.probe = "a request"
    circuit.learn(closed)
    assert circuit.verdict is closed
    assert circuit.probe is None
    assert not circuit.changed, "what the fleet said need not be told to the fleet"


def test_a_verdict_learned_begins_the_count_anew() -> None:
    circuit = Circuit()
    fail(circuit, 4)
    circuit.learn(Verdict(generation=7))
    fail(circuit, 1)
    assert circuit.usable(NOW)


def test_of_two_openings_at_once_the_longer_one_holds() -> None:
    one, two = Verdict(1, True, NOW + 30), Verdict(1, True, NOW + 31)
    assert two.outranks(one)
    assert not one.outranks(two)
    assert not one.outranks(one)


verdicts = st.builds(Verdict, st.integers(0, 3), st.booleans(), st.sampled_from([0.0, NOW, NOW + 1]))


@given(st.lists(verdicts, min_size=1, max_size=6), st.randoms())
def test_replicas_agree_in_whatever_order_they_hear_it(heard: list[Verdict], order: Random) -> None:
    one, two = Circuit(), Circuit()
    for verdict in heard:
        one.learn(verdict)
    order.shuffle(heard)
    for verdict in heard:
        two.learn(verdict)
    assert one.verdict == two.verdict


def test_a_verdict_survives_the_store() -> None:
    verdict = opened(2).verdict
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
