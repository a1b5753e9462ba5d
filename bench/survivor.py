#!/usr/bin/env python3
"""A core whose mirror is gone for ten minutes under load, then healing while the load goes on.

An edge and two cores, as in bench/pair.py. Messages come at a fixed rate, and readers take and acknowledge them. Four parts:
both cores (what is normal), one core alone, healing, both cores again. Each second the memory of the survivor, the size of
its log and the records that the mirror lacks are noted. Targets: memory at the end of the time alone at most 1.2 times that
of its first minute, nothing lost, and p99 while healing at most twice that of both cores.

Results go to bench/runs/<date>-<kernel>-<cores>-survivor/. Exit code 0 if the targets are met, 99 if not.
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

import pair
from place import Place

#: Seconds of one load of the generator while healing goes on: it is repeated until that is over.
HEALING_STEP = 10


def rss_bytes(node):
    lines = pathlib.Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def log_bytes(node):
    return sum(path.stat().st_size for path in (node.home / "data" / "wal").rglob("*.seg"))


class Run:
    def __init__(self, nodes, edge, rate, out):
        self.nodes, self.edge, self.rate, self.out = nodes, edge, rate, out
        self.samples = []
        self.started = time.monotonic()

    def load(self, part, seconds, watch=None):
        """Loads for so long, and looks at the survivor each second."""
        path = self.out / f"{part}.json"
        flags = ["throughput", "--connections", "100", "--payload", "64", "--duration", f"{seconds}s"]
        flags += ["--rate", str(self.rate), "--burst", "16", "--warmup", "1s"]
        command = [pair.LOADGEN, *flags, "--addr", self.edge.ports["tcp"], "--key", str(self.edge.home.parent / "secret")]
        process = subprocess.Popen([*command, "--json", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            self.look(part)
            time.sleep(1)
        figures = json.loads(path.read_text())
        figures["environment"]["command"] = shlex.join(["iris-loadgen", *flags])
        path.write_text(json.dumps(figures, indent=1) + "\n")
        return figures

    def look(self, part):
        survivor = self.nodes[1]
        self.samples.append(
            {
                "part": part,
                "s": round(time.monotonic() - self.started, 1),
                "rss_bytes": rss_bytes(survivor),
                "log_bytes": log_bytes(survivor),
                "dedup_ids": survivor.metric("iris_dedup_ids"),
                "lag_records": survivor.metric("iris_mirror_lag_records"),
                "copies_one": survivor.metric("iris_mirror_one_copy_messages"),
                "healed_bytes": survivor.metric("iris_mirror_healed_bytes_total"),
                "shard_moves": self.edge.metric("iris_shard_moves_total"),
            }
        )


def mean(values):
    return sum(values) / len(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", type=int, default=600, help="seconds without the mirror; default 600")
    parser.add_argument("--normal", type=int, default=30, help="seconds with both; default 30")
    parser.add_argument("--rate", type=int, default=20_000, help="messages a second; default 20000")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("survivor", args.out)
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        nodes, edge = pair.start("pair", pathlib.Path(temporary))
        run = Run(nodes, edge, args.rate, place.out)
        try:
            parts = {"normal": [run.load("normal", args.normal)]}
            nodes[0].stop()
            parts["alone"] = [run.load("alone", args.alone)]
            restarted = time.monotonic()
            nodes[0].start()
            nodes[0].wait_ready()
            healing = parts["healing"] = []
            while not healing or not all(pair.is_normal(core) for core in nodes[:2]):
                healing.append(run.load(f"healing-{len(healing) + 1}", HEALING_STEP))
                print(f"  healing: {run.samples[-1]}", file=sys.stderr, flush=True)
                if time.monotonic() > restarted + args.alone + 600:
                    sys.exit("it does not heal")
            healed_s = time.monotonic() - restarted
            parts["again"] = [run.load("again", args.normal)]
        finally:
            for node in nodes:
                node.stop()
    (place.out / "samples.json").write_text("\n".join(map(json.dumps, run.samples)) + "\n")
    return report(place, args, run.samples, parts, healed_s)


def report(place, args, samples, parts, healed_s):
    alone = [sample for sample in samples if sample["part"] == "alone"]
    first = [sample["rss_bytes"] for sample in alone[: max(1, len(alone) // 10)]]
    last = [sample["rss_bytes"] for sample in alone[-max(1, len(alone) // 10) :]]
    growth = mean(last) / mean(first)
    lost = sum(figures["lost"] for of in parts.values() for figures in of)
    p99 = {part: max(figures["latency_us"]["p99"] for figures in of) for part, of in parts.items()}
    p50 = {part: max(figures["latency_us"]["p50"] for figures in of) for part, of in parts.items()}
    slower = p99["healing"] / p99["normal"]
    lines = [
        place.title("A survivor"),
        "",
        f"`bench/survivor.py --alone {args.alone} --normal {args.normal} --rate {args.rate}`; an edge, two cores and the",
        "generator on one machine with one disk. `samples.json` has a line for each second.",
        "",
        "| part | worst p50 | worst p99 |",
        "|---|---|---|",
        *[f"| {part} | {p50[part]:,.0f} us | {p99[part]:,.0f} us |" for part in parts],
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
    ]
    targets = [
        ("memory at the end of the time alone, to its beginning", f"{growth:.2f}", "at most 1.2", growth <= 1.2),
        ("messages lost", str(lost), "0", lost == 0),
        ("p99 while healing, to that of both cores", f"{slower:.2f}", "at most 2", slower <= 2),
    ]
    lines += [f"| {what} | {value} | {target} | {'met' if met else '**missed**'} |" for what, value, target, met in targets]
    top = max(sample["log_bytes"] for sample in samples)
    lines += [
        "",
        f"Memory of the survivor: {mean(first) / 1e6:.0f} MB in the first tenth of the time alone, {mean(last) / 1e6:.0f} MB in",
        f"the last. Its log grew to {top / 1e9:.2f} GB, because its mirror lacked all of it; `wal.disk_reserve` is where",
        f"sends would be refused. Messages with one copy, at most: {max(s['copies_one'] for s in samples):,.0f}. From the",
        f"start of the mirror to two copies again: at most {healed_s:.0f} s (looked at every {HEALING_STEP} s).",
    ]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 0 if all(met for *_, met in targets) else 99


if __name__ == "__main__":
    sys.exit(main())
