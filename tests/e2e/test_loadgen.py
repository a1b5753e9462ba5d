"""The load generator against the server: every scenario gives a valid run, and nothing is lost, doubled or reordered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.loadgen import start, start_bare
from support.server import Server
from support.wait import PATIENCE, until

FIELDS = {
    "scenario", "valid", "connections", "sent", "accepted", "delivered", "lost", "duplicates",
    "reordered", "rate_per_s", "latency_us", "server",
}  # fmt: skip


def run(server: Server, scenario: str, *args: str, out: Path) -> dict[str, Any]:
    """Run a scenario to its end; return its result. A machine too busy to send anything in a second gets longer."""
    for seconds in (1, 10, 60):
        process = start(server, scenario, "--duration", f"{seconds}s", *args, out=out)
        said, error = process.communicate(timeout=2 * PATIENCE)
        if "no message was accepted in the steady phase" not in said:
            break
    assert process.returncode == 0, said + error
    result: dict[str, Any] = json.loads(out.read_text())
    assert set(result) >= FIELDS
    assert result["scenario"] == scenario and result["valid"] is True
    assert (result["lost"], result["duplicates"], result["reordered"]) == (0, 0, 0)
    assert result["server"]["cpu_seconds"] >= 0
    return result


def test_throughput_loses_nothing(server: Server, tmp_path: Path) -> None:
    result = run(server, "throughput", "--connections", "20", "--warmup", "200ms", out=tmp_path / "out")
    assert result["connections"] == 20
    assert result["sent"] == result["accepted"] == result["delivered"] > 0
    assert set(result["latency_us"]) >= {"p50", "p90", "p99", "p999", "max"}


def test_latency_and_its_floor(server: Server, tmp_path: Path) -> None:
    result = run(server, "latency", "--warmup", "200ms", out=tmp_path / "out")
    assert result["accepted"] > 0


def test_p2p_publishers_reach_their_subscribers(server: Server, tmp_path: Path) -> None:
    result = run(server, "p2p", "--connections", "100", "--warmup", "200ms", out=tmp_path / "out")
    assert result["environment"]["rate"] == 100 and result["delivered"] == result["accepted"] > 0
    assert set(result["delivered_latency_us"]) >= {"p50", "p99"}


def test_fanin_reaches_one_inbox(server: Server, tmp_path: Path) -> None:
    result = run(server, "fanin", "--connections", "101", "--warmup", "200ms", out=tmp_path / "out")
    assert result["delivered"] == result["accepted"] > 0


def test_offline_fills_and_drains(server: Server, tmp_path: Path) -> None:
    result = run(server, "offline", "--connections", "10", out=tmp_path / "out")
    assert result["delivered"] == result["accepted"] > 0


def test_idle_connections_are_held(server: Server, tmp_path: Path) -> None:
    result = run(server, "idle", "--connections", "2000", out=tmp_path / "out")
    assert result["connections"] == 2000
    assert 0 <= result["server"]["rss_bytes_per_connection"] < 4096


def test_a_composite_measures_memory_of_silence_and_then_latency(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "2000", "--active", "1%", "--hold", "1s", "--rate", "200", "--warmup", "200ms")
    result = run(server, "composite", *options, out=tmp_path / "out")
    assert (result["connections"], result["connections_active"]) == (2000, 20)
    assert result["hold"]["seconds"] >= 1 and result["delivered"] == result["accepted"] > 0
    assert 0 <= result["server"]["rss_bytes_per_connection"] < 4096
    assert result["server"]["kernel_bytes_per_connection"] is not None


def test_a_fanout_names_several_recipients_in_a_send(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "300", "--senders", "2", "--warmup", "200ms")
    result = run(server, "fanout", *options, out=tmp_path / "out")
    assert result["recipients_per_send"] == 256
    assert result["delivered"] > 100 * result["accepted"] > 0


def test_everybody_is_back_after_a_storm_and_reads_what_waited(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "500", "--rounds", "2", "--waiting", "3")
    result = run(server, "storm", *options, out=tmp_path / "out")
    assert len(result["storms"]) == 2 and result["returns"]["cut"] == 1000
    assert all(0 < storm["half_s"] <= storm["most_s"] <= storm["all_s"] for storm in result["storms"])
    assert result["sent"] == result["delivered"] == 3000


def test_churn_loses_nothing_and_repeats_nothing(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "100", "--churn", "100", "--rate", "1000", "--warmup", "200ms")
    result = run(server, "churn", *options, out=tmp_path / "out")
    assert result["returns"]["cut"] > 0 and result["accepted"] > 0


def test_stalled_receivers_get_everything_afterwards(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "20", "--stalled", "20%", "--rate", "1000", "--warmup", "200ms")
    result = run(server, "slow", *options, out=tmp_path / "out")
    assert result["stall"]["users"] == 4 and result["stall"]["server_rss_growth_bytes"] is not None
    assert result["delivered"] == result["accepted"] > 0
    assert result["delivered_stalled_latency_us"]["count"] > 0


def test_watchers_are_told_who_comes_and_goes(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "50", "--watchers", "4", "--watches", "25", "--flaps", "20", "--warmup", "200ms")
    result = run(server, "presence", *options, out=tmp_path / "out")
    presence = result["presence"]
    assert presence["changes"] == presence["told"] + presence["missed"] > 0
    assert presence["told"] > presence["changes"] // 2 and result["delivered_latency_us"]["count"] > 0


def test_the_example_file_runs_phase_by_phase(server: Server, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "loadgen" / "examples" / "day.toml"
    process = start(server, "run", str(example), out=tmp_path / "out")
    said, error = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, said + error
    result = json.loads((tmp_path / "out").read_text())
    assert [phase["online"] for phase in result["phases"]] == [1000] * 7
    assert len(result["storms"]) == 1 and result["accepted"] > 0
    assert (result["lost"], result["duplicates"], result["reordered"]) == (0, 0, 0)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(example.read_text().replace("cuts = 50", "cut = 50"))
    process = start(server, "run", str(wrong), out=tmp_path / "out")
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "unknown field `cut`" in error and "cuts" in error


def test_a_run_whose_server_is_killed_says_so(server: Server, tmp_path: Path) -> None:
    options = ("--connections", "10", "--drain-wait", "1s")
    # Longer, should a busy machine have let the run end before the kill.
    for seconds in (3, 30, 120):
        process = start(server, "throughput", "--duration", f"{seconds}s", *options, out=tmp_path / "out")
        try:
            sends = lambda: server.metrics().sum("iris_sends_total")  # noqa: E731
            until(lambda: sends() or process.poll() is not None, "it is under way")
            server.kill()
            process.communicate(timeout=2 * PATIENCE)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            break
        server.start()
    assert process.returncode in (2, 99)


def test_an_objective_decides_the_exit_code(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("--connections", "2", "--warmup", "200ms", "--duration", "1s")
    met = start(server, "throughput", *args, "--slo", "p99<60s,lost=0", out=out)
    said, error = met.communicate(timeout=PATIENCE)
    assert met.returncode == 0, said + error
    missed = start(server, "throughput", *args, "--slo", "p99<1us,lost=0", out=out)
    said, error = missed.communicate(timeout=PATIENCE)
    assert missed.returncode == 99, said + error
    assert "p99<1us" in said and "MISSED" in said
    objectives = json.loads(out.read_text())["objectives"]
    assert [(one["objective"], one["met"]) for one in objectives] == [("p99<1us", False), ("lost=0", True)]
    wrong = start(server, "throughput", "--slo", "p95<1ms", out=out)
    said, error = wrong.communicate(timeout=PATIENCE)
    assert wrong.returncode == 2 and "p99.9" in error, "it says what there is"


def test_a_search_ends_with_a_load_that_was_met_and_confirmed(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("throughput", "--connections", "4", "--warmup", "100ms", "--duration", "500ms", "--slo", "p99<60s")
    search = start(server, "search", *args, "--from", "20", "--to", "80", out=out)
    said, error = search.communicate(timeout=2 * PATIENCE)
    assert search.returncode == 0, said + error
    found = json.loads(out.read_text())
    assert (found["kind"], found["scenario"], found["of"]) == ("capacity", "throughput", "rate")
    of_value = [probe for probe in found["probes"] if probe["load"] == found["value"]]
    assert sum(probe["met"] for probe in of_value) >= found["confirmed"] == 3
    assert found["best"]["environment"]["rate"] == found["value"] and "capacity: " in said

    impossible = start(server, "search", *args[:-1], "p99<1us", "--from", "10", "--to", "20", out=out)
    said, error = impossible.communicate(timeout=2 * PATIENCE)
    assert impossible.returncode == 99 and "capacity: no rate" in said, said + error
    assert json.loads(out.read_text())["value"] is None
    unsaid = start(server, "search", "throughput", out=out)
    said, error = unsaid.communicate(timeout=PATIENCE)
    assert unsaid.returncode == 2 and "--slo" in error


def test_garbage_tells_how_each_kind_of_it_is_treated(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server({"IRIS_REACTOR__LOGIN_TIMEOUT": "2s"}).start()
    mix = "garbage=4,silent=2,half=2,oversize=1,login=1,leave=1"
    process = start_bare(server, "garbage", "-n", "550", "--mix", mix, "--duration", "2m", out=tmp_path / "out")
    said, error = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, said + error
    result = json.loads((tmp_path / "out").read_text())
    assert result["valid"] and result["connected"] == 550 and not result["not_connected"]
    ends = {of["kind"]: {end["how"]: end["count"] for end in of["ends"]} for of in result["kinds"]}
    assert set(ends["garbage"]) <= {"garbage", "oversize", "out_of_order", "malformed", "login_timeout"}
    assert sum(ends.pop("garbage").values()) == 200
    assert ends == {
        "silent": {"login_timeout": 100},
        "half": {"login_timeout": 100},
        "oversize": {"oversize": 50},
        "login": {"token_signature": 50},
        "leave": {"left": 50},
    }
    silent = next(of["ends"][0] for of in result["kinds"] if of["kind"] == "silent")
    assert silent["p50_ms"] >= 1000
    before, after = result["server_rss_bytes"]
    assert before > 0 and after > 0


def test_a_flood_that_is_sent_away_is_told_when_to_come_back(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server({"IRIS_REACTOR__COUNT": "1", "IRIS_LIMITS__ACCEPTS": "60/h burst 20"}).start()
    flags = ("-n", "100", "--mix", "login=1", "--again", "--connect-rate", "500", "--duration", "2s")
    process = start_bare(server, "garbage", *flags, out=tmp_path / "out")
    said, error = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, said + error
    (login,) = json.loads((tmp_path / "out").read_text())["kinds"]
    ends = {end["how"]: end for end in login["ends"]}
    assert ends["token_signature"]["count"] <= 21
    least, most = ends["login_rate"]["retry_after_ms"]
    assert 1000 <= least < most <= 120_000
