#!/usr/bin/env python3
"""Iris beside other brokers, in one run on one machine, by the same generator and the same check of every message.

The stacks of brokers.py take turns, each measurement with a new server on an empty directory, for several rounds; the
order changes from round to round. Server and generator share the cores. The whole takes under ten minutes and is written
to bench/runs/<date>-<kernel>-<cores>cores-peers/, one JSON file per measurement as iris-loadgen wrote it and summary.md,
and as a table into bench/README.md. A broker that is not installed has an empty column.

What the figures mean differs by what a server promises: the table says it, and where Iris is worse it says that, too.
Exit code: 0 if each run was valid and nothing was lost, repeated, reordered or damaged, 99 if not.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile

import brokers

ROOT = brokers.ROOT
README = ROOT / "bench/README.md"
MARKERS = ("<!-- peers -->", "<!-- /peers -->")
FAULTS = ("lost", "duplicates", "reordered", "corrupted")

#: Name: scenario and flags of the generator.
LOADS = {
    "idle": ["idle", "-n", "10000", "--duration", "2s"],
    "pairs": ["throughput", "-n", "100", "--warmup", "1s", "--duration", "4s"],
    "paced": ["throughput", "-n", "100", "--rate", "10000", "--warmup", "1s", "--duration", "4s"],
    "lock-step": ["latency", "--floor", "0s", "--warmup", "500ms", "--duration", "3s"],
    "fan-in": ["fanin", "-n", "1001", "--warmup", "1s", "--duration", "4s"],
    "fan-out": ["fanout", "-n", "250", "--warmup", "1s", "--duration", "4s"],
    "fan-out-paced": ["fanout", "-n", "250", "--rate", "40", "--warmup", "1s", "--duration", "4s"],
    "offline": ["offline", "-n", "100", "--messages", "200000", "--duration", "20s"],
    "storm": ["storm", "-n", "2000"],
}
#: The same, to see whether everything works.
QUICK = {
    "idle": ["idle", "-n", "1000", "--duration", "1s"],
    "pairs": ["throughput", "-n", "100", "--warmup", "200ms", "--duration", "1s"],
    "paced": ["throughput", "-n", "100", "--rate", "2000", "--warmup", "200ms", "--duration", "1s"],
    "lock-step": ["latency", "--floor", "0s", "--warmup", "200ms", "--duration", "1s"],
    "fan-in": ["fanin", "-n", "101", "--warmup", "200ms", "--duration", "1s"],
    "fan-out": ["fanout", "-n", "50", "--warmup", "200ms", "--duration", "1s"],
    "fan-out-paced": ["fanout", "-n", "50", "--rate", "20", "--warmup", "200ms", "--duration", "1s"],
    "offline": ["offline", "-n", "20", "--messages", "10000", "--duration", "20s"],
    "storm": ["storm", "-n", "200"],
}
#: What a stack cannot do.
IMPOSSIBLE = {("offline", "nats"): "not kept"}


def at(*path):
    """A figure of a run by its place in the JSON; `None` if it has none."""

    def figure(run):
        for name in path:
            run = run.get(name) if run else None
        return run

    return figure


def server_us(run):
    """CPU of the server for each message of the steady phase, microseconds."""
    messages = run["rate_per_s"] * run["environment"]["duration_seconds"]
    return 1e6 * run["server"]["cpu_seconds_steady"] / messages if messages else None


def storm_s(run):
    """Seconds from the cut of all connections until all users are logged in again."""
    return run["storms"][0]["all_s"]


#: What, of which load, the figure, its unit, whether more is better.
ROWS = [
    ("idle connections: server memory each", "idle", at("server", "rss_bytes_per_connection"), "B", False),
    ("the same: kernel memory each", "idle", at("server", "kernel_bytes_per_connection"), "B", False),
    ("the same: logins", "idle", at("login", "per_s"), "/s", True),
    ("100 users in pairs, as fast as they may: delivered", "pairs", at("delivered_per_s"), "/s", True),
    ("the same: server CPU a message", "pairs", server_us, "us", False),
    ("the same users, {rate}/s, open loop: delivered, p50", "paced", at("delivered_latency_us", "p50"), "us", False),
    ("the same: delivered, p99", "paced", at("delivered_latency_us", "p99"), "us", False),
    ("the same: answered, p50", "paced", at("latency_us", "p50"), "us", False),
    ("the same: answered, p99", "paced", at("latency_us", "p99"), "us", False),
    ("one message at a time: answered, p50", "lock-step", at("latency_us", "p50"), "us", False),
    ("the same: delivered, p50", "lock-step", at("delivered_latency_us", "p50"), "us", False),
    ("{senders} senders, one inbox: delivered", "fan-in", at("delivered_per_s"), "/s", True),
    ("one sender, {recipients} recipients of each message: delivered", "fan-out", at("delivered_per_s"), "/s", True),
    ("the same, {messages} messages a second: delivered, p50", "fan-out-paced", at("delivered_latency_us", "p50"), "us", False),
    ("the same: delivered, p99", "fan-out-paced", at("delivered_latency_us", "p99"), "us", False),
    ("inboxes of users who are away: filled", "offline", at("rate_per_s"), "/s", True),
    ("the same: drained, from the first login on", "offline", at("drain", "per_s"), "/s", True),
    ("{cut} users cut at once: until all are logged in again", "storm", storm_s, "s", False),
]
#: What stands beside what where the servers have no word in common.
FAN_OUT = (
    "One sender, many recipients: a SEND of Iris names all of them (256 at most) and puts the message into the inbox of each; the"
    " others publish once, to a topic (mosquitto), a subject (nats) or a stream (jetstream, with a durable consumer for each"
    " recipient) that all recipients have subscribed to. Presence and groups of Iris are not in it."
)


def show(value, unit):
    places = 0 if value >= 100 or unit == "B" else 2 if unit == "s" else 1
    number = f"{value:,.{places}f}"
    return f"{number}{unit}" if unit.startswith("/") else f"{number} {unit}"


def slug(stack):
    return stack.replace(", ", "-")


class Run:
    def __init__(self, out, loads, stacks):
        self.out, self.loads, self.stacks = out, loads, stacks
        #: The JSON of each run by load and stack.
        self.found = {(load, stack): [] for load in loads for stack in stacks}
        self.commands = {}
        self.troubles = []

    def measure(self, load, stack, number):
        """Runs one load against a new server."""
        path = self.out / f"{load}-{slug(stack)}-{number}.json"
        with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as home:
            server = brokers.STACKS[stack][0](home)
            try:
                load_flags = [*self.loads[load], *server.flags]
                shown = shlex.join(["iris-loadgen", *load_flags, "--pid", "SERVER"])
                print(f"{number} {stack}: {shown}", file=sys.stderr, flush=True)
                command = [brokers.LOADGEN, *load_flags, *server.key, "--addr", server.addr]
                command += ["--pid", str(server.process.pid), "--json", str(path)]
                path.unlink(missing_ok=True)
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, cwd=home)
            finally:
                server.stop()
        self.commands[load, stack] = shown
        text = path.read_text() if path.exists() else ""
        if not text:
            self.troubles.append(f"{load} of {stack}, round {number}: {done.stderr.strip().splitlines()[-1]}")
            path.unlink(missing_ok=True)
            return
        run = json.loads(text)
        run["environment"]["command"] = shown
        path.write_text(json.dumps(run, indent=1) + "\n")
        faults = [f"{run[fault]:,} {fault}" for fault in FAULTS if run[fault]]
        for trouble in run["invalid_reasons"] + faults:
            self.troubles.append(f"{load} of {stack}, round {number}: {trouble}")
        if run["valid"]:
            self.found[load, stack].append(run)

    def values(self, load, stack, figure):
        return [value for run in self.found[load, stack] if (value := figure(run)) is not None]

    def cell(self, load, stack, figure, unit):
        if (load, stack) in IMPOSSIBLE:
            return IMPOSSIBLE[load, stack]
        if brokers.missing(stack):
            return "not installed"
        values = self.values(load, stack, figure)
        if not values:
            return "no answer" if self.found[load, stack] else "no valid run"
        return show(statistics.median(values), unit)

    def verdict(self, load, figure, more):
        """Iris against the best of the others, by medians."""
        medians = {
            stack: statistics.median(values)
            for stack in self.stacks
            if (values := self.values(load, stack, figure))
        }
        mine = medians.pop("iris", None)
        if not mine or not medians:
            return ""
        best = (max if more else min)(medians, key=medians.get)
        ratio = mine / medians[best] if more else medians[best] / mine
        times = max(ratio, 1 / ratio)
        shown = f"{times:.1f}" if times < 10 else f"{times:.0f}"
        if times < 1.05:
            return f"as {best}"
        return f"{shown} times better than {best}" if ratio > 1 else f"**{shown} times worse than {best}**"

    def spread(self, load, figure):
        """The widest spread of any stack's rounds, percent of its median."""
        wide = [0.0]
        for stack in self.stacks:
            values = self.values(load, stack, figure)
            if len(values) > 1 and statistics.median(values):
                wide.append((max(values) - min(values)) / statistics.median(values))
        return f"{100 * max(wide):.0f} %"

    def table(self):
        flag = lambda load, name: int(self.loads[load][self.loads[load].index(name) + 1])  # noqa: E731
        names = {"rate": f"{flag('paced', '--rate'):,}", "senders": f"{flag('fan-in', '-n') - 1:,}"}
        names |= {"cut": f"{flag('storm', '-n'):,}", "recipients": f"{flag('fan-out', '-n'):,}"}
        names["messages"] = f"{flag('fan-out-paced', '--rate'):,}"
        columns = " | ".join(self.stacks)
        lines = [f"| what | {columns} | Iris | spread |", "|---" * (len(self.stacks) + 3) + "|"]
        for what, load, figure, unit, more in ROWS:
            cells = " | ".join(self.cell(load, stack, figure, unit) for stack in self.stacks)
            of_iris = self.verdict(load, figure, more)
            lines.append(f"| {what.format(**names)} | {cells} | {of_iris} | {self.spread(load, figure)} |")
        return lines


def summary(run, when, rounds):
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"Taken on {when:%Y-%m-%d} ({when:%H:%M} UTC) on Linux {platform.release()}, {cores} cores shared with the generator:"
        f" {'; '.join(brokers.versions([s for s in run.stacks if not brokers.missing(s)]))}. Medians of {rounds} round{'s'[: rounds > 1]} in"
        " turn; *spread* is the widest range of a stack's rounds, of its median.",
        "",
        *run.table(),
        "",
        "What an answer means, and what is there after a crash of the machine:",
        "",
        *[f"- **{stack}**: {brokers.STACKS[stack][2]}" for stack in run.stacks],
        "",
        FAN_OUT,
        "",
        f"All of mosquitto: `{'`, `'.join(brokers.MOSQUITTO)}`, so that nothing is dropped and nothing waits for more to send.",
    ]
    if run.troubles:
        lines += ["", "What went wrong:", "", *[f"- {trouble}" for trouble in run.troubles]]
    else:
        lines += ["", "In each run nothing was lost, repeated, reordered or damaged."]
    return lines


def put_into_readme(lines):
    text = README.read_text()
    begin, end = (text.index(marker) for marker in MARKERS)
    README.write_text(text[: begin + len(MARKERS[0])] + "\n" + "\n".join(lines) + "\n" + text[end:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round of everything; nothing is recorded")
    parser.add_argument("--out", help="directory for the results, which then do not go into bench/README.md")
    args = parser.parse_args()
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    when = datetime.datetime.now(datetime.timezone.utc)
    stacks = list(brokers.STACKS)
    rounds, loads = (1, QUICK) if args.quick else (args.rounds, LOADS)
    with tempfile.TemporaryDirectory() as temporary:
        cores = len(os.sched_getaffinity(0))
        name = f"{when:%Y-%m-%d}-{platform.release().split('-')[0]}-{cores}cores-peers"
        out = pathlib.Path(args.out or (temporary if args.quick else ROOT / "bench/runs" / name))
        out.mkdir(parents=True, exist_ok=True)
        run = Run(out, loads, stacks)
        for stack in stacks:
            if lacks := brokers.missing(stack):
                print(f"{stack}: {' and '.join(lacks)} not found: {brokers.HINT}", file=sys.stderr)
        for number in range(1, rounds + 1):
            for load in loads:
                for place in range(len(stacks)):
                    stack = stacks[(place + number - 1) % len(stacks)]
                    if (load, stack) not in IMPOSSIBLE and not brokers.missing(stack):
                        run.measure(load, stack, number)
        lines = summary(run, when, rounds)
        commands = ["", "Commands, each against a new server:", ""]
        commands += [f"- {load}, {stack}: `{command}`" for (load, stack), command in run.commands.items()]
        text = "\n".join(["# Iris beside other brokers", "", *lines, *commands]) + "\n"
        (out / "summary.md").write_text(text)
        print(text)
        if not args.quick and not args.out:
            raw = f"[{name}](runs/{name}/summary.md) has each run and the command of each figure (`make bench-peers`)."
            put_into_readme(["", *lines, "", raw, ""])
    return 99 if run.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
