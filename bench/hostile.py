#!/usr/bin/env python3
"""Normal traffic beside strangers: how much slower it gets, what becomes of them, and what memory stays.

One server, with a budget of connections a second and one of connections that have not logged in. Users send to each other
in pairs, open loop, in four parts: alone; beside `--strangers` connections that send garbage, say nothing, leave frames half
open or claim lengths beyond any; beside connections with forged tokens at ten times the budget of accepts; and alone again.
The generators of strangers are of the idle class (sched(7)): they share the CPUs with the server, which they would not do in
earnest.
Before the last part, both kinds of strangers come once more without users, whose messages would take memory themselves.
Targets: p99 to ACCEPTED beside strangers is at most three times that alone, nothing is lost, no user's connection ends,
and the server's memory after strangers without users is within 5 % of that before.

Results go to bench/runs/<date>-<kernel>-<cores>-hostile/. Exit code 0 if the targets are met, 99 if not.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

import recovery
from place import Place

MIX = "garbage=4,silent=3,half=2,oversize=1"
#: Seconds until a silent stranger is gone: reactor.login_timeout of this server.
LOGIN_TIMEOUT = 5


def rss_bytes(server):
    lines = pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


class Run:
    def __init__(self, server, args, out):
        self.server, self.args, self.out = server, args, out
        self.commands = {}

    def start(self, name, flags):
        command = [recovery.LOADGEN, *flags, "--addr", self.server.ports["tcp"], "--json", str(self.out / f"{name}.json")]
        if flags[0] == "garbage":
            # What strangers do on machines of their own takes nothing from the server's CPUs, nor from its users'. The idle
            # class gives way at once; a thread of the server, which is of the batch class, would wait for a nice one.
            command = ["chrt", "--idle", "0", *command]
        else:
            command += ["--key", str(self.server.data / "dev.key")]
        self.commands[name] = shlex.join(["iris-loadgen", *flags])
        print(f"{name}: {self.commands[name]}", file=sys.stderr, flush=True)
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def figures(self, name, process):
        process.wait()
        path = self.out / f"{name}.json"
        if not path.exists() or not path.stat().st_size:
            sys.exit("the load generator could not run; its own words stand above")
        figures = json.loads(path.read_text())
        figures["command"] = self.commands[name]
        if "environment" in figures:
            figures["environment"]["command"] = self.commands[name]
        path.write_text(json.dumps(figures, indent=1) + "\n")
        return figures

    def normal(self, name, seconds):
        flags = ["p2p", "--connections", str(self.args.users), "--rate", str(self.args.rate)]
        flags += ["--warmup", "2s", "--duration", f"{seconds}s", "--connect-rate", str(self.args.accepts // 2)]
        return self.start(name, flags)

    def beside(self, name, seconds, strangers):
        """Normal traffic whose steady part lies beside strangers; the figures of both."""
        before = self.server.metric("iris_sends_total")
        load = self.normal(name, seconds)
        # Their warm-up is over before anybody disturbs them.
        wait_for(lambda: self.server.metric("iris_sends_total") >= before + 2 * self.args.rate, load)
        others = self.start(f"{name}-strangers", strangers)
        return self.figures(name, load), self.figures(f"{name}-strangers", others)


def wait_for(condition, process=None):
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            sys.exit("what was waited for did not come; the load generator's own words stand above")
        time.sleep(0.05)


def settled_rss(server):
    """Memory once nobody is connected and two looks of five seconds are alike."""
    wait_for(lambda: server.metric("iris_connections{") == 0)
    before, now = 0, rss_bytes(server)
    for _ in range(12):
        if abs(now - before) < now * 0.002:
            break
        time.sleep(5)
        before, now = now, rss_bytes(server)
    return now


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strangers", type=int, default=100_000, help="default 100000")
    parser.add_argument("--users", type=int, default=1000, help="users who send to each other; default 1000")
    parser.add_argument("--rate", type=int, default=2000, help="their messages a second; default 2000")
    parser.add_argument("--accepts", type=int, default=600, help="the budget of connections a second; default 600")
    parser.add_argument("--duration", type=int, default=30, help="seconds of each part but the strangers'; default 30")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("hostile", args.out)
    settings = {
        "IRIS_LIMITS__ACCEPTS": f"{args.accepts}/s burst {args.accepts}",
        "IRIS_LIMITS__PENDING_LOGINS_MAX": str(args.accepts * LOGIN_TIMEOUT),
        "IRIS_LIMITS__CONNECTION_MESSAGES": "1000/s burst 1000",
        "IRIS_LIMITS__USER_MESSAGES": "1000/s burst 1000",
        "IRIS_REACTOR__LOGIN_TIMEOUT": f"{LOGIN_TIMEOUT}s",
    }
    # Strangers come a little slower than the budget, so that none is sent away unseen, and stay as long as they may.
    pace = max(1, args.accepts * 95 // 100)
    long = args.strangers // pace + LOGIN_TIMEOUT
    crowd = ["garbage", "--mix", MIX, "--connections", str(args.strangers), "--connect-rate", str(pace)]
    crowd += ["--duration", "5m"]
    flood = ["garbage", "--mix", "login=1", "--again", "--connections", str(args.accepts * 2)]
    flood += ["--connect-rate", str(args.accepts * 10), "--duration", f"{args.duration}s"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        server = recovery.Server(pathlib.Path(temporary) / "data", settings)
        run = Run(server, args, place.out)
        try:
            parts = {"alone": run.figures("alone", run.normal("alone", args.duration))}
            parts["strangers"], treated = run.beside("strangers", long, crowd)
            parts["flood"], flooded = run.beside("flood", args.duration, flood)
            rss_before = settled_rss(server)
            for name, flags in (("strangers-alone", crowd), ("flood-alone", flood)):
                run.figures(name, run.start(name, flags))
            rss_after = settled_rss(server)
            parts["again"] = run.figures("again", run.normal("again", args.duration))
            counts = {
                "shed": server.metric("iris_connections_shed_total"),
                "accepts": server.metric('iris_limited_total{limit="accepts"'),
                "pending_logins_max": server.metric('iris_limited_total{limit="pending_logins_max"'),
            }
        finally:
            server.kill()
    return report(place, args, settings, parts, (treated, flooded), (rss_before, rss_after), counts)


def report(place, args, settings, parts, treated, rss, counts):
    p99 = {part: figures["latency_us"]["p99"] for part, figures in parts.items()}
    p50 = {part: figures["latency_us"]["p50"] for part, figures in parts.items()}
    alone = p99["alone"]
    slower = {part: p99[part] / alone for part in ("strangers", "flood")}
    lost = sum(figures["lost"] + figures["duplicates"] for figures in parts.values())
    ended = sum(sum(figures["errors"].values()) for figures in parts.values())
    came = sum(kind["held"] + sum(end["count"] for end in kind["ends"]) for kind in treated[1]["kinds"])
    times = came / args.duration / args.accepts
    grown = rss[1] / rss[0]
    lines = [
        place.title("Strangers"),
        "",
        f"`python3 bench/hostile.py --strangers {args.strangers} --users {args.users} --rate {args.rate} "
        f"--accepts {args.accepts} --duration {args.duration}`;",
        "server and generators on one machine. The server has " + ", ".join(f"`{k}={v}`" for k, v in settings.items()) + ".",
        "",
        "| part | p50 | p99 | command |",
        "|---|---|---|---|",
        *[f"| {part} | {p50[part]:,.0f} us | {p99[part]:,.0f} us | `{parts[part]['command']}` |" for part in parts],
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
    ]
    targets = [
        ("p99 beside strangers, to that alone", f"{slower['strangers']:.2f}", "at most 3", slower["strangers"] <= 3),
        ("p99 beside a flood at ten times the budget", f"{slower['flood']:.2f}", "at most 3", slower["flood"] <= 3),
        ("connections of the flood a second, to the budget", f"{times:.1f}", "10", times > 9.5),
        ("messages lost or repeated; connections of users ended", f"{lost}; {ended}", "0; 0", lost + ended == 0),
        ("memory after the strangers, to that before", f"{grown:.3f}", "within 5 %", abs(grown - 1) <= 0.05),
    ]
    lines += [f"| {what} | {value} | {target} | {'met' if met else '**missed**'} |" for what, value, target, met in targets]
    lines += [
        "",
        f"Memory {rss[0] / 1e6:.1f} MB before, {rss[1] / 1e6:.1f} MB after. Sent away by the budget of accepts:",
        f"{counts['accepts']:,.0f}, by that of logins: {counts['pending_logins_max']:,.0f}; of both, without a word:",
        f"{counts['shed']:,.0f}.",
        "",
        "| strangers | kind | end | count | p50 | p99 |",
        "|---|---|---|---|---|---|",
    ]
    for which, figures in zip(("strangers", "flood"), treated):
        for kind in figures["kinds"]:
            for end in kind["ends"]:
                cells = [which, kind["kind"], end["how"], f"{end['count']:,}", f"{end['p50_ms']:,.1f} ms", f"{end['p99_ms']:,.1f} ms"]
                lines.append("| " + " | ".join(cells) + " |")
            if kind["held"]:
                lines.append(f"| {which} | {kind['kind']} | open at the end | {kind['held']:,} | | |")
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 0 if all(met for *_, met in targets) else 99


if __name__ == "__main__":
    sys.exit(main())
