#!/usr/bin/env python3
"""A mirrored pair beside a single node, in one run on one machine: rate, a core's CPU per message, lock-step latency.

Four layouts take turns, each time with new processes on empty directories:

- `single`: one process, edge and core;
- `split`: an edge and a core;
- `pair`: an edge and two cores that mirror each other;
- `joint`: two processes, each edge and core, that mirror each other; clients connect to the first one.

CPU of a process is user and system time as /proc counts it, from the first to the last message. A core's CPU per message
is compared with that of the same layout without a mirror: `pair` with `split`, `joint` with `single`, and counts for each
message once per core, since each has all of them. The second core has the first half of the CPUs to itself and the first
one is pinned from the last CPU backwards, so that their partitions do not share one. Both write to one disk.

A log that is young fills each new segment with zeros before it uses it; after its first checkpoint it uses old ones again
(docs/WAL-FORMAT.md, section 1). A server is young for some seconds and old for months, and two logs on one disk pay twice for
zeros, so the rate is measured after `--warmup`; `--warmup 0` shows a young log.

Results go to bench/runs/<date>-<kernel>-<cores>-pair/. Exit code 0 if the targets are met, 99 if not.
"""

import argparse
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from place import Place

ROOT = pathlib.Path(__file__).resolve().parent.parent
IRIS = os.environ.get("IRIS_BIN", str(ROOT / "target/release/iris"))
LOADGEN = os.environ.get("IRIS_LOADGEN_BIN", str(ROOT / "target/release/iris-loadgen"))
LINK_PORT = 7410
TICKS = os.sysconf("SC_CLK_TCK")

#: Layout: the roles of each of its nodes; clients connect to the last edge.
LAYOUTS = {
    "single": [["edge", "core"]],
    "split": [["core"], ["edge"]],
    "pair": [["core"], ["core"], ["edge"]],
    "joint": [["edge", "core"], ["edge", "core"]],
}


class Node:
    def __init__(self, home, number, roles, cores, cpus=None):
        self.home, self.number, self.roles = home / f"node-{number}", number, roles
        self.home.mkdir()
        self.ports_file = self.home / "ports.json"
        pki = home / "pki"
        lines = [
            "[node]",
            f"roles = {json.dumps(roles)}",
            f"node_id = {number}",
            f'data_dir = "{self.home / "data"}"',
            '[listen]\ntcp = "127.0.0.1:0"\nadmin = "127.0.0.1:0"',
            f'[auth]\nkeys = [{{ file = "{home / "secret"}", alg = "HS256" }}]',
            '[wal]\ndisk_reserve = "256MiB"',
            '[log]\nlevel = "warn"',
        ]
        if cores:
            subprocess.run(
                [IRIS, "pki", "issue", "--dir", str(pki), "--node", str(number)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            list_of = ", ".join(f'{{ node = {core}, addr = "{address(core)}:{LINK_PORT}" }}' for core in cores)
            lines += [
                f'[cluster]\nid = "bench"\nlisten = "{address(number)}:{LINK_PORT}"\ncores = [{list_of}]',
                f'ca = "{pki / "ca.pem"}"\ncert = "{pki / f"node-{number}.pem"}"\nkey = "{pki / f"node-{number}-key.pem"}"',
            ]
        config = self.home / "iris.toml"
        config.write_text("\n".join(lines) + "\n")
        self.config, self.cpus = config, cpus
        self.start()

    def start(self):
        self.ports_file.unlink(missing_ok=True)
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [IRIS, "serve", "--config", str(self.config), "--ports-file", str(self.ports_file)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=(lambda: os.sched_setaffinity(0, self.cpus)) if self.cpus else None,
            )

    def wait_ready(self):
        started = time.monotonic()
        while not self.ports_file.exists():
            if self.process.poll() is not None or time.monotonic() - started > 60:
                sys.exit(f"{self.home.name} did not start: {(self.home / 'log').read_text()}")
            time.sleep(0.002)
        self.ports = json.loads(self.ports_file.read_text())

    def metric(self, name, label=""):
        with urllib.request.urlopen(f"http://{self.ports['admin']}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and label in line)

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def address(number):
    return f"127.77.{os.getpid() % 250 + 1}.{number}"


def wait_for(what, condition):
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > 60:
            sys.exit(f"not in a minute: {what}")
        time.sleep(0.02)


def start(layout, home):
    """The nodes of a layout, ready and, if they are two cores, with two copies of everything."""
    roles = LAYOUTS[layout]
    (home / "secret").write_text("0123456789abcdef" * 4)
    cores = [number for number, of in enumerate(roles, 1) if "core" in of] if len(roles) > 1 else []
    if cores:
        command = [IRIS, "pki", "init", "--dir", str(home / "pki"), "--cluster", "bench"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    all_cpus = sorted(os.sched_getaffinity(0))
    half = {2: set(all_cpus[: len(all_cpus) // 2])} if len(cores) == 2 and len(all_cpus) > 1 else {}
    nodes = [Node(home, number, of, cores, half.get(number)) for number, of in enumerate(roles, 1)]
    for node in nodes:
        node.wait_ready()
    if len(cores) == 2:
        wait_for("both cores have two copies", lambda: all(is_normal(node) for node in nodes if "core" in node.roles))
    edges = [node for node in nodes if "edge" in node.roles]
    wait_for("every shard has a core", lambda: all(edge.metric("iris_shards_unroutable") == 0 for edge in edges))
    return nodes, edges[0]


def is_normal(core):
    partitions = core.metric("iris_mirror_linked")
    return partitions > 0 and core.metric('iris_mirror_mode{', 'mode="normal"') == partitions


def measure(layout, scenario, flags, out, number):
    """Runs one scenario against one layout: the generator's figures, and CPU seconds of each node."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        nodes, edge = start(layout, pathlib.Path(temporary))
        try:
            before = [node.cpu_s() for node in nodes]
            path = out / f"{layout}-{scenario}-{number}.json"
            command = [LOADGEN, scenario, *flags]
            shown = shlex.join(["iris-loadgen", scenario, *flags, "--pid", "EDGE"])
            command += ["--addr", edge.ports["tcp"], "--key", str(edge.home.parent / "secret")]
            command += ["--pid", str(edge.process.pid), "--json", str(path)]
            print(f"{layout}: {shown}", file=sys.stderr, flush=True)
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            figures = json.loads(path.read_text())
            figures["environment"]["command"] = f"{shown} ({layout})"
            cores = [node for node in nodes if "core" in node.roles]
            figures["nodes"] = [
                {"roles": node.roles, "cpu_s": node.cpu_s() - earlier} for node, earlier in zip(nodes, before)
            ]
            figures["messages"] = sum(core.metric("iris_sends_total") for core in cores)
            figures["written_bytes"] = sum(core.metric("iris_wal_written_bytes_total") for core in cores)
            figures["failovers"] = sum(core.metric("iris_mirror_failovers_total") for core in cores)
            path.write_text(json.dumps(figures, indent=1) + "\n")
            return figures
        finally:
            for node in nodes:
                node.stop()


def is_clean(figures):
    faults = ("lost", "duplicates", "reordered", "corrupted", "failovers")
    return figures["valid"] and not any(figures[fault] for fault in faults)


def core_us(figures):
    """CPU microseconds of one core process per message, the mean of the cores."""
    cores = [node["cpu_s"] for node in figures["nodes"] if "core" in node["roles"]]
    return sum(cores) / len(cores) / figures["messages"] * 1e6


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=int, default=10, help="seconds of each load; default 10")
    parser.add_argument("--warmup", type=int, default=15, help="seconds of load before its rate is measured; default 15")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each layout; default 3")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("pair", args.out)
    rates, latencies = {layout: [] for layout in LAYOUTS}, {layout: [] for layout in LAYOUTS}
    load = ["--connections", "100", "--payload", "64", "--duration", f"{args.duration}s"]
    load += ["--warmup", f"{args.warmup}s"]
    for number in range(1, args.rounds + 1):
        for layout in LAYOUTS:
            rates[layout].append(measure(layout, "throughput", load, place.out, number))
        for layout in LAYOUTS:
            flags = ["--duration", f"{max(2, args.duration // 2)}s"]
            latencies[layout].append(measure(layout, "latency", flags, place.out, number))
    lines = [
        place.title("A pair beside a single node"),
        "",
        f"`bench/pair.py --warmup {args.warmup} --duration {args.duration} --rounds {args.rounds}`; all processes, the generator and the disk are one machine's.",
        "Medians of the rounds; the JSON files beside this are the generator's own, one for each round.",
        "",
        "| layout | accepted a second | delivered a second | core CPU a message | lock-step p50 | p99 | clean |",
        "|---|---|---|---|---|---|---|",
    ]
    rate, core, p50 = {}, {}, {}
    for layout in LAYOUTS:
        rate[layout] = median([figures["rate_per_s"] for figures in rates[layout]])
        core[layout] = median([core_us(figures) for figures in rates[layout]])
        p50[layout] = median([figures["latency_us"]["p50"] for figures in latencies[layout]])
        p99 = median([figures["latency_us"]["p99"] for figures in latencies[layout]])
        delivered = median([figures["delivered_per_s"] for figures in rates[layout]])
        clean = all(map(is_clean, rates[layout] + latencies[layout]))
        lines.append(
            f"| {layout} | {rate[layout]:,.0f} | {delivered:,.0f} | {core[layout]:.2f} us | {p50[layout]:.0f} us"
            f" | {p99:.0f} us | {'yes' if clean else '**no**'} |"
        )
    targets = [
        ("rate of joint to single", rate["joint"] / rate["single"], 0.5, 1),
        ("rate of pair to split", rate["pair"] / rate["split"], None, 1),
        ("core CPU a message, pair to split", core["pair"] / core["split"], 1.3, -1),
        ("core CPU a message, joint to single", core["joint"] / core["single"], 1.3, -1),
        ("lock-step p50, joint to single", p50["joint"] / p50["single"], 2.5, -1),
        ("lock-step p50, pair to split", p50["pair"] / p50["split"], 2.5, -1),
    ]
    lines += ["", "| ratio | measured | target | |", "|---|---|---|---|"]
    missed = False
    for what, value, target, sign in targets:
        met = target is None or sign * value >= sign * target
        missed |= not met
        shown = "" if target is None else f"{'at least' if sign > 0 else 'at most'} {target}"
        verdict = "" if target is None else "met" if met else "**missed**"
        lines.append(f"| {what} | {value:.2f} | {shown} | {verdict} |")
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 99 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
