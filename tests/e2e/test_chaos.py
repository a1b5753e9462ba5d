"""The quick scenarios of tests/chaos pass, so that the runner cannot rot; `make chaos` runs all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.wait import PATIENCE

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
