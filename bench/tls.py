#!/usr/bin/env python3
"""Idle connections by TLS 1.3 and what they cost, and how many handshakes a second one core makes.

Each measurement starts a server of its own on an empty directory with the certificate of `--dev` (ECDSA on P-256);
server and generator are one process each, with their present limit of open files. The idle ones are held by full
handshakes; in the clear, the same number is the comparison. Handshakes are those of `iris-loadgen storm`: all are cut and
come back, with certificates and then by tickets, and what a handshake costs is the server's CPU time of the storms. Then
throughput by TLS and in the clear, in turn.

Results go to bench/runs/<date>-<kernel>-<cores>-tls/. Exit code 0 if the targets are met (at most 4 KB of server memory
for each idle connection, 8.5 KB with the kernel's), 99 if not.
"""

import argparse
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import tempfile

import recovery
from place import Place



class Bench:
    def __init__(self, out, connections):
        self.out = out
        self.connections = connections

    def run(self, name, tls, *flags):
        """Run one scenario against a server of its own; the report, and the server's CPU seconds of the run."""
        with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
            settings = {"IRIS_REACTOR__CONNECTIONS_MAX": str(self.connections + 1000), "IRIS_LISTEN__TLS": "127.0.0.1:0"}
            server = recovery.Server(pathlib.Path(temporary) / "data", settings)
            path = self.out / f"{name}.json"
            command = [recovery.LOADGEN, *flags, "--key", str(server.data / "dev.key"), "--json", str(path)]
            command += ["--pid", str(server.process.pid), "--addr", server.ports["tls" if tls else "tcp"]]
            if tls:
                command += ["--tls", "--ca", str(server.data / "dev-ca.pem")]
            shown = shlex.join(["iris-loadgen", *flags, *(["--tls"] if tls else [])])
            print(f"{name}: {shown}", file=sys.stderr, flush=True)
            try:
                done = subprocess.run(command, stdout=subprocess.DEVNULL)
            finally:
                counts = {
                    kind: server.metric(f'iris_tls_handshakes_total{{kind="{kind}"') for kind in ("full", "resumed")
                }
                counts["failed"] = server.metric("iris_tls_handshakes_failed_total")
                busy = server.metric("iris_reactor_busy_seconds_total")
                server.kill()
            if done.returncode not in (0, 99):
                sys.exit(f"{name}: the load generator ended with {done.returncode}; its own words stand above")
            figures = json.loads(path.read_text())
            figures["environment"]["command"] = shown
            figures["server_handshakes"] = counts
            figures["server_reactor_busy_seconds"] = round(busy, 3)
            path.write_text(json.dumps(figures, indent=1) + "\n")
            return figures


def handshakes(bench, connections, rounds):
    """What full and resumed handshakes cost beside the same logins in the clear: CPU seconds of the server each."""
    rows = {}
    for name, tls, more in (("clear", False, []), ("full", True, []), ("resumed", True, ["--resume"])):
        flags = ["storm", "-n", str(connections), "--rounds", str(rounds), *more]
        figures = bench.run(f"storm-{name}", tls, *flags)
        storms = [storm for storm in figures["storms"] if storm["all_s"]]
        logins = figures["login"]["count"] + sum(storm["users"] for storm in storms)
        rows[name] = {
            "logins_per_s": round(figures["rate_per_s"]),
            "server_cpu_us": round(figures["server_reactor_busy_seconds"] / max(logins, 1) * 1e6, 1),
            "handshakes": figures["server_handshakes"],
            "rounds": len(storms),
        }
    for name in ("full", "resumed"):
        more = max(rows[name]["server_cpu_us"] - rows["clear"]["server_cpu_us"], 0.1)
        rows[name]["handshakes_per_core_s"] = round(1e6 / more)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=50_000, help="idle ones; default 50000")
    parser.add_argument("--storm", type=int, default=2_000, help="users that are cut at once; default 2000")
    parser.add_argument("--rounds", type=int, default=5, help="storms; default 5")
    parser.add_argument("--duration", default="10s", help="of each run of throughput and each hold; default 10s")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("tls", args.out)
    bench = Bench(place.out, args.connections)
    idle = {
        kind: bench.run(f"idle-{kind}", kind == "tls", "idle", "-n", str(args.connections), "--duration", args.duration)
        for kind in ("tls", "clear")
    }
    storms = handshakes(bench, args.storm, args.rounds)
    flags = ("throughput", "--duration", args.duration)
    rates = {
        f"{kind}-{turn}": bench.run(f"throughput-{kind}-{turn}", kind == "tls", *flags)
        for turn in (1, 2)
        for kind in ("tls", "clear")
    }
    return report(place, args, idle, storms, rates)


def report(place, args, idle, storms, rates):
    memory = {kind: figures["server"] for kind, figures in idle.items()}
    rss, kernel = (memory["tls"][f"{part}_bytes_per_connection"] for part in ("rss", "kernel"))
    total = rss + (kernel or 0)
    faults = [
        figures[name]
        for figures in [*idle.values(), *rates.values()]
        for name in ("lost", "duplicates", "reordered", "corrupted")
    ]

    def accepted(kind):
        return max(rates[f"{kind}-{turn}"]["rate_per_s"] for turn in (1, 2))

    held = idle["tls"]["login"]["count"]
    clear = memory["clear"]
    full, resumed, plain = (storms[name] for name in ("full", "resumed", "clear"))
    rows = [
        (f"idle connections by TLS 1.3, logged in by full handshakes", f"{held:,} ({idle['tls']['login']['per_s']:,.0f}/s)",
         f"{args.connections:,}", held == args.connections),
        ("server memory of each, above the empty server", f"{rss:,} B", "at most 4,096 B", rss <= 4096),
        ("the same with the kernel's", f"{total:,} B", "at most 8,704 B", total <= 8704),
        ("the same number in the clear: server memory, kernel memory",
         f"{clear['rss_bytes_per_connection']:,} B, {clear['kernel_bytes_per_connection']:,} B", "", True),
        ("full handshakes a second of one core of the server", f"{full['handshakes_per_core_s']:,}", "", True),
        ("resumed handshakes a second of one core of the server", f"{resumed['handshakes_per_core_s']:,}", "", True),
        (f"{args.storm:,} users cut at once: logins a second, in the clear, full, resumed",
         f"{plain['logins_per_s']:,}, {full['logins_per_s']:,}, {resumed['logins_per_s']:,}", "", True),
        ("64-byte messages, 100 connections, as fast as they may: by TLS, in the clear",
         f"{accepted('tls'):,.0f}/s, {accepted('clear'):,.0f}/s", "", True),
        ("lost, repeated, reordered, damaged", str(sum(faults)), "0", not any(faults)),
    ]  # fmt: skip
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    lines = [
        place.title("TLS"),
        "",
        f"`python3 bench/tls.py --connections {args.connections} --storm {args.storm} --rounds {args.rounds}"
        f" --duration {args.duration}`;",
        f"server and generator on one machine, hard `ulimit -n` {nofile:,}. A handshake's cost is the reactors' busy time of a",
        "login with it less that of a login in the clear.",
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {measured} | {target} | {'' if not target else 'met' if met else '**missed**'} |"
        for what, measured, target, met in rows
    ]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    (place.out / "storms.json").write_text(json.dumps(storms, indent=1) + "\n")
    print(text)
    return 0 if all(met for *_, met in rows) else 99


if __name__ == "__main__":
    sys.exit(main())
