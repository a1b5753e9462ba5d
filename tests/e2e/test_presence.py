"""Who is online: queries name each user once, watches tell of changes, and both have bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from iris_client import _protocol as p
from support.client import Client
from support.server import Server
from support.wait import until

ENV = {"IRIS_CORE__PARTITIONS": "4", "IRIS_REACTOR__COUNT": "3"}

_number = itertools.count()


@pytest.fixture
def name() -> Callable[[str], str]:
    """Return a maker of names that no other test uses."""
    number = next(_number)
    return lambda who: f"{who}-{number}"


def states(client: Client, query: int, users: list[str], **options: bool) -> dict[str, int]:
    """Ask, and gather the whole answer."""
    client.query(query, users, **options)

    def told() -> list[str]:
        return [u for report in client.presence if report.query == query for _, _, u in report.entries]

    client.pump(lambda: len(told()) >= len(users))
    assert sorted(told()) == sorted(users), "each exactly once"
    return {u: s for report in client.presence if report.query == query for s, _, u in report.entries}


def changes(client: Client, user: str) -> list[int]:
    """The changes that were told of a user, oldest first."""
    return [
        state
        for report in client.presence
        if report.query == 0
        for state, _, who in report.entries
        if who == user
    ]


def test_presence_names_each_user_once_and_watching_tells_of_changes(
    shared: Server, name: Callable[[str], str]
) -> None:
    users = [name(f"w{i}") for i in range(200)]
    with shared.login(name("a")) as a, shared.login(users[0]):
        told = states(a, 7, users, watch=True)
        assert told[users[0]] == p.ONLINE
        assert set(told.values()) == {p.ONLINE, p.OFFLINE} and sum(told.values()) == 1
        late = shared.login(users[150])
        a.pump(lambda: changes(a, users[150]) == [p.ONLINE])
        late.close()
        a.pump(lambda: changes(a, users[150]) == [p.ONLINE, p.OFFLINE])
        a.raw(p.encode_unwatch([users[0]]))
        a.sync()
    with shared.login(name("a")) as a:
        query = itertools.count(10)
        left = lambda: states(a, next(query), [users[0]])[users[0]] == p.OFFLINE  # noqa: E731
        until(left, "who closed is offline")
        with shared.login(users[150]):
            assert states(a, 2, [users[150]])[users[150]] == p.ONLINE
        assert changes(a, users[150]) == [], "watches end with their connection"


def test_unwatching_ends_the_changes(shared: Server, name: Callable[[str], str]) -> None:
    with shared.login(name("a")) as a:
        states(a, 1, [name("x"), name("y")], watch=True)
        a.raw(p.encode_unwatch([name("x"), "never watched"]))
        a.sync()
        with shared.login(name("x")), shared.login(name("y")):
            a.pump(lambda: changes(a, name("y")) == [p.ONLINE])
            assert changes(a, name("x")) == []
        a.raw(p.encode_unwatch([]))
        a.sync()
        with shared.login(name("y")):
            assert states(a, 2, [name("y")])[name("y")] == p.ONLINE


def test_a_replaced_login_does_not_make_its_user_offline(
    shared: Server, name: Callable[[str], str]
) -> None:
    with shared.login(name("a")) as a, shared.login(name("b")) as old:
        assert states(a, 1, [name("b")], watch=True)[name("b")] == p.ONLINE
        with shared.login(name("b")):
            assert old.end() == "replaced"
            assert states(a, 2, [name("b")])[name("b")] == p.ONLINE
        a.pump(lambda: changes(a, name("b"))[-1:] == [p.OFFLINE])


def test_one_connection_watches_so_many_users_and_is_told_of_those_beyond(
    server: Server, name: Callable[[str], str]
) -> None:
    with server.login(name("a")) as a:
        refused = 0
        for block in range(6):
            users = [name(f"w{block}-{i}") for i in range(256)]
            told = states(a, block + 1, users, watch=True)
            refused += sum(state == p.REFUSED for state in told.values())
        assert refused == 6 * 256 - 1024
        # Room again.
        a.raw(p.encode_unwatch([]))
        a.sync()
        told = states(a, 99, [name("w5-255")], watch=True)
        assert told == {name("w5-255"): p.OFFLINE}
