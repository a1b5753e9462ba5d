#!/usr/bin/env python3
"""Holds a million logged-in connections in one server process, then lets one in a hundred of them exchange messages.

Server and generator are on this machine, each one process with its present limit of open files: sockets are direct
descriptors. Clients answer the server's heartbeats for `--hold`; then memory is taken, and then the active ones send in
pairs, open loop. Every 20 s the server's connections are counted. Targets: all are held, none ends, p99 to ACCEPTED is
under 20 ms, nothing is lost.

As root, both run in a network namespace of their own, whose table of established sockets has room for them
(net.ipv4.tcp_child_ehash_entries; a machine made for this boots with `thash_entries=`, see tuning/README.md); the sysctl is
set back at once. `--plain` leaves that out.

Results go to bench/runs/<date>-<kernel>-<cores>-<connections>/. Exit code 0 if the targets are met, 99 if not.
"""

import argparse
import ctypes
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import tempfile
import time

import recovery
from place import Place

#: From <sched.h>; `os.unshare` is younger than the Python that must do.
CLONE_NEWNET = 0x4000_0000
EHASH = pathlib.Path("/proc/sys/net/ipv4/tcp_child_ehash_entries")


def memory_available_bytes():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024


def stolen_cpu_seconds():
    """Time in which the host ran somebody else instead of this machine's CPUs, of all CPUs since the start (proc(5))."""
    ticks = pathlib.Path("/proc/stat").read_text().split()[8]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000_000, help="default 1000000")
    parser.add_argument("--active", default="1%", help="share or number that exchanges messages; default 1%%")
    parser.add_argument("--hold", default="10m", help="time before that; default 10m")
    parser.add_argument("--rate", type=int, default=5_000, help="messages a second of all together; default 5000")
    parser.add_argument("--duration", default="60s", help="time in which they exchange messages; default 60s")
    parser.add_argument("--threads", type=int, default=2, help="of the generator; default 2")
    parser.add_argument("--batch-interval", default="2ms", help="wal.batch_interval of the server; default 2ms")
    parser.add_argument("--plain", action="store_true", help="in the present network namespace")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    if not args.plain and os.geteuid() == 0:
        enter_network(buckets=1 << (2 * args.connections - 1).bit_length())
    place = Place(args.connections, args.out)
    path = place.out / "composite.json"
    free_before = memory_available_bytes()
    samples = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        settings = {"IRIS_REACTOR__CONNECTIONS_MAX": str(args.connections), "IRIS_WAL__BATCH_INTERVAL": args.batch_interval}
        server = recovery.Server(pathlib.Path(temporary) / "data", settings)
        flags = ["composite", "--connections", str(args.connections), "--active", args.active, "--hold", args.hold]
        flags += ["--threads", str(args.threads), "--rate", str(args.rate), "--warmup", "5s", "--duration", args.duration]
        shown = shlex.join(["iris-loadgen", *flags, "--pid", "SERVER"])
        command = [recovery.LOADGEN, *flags, "--addr", server.ports["tcp"], "--key", str(server.data / "dev.key")]
        command += ["--pid", str(server.process.pid), "--json", str(path)]
        print(shown, file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            load = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while True:
                try:
                    load.wait(20)
                    break
                except subprocess.TimeoutExpired:
                    samples.append(look(server, load, started))
                    print(f"  {samples[-1]}", file=sys.stderr, flush=True)
        finally:
            if load.poll() is None:
                load.kill()
            server.kill()
    if not path.exists() or not path.stat().st_size:
        sys.exit("the load generator could not run; its own words stand above")
    figures = json.loads(path.read_text())
    with_settings = " ".join(f"{key}={value}" for key, value in settings.items())
    figures["environment"]["command"] = f"{shown} (server with {with_settings})"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    (place.out / "samples.json").write_text("\n".join(map(json.dumps, samples)) + "\n")
    return report(place, args, figures, samples, free_before)


def enter_network(buckets):
    """Moves this process into a network namespace with a table of so many established sockets, 2^24 at most."""
    before = EHASH.read_text()
    # The name means the namespace of who opens it, so what is set back was opened before.
    with EHASH.open("w", buffering=1) as ours:
        ours.write(f"{min(buckets, 1 << 24)}\n")
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare(2)")
        finally:
            ours.seek(0)
            ours.write(before)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def look(server, load, started):
    def rss_bytes(pid):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)

    return {
        "s": round(time.monotonic() - started),
        "connections": server.metric("iris_connections{"),
        "logged_in": server.metric("iris_connections_logged_in"),
        "pings_sent": server.metric('iris_frames_sent_total{type="ping"'),
        "pongs_received": server.metric('iris_frames_received_total{type="pong"'),
        "server_rss_bytes": rss_bytes(server.process.pid),
        "generator_rss_bytes": rss_bytes(load.pid),
        "memory_available_bytes": memory_available_bytes(),
        "stolen_cpu_seconds": stolen_cpu_seconds(),
    }


def verdict(target, met):
    if not target:
        return ""
    return "met" if met else "**missed**"


def report(place, args, figures, samples, free_before):
    server, latency = figures.get("server") or {}, figures["latency_us"] or {}
    open_, p99 = figures["connections_open"], latency.get("p99", float("inf"))
    faults = {name: figures[name] for name in ("lost", "duplicates", "reordered", "corrupted")}
    login, memory = figures["login"], [server.get(f"{kind}_bytes_per_connection") for kind in ("rss", "kernel")]
    p50, most = (latency.get(name, 0) / 1000 for name in ("p50", "max"))
    rows = [
        (
            "connections logged in",
            f"{login['count']:,} ({login['per_s']:,.0f}/s)",
            f"{args.connections:,}",
            login["count"] == args.connections,
        ),
        ("held for", args.hold, "none ends", open_ == args.connections and not figures["errors"]),
        ("server memory a connection", f"{memory[0]} B rss, {memory[1]} B kernel", "", True),
        (
            f"p99 to ACCEPTED with {args.active} active at {args.rate:,}/s",
            f"{p99 / 1000:.1f} ms (p50 {p50:.1f} ms, max {most:.1f} ms)",
            "under 20 ms",
            p99 < 20_000 and figures["valid"],
        ),
        ("lost, repeated, reordered, damaged", ", ".join(map(str, faults.values())), "0", not any(faults.values())),
    ]
    pings, pongs = (max((sample[name] for sample in samples), default=0) for name in ("pings_sent", "pongs_received"))
    lowest = min((sample["memory_available_bytes"] for sample in samples), default=free_before)
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    lines = [
        place.title(f"{open_:,} connections"),
        "",
        f"`python3 bench/million.py --connections {args.connections} --hold {args.hold} --rate {args.rate}`; one server",
        f"process and the generator on one machine, hard `ulimit -n` {nofile:,}. `{figures['environment']['command']}`.",
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
        *[f"| {what} | {value} | {target} | {verdict(target, met)} |" for what, value, target, met in rows],
        "",
        f"Heartbeats until the last look: {pings:,.0f} PINGs of the server, {pongs:,.0f} answered. Memory of the machine:",
        f"{free_before / 1e9:.1f} GB available before, {lowest / 1e9:.1f} GB at the least.",
        *[f"Invalid: {reason}." for reason in figures["invalid_reasons"]],
    ]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 0 if all(met for *_, met in rows) else 99


if __name__ == "__main__":
    sys.exit(main())
