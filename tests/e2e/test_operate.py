"""What operators look with: ``iris top``, ``iris shard``, and ``iris support-bundle``, in which no secret is."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster import Cluster
from support.server import Server, binary, clean_env, dies_with_us, iris
from support.wait import PATIENCE, until

ALICE = "alice-wonderland-4711"
BOB = "bob-the-builder-0815"
JWKS_KEY = "c3ltbWV0cmljLWtleS1vZi1hLXNldC1vZi1rZXlz"
PAYLOAD = b"what-alice-wrote-to-bob-is-nobodys-business"


def talk(server: Server, count: int = 5) -> None:
    """Have one user write to another one who is away."""
    with server.login(ALICE) as alice:
        for _ in range(count):
            assert alice.ask(BOB, PAYLOAD) == "accepted"


# ---- top


def test_top_shows_what_went_on_between_two_looks(server: Server) -> None:
    args = ["top", "--admin", server.admin, "--json", "--interval", "200ms"]
    process = subprocess.Popen(
        [binary(), *args], env=clean_env({}), stdout=subprocess.PIPE, text=True, preexec_fn=dies_with_us
    )
    try:
        assert process.stdout
        json.loads(process.stdout.readline())
        talk(server, 50)
        accepted = 0.0
        node: dict[str, Any] = {}
        # What waits is counted now and then, rates at once.
        while accepted < 49.5 or node["inbox"]["messages"] != 50:
            look = json.loads(process.stdout.readline())
            (node,) = look["nodes"]
            accepted += node["rates"]["accepted"] * node["seconds"]
    finally:
        process.kill()
        process.wait()
    assert 49.5 < accepted < 50.5, "rates times their spans are what was counted"
    assert node["phase"] == "ready" and node["healthy"] is True
    assert {"r0", "p0"} <= set(node["busy"]) and node["refused"] == {}


def test_top_once_prints_a_table_and_a_refusal_by_its_reason(make_server: Callable[..., Server]) -> None:
    server = make_server({"IRIS_CORE__INBOX_MESSAGES_MAX": "1"}).start()
    args = ["top", "--admin", server.admin, "--interval", "100ms"]
    process = subprocess.Popen(
        [binary(), *args], env=clean_env({}), stdout=subprocess.PIPE, text=True, preexec_fn=dies_with_us
    )
    try:
        assert process.stdout
        assert "error" not in process.stdout.readline()
        with server.login(ALICE) as alice:
            alice.ask(BOB, b"1")
            assert alice.ask(BOB, b"2") != "accepted"
        while " refused_inbox_full=" not in process.stdout.readline():
            pass
        while " waiting=1 " not in process.stdout.readline():
            pass
    finally:
        process.kill()
        process.wait()
    done = iris("top", "--once", "--interval", "100ms", "--admin", server.admin)
    assert done.returncode == 0 and done.stderr == ""
    for wanted in ["node 1", "connections", "accepted", "inboxes", "1 messages wait", "syncs/s", "CPUs, busy"]:
        assert wanted in done.stdout, done.stdout
    assert "\x1b" not in done.stdout, "no escape sequences where there is no terminal"


def test_top_says_who_does_not_answer_and_exits_with_10(server: Server) -> None:
    done = iris("top", "--once", "--interval", "100ms", "--admin", server.admin, "--admin", "127.0.0.1:1", "--json")
    assert done.returncode == 10
    here, gone = json.loads(done.stdout)["nodes"]
    assert here["reachable"] is True and gone["reachable"] is False
    assert "connection refused" in gone["error"]
    assert iris("top", "--interval", "1ms").returncode == 2


# ---- shard


def test_a_shard_is_served_by_the_core_that_edges_send_it_to(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2, 1).start()
    (edge,) = cluster.edges

    def asked() -> tuple[int, dict[str, object]]:
        done = iris("shard", ALICE, "--admin", edge.admin, "--json")
        return done.returncode, json.loads(done.stdout)

    until(lambda: asked()[1]["serving"] == asked()[1]["preferred"], "the preferred core serves")
    code, seen = asked()
    assert code == 0 and seen["preferred"] in (1, 2)
    preferred = cluster.cores[int(str(seen["preferred"])) - 1]
    preferred.kill()
    other = 3 - int(str(seen["preferred"]))
    until(lambda: asked()[1]["serving"] == other, "the other core serves")
    assert asked()[1]["preferred"] == seen["preferred"]


def test_a_node_alone_serves_every_shard(server: Server) -> None:
    done = iris("shard", ALICE, "--admin", server.admin)
    assert done.returncode == 0 and "served by core 1" in done.stdout, done.stdout + done.stderr
    done = iris("shard", ALICE, "--admin", "127.0.0.1:1")
    assert done.returncode == 1 and "connection refused" in done.stderr


# ---- support-bundle


def unpacked(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle by their names without the folder."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        roots = {member.name.split("/")[0] for member in members}
        assert len(roots) == 1 and roots.pop().startswith("iris-support-")
        assert all(member.isfile() and not member.name.startswith(("/", "..")) for member in members)
        files = {}
        for member in members:
            content = archive.extractfile(member)
            assert content
            files[member.name.split("/", 1)[1]] = content.read()
        return files


def bundle(where: Path, *args: str, env: dict[str, str] | None = None) -> dict[str, bytes]:
    """Make a bundle and return its files."""
    out = where / f"bundle-{len(list(where.iterdir()))}.tar.gz"
    done = iris("support-bundle", "--out", str(out), "--interval", "0s", *args, env=env or {})
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    return unpacked(out)


def assert_without(files: dict[str, bytes], secrets: list[bytes]) -> None:
    """Assert that none of the secrets is in any of the files."""
    for name, content in files.items():
        for secret in secrets:
            assert len(secret) >= 8
            assert secret not in content, f"{secret!r} is in {name}"


def test_a_bundle_of_a_live_server_has_all_and_no_secret(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server({"IRIS_LOG__LEVEL": "debug"})
    server.args = ["--tls", "127.0.0.1:0"]
    server.start()
    talk(server)
    assert iris("logout", "--user", ALICE, "--admin", f"unix:{server.data}/admin.sock").returncode == 0
    until(lambda: ALICE in server.log(), "the log names the user who was logged out")
    key = (server.data / "dev.key").read_bytes().strip()
    pem = (server.data / "dev-key.pem").read_bytes()
    token = iris("token", "--user", ALICE, "--key", str(server.data / "dev.key")).stdout.strip()
    log = tmp_path / "iris.log"
    log.write_text(server.log() + f"\na client shows Bearer {token} and {key.decode()}\n{pem.decode()}\n")
    files = bundle(tmp_path, "--dev", "--data-dir", str(server.data), "--log", str(log))
    secrets = [key, token.encode(), token.split(".")[1].encode(), ALICE.encode(), BOB.encode(), PAYLOAD]
    secrets += [line for line in pem.splitlines() if b"-----" not in line]
    assert_without(files, secrets)
    assert b"ended the sessions of a user" in files["server.log"], "the rest of the log is there"
    assert json.loads(files["status.json"])["node"]["id"] == 1
    assert b"iris_sends_total" in files["metrics-1.txt"] and b"iris_sends_total" in files["metrics-2.txt"]
    assert json.loads(files["health.json"])["ok"] is True
    config = json.loads(files["config.json"])["config"]
    assert config["node"]["data_dir"]["value"] == str(server.data)
    assert re.search(rb" wal/p000/00000001.seg\n", files["data/files.txt"])
    assert b"could make an io_uring" in files["machine/io_uring.txt"]
    assert b"Max open files" in files["process/limits.txt"]
    assert b"iris-r0" in files["process/threads.txt"] or b"iris-p0" in files["process/threads.txt"]
    manifest = files["MANIFEST.txt"].decode()
    for name in files:
        assert name == "MANIFEST.txt" or f"  {name} " in manifest, name
    for name in ["fs.nr_open", "kernel.io_uring_disabled", "net.core.somaxconn"]:
        assert name.encode() in files["machine/sysctl.txt"]


def test_a_bundle_is_made_while_the_server_is_down_and_says_what_is_missing(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server().start()
    talk(server)
    server.kill()
    files = bundle(tmp_path, "--dev", "--data-dir", str(server.data))
    manifest = files["MANIFEST.txt"].decode()
    missing = manifest.split("Not to be had:")[1]
    for name in ["status.json", "metrics-1.txt", "process/", "server.log"]:
        assert name in missing and name not in files, manifest
    assert b"wal/p000" in files["data/files.txt"] and files["data/wal-stat.txt"]
    assert_without(files, [(server.data / "dev.key").read_bytes().strip(), ALICE.encode(), PAYLOAD])
    files = bundle(tmp_path, "--config", str(tmp_path / "none.toml"), "--data-dir", str(tmp_path / "none"))
    assert "failed to read the configuration" in files["MANIFEST.txt"].decode()


def test_no_secret_of_a_configuration_is_in_a_bundle(tmp_path: Path) -> None:
    secrets = {
        "signing": "signing-secret-0123456789abcdef0123456789",
        "admin": "admin-token-0123456789abcdef0123456789ab",
        "tickets": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "link.pem": "-----BEGIN PRIVATE KEY-----\n"
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----",
        "jwks": json.dumps({"keys": [{"kty": "oct", "kid": "one", "k": JWKS_KEY}]}),
    }
    for name, text in secrets.items():
        (tmp_path / name).write_text(text + "\n")
    config = tmp_path / "iris.toml"
    config.write_text(
        f"""
# a comment with a password: comment-password-swordfish
[node]
data_dir = "data"
[listen]
admin = "127.0.0.1:1"
admin_token = "admin"
[auth]
keys = [{{ file = "signing", alg = "HS256", kid = "k1" }}, {{ file = "inline-secret-in-the-wrong-place", alg = "HS256" }}]
jwks_file = "jwks"
[tls]
ticket_secrets = "tickets"
certs = [{{ cert = "link.pem", key = "link.pem" }}]
[cluster]
key = "link.pem"
[log]
password = "unknown-key-with-a-secret"
"""
    )
    env = {"IRIS_CLUSTER__CA": "pasted-secret-of-the-environment"}
    log = tmp_path / "log"
    log.write_text("\n".join(secrets.values()) + "\nuser=" + ALICE + "\n")
    files = bundle(tmp_path, "--config", str(config), "--log", str(log), env=env)
    told = [
        *(line.encode() for text in secrets.values() for line in text.splitlines() if "-----" not in line),
        JWKS_KEY.encode(),
        b"comment-password-swordfish",
        b"inline-secret-in-the-wrong-place",
        b"unknown-key-with-a-secret",
        b"pasted-secret-of-the-environment",
        ALICE.encode(),
    ]
    assert_without(files, told)
    shown = json.loads(files["config.json"])
    keys = shown["config"]["auth"]["keys"]["value"]
    assert keys[0]["kid"] == "k1" and keys[0]["file"]["bytes"] == len(secrets["signing"]) + 1
    assert keys[1]["file"].startswith("[redacted]")
    assert shown["problems"][0]["key"] == "log.password"


def test_a_bundle_overwrites_nothing_and_can_be_read_by_tar(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out.tar.gz"
    out.write_bytes(b"something else")
    done = iris("support-bundle", "--out", str(out), "--interval", "0s")
    assert done.returncode == 2 and "--out" in done.stderr
    assert out.read_bytes() == b"something else"
    assert iris("support-bundle", "--interval", "2m").returncode == 2
    home = tmp_path / "home"
    home.mkdir()
    done = iris("support-bundle", "--interval", "0s", "--admin", server.admin, cwd=home)
    assert done.returncode == 0, done.stderr
    (made,) = home.iterdir()
    listed = subprocess.run(["tar", "tzf", str(made)], capture_output=True, text=True, timeout=PATIENCE)
    assert listed.returncode == 0 and listed.stderr == "", listed.stderr
    assert sum(line.endswith("/MANIFEST.txt") for line in listed.stdout.splitlines()) == 1
    assert io.BytesIO(made.read_bytes()).read(2) == b"\x1f\x8b"


@pytest.mark.parametrize("command", ["top", "shard", "support-bundle", "capacity", "completions", "man"])
def test_help_of_what_operators_use_teaches_by_examples(command: str) -> None:
    done = iris(command, "--help")
    assert done.returncode == 0 and f"  iris {command} " in done.stdout or f"  iris {command}\n" in done.stdout
