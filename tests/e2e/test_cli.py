"""What a user types: tokens that anybody can verify, checks, help with examples, a version."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from pathlib import Path

import pytest
from support import tokens
from support.server import Server, iris
from support.wait import PATIENCE

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(KEY + "\n")
    return path


def test_a_token_verifies_by_the_standard_alone(key: Path) -> None:
    done = iris("token", "--user", "Jörg", "--key", str(key), "--ttl", "90s", "--kid", "k1")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("\n") == 1
    header, claims, signature = done.stdout.strip().split(".")
    said = hmac.new(KEY.encode(), f"{header}.{claims}".encode(), hashlib.sha256).digest()
    assert tokens.b64url(said) == signature
    assert json.loads(tokens.unb64url(header)) == {"alg": "HS256", "typ": "JWT", "kid": "k1"}
    body = json.loads(tokens.unb64url(claims))
    assert body["sub"] == "Jörg"
    assert body["exp"] - body["iat"] == 90 and abs(body["iat"] - time.time()) < 600


def test_a_token_of_the_command_logs_in(server: Server) -> None:
    done = iris("token", "--user", "alice", "--key", str(server.data / "dev.key"))
    with server.connect() as client:
        client.login("alice", done.stdout.strip())
        assert client.welcome and abs(client.welcome.token_expires_s - time.time() - 86_400) < 600


@pytest.mark.parametrize(
    "args",
    [
        ["--user", ""],
        ["--user", "x" * 129],
        ["--user", "a\nb"],
        ["--user", "x", "--ttl", "soon"],
        ["--user", "x", "--key", "/no/such/file"],
        [],
    ],
)
def test_a_token_that_could_not_log_in_is_not_made(key: Path, args: list[str]) -> None:
    if "--key" not in args:
        args = [*args, "--key", str(key)]
    done = iris("token", *args)
    assert done.returncode == 2 and done.stdout == "" and done.stderr
    assert "panicked" not in done.stderr


def test_keys_in_a_config_serve_outside_dev(tmp_path: Path, key: Path) -> None:
    (tmp_path / "iris.toml").write_text(
        f'[node]\ndata_dir = "data"\n[auth]\nkeys = [{{ file = "{key}", alg = "HS256" }}]\n'
        '[listen]\ntcp = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\n'
    )
    done = iris("check", "--config", str(tmp_path / "iris.toml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sound" in done.stdout


def test_check_names_every_problem_at_once(tmp_path: Path) -> None:
    file = tmp_path / "iris.toml"
    file.write_text('[listen]\ntcp = "nowhere"\n[core]\npartitions = "many"\n[wal]\nsync = "never"\nx = 1\n')
    done = iris("check", "--config", str(file))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout  # Four of these, and the missing key.
    for line in lines:
        assert str(file) in line and ("; " in line), line
    report = json.loads(iris("check", "--config", str(file), "--json").stdout)
    assert report["ok"] is False and len(report["problems"]) == 5


def test_the_default_file_is_sound_under_dev(tmp_path: Path) -> None:
    file = tmp_path / "iris.toml"
    file.write_text(iris("check", "--defaults").stdout)
    assert iris("check", "--dev", "--config", str(file)).returncode == 0


def test_every_help_has_examples_and_names_its_flags() -> None:
    root = iris("--help")
    assert root.returncode == 0 and "iris serve --dev" in root.stdout
    commands = re.findall(r"^  (\w+) ", root.stdout.split("Commands:")[1].split("Options:")[0], re.M)
    assert {"serve", "check", "token", "wal", "version"} <= set(commands)
    for command in set(commands) - {"help", "version"}:
        done = iris(command, "--help")
        assert done.returncode == 0, command
        assert "Examples:" in done.stdout and f"iris {command}" in done.stdout, command


def test_version_is_said_for_people_and_programs() -> None:
    done = iris("version")
    assert re.fullmatch(r"iris \d+\.\d+\.\d+ \(.+\), wire protocol 1\n", done.stdout)
    said = json.loads(iris("version", "--json").stdout)
    assert said["protocol"] == 1 and said["version"] in done.stdout


def test_a_slip_of_the_pen_is_told_with_exit_code_2() -> None:
    for args in (["serv"], ["serve", "--daev"], ["wal", "verify"], ["wal", "verify", "/no/such"], []):
        done = iris(*args)
        assert done.returncode == 2, args
        assert done.stderr and "panicked" not in done.stderr


def test_admin_pages_tell_health_and_metrics(server: Server) -> None:
    import urllib.error
    import urllib.request

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{server.admin}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    assert get("/livez")[0] == get("/readyz")[0] == 200
    assert get("/nothing")[0] == 404
    status, text = get("/metrics")
    assert status == 200
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names and all(name.startswith("iris_") for name in names)
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert helped == names
