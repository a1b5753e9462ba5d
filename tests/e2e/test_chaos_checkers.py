"""The checkers of tests/chaos find what is wrong in accounts that were made up, and nothing in sound ones."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))

from harness.account import Account, Key, content, percentile  # noqa: E402
from harness.cluster import names, preferred, shard, weight  # noqa: E402
from harness.proxy import Proxy  # noqa: E402

FIRST = Key("ann", bytes(15) + b"\1", "ben")
SECOND = Key("ann", bytes(15) + b"\2", "ben")


def accepted(*keys: Key) -> Account:
    """Return an account in which these messages are accepted."""
    account = Account()
    for number, key in enumerate(keys):
        account.note_sent(key, float(number))
        account.note_accepted(key, number + 0.5, 2)
    return account


def deliver(account: Account, life: int, *keys: Key, at: float = 50.0) -> None:
    """These messages come as they were sent."""
    for key in keys:
        account.note_received(life, key, at, content(key.sender, key.id))


def test_a_sound_account_is_clean() -> None:
    account = accepted(FIRST, SECOND)
    deliver(account, account.begin_life("ben", 10.0, quiet=True), FIRST, SECOND)
    verdict = account.check()
    assert verdict.is_clean and verdict.accepted == 2 and verdict.repeated == 0


def test_an_accepted_message_that_never_came_is_lost() -> None:
    account = accepted(FIRST, SECOND)
    deliver(account, account.begin_life("ben", 10.0, quiet=True), FIRST)
    verdict = account.check()
    assert (verdict.lost, verdict.is_clean) == (1, False)
    assert SECOND.id.hex() in verdict.examples[0]


def test_what_was_only_looked_at_must_come_again() -> None:
    account = accepted(FIRST, SECOND)
    deliver(account, account.begin_life("ben", 10.0, quiet=True, peek=True), FIRST, SECOND)
    deliver(account, account.begin_life("ben", 20.0, quiet=True), FIRST)
    verdict = account.check()
    assert (verdict.lost, verdict.repeated, verdict.doubled) == (1, 0, 0)
    twice = accepted(FIRST)
    deliver(twice, twice.begin_life("ben", 10.0, quiet=True, peek=True), FIRST, FIRST)
    assert twice.check().doubled == 1


def test_a_message_that_came_to_somebody_else_is_lost_and_foreign() -> None:
    account = accepted(FIRST)
    deliver(account, account.begin_life("eve", 10.0), FIRST._replace(to="eve"))
    verdict = account.check()
    assert (verdict.lost, verdict.foreign) == (1, 1)


def test_a_message_that_was_never_accepted_may_be_missing_or_there() -> None:
    account = accepted()
    account.note_sent(FIRST, 1.0)
    account.note_sent(SECOND, 1.0)
    deliver(account, account.begin_life("ben", 10.0, quiet=True), SECOND)
    assert account.check().is_clean


def test_two_deliveries_in_a_quiet_connection_are_two_entries() -> None:
    account = accepted(FIRST)
    deliver(account, account.begin_life("ben", 10.0, quiet=True), FIRST, FIRST)
    verdict = account.check()
    assert (verdict.doubled, verdict.is_clean) == (1, False)


def test_two_deliveries_beside_a_fault_are_a_repeat() -> None:
    account = accepted(FIRST)
    deliver(account, account.begin_life("ben", 10.0), FIRST, FIRST)
    deliver(account, account.begin_life("ben", 60.0, quiet=True), FIRST)
    verdict = account.check()
    assert verdict.is_clean and verdict.repeated == 2


def test_what_comes_after_its_receipt_is_resurrected() -> None:
    account = accepted(FIRST)
    deliver(account, account.begin_life("ben", 10.0), FIRST)
    account.note_receipt(FIRST, 55.0)
    deliver(account, account.begin_life("ben", 60.0), FIRST, at=61.0)
    verdict = account.check()
    assert (verdict.resurrected, verdict.is_clean) == (1, False)


def test_what_comes_after_all_inboxes_were_empty_is_resurrected() -> None:
    account = accepted(FIRST, SECOND)
    deliver(account, account.begin_life("ben", 10.0), FIRST, SECOND)
    account.confirm_all(55.0)
    deliver(account, account.begin_life("ben", 60.0), SECOND, at=61.0)
    assert account.check().resurrected == 1


def test_a_connection_older_than_the_receipt_resurrects_nothing() -> None:
    account = accepted(FIRST)
    life = account.begin_life("ben", 10.0)
    deliver(account, life, FIRST)
    account.note_receipt(FIRST, 55.0)
    deliver(account, life, FIRST, at=56.0)
    assert account.check().is_clean


def test_first_deliveries_against_the_order_of_sending_are_counted() -> None:
    account = accepted(FIRST, SECOND)
    life = account.begin_life("ben", 10.0, quiet=True)
    deliver(account, life, SECOND, FIRST)
    assert account.check().reordered == 1
    # Under way at a fault, FIRST may be in two records; that excuses its place after healing, and in no other case.
    assert account.check([0.2]).reordered == 0
    assert account.check([0.7]).reordered == 1
    # Nor does the place of one that a damaged disk lost; of others it does.
    damaged = accepted(FIRST, SECOND)
    deliver(damaged, damaged.begin_life("ben", 10.0), SECOND, FIRST)
    damaged.touched.add(SECOND.id)
    assert damaged.check().reordered == 0
    damaged.touched = {b"another"}
    assert damaged.check().reordered == 1
    online = accepted(FIRST, SECOND)
    deliver(online, online.begin_life("ben", 10.0), SECOND, FIRST)
    assert online.check([0.2]).reordered == 1
    again = accepted(FIRST, SECOND)
    deliver(again, again.begin_life("ben", 10.0), FIRST, SECOND)
    deliver(again, again.begin_life("ben", 60.0), FIRST)
    assert again.check().reordered == 0, "a repeat is not late"


def test_another_content_is_foreign() -> None:
    account = accepted(FIRST)
    account.note_received(account.begin_life("ben", 10.0), FIRST, 11.0, b"something else")
    verdict = account.check()
    assert (verdict.foreign, verdict.is_clean) == (1, False)


def test_a_gap_is_the_longest_time_without_an_answer_after_the_fault() -> None:
    account = Account()
    account.answers["ann"] = [1.0, 2.0, 4.5, 5.0, 6.0]
    assert account.gaps([3.0], ["ann"], 6.5) == [1.5]
    assert account.gaps([3.0, 5.5], ["ann"], 9.0) == [1.5, 3.0]
    assert account.gaps([3.0], ["mute"], 9.0) == [6.0]


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 0.5) == 50.0
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.99) == 0.0


def test_weights_are_those_of_the_page_about_links() -> None:
    assert weight(0, 1) == 0x910A2DEC89025CC1
    assert weight(0, 2) == 0x975835DE1C9756CE
    assert weight(63, 1) == 0x77F54B8B2E5BF762
    assert all(preferred(name, [1, 2]) == 2 for name in names("user", 20, core=2))
    assert {shard(name) for name in names("user", 400)} == set(range(16))


def test_the_proxy_carries_delays_stalls_and_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = Proxy("127.0.0.1", server.getsockname())
        try:
            near = socket.create_connection(proxy.address, timeout=60)
            far, _ = server.accept()
            far.settimeout(60)
            near.sendall(b"through")
            assert far.recv(16) == b"through"
            proxy.delay = 0.05
            began = threading.Event()
            near.sendall(b"late")
            far.settimeout(0.02)
            try:
                assert far.recv(16) == b"", "it must not be there yet"
            except TimeoutError:
                began.set()
            assert began.is_set()
            far.settimeout(60)
            assert far.recv(16) == b"late"
            proxy.stalled = True
            near.sendall(b"held")
            far.settimeout(0.2)
            try:
                assert far.recv(16) == b"", "it must not be there yet"
            except TimeoutError:
                proxy.stalled = False
            far.settimeout(60)
            assert far.recv(16) == b"held"
            proxy.reset()
            try:
                assert far.recv(16) == b""
            except ConnectionResetError:
                pass
            far.close()
            near.close()
        finally:
            proxy.close()
