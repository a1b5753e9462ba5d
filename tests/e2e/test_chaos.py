"""The quick scenarios of tests/chaos pass, so that the runner cannot rot; `make chaos` runs all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from support.wait import PATIENCE, until

RUN = Path(__file__).resolve().parents[1] / "chaos/run.py"


def test_the_quick_scenarios_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "--json", str(report)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scenarios = json.loads(report.read_text())["scenarios"]
    assert len(scenarios) >= 4
    for scenario in scenarios:
        assert scenario["passed"] == scenario["rounds"] == 1
        assert scenario["lost"] == scenario["doubled"] == scenario["resurrected"] == 0
        assert scenario["accepted"] > 100


def test_the_names_that_others_script_against_are_all_there() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--list"], capture_output=True, text=True, timeout=PATIENCE)
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    page = (RUN.parents[2] / "docs/CHAOS.md").read_text()
    assert [name for name in listed if f"| `{name}` |" not in page] == []
    assert listed == (
        "kill-preferred kill-other graceful-vs-kill thousand-then-kill both-cores edge-and-core sniper partition-pair one-way "
        "edge-cut region-cut rejoin-empty rejoin-old-image rejoin-damaged rolling-restart rolling-upgrade kill-at-peak cascade "
        "disk-full gray slow-link"
    ).split()


def test_an_unknown_scenario_is_a_fault_of_the_command_line() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--scenario", "none"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and "no scenario none" in done.stderr


def test_a_run_that_is_interrupted_leaves_a_report_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with subprocess.Popen(
        [sys.executable, str(RUN), "--scenario", "gray", "--json", str(report)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts what runs in its background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as runner:
        home = RUN.parents[2] / f"target/chaos/run-{runner.pid}"
        until(lambda: (home / "node-101/ports-1.json").exists() or runner.poll() is not None, "a cluster is up")
        assert len(processes_in(home)) == 3
        runner.send_signal(signal.SIGINT)
        said, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 130, said
    assert json.loads(report.read_text())["interrupted"] is True
    assert processes_in(home) == []
    assert not home.exists() and not home.with_suffix(".lock").exists()


def processes_in(home: Path) -> list[str]:
    """Return the command lines that name a directory, those of runners left out."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = place.read_text().replace("\0", " ")
        except OSError:
            continue
        if f"{home}/" in command:
            found.append(command)
    return found
