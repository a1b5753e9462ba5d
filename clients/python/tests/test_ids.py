from __future__ import annotations

import random
import uuid

import pytest

from iris_client import _ids


def test_ids_increase_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    ids = _ids.MessageIds(random.Random(1).getrandbits)
    ids.set_clock(1_734_776_741_000, 100.0)
    made = [ids.next(100.0) for _ in range(1000)]
    ids.set_clock(1_734_776_740_000, 100.0)
    made += [ids.next(100.0) for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(one.version == 7 and one.variant == uuid.RFC_4122 for one in made)
    assert {_ids.unix_ms(one) for one in made} == {1_734_776_741_000}


def test_the_time_of_an_id_is_the_servers_clock_carried_on() -> None:
    ids = _ids.MessageIds()
    ids.set_clock(1_000_000, 5.0)
    assert _ids.unix_ms(ids.next(6.25)) == 1_001_250


def test_a_counter_that_overflows_goes_on_in_the_next_millisecond() -> None:
    ids = _ids.MessageIds(lambda bits: (1 << bits) - 1)
    ids.set_clock(7, 0.0)
    first = ids.next(0.0)
    ids._counter = (1 << 74) - 1
    after = ids.next(0.0)
    assert after > first
    assert _ids.unix_ms(after) == 8


@pytest.mark.parametrize("counter", [0, 1, (1 << 62) - 1, 1 << 62, (1 << 74) - 1])
def test_a_counter_keeps_its_order_in_the_id(counter: int) -> None:
    if counter:
        assert _ids.compose(1, counter) > _ids.compose(1, counter - 1)
    assert _ids.compose(1, counter) < _ids.compose(2, 0)
