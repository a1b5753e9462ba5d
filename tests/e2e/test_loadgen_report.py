"""What a run of the load generator leaves: each second in files, a view while it runs, a page with charts."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.loadgen import loadgen, start
from support.pictures import colours
from support.server import Server, clean_env, dies_with_us
from support.wait import PATIENCE

LOAD = ("--connections", "20", "--warmup", "200ms", "--duration", "3s")
#: Colours of the first two lines of a chart, light.
LINES = [(0x1F, 0x6F, 0xEB), (0xC2, 0x57, 0x0C)]
CHARTS = {"latency", "spectrum", "rate", "connections", "memory", "cpu", "metric-iris_sends_total_per_s"}


def run(server: Server, *args: str, out: Path) -> dict[str, Any]:
    """Run a load to its end; return its result."""
    process = start(server, "throughput", *LOAD, *args, out=out)
    said, error = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, said + error
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.fixture(scope="module")
def files(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a directory with all files of a run, and its result."""
    home = tmp_path_factory.mktemp("run")
    metrics = ("--metrics", f"http://{shared.admin}/metrics")
    names = ("--csv", str(home / "run.csv"), "--hgrm", str(home / "run.hgrm"), "--report", str(home / "run.html"))
    return home, run(shared, *metrics, *names, out=home / "run.json")


def test_the_seconds_of_a_run_add_up_to_the_run(files: tuple[Path, dict[str, Any]]) -> None:
    home, result = files
    rows = result["series"]
    assert len(rows) >= 3
    for figure in ("sent", "accepted", "delivered"):
        assert sum(row[figure] for row in rows) == result[figure] > 0
    assert sum(row["logins"] for row in rows) == max(row["connections"] for row in rows) == 20
    busy = [row for row in rows if row["accepted"]]
    assert busy and all(0 < row["p50_us"] <= row["p99_us"] <= row["max_us"] for row in busy)
    assert all(row["server_rss_bytes"] > 0 and row["generator_cpu_percent"] is not None for row in rows)
    assert any((row["metrics"]["iris_sends_total_per_s"] or 0) > 0 for row in rows)
    assert any((row["metrics"]["iris_wal_sync_seconds_mean"] or 0) > 0 for row in rows)
    lines = list(csv.DictReader((home / "run.csv").open()))
    assert [int(line["accepted"]) for line in lines] == [row["accepted"] for row in rows]
    assert set(rows[0]) - {"metrics"} <= set(lines[0]) and "iris_connections" in lines[0]


def test_the_spectrum_has_every_measured_message(files: tuple[Path, dict[str, Any]]) -> None:
    home, result = files
    text = (home / "run.hgrm").read_text()
    head, _, *rest = text.splitlines()
    assert head.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    steps = [[float(cell) for cell in line.split()] for line in rest if not line.startswith("#")]
    assert all(a[0] <= b[0] and a[1] <= b[1] and a[2] <= b[2] for a, b in zip(steps, steps[1:]))
    assert steps[-1][1:] == [1.0, result["latency_us"]["count"]]
    below = max(step[0] for step in steps if step[1] <= 0.99)
    above = min(step[0] for step in steps if step[1] >= 0.99)
    assert 0.99 * below <= result["latency_us"]["p99"] <= 1.01 * above


def chromium() -> list[str]:
    """Return a browser that has no network at all, not even loopback."""
    browser = shutil.which("chromium")
    if not browser:
        pytest.skip("chromium not found: apt-get install chromium")
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    done = subprocess.run([*alone, "true"], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        pytest.skip(f"no network namespace of its own here: {done.stderr.strip()}")
    return [*alone, browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]


def browse(page: Path, home: Path, *args: str) -> str:
    """Open a page in a browser with a profile of its own; return what it prints."""
    command = [*chromium(), f"--user-data-dir={home / 'profile'}", *args, page.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=clean_env({}), preexec_fn=dies_with_us
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Charts(HTMLParser):
    """The charts of a page, each with the points of its lines."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.points: dict[str, list[int]] = {}
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is a chart, a line of it, or something from elsewhere."""
        found = dict(attrs)
        self.loaded += [tag for name in ("src", "href", "srcset") if name in found] + ([tag] if tag == "script" else [])
        if tag == "svg":
            self.points[(found.get("id") or "").removeprefix("chart-")] = []
        elif tag == "path" and found.get("fill") == "none":
            points = re.findall(r"[ML]([0-9.]+) ([0-9.]+)", found.get("d") or "")
            self.points[list(self.points)[-1]].append(len(points))


def test_the_page_shows_its_charts_without_a_network(files: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    home, result = files
    page = home / "run.html"
    charts = Charts(browse(page, tmp_path, "--dump-dom"))
    assert set(charts.points) >= CHARTS and not charts.loaded
    assert all(lines and all(lines) for lines in charts.points.values()), charts.points
    assert all(max(charts.points[name]) >= 2 for name in CHARTS), charts.points
    shot = tmp_path / "page.png"
    browse(page, tmp_path, f"--screenshot={shot}", "--window-size=1000,3000")
    seen = colours(shot)
    assert all(seen[line] > 500 for line in LINES), seen.most_common(9)
    assert len(seen) > 20, "letters have edges"


def test_each_chart_lies_beside_the_page_as_a_picture(files: tuple[Path, dict[str, Any]]) -> None:
    home, _ = files
    assert {path.stem.removeprefix("run-") for path in home.glob("run-*.png")} >= CHARTS
    for chart in ("latency", "cpu"):
        seen = colours(home / f"run-{chart}.png")
        assert seen[LINES[0]] > 200 and seen[(0x1F, 0x23, 0x28)] > 200, (chart, seen.most_common(5))


def on_a_terminal(server: Server, *args: str) -> str:
    """Run a load whose standard error is a terminal; return what it drew."""
    host, port = server.tcp
    ours, its = pty.openpty()
    command = [loadgen(), "throughput", *LOAD, "--addr", f"{host}:{port}", "--key", str(server.data / "dev.key")]
    env = {**clean_env({}), "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    process = subprocess.Popen(
        [*command, *args], stdout=subprocess.DEVNULL, stderr=its, env=env, preexec_fn=dies_with_us
    )
    os.close(its)
    drawn = b""
    try:
        # A terminal whose other end is closed fails to read.
        while part := os.read(ours, 65536):
            drawn += part
    except OSError:
        pass
    os.close(ours)
    assert process.wait(PATIENCE) == 0, drawn
    return drawn.decode()


def test_a_terminal_gets_a_view_that_is_redrawn_in_place(shared: Server) -> None:
    drawn = on_a_terminal(shared)
    assert "\x1b[" in drawn and "[=" in drawn
    for word in ("send", "rate ", "p99", "connections", "errors   none"):
        assert word in drawn, (word, drawn)
    plain = on_a_terminal(shared, "--no-live")
    assert "\x1b" not in plain
    seconds = [line for line in plain.splitlines() if " send " in line]
    assert len(seconds) >= 2 and all(" p50 " in line and " p99 " in line for line in seconds), plain


def test_a_wrong_address_of_metrics_is_known_before_the_run(shared: Server, tmp_path: Path) -> None:
    for url, word in ((f"http://{shared.admin}/none", "404"), ("http://127.0.0.1:1/metrics", "refused")):
        process = start(shared, "throughput", *LOAD, "--metrics", url, out=tmp_path / "out")
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2 and "--metrics" in error and word in error, error


def test_runs_are_compared_by_what_repeats_differ_in(
    shared: Server, files: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    home, result = files
    again = tmp_path / "again.json"
    run(shared, out=again)
    slow = json.loads(again.read_text())
    slow["latency_us"]["p99"] = 10 * max(slow["latency_us"]["p99"], result["latency_us"]["p99"])
    (tmp_path / "slow.json").write_text(json.dumps(slow))
    other = {**slow, "connections": 21}
    (tmp_path / "other.json").write_text(json.dumps(other))

    def compare(*args: str) -> tuple[int, str]:
        done = subprocess.run([loadgen(), "compare", *args], text=True, capture_output=True, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    first, slower = str(home / "run.json"), str(tmp_path / "slow.json")
    code, said = compare(first, slower)
    assert code == 0 and "noise is unknown" in said, said
    code, said = compare("--a", first, str(again), "--b", slower, slower)
    assert code == 99 and "WORSE beyond noise: p99" in said, said
    code, said = compare(first, str(tmp_path / "other.json"))
    assert code == 2 and "connections: 20 " in said, said
