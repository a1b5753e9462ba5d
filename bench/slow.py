#!/usr/bin/env python3
"""Readers that stop reading while messages for them go on coming: what that costs the server, and everybody else.

One node, and two generators beside it on the same machine. `slow` logs in --readers receivers and a few senders; each
reader is sent a message a second. First all of them read (the baseline), then none does for --seconds; then they read
again, and everything that was accepted must have come. `throughput` plays the others: --others connections at a low
rate, once while all read and once while the readers do not. Each second the memory of the server, what waits in inboxes
and what waits for clients are noted.

Targets: memory of the server at the end of the time without reading at most 1.2 times that at its beginning; p99 of the
others at most twice that of the baseline; nothing lost. A message that waits costs 28 bytes of index besides, whoever
it waits for (`iris_inbox_index_bytes`), so the growth without that is shown, too.

Results go to bench/runs/<date>-<kernel>-<cores>-slow/. Exit code 0 if the targets are met, 99 if not.
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
import survivor
from place import Place


class Run:
    def __init__(self, node, out):
        self.node, self.out = node, out
        self.samples = []
        self.started = time.monotonic()

    def begin(self, name, flags):
        """Starts a generator; its figures go to a file of that name."""
        path = self.out / f"{name}.json"
        command = [pair.LOADGEN, *flags, "--addr", self.node.ports["tcp"], "--key", str(self.node.home.parent / "secret")]
        process = subprocess.Popen([*command, "--json", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        process.path, process.flags = path, flags
        return process

    def end(self, process, part, seconds):
        """Waits for a generator, looking at the server each second. Returns its figures."""
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                sys.exit(f"{process.path.stem}: not done after {seconds} s")
            self.look(part)
            time.sleep(1)
        if not process.path.exists():
            sys.exit(f"{process.path.stem}: {process.stderr.read().decode()}")
        figures = json.loads(process.path.read_text())
        figures["environment"]["command"] = shlex.join(["iris-loadgen", *process.flags])
        process.path.write_text(json.dumps(figures, indent=1) + "\n")
        return figures

    def look(self, part):
        node = self.node
        sample = {
            "part": part,
            "s": round(time.monotonic() - self.started, 1),
            "rss_bytes": survivor.rss_bytes(node),
            "inbox_messages": node.metric("iris_inbox_messages"),
            "index_bytes": node.metric("iris_inbox_index_bytes"),
            "client_backlog_bytes": node.metric("iris_client_backlog_bytes"),
            "tcp_bytes": node.metric("iris_host_tcp_memory_bytes"),
            "slow_readers": node.metric("iris_connections_closed_total", 'reason="slow_reader"'),
            "logged_in": node.metric("iris_connections_logged_in"),
        }
        self.samples.append(sample)
        return sample

    def wait(self, part, what, seconds, condition):
        """Looks each half second until something is so."""
        deadline = time.monotonic() + seconds
        while not condition(self.look(part)):
            if time.monotonic() > deadline:
                sys.exit(f"after {seconds} s still not: {what}")
            time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=100_000, help="who stop reading; default 100000")
    parser.add_argument("--senders", type=int, default=4, help="who send to all of them; default 4")
    parser.add_argument("--seconds", type=int, default=60, help="without reading; default 60")
    parser.add_argument("--baseline", type=int, default=30, help="seconds in which all read; default 30")
    parser.add_argument("--others", type=int, default=100, help="connections of the others; default 100")
    parser.add_argument("--rate", type=int, default=2000, help="messages a second of the others; default 2000")
    parser.add_argument("--out", help="directory for the results")
    args = parser.parse_args()
    place = Place("slow", args.out)
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        (node,), _ = pair.start("single", pathlib.Path(temporary))
        run = Run(node, place.out)
        try:
            slow, others = load(run, args)
        finally:
            node.stop()
    (place.out / "samples.json").write_text("\n".join(map(json.dumps, run.samples)) + "\n")
    return report(place, args, run.samples, slow, others)


def load(run, args):
    """All parts; the figures of `slow`, and those of the others by part."""
    # A server that is young fills its window of the log first, whoever reads.
    warm = ["throughput", "--connections", "20", "--payload", "4096", "--rate", "4000", "--duration", "5s"]
    run.end(run.begin("warm", warm), "warm", 180)
    users = args.readers + args.senders
    flags = ["slow", "--connections", str(args.readers), "--stalled", str(args.readers), "--senders", str(args.senders)]
    flags += ["--warmup", f"{args.baseline + 10}s", "--duration", f"{args.seconds + 10}s", "--drain-wait", "10m"]
    slow = run.begin("slow", flags)
    wait_s = 60 + args.readers // 500
    run.wait("login", "all readers are logged in", wait_s, lambda sample: sample["logged_in"] >= users)

    def of_others(part, seconds):
        flags = ["throughput", "--connections", str(args.others), "--payload", "64", "--rate", str(args.rate)]
        figures = run.begin(f"others-{part}", [*flags, "--warmup", "3s", "--duration", f"{seconds}s"])
        return run.end(figures, part, seconds + 120)

    others = {"baseline": of_others("baseline", args.baseline - 5)}
    # What nobody acknowledges any more piles up: several for each reader.
    behind = 2 * args.readers
    run.wait("between", "the readers have stopped", 120, lambda sample: sample["inbox_messages"] >= behind)
    others["stalled"] = of_others("stalled", args.seconds - 10)
    return run.end(slow, "again", 1200), others


def report(place, args, samples, slow, others):
    stalled = [sample for sample in samples if sample["part"] == "stalled"]
    first, last = stalled[0], stalled[-1]
    before = max(sample["rss_bytes"] for sample in samples if sample["part"] == "baseline")
    index = last["index_bytes"] - first["index_bytes"]
    growth = max(sample["rss_bytes"] for sample in stalled) / before
    without = max(sample["rss_bytes"] - sample["index_bytes"] for sample in stalled) / before
    lost = slow["lost"] + sum(figures["lost"] for figures in others.values())
    p99 = {part: figures["latency_us"]["p99"] for part, figures in others.items()}
    p50 = {part: figures["latency_us"]["p50"] for part, figures in others.items()}
    slower = p99["stalled"] / p99["baseline"]
    targets = [
        ("memory without reading, to that of the baseline", f"{growth:.2f}", "at most 1.2", growth <= 1.2),
        ("p99 of the others, to that of the baseline", f"{slower:.2f}", "at most 2", slower <= 2),
        ("messages lost", str(lost), "0", lost == 0),
    ]
    command = f"bench/slow.py --readers {args.readers} --senders {args.senders} --seconds {args.seconds}"
    lines = [
        place.title("Readers that stop"),
        "",
        f"`{command}`; the server and both generators on one machine. `samples.json` has a line for each second.",
        "",
        "| the others | p50 | p99 |",
        "|---|---|---|",
        *[f"| {part} | {p50[part]:,.0f} us | {p99[part]:,.0f} us |" for part in others],
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
        *[f"| {what} | {value} | {target} | {'met' if met else '**missed**'} |" for what, value, target, met in targets],
        f"| the same without the index of what waits | {without:.2f} | | |",
        "",
        f"Memory: {before / 1e6:.0f} MB while all read, {last['rss_bytes'] / 1e6:.0f} MB at the end without reading, when",
        f"{last['inbox_messages']:,.0f} messages waited; {index / 1e6:.0f} MB of the growth are their index. Waiting for",
        f"clients in the process, at most: {max(s['client_backlog_bytes'] for s in samples):,.0f} bytes; TCP buffers of both",
        f"ends: {last['tcp_bytes'] / 1e6:.0f} MB. Connections closed as slow readers: {samples[-1]['slow_readers']:.0f}.",
    ]
    text = "\n".join(lines) + "\n"
    (place.out / "summary.md").write_text(text)
    print(text)
    return 0 if all(met for *_, met in targets) else 99


if __name__ == "__main__":
    sys.exit(main())
