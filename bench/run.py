#!/usr/bin/env python3
"""Measures the figures of README.md on this machine and records them under bench/runs/.

Each measurement starts a server of its own on an empty directory. A run takes about four minutes and is written to
bench/runs/<date>-<kernel>-<cores>/: one JSON file per measurement as iris-loadgen wrote it, and summary.md with the
figures, the targets, and the command of each. The exit code is 99 if a target is missed: a missed target is recorded like
a met one.

Server and generator share the machine's cores. Run it on a quiet machine: compare figures of one run, not of two.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import signal
import subprocess
import sys
import tempfile

import recovery
import stalls
from place import Place

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Run:
    def __init__(self, out, short):
        self.out = out
        self.short = short
        self.rows = []
        #: The lowest sum of a bare echo and a bare write and sync so far, microseconds.
        self.floor = float("inf")

    def loadgen(self, name, scenario, *flags, settings=None):
        """Runs one scenario against a new server; gives its JSON."""
        path = self.out / f"{name}.json"
        with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
            server = recovery.Server(pathlib.Path(temporary) / "data", settings)
            command = [recovery.LOADGEN, scenario, *flags]
            shown = shlex.join(["iris-loadgen", scenario, *flags, "--pid", "SERVER"])
            if settings:
                shown += f" (server with {' '.join(f'{key}={value}' for key, value in settings.items())})"
            command += ["--addr", server.ports["tcp"], "--key", str(server.data / "dev.key")]
            command += ["--pid", str(server.process.pid), "--json", str(path)]
            print(f"{name}: {shown}", file=sys.stderr, flush=True)
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
        figures = json.loads(path.read_text())
        figures["environment"]["command"] = shown
        path.write_text(json.dumps(figures, indent=1) + "\n")
        return figures, shown

    def row(self, what, value, target, met, command):
        self.rows.append((what, value, target, met, command))
        verdict = f"(target {target}) {'met' if met else 'MISSED'}" if target else ""
        print(f"  {what}: {value} {verdict}", file=sys.stderr)

    def seconds(self, count):
        return f"{max(2, count // 4 if self.short else count)}s"


def clean(figures):
    """Whether a run counts: valid, and every message arrived once and whole."""
    faults = ("lost", "duplicates", "reordered", "corrupted")
    return figures["valid"] and not any(figures[fault] for fault in faults)


def lock_step(run, what, name, settings):
    """Three runs, each against a new server: which CPU a connection comes to is chance, and decides a quarter of the time.
    Halt polling disturbs the floor, so each ratio is to the lowest floor of the bench."""
    shown = []
    ratios = []
    for number in (1, 2, 3):
        flags = ["--duration", run.seconds(8)]
        figures, command = run.loadgen(f"{name}-{number}", "latency", *flags, settings=settings)
        floor, p50 = figures["floor_us"], figures["latency_us"]["p50"]
        run.floor = min(run.floor, floor["sum_p50"])
        ratios.append(p50 / run.floor if clean(figures) else float("inf"))
        shown.append(f"p50 {p50:.0f} us over {run.floor:.0f} us: {ratios[-1]:.2f} x")
    run.row(what, "; ".join(shown), "1.5 x the floor, each", max(ratios) <= 1.5, command)


def measure(run):
    idle, command = run.loadgen("idle", "idle", "--connections", "100000", "--duration", run.seconds(20))
    rss = idle["server"]["rss_bytes_per_connection"]
    kernel = idle["server"]["kernel_bytes_per_connection"]
    held = idle["connections_open"]
    run.row("idle connections held", f"{held:,}", "100,000", clean(idle) and held >= 100_000, command)
    run.row("server memory a connection", f"{rss:.0f} B", "at most 512 B", rss <= 512, command)
    run.row("kernel memory a connection", f"{kernel:.0f} B", "at most 4.4 KB", kernel <= 4400, command)

    flags = ["--connections", "100", "--payload", "64", "--duration", run.seconds(20)]
    peak, command = run.loadgen("throughput", "throughput", *flags)
    rate = peak["rate_per_s"]
    delivered = peak["delivered_per_s"]
    what = f"{rate:,.0f}/s accepted, {delivered:,.0f}/s delivered"
    run.row("durable messages, pipelined", what, "300,000/s", clean(peak) and rate >= 300_000, command)

    found = stalls.measure(int(run.seconds(20)[:-1]))
    (run.out / "stalls.json").write_text(json.dumps(found, indent=1) + "\n")
    run.row("the machine alone: time in gaps of over 1 ms", stalls.text(found), "", True, "bench/stalls.py")
    half = int(min(rate, delivered) / 2)
    paced, command = run.loadgen("half-load", "throughput", *flags, "--rate", str(half), "--burst", "16")
    p99 = paced["latency_us"]["p99"]
    run.row(
        f"p99 to ACCEPTED at half of that ({half:,}/s, 16 at a time)",
        f"{p99:.0f} us",
        "under 1 ms",
        clean(paced) and p99 < 1000,
        command,
    )

    flags = ["--connections", "10001", "--payload", "64", "--duration", run.seconds(20)]
    fanin, command = run.loadgen("fanin", "fanin", *flags)
    rate = fanin["rate_per_s"]
    what = f"{rate:,.0f}/s accepted, {fanin['delivered_per_s']:,.0f}/s delivered"
    run.row("10,000 senders, one inbox", what, "150,000/s", clean(fanin) and rate >= 150_000, command)

    lock_step(run, "lock-step send to ACCEPTED", "latency", None)
    settings = {"IRIS_NODE__HALT_POLL_US": "200"}
    lock_step(run, "the same with halt polling", "latency-halt-poll", settings)

    path = run.out / "recovery.json"
    subprocess.run([sys.executable, str(ROOT / "bench/recovery.py"), "--json", str(path)], check=False, stdout=subprocess.DEVNULL)
    start = json.loads(path.read_text())
    command = "bench/recovery.py"
    ready = start["empty_ready_s"]
    run.row("ready from an empty directory", f"{ready:.2f} s", "under 1 s", ready < 1, command)
    what = f"{start['recovery_s']:.2f} s for {start['live_records']:,} (ready in {start['ready_s']:.2f} s)"
    met = start["recovery_s"] < 2 and start["live_records"] >= 1_000_000
    run.row("live records recovered after kill -9", what, "1,000,000 in under 2 s", met, command)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a quarter of the time, for a first look")
    parser.add_argument("--out", help="directory for the results; default bench/runs/<date>-<kernel>-<cores>")
    args = parser.parse_args()
    place = Place(out=args.out)
    run = Run(place.out, args.short)
    measure(run)
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    load = os.getloadavg()[2]
    lines = [
        f"{place.title()}, ulimit -Hn {nofile:,}",
        "",
        "Server and generator share the cores. `bench/run.py` made this; the JSON files beside it are the generator's own.",
        f"Load average over the 15 minutes that the run ended in: {load:.1f}.",
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
    ]
    verdicts = {True: "met", False: "**missed**"}
    lines += [
        f"| {what} | {value} | {target} | {verdicts[met] if target else ''} |" for what, value, target, met, _ in run.rows
    ]
    lines += ["", "Commands, each against a new `iris serve --dev`:", ""]
    lines += [f"- `{command}`" for command in dict.fromkeys(row[4] for row in run.rows)]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 0 if all(row[3] for row in run.rows) else 99


if __name__ == "__main__":
    sys.exit(main())
