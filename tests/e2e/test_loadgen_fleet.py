"""Several processes as one load generator: the same counts as one, and a reason where a part of it fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loadgen import loadgen, start
from support.server import Server, clean_env, dies_with_us
from support.wait import PATIENCE, until

Worker = tuple[str, "subprocess.Popen[str]"]


@pytest.fixture
def worker(server: Server) -> Iterator[Callable[..., Worker]]:
    """Return what starts a worker; all of them are ended with the test."""
    made: list[subprocess.Popen[str]] = []

    def begin(*flags: str) -> Worker:
        command = [loadgen(), "worker", "--listen", "127.0.0.1:0", "--key", str(server.data / "dev.key"), *flags]
        process = subprocess.Popen(
            command, env=clean_env({}), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=dies_with_us,
        )  # fmt: skip
        made.append(process)
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"listening on (\S+)", line)
        assert found, line
        return found[1], process

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], out: Path) -> tuple[int, str, dict[str, Any]]:
    said, error = process.communicate(timeout=2 * PATIENCE)
    result: dict[str, Any] = json.loads(out.read_text()) if out.exists() and out.stat().st_size else {}
    return process.returncode, said + error, result


def counts(server: Server, out: Path, scenario: str, *flags: str) -> dict[str, Any]:
    code, said, result = end(start(server, scenario, *flags, out=out), out)
    assert code == 0, said
    assert (result["lost"], result["duplicates"], result["reordered"], result["corrupted"]) == (0, 0, 0, 0)
    names = ("sent", "accepted", "delivered", "connections_open")
    return {name: result[name] for name in names} | {"logins": result["login"]["count"], "result": result}


@pytest.mark.parametrize("scenario", [
    ("offline", "--connections", "20", "--messages", "5000", "--duration", "60s"),
    ("storm", "--connections", "300", "--rounds", "2", "--waiting", "3"),
    ("idle", "--connections", "2000", "--duration", "1s"),
])  # fmt: skip
def test_two_processes_give_the_same_counts_as_one(server: Server, tmp_path: Path, scenario: tuple[str, ...]) -> None:
    one = counts(server, tmp_path / "one", *scenario)
    two = counts(server, tmp_path / "two", *scenario, "--processes", "2", "--threads", "2")
    of_one, of_two = one.pop("result"), two.pop("result")
    assert one == two
    assert (of_one["generator"]["processes"], of_two["generator"]["processes"]) == (1, 2)
    assert of_two["generator"]["threads"] == 4 and len(of_two["workers"]) == 2
    assert sum(each["sent"] for each in of_two["workers"]) == two["sent"]
    rows = of_two["series"]
    assert sum(row["accepted"] for row in rows) == two["accepted"]
    assert sum(row["logins"] for row in rows) == of_two["login"]["count"] + (300 * 2 if scenario[0] == "storm" else 0)


def test_messages_between_workers_are_accounted_for(server: Server, tmp_path: Path, worker: Callable[..., Worker]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    addrs = ",".join(worker("--secret", str(secret))[0] for _ in range(2))
    # Senders and the one inbox, or all recipients, are not of one process. Without a rate, a fast machine accepts more than
    # one reader takes, until the inbox is full.
    page = tmp_path / "page.html"
    flags = ("--workers", addrs, "--secret", str(secret), "--warmup", "200ms", "--duration", "2s")
    fanin = counts(server, tmp_path / "fanin", "fanin", "--connections", "51", "--rate", "20000", *flags, "--report", str(page))
    assert fanin["sent"] == fanin["accepted"] == fanin["delivered"] > 0
    assert "worker 2 of 2" in page.read_text()
    fanout = counts(server, tmp_path / "fanout", "fanout", "--connections", "100", *flags)
    assert fanout["delivered"] == 100 * fanout["accepted"] > 0
    assert fanout["result"]["latency_us"]["count"] > 0 and fanout["result"]["delivered_latency_us"]["count"] > 0
    assert all(each["clock_error_us"] >= 0 for each in fanout["result"]["workers"])


def test_a_killed_process_makes_the_run_invalid_with_a_reason(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(server, "throughput", "--connections", "10", "--duration", "10m", "--processes", "2", out=out)
    until(lambda: server.metrics().sum("iris_sends_total") or process.poll() is not None, "it is under way")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    subprocess.run(["kill", "-KILL", children[1]], check=True)
    code, said, result = end(process, out)
    assert code == 2 and result["valid"] is False, said
    reasons = "; ".join(result["invalid_reasons"])
    assert f"(pid {children[1]}) died: signal: {signal.SIGKILL.value}" in reasons, reasons
    assert "gone" in result["workers"][1] and "gone" not in result["workers"][0]
    assert result["series"] and result["lost"] == 0


def test_a_killed_worker_makes_the_run_invalid_and_its_fellow_serves_the_next(
    server: Server, tmp_path: Path, worker: Callable[..., Worker]
) -> None:
    out = tmp_path / "out"
    (one, _), (two, killed) = worker(), worker()
    process = start(server, "p2p", "--connections", "20", "--duration", "10m", "--workers", f"{one},{two}", out=out)
    until(lambda: server.metrics().sum("iris_sends_total") or process.poll() is not None, "it is under way")
    killed.kill()
    code, said, result = end(process, out)
    assert code == 2 and any(two in why and "died" in why for why in result["invalid_reasons"]), said
    counts(server, tmp_path / "next", "idle", "--connections", "10", "--duration", "200ms", "--workers", one)


def test_a_wrong_secret_is_refused(server: Server, tmp_path: Path, worker: Callable[..., Worker]) -> None:
    secrets = [tmp_path / name for name in ("right", "wrong")]
    for path in secrets:
        path.write_text(f"a secret of some length: {path.name}\n")
    addr, _ = worker("--secret", str(secrets[0]))
    flags = ("--connections", "4", "--duration", "200ms", "--workers", addr)
    for secret, hint in ([], "wants a secret"), (["--secret", str(secrets[1])], "wrong secret"):
        code, said, _ = end(start(server, "idle", *flags, *secret, out=tmp_path / "out"), tmp_path / "out")
        assert code == 2 and hint in said and addr in said, said
    code, said, _ = end(start(server, "idle", *flags, "--secret", str(secrets[0]), out=tmp_path / "out"), tmp_path / "out")
    assert code == 0, said
    command = [loadgen(), "worker", "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, env=clean_env({}), text=True, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2 and "--secret" in done.stderr
