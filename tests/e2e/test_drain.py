"""A node that is told to go: who is told what, in which order, and how fast."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from iris_client import _protocol as p
from support import admin, page
from support.client import Client
from support.cluster import Cluster
from support.server import Server, binary, clean_env, dies_with_us
from support.wait import PATIENCE, until


def drain(node: Server, *args: str) -> subprocess.Popen[str]:
    """Start `iris drain`."""
    return subprocess.Popen(
        [binary(), "drain", "--admin", node.admin, *args],
        env=clean_env({}), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=dies_with_us,
    )  # fmt: skip


def is_ready(node: Server) -> int:
    """Return the status of /readyz."""
    connection = http.client.HTTPConnection(node.admin, timeout=PATIENCE)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


def farewell(client: Client) -> tuple[p.Drain, p.ErrorReport, float]:
    """Wait for the end; return what was said and when."""
    assert client.end() == "draining"
    ended = time.monotonic()
    assert client.drain and client.error
    client.close()
    return client.drain, client.error, ended


def test_a_drain_ends_readiness_first_tells_everybody_and_closes_at_the_rate(server: Server) -> None:
    clients = [server.login(f"u{number}") for number in range(60)]
    assert is_ready(server) == 200
    began = time.monotonic()
    command = drain(server, "--rate", "20/s", "--json")
    first_said, _, first = farewell(clients[0])
    assert is_ready(server) == 503, "readiness ends before the first connection"
    status = json.loads(admin.request(server, "GET", "/status")[1])
    assert status["phase"] == "draining" and status["drain"]["connections"] == 60
    assert server.metrics().sum("iris_drain_connections") == 60
    said = [farewell(client) for client in clients[1:]]
    last = max(ended for _, _, ended in said)
    # Sixty at twenty a second are three seconds, and this node alone serves them: it says when it is back.
    assert last - began > 2.5
    for told, error, _ in [(first_said, None, first), *said]:
        assert 2000 < told.retry_after_ms <= 4000 and told.jitter_ms == 1000
        if error:
            assert 1000 <= error.retry_after_ms <= told.retry_after_ms
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert (lines[0]["state"], lines[-1]["state"]) == ("draining", "empty")
    assert lines[0]["drain"]["rate_per_s"] == 20 and lines[-1]["drain"]["left"] == 0
    assert server.ended() == 0


def test_a_signal_hastens_a_slow_drain_and_a_second_wish_watches_it(make_server: Callable[..., Server]) -> None:
    server = make_server({"IRIS_REACTOR__DRAIN_TIME": "2s"}).start()
    assert server.process
    clients = [server.login(f"u{number}") for number in range(20)]
    commands = [drain(server, "--rate", "1/s", "--timeout", "1h")]
    until(lambda: is_ready(server) == 503, "it drains")
    assert admin.post(server, "/drain")[0] == 409
    commands.append(drain(server))
    assert commands[1].stdout and "draining already" in commands[1].stdout.readline()
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        farewell(client)
    for command in commands:
        _, err = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0, err
    assert server.ended() == 0
    assert "hastening the drain" in server.log()


def test_a_wish_that_makes_no_sense_or_that_is_not_allowed_changes_nothing(server: Server) -> None:
    for query in ("rate=0", "rate=x", "timeout_ms=86400001", "speed=1", "rate=1&rate=2"):
        assert admin.post(server, f"/drain?{query}")[0] == 400
    assert admin.post(server, "/drain", tcp=True)[0] == 403
    assert admin.request(server, "GET", "/drain")[0] == 405
    assert is_ready(server) == 200
    with server.login("a") as a:
        assert a.ask("a", b"still here") == "accepted"
    said = drain(server, "--rate", "0/s").communicate(timeout=PATIENCE)[1]
    assert "is no rate such as" in said


def test_a_node_without_clients_is_empty_at_once(server: Server) -> None:
    out, err = drain(server).communicate(timeout=PATIENCE)
    assert out.splitlines()[-1] == "empty: all of 0 connections are closed, the log is written, the node ends", err
    assert server.ended() == 0


def test_a_drain_of_a_node_that_is_not_there_says_so(server: Server) -> None:
    server.stop()
    command = drain(server)
    _, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1 and "connection refused" in err


def test_an_edge_tells_each_client_its_own_turn_and_another_one_takes_it(make_cluster: Callable[..., Cluster]) -> None:
    edge, other = make_cluster(cores=1, edges=2).start().edges
    clients = [edge.login(f"u{number}") for number in range(30)]
    assert edge.process
    edge.process.send_signal(signal.SIGTERM)
    until(lambda: is_ready(edge) == 503, "it drains")
    for client in clients:
        client.pump(lambda client=client: client.drain)
    # Whoever a balancer sends before it looks is told at once instead of being refused.
    late = edge.connect()
    late.hello("late", edge.token("late"))
    assert late.end() == "draining"
    for client in clients:
        told, error, _ = farewell(client)
        assert told.retry_after_ms <= 2000 and told.jitter_ms == 1000 and error.retry_after_ms == 0
        with other.login(client.user) as again:
            assert again.ask(client.user, b"here") == "accepted"
    assert edge.ended() == 0


def test_a_core_that_drains_hands_over_before_it_is_empty(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(cores=2, edges=1).start()
    core, (edge,) = cluster.cores[0], cluster.edges
    with edge.login("a") as a:
        assert a.ask("a", b"before") == "accepted"
        command = drain(core)
        answers = [a.ask("a", b"meanwhile")]
        while command.poll() is None:
            answers.append(a.ask("a", b"meanwhile"))
        out, err = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0, err
        assert out.splitlines()[-1].startswith("empty")
        assert core.ended() == 0
        assert a.ask("a", b"after") == "accepted"
        assert set(answers) == {"accepted"}, "nobody notices"
        assert len(a.drain_until_empty(len(answers) + 2)) == len(answers) + 2


def type_in(command: str, server: Server) -> str:
    """Run a command of the page in the server's folder, against this server; return what it said."""
    command = command.replace("iris drain", f"iris drain --admin {server.admin}")
    env = clean_env({"PATH": f"{server.home}:/usr/bin:/bin"})
    done = subprocess.run(
        ["sh", "-c", command], cwd=server.home, env=env, text=True, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.parametrize("command", page.lines("drain"))
def test_the_commands_of_the_page_empty_a_node(server: Server, command: str) -> None:
    (server.home / "iris").symlink_to(binary())
    clients = [server.login(f"u{number}") for number in range(3)]
    assert "empty" in type_in(command, server).splitlines()[-1]
    assert [client.end() for client in clients] == ["draining"] * 3
    assert server.ended() == 0


def test_the_commands_of_the_page_replace_a_binary_that_runs(make_server: Callable[..., Server]) -> None:
    server = make_server()
    for name in ("iris", "iris-new"):
        shutil.copy2(binary(), server.home / name)
    server.binary = str(server.home / "iris")
    server.start()
    (server.home / "iris.toml").write_text(
        f'[node]\ndata_dir = "data"\n[auth]\nkeys = [{{ file = "{server.data / "dev.key"}", alg = "HS256" }}]\n'
    )
    with server.login("a") as a:
        assert a.ask("b", b"from before") == "accepted"
    for command in page.lines("upgrade"):
        type_in(command, server)
    assert server.ended() == 0
    server.start()
    with server.login("b") as b:
        assert [delivery.payload for delivery in b.take(1)] == [b"from before"]


def test_a_reload_says_of_each_key_whether_it_took_hold_and_shows_it_in_metrics(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    file = server.home / "iris.toml"
    file.write_text("")
    server.args = ["--config", str(file)]
    server.start()

    def metric(name: str) -> float:
        return server.metrics().sum(f"iris_config_{name}")

    began = metric("last_reload_timestamp_seconds")
    assert (metric("generation"), metric("last_reload_successful")) == (1, 1) and began > 0
    file.write_text('[log]\nformat = "text"\nlevel = "debug"\n[node]\nregion = "elsewhere"\n')
    status, said = admin.post(server, "/reload")
    assert status == 200
    wanted = {"generation": 2, "applied": ["log.format", "log.level"], "needs_restart": ["node.region"]}
    assert said == wanted
    lines = server.log().splitlines()[-6:]
    assert any("applied" in line and "log.level" in line and "{" not in line for line in lines), lines
    assert any("needs a restart" in line and "node.region" in line for line in lines), lines
    with server.login("a"):
        pass
    until(lambda: "connection ended" in server.log(), "the level is another one")
    assert metric("generation") == 2 and metric("last_reload_timestamp_seconds") >= began

    file.write_text('[log]\nlevel = "loud"\n')
    assert admin.post(server, "/reload")[0] == 422
    assert (metric("generation"), metric("last_reload_successful")) == (2, 0)
    # A signal does the same as the page, and what waits for a restart is told again.
    file.write_text('[node]\nregion = "elsewhere"\n[reactor]\ndrain_time = "1s"\n')
    assert server.process
    server.process.send_signal(signal.SIGHUP)
    until(lambda: metric("generation") == 3, "it is read")
    assert metric("last_reload_successful") == 1
    until(lambda: '"key":"reactor.drain_time"' in server.log(), "it is told, in JSON again")
    assert server.log().count("node.region") == 2
