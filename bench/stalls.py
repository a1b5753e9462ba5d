#!/usr/bin/env python3
"""How often this machine takes a CPU from whoever runs on it: the floor of every p99 measured here.

Spins on each CPU and looks at the clock. Prints, for each, the share of the time that passed in gaps of over a
millisecond: other programs, kernel threads, and a host that runs somebody else. A message that meets such a gap is late
whatever the server does, so with a share near 1 % a p99 of a millisecond says nothing about a server.
"""

import argparse
import json
import multiprocessing
import os
import time


def watch(cpu, seconds, results):
    os.sched_setaffinity(0, {cpu})
    end = time.monotonic() + seconds
    last, late, longest = time.monotonic(), 0.0, 0.0
    while last < end:
        now = time.monotonic()
        gap = now - last
        if gap > 0.001:
            late += gap
            longest = max(longest, gap)
        last = now
    results.put({"cpu": cpu, "share": late / seconds, "longest_ms": longest * 1000})


def measure(seconds):
    """One entry per CPU."""
    results = multiprocessing.Queue()
    cpus = sorted(os.sched_getaffinity(0))
    watchers = [multiprocessing.Process(target=watch, args=(cpu, seconds, results)) for cpu in cpus]
    for watcher in watchers:
        watcher.start()
    stalls = sorted((results.get() for _ in watchers), key=lambda stall: stall["cpu"])
    for watcher in watchers:
        watcher.join()
    return stalls


def text(stalls):
    return ", ".join(f"CPU {s['cpu']}: {s['share']:.2%}, longest {s['longest_ms']:.1f} ms" for s in stalls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.seconds)
    print(json.dumps(found) if args.json else text(found))
