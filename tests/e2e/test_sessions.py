"""Who is logged in, and how long: takeovers across edges, tokens that end, operators who end sessions."""

from __future__ import annotations

import time
from collections.abc import Callable

from support import tokens
from support.admin import post
from support.client import Client, Closed
from support.cluster import Cluster
from support.server import Server, iris
from support.wait import until


def ends_with(client: Client, code: str) -> None:
    """The client is told why, last."""
    assert client.end() == code
    client.close()


# ---- takeover


def acknowledged(cluster: Cluster, count: int) -> None:
    """Wait until the core knows of so many: what goes by another edge would overtake them."""
    until(
        lambda: cluster.cores[0].metrics().sum("iris_acked_total") == count,
        f"{count} are acknowledged",
    )


def test_a_login_at_another_edge_takes_over_what_was_not_acknowledged(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(1, 2).start()
    one, two = cluster.edges
    with one.login("ann") as ann, one.login("bob") as old:
        for number in range(6):
            assert ann.ask("bob", b"%d" % number) == "accepted"
        got = old.take(6)
        old.ack(2)
        old.sync()
        acknowledged(cluster, 2)
        with two.login("bob") as new:
            ends_with(old, "replaced")
            assert new.welcome and new.welcome.waiting == 4
            assert [one.payload for one in new.take(4)] == [one.payload for one in got[2:]]
            # The first edge takes over in turn; nobody is told twice.
            new.ack(1)
            new.sync()
            acknowledged(cluster, 3)
            with one.login("bob") as third:
                ends_with(new, "replaced")
                rest = third.take(3)
                assert [(one.no, one.payload) for one in rest] == [(1, b"3"), (2, b"4"), (3, b"5")]
                third.ack(3)
                third.sync()
                acknowledged(cluster, 6)
    with two.login("bob") as last:
        assert last.welcome and last.welcome.waiting == 0
    assert one.metrics().sum("iris_connections_closed_total", reason="replaced") == 1
    assert two.metrics().sum("iris_connections_closed_total", reason="replaced") == 1


# ---- tokens that end


def test_connections_outlast_their_tokens_by_the_grace_and_not_all_for_the_same_time(
    make_server: Callable[..., Server],
) -> None:
    env = {"IRIS_AUTH__EXPIRY_GRACE": "2s", "IRIS_AUTH__EXPIRY_JITTER": "3s"}
    server = make_server(env).start()
    clients = []
    # Long enough for all of them to log in on a slow machine.
    expires = int(time.time()) + 6
    for number in range(40):
        token = tokens.sign(server.key, {"sub": f"u{number}", "exp": expires})
        client = server.connect().login(f"u{number}", token)
        assert client.welcome and client.welcome.token_expires_s == expires, "clients are told when the token ends"
        clients.append(client)
    ended = []
    for client in clients:
        try:
            client.pump(lambda: False)
        except Closed as closed:
            assert closed.code == "token_expired"
            ended.append(time.time())
    assert len(ended) == 40
    assert min(ended) >= expires + 2, "none ends within the grace"
    count = server.metrics().sum("iris_connections_closed_total", reason="session_expired")
    assert count == 40
    # Read one after the other, ends are seen late, never early: the last of 40 is in the later part of the jitter.
    assert max(ended) > expires + 3, "they are spread"
    for client in clients:
        client.close()


# ---- operators


def test_an_operator_ends_the_sessions_of_a_user_and_of_nobody_else(server: Server) -> None:
    with server.login("ann") as ann, server.login("J\u00f6rg /&?") as joerg:
        done = iris("logout", "--user", "J\u00f6rg /&?", "--admin", server.admin)
        assert done.returncode == 0, done.stderr
        assert "1 session of this node ended" in done.stdout
        ends_with(joerg, "logged_out")
        ann.sync()
        done = iris("logout", "--user", "J\u00f6rg /&?", "--admin", f"unix:{server.data}/admin.sock")
        assert done.returncode == 0 and "0 sessions" in done.stdout, done.stdout + done.stderr
        # It is no ban.
        with server.login("J\u00f6rg /&?") as again:
            again.sync()
        ann.sync()
    assert server.metrics().sum("iris_connections_closed_total", reason="logged_out") == 1
    assert "an operator ended the sessions of a user" in server.log()


def test_what_an_operator_ends_loses_nothing(server: Server) -> None:
    with server.login("ann") as ann, server.login("bob") as bob:
        for number in range(5):
            assert ann.ask("bob", b"%d" % number) == "accepted"
        bob.take(5)
        bob.ack(2)
        bob.sync()
        assert post(server, "/logout?user=bob")[1]["ended"] == 1
        ends_with(bob, "logged_out")
        with server.login("bob") as again:
            assert [one.payload for one in again.take(3)] == [b"2", b"3", b"4"]


def test_a_client_that_is_logging_in_is_found_and_one_that_has_said_nothing_is_not(server: Server) -> None:
    with server.connect() as silent, server.login("bob") as bob:
        assert post(server, "/logout?user=bob")[1]["ended"] == 1
        ends_with(bob, "logged_out")
        silent.login("ann", server.token("ann"))
        silent.sync()


def test_wishes_that_make_no_sense_are_refused(server: Server) -> None:
    for path in ("/logout", "/logout?user=", "/logout?user=%00", "/logout?user=" + "x" * 129, "/logout?node=1"):
        assert post(server, path)[0] == 400, path
    assert post(server, "/logout?user=bob", tcp=True)[0] == 403
    assert post(server, "/logout?user=bob", {"Origin": "http://example.com"})[0] == 403
    assert iris("logout", "--user", "", "--admin", server.admin).returncode == 2
    done = iris("logout", "--user", "bob", "--admin", "127.0.0.77:1")
    assert done.returncode == 1 and "connection refused" in done.stderr


def test_in_a_cluster_sessions_end_wherever_they_are(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2, 2)
    for edge in cluster.edges:
        edge.more["listen"] = {"admin_socket": str(edge.home / "admin.sock")}
    cluster.start()
    sockets = [f"unix:{edge.home}/admin.sock" for edge in cluster.edges]
    sockets += [f"unix:{core.data}/admin.sock" for core in cluster.cores]
    # Asked at a core, at the edge where the user is, and at the one where they are not.
    for place, socket in enumerate([*sockets, *sockets]):
        edge = cluster.edges[place // 4]
        with edge.login("bob") as bob, edge.login("ann") as ann:
            done = iris("logout", "--user", "bob", "--admin", socket)
            assert done.returncode == 0, done.stderr
            assert "all nodes that it is linked to were told" in done.stdout
            ends_with(bob, "logged_out")
            ann.sync()
    assert sum(edge.metrics().sum("iris_link_ejects_dropped_total") for edge in cluster.edges) == 0


def test_a_core_reaches_edges_that_only_its_mirror_is_linked_to(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2, 1)
    one, two = cluster.cores
    cluster.start()
    edge = cluster.edges[0]
    # This edge knows the second core alone.
    edge.kill()
    cluster.cores = [two]
    edge.start()
    cluster.cores = [one, two]
    with edge.login("bob") as bob:
        done = iris("logout", "--user", "bob", "--admin", f"unix:{one.data}/admin.sock")
        assert done.returncode == 0, done.stderr
        ends_with(bob, "logged_out")
