"""What docs/SECURITY.md promises: ports that take one protocol each, an admin server with a lock, secrets that stay secret."""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from iris_client import _protocol as p
from support import tokens
from support.admin import post, request
from support.client import Client, Closed
from support.cluster import LINK_PORT, Cluster
from support.confine import NOBODY, is_root, public_place
from support.server import Server, binary, clean_env, iris
from support.wait import PATIENCE, until

VECTORS = Path(__file__).resolve().parents[2] / "proto/vectors/link-v1.json"


def link_frames() -> dict[str, bytes]:
    """Return the frames of links, and those inside their batches, by name."""
    vectors = json.loads(VECTORS.read_text())
    return {row["name"]: bytes.fromhex(row["hex"]) for row in vectors["frames"]}


# ---- one protocol a port


@pytest.mark.parametrize("name", sorted(link_frames()))
def test_the_clients_port_takes_no_frame_of_a_link_from_a_stranger(shared: Server, name: str) -> None:
    with shared.connect() as client:
        client.raw(link_frames()[name])
        client.raw(bytes(64))
        assert client.end() in {"garbage", "oversize", "out_of_order", "malformed", "version"}
    assert shared.metrics().sum("iris_links") == 0


def test_frames_of_a_link_give_a_client_no_more_than_its_own_frames(shared: Server) -> None:
    """After a login each either ends the connection or is one of the client's own: nobody else's session changes."""
    victim = shared.login("victim")
    with shared.login("sender") as sender:
        assert sender.ask("victim", b"kept") == "accepted"
    victim.take(1)
    for name, frame in link_frames().items():
        with shared.login("attacker") as attacker:
            try:
                attacker.raw(frame)
                # Whatever length it is taken to have, this is more than the rest of it.
                attacker.raw(p.encode_ping(b"12345678") * (p.FRAME_BODY_BYTES_MAX // 12 + 2))
                attacker.pump(lambda: attacker.pongs)
            except (Closed, ConnectionError):
                attacker.last_words()
                code = p.code_name(attacker.error.code) if attacker.error else None
                known = {"out_of_order", "malformed", "unknown_type", "bad_ack", "oversize", "garbage"}
                assert code in known, f"{name}: {code}"
    victim.sync()
    assert victim.error is None, "another one's frame ended the session"
    assert not victim.inbox, "another one's frame made a message"
    victim.close()
    # What was not acknowledged is there: no ACK of another connection counted.
    with shared.login("victim") as again:
        assert [one.payload for one in again.take(1)] == [b"kept"]


def test_the_link_port_takes_no_client_and_no_certificate_means_no_link(one_core: Cluster) -> None:
    core = one_core.cores[0]
    before = core.metrics().sum("iris_links_ended_total")
    token = tokens.user_token(core.key, "ann")
    with socket.create_connection((core.link_address, LINK_PORT), timeout=PATIENCE) as raw:
        raw.sendall(p.encode_hello("ann", "", token, 16))
        try:
            while raw.recv(4096):
                pass
        except ConnectionResetError:
            pass
    until(lambda: core.metrics().sum("iris_links_ended_total") > before, "it is refused and counted")
    assert core.metrics().sum("iris_links_ended_total", reason="tls_garbage") >= 1


# ---- the admin server


def test_the_socket_is_for_the_owner_alone_and_goes_with_the_server(server: Server) -> None:
    path = server.data / "admin.sock"
    about = path.stat()
    assert stat.S_ISSOCK(about.st_mode) and stat.S_IMODE(about.st_mode) == 0o600
    assert request(server, "GET", "/status")[0] == 200
    said = json.loads(request(server, "GET", "/status", tcp=True)[1])
    assert said["admin_socket"] == str(path)
    server.stop()
    assert not path.exists()
    # A crash leaves it, and the next start takes its place.
    server.start()
    server.kill()
    assert path.exists()
    server.start()
    assert request(server, "GET", "/status")[0] == 200


@pytest.mark.skipif(not is_root(), reason="another user is needed")
def test_another_user_of_the_machine_changes_nothing(make_server: Callable[..., Server]) -> None:
    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    with public_place(binary()) as (home, program):
        server = make_server(home=home / "server").start()
        # Even if somebody opened the socket's file to everybody.
        (server.data / "admin.sock").chmod(0o666)
        args = [program, "logout", "--user", "bob", "--admin", f"unix:{server.data}/admin.sock"]
        with server.login("bob") as bob:
            done = subprocess.run(
                args, env=clean_env({}), text=True, capture_output=True, timeout=PATIENCE, preexec_fn=become_nobody
            )
            assert done.returncode == 1, done.stdout
            bob.sync()
        server.kill()


def with_token(make_server: Callable[..., Server], tmp_path: Path) -> tuple[Server, Path, str]:
    """Return a server whose admin port asks for a token, the token's file, and the token."""
    secret = secrets.token_hex(32)
    file = tmp_path / "admin-token"
    file.write_text(secret + "\n")
    return make_server({"IRIS_LISTEN__ADMIN_TOKEN": str(file)}).start(), file, secret


def test_with_a_token_the_admin_port_shows_and_changes_nothing_without_it(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server, file, secret = with_token(make_server, tmp_path)
    for page in ("/metrics", "/status", "/health?verbose"):
        assert request(server, "GET", page, tcp=True)[0] == 401, page
        right = {"Authorization": f"Bearer {secret}"}
        assert request(server, "GET", page, right, tcp=True)[0] == 200, page
        assert request(server, "GET", page, {"Authorization": f"Bearer {secret}x"}, tcp=True)[0] == 401, page
        assert request(server, "GET", page)[0] == 200, "the socket needs no token"
    for page in ("/livez", "/readyz"):
        assert request(server, "GET", page, tcp=True)[0] == 200, page
    done = iris("status", "--admin", server.admin)
    assert done.returncode == 10 and "--admin-token" in done.stdout + done.stderr
    assert iris("status", "--admin", server.admin, "--admin-token", str(file)).returncode == 0
    with server.login("bob") as bob:
        assert post(server, "/logout?user=bob", tcp=True)[0] == 401
        bob.sync()
        done = iris("logout", "--user", "bob", "--admin", server.admin, "--admin-token", str(file))
        assert done.returncode == 0, done.stderr
        assert bob.end() == "logged_out"


def test_a_remote_admin_port_without_a_token_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "iris.toml"
    file.write_text('[listen]\nadmin = "0.0.0.0:7480"\nadmin_allow_remote = true\n')
    done = iris("check", "--dev", "--config", str(file))
    assert done.returncode == 1 and "admin_token" in done.stdout + done.stderr


# ---- secrets


def test_secrets_are_never_printed(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """At the loudest level, with logins that fail and succeed, a panic-free life, and every page and command."""
    hidden = {
        "signing secret": secrets.token_hex(32),
        "admin token": secrets.token_hex(32),
    }
    key, admin = tmp_path / "key", tmp_path / "admin"
    key.write_text(hidden["signing secret"])
    admin.write_text(hidden["admin token"])
    config = tmp_path / "iris.toml"
    config.write_text(
        f'[node]\ndata_dir = "{tmp_path}/data"\n[listen]\ntcp = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\n'
        f'admin_token = "admin"\n[log]\nlevel = "trace"\n'
        '[auth]\nkeys = [{ file = "key", alg = "HS256" }, { file = "key", alg = "HS256", kid = "k" }]\n'
    )
    ports = tmp_path / "ports.json"
    log = (tmp_path / "log").open("ab")
    process = subprocess.Popen(
        [binary(), "serve", "--config", str(config), "--ports-file", str(ports)],
        env=clean_env({"IRIS_WAL__SEGMENT_SIZE": "2MiB", "IRIS_WAL__BATCH_MAX": "512KiB"}),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    said = []
    try:
        until(ports.exists, "the server is ready")
        where = json.loads(ports.read_text())
        host, port = where["tcp"].rsplit(":", 1)
        secret = hidden["signing secret"].encode()
        sound = tokens.user_token(secret, "ann")
        forged = tokens.user_token(b"0" * 64, "ann")
        hidden |= {"a token": sound, "a forged token": forged, "a signature": sound.rsplit(".", 1)[1]}
        with Client((host, int(port))) as ann:
            ann.login("ann", sound)
            assert ann.ask("ann", b"the payload of a message") == "accepted"
            ann.take(1)
        hidden["a payload"] = "the payload of a message"
        for token in (forged, sound + "x", "x" + sound):
            with Client((host, int(port))) as stranger:
                stranger.hello("ann", token)
                assert stranger.end()
                said.append(str(stranger.error))
        show = {"Authorization": f"Bearer {hidden['admin token']}"}
        node = Server(tmp_path / "other")
        node.admin = where["admin"]
        for page in ("/metrics", "/status", "/health?verbose", "/nowhere"):
            said.append(request(node, "GET", page, show, tcp=True)[1].decode())
            said.append(request(node, "GET", page, {"Authorization": "Bearer wrong"}, tcp=True)[1].decode())
        for args in (
            ("status", "--admin", where["admin"], "--admin-token", str(admin)),
            ("status", "--json", "--admin", where["admin"], "--admin-token", str(admin)),
            ("logout", "--user", "ann", "--admin", where["admin"], "--admin-token", str(admin)),
            ("check", "--config", str(config)),
            ("check", "--config", str(config), "--json"),
            ("wal", "dump", str(tmp_path / "data")),
        ):
            done = iris(*args)
            said += [done.stdout, done.stderr]
        # A problem with a file names the file, not what is in it.
        for bad in ("auth.keys", "listen.admin_token"):
            broken = tmp_path / "broken.toml"
            (tmp_path / "bad").write_text(hidden["signing secret"][:20])
            line = 'keys = [{ file = "bad", alg = "HS256" }]' if bad == "auth.keys" else 'admin_token = "bad"'
            broken.write_text(f"[{bad.split('.')[0]}]\n{line}\n")
            done = iris("check", "--dev", "--config", str(broken))
            assert done.returncode == 1
            said += [done.stdout, done.stderr]
            hidden["the start of a secret"] = hidden["signing secret"][:20]
    finally:
        process.terminate()
        process.wait(PATIENCE)
        log.close()
    said.append((tmp_path / "log").read_text(errors="replace"))
    everything = "\n".join(said)
    assert len(everything) > 10_000, "something was said at all"
    for what, text in hidden.items():
        at = everything.find(text)
        assert at < 0, f"{what} was printed: {everything[max(0, at - 200) : at + 20]!r}"


def test_a_credential_of_systemd_is_a_secret_like_one_in_a_file(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "jwt").write_text(secrets.token_hex(32))
    file = tmp_path / "iris.toml"
    file.write_text('[node]\ndata_dir = "data"\n[auth]\nkeys = [{ file = "credential:jwt", alg = "HS256" }]\n')
    env = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert iris("check", "--config", str(file), env=env).returncode == 0
    done = iris("check", "--config", str(file))
    assert done.returncode == 1 and "CREDENTIALS_DIRECTORY" in done.stdout + done.stderr
    file.write_text('[auth]\nkeys = [{ file = "credential:../jwt", alg = "HS256" }]\n')
    done = iris("check", "--config", str(file), env=env)
    assert done.returncode == 1 and "no name of a credential" in done.stdout + done.stderr


def test_a_header_of_a_link_is_no_header_of_a_client() -> None:
    """The first bytes of both protocols differ, so that neither port can take the other's HELLO for its own."""
    frames = link_frames()
    assert frames["hello_of_an_edge"][8:12] == b"IRLK"
    (length,) = struct.unpack("<I", frames["hello_of_an_edge"][1:4] + b"\0")
    assert length > p.FRAME_BODY_BYTES_MAX or frames["hello_of_an_edge"][4:8] != b"IRIS"
