#!/usr/bin/env python3
"""How well `iris-loadgen search` repeats itself: the same search several times, each on a new server.

Prints the capacity of each run, and the largest one to the smallest. Results go to
bench/runs/<date>-<kernel>-<cores>-search/. Exit code 0 if they are within a tenth of each other, 99 if not.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import pair
from place import Place

#: The largest capacity found is at most so many times the smallest one.
SPREAD_MAX = 1.1


def search(out, number, flags):
    """One search on a new server: what it found."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        nodes, node = pair.start("single", pathlib.Path(temporary))
        try:
            path = out / f"search-{number}.json"
            shown = shlex.join(["iris-loadgen", "search", *flags])
            command = [pair.LOADGEN, "search", *flags, "--addr", node.ports["tcp"]]
            command += ["--key", str(node.home.parent / "secret"), "--pid", str(node.process.pid), "--json", str(path)]
            print(shown, file=sys.stderr, flush=True)
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
            print(done.stdout, flush=True)
            found = json.loads(path.read_text())
            if found["best"]:
                found["best"]["environment"]["command"] = shown
            path.write_text(json.dumps(found, indent=1) + "\n")
            return found
        finally:
            for one in nodes:
                one.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="searches; default 3")
    parser.add_argument("--duration", default="5s", help="steady phase of each probe; default 5s")
    parser.add_argument("--slo", default="p99<500ms", help="the objective; default p99<500ms")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("search", args.out)
    flags = ["throughput", "--connections", "100", "--burst", "16", "--slo", args.slo, "--from", "50k"]
    flags += ["--duration", args.duration, "--warmup", "2s"]
    found = [search(place.out, number, flags) for number in range(1, args.runs + 1)]
    values = [one["value"] for one in found if one["value"]]
    spread = max(values) / min(values) if values else 0
    met = len(values) == args.runs and spread <= SPREAD_MAX
    lines = [
        place.title(f"The same search {args.runs} times"),
        "",
        f"`bench/search.py --runs {args.runs} --duration {args.duration} --slo '{args.slo}'`; each search on a new server.",
        f"`{shlex.join(['iris-loadgen', 'search', *flags])}`",
        "",
        "| run | verdict | capacity | probes |",
        "|---|---|---|---|",
    ]
    for number, one in enumerate(found, 1):
        value = f"{one['value']:,}/s" if one["value"] else "none"
        lines.append(f"| {number} | {one['verdict']} | {value} | {len(one['probes'])} |")
    lines += ["", f"Largest to smallest: {spread:.2f}; at most {SPREAD_MAX}: {'met' if met else '**missed**'}."]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 0 if met else 99


if __name__ == "__main__":
    sys.exit(main())
