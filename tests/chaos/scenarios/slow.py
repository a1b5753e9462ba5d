"""What is slow, hangs, fills up, or has too much to do."""

from __future__ import annotations

import json
import os
import subprocess

from harness.proxy import Proxy
from harness.round import Round, Scenario, names, wait_accepted
from support.cluster import LINK_PORT
from support.disks import MIB, Ballast, run
from support.server import clean_env, dies_with_us


class Flood:
    """iris-loadgen in the background, as fast as its windows allow."""

    def __init__(self, r: Round, seconds: int, connections: int = 40) -> None:
        assert r.cluster
        host, port = r.door()[0]  # fmt: skip
        self.report = r.home / "loadgen.json"
        command = [os.environ["IRIS_LOADGEN_BIN"], "throughput", "--addr", f"{host}:{port}"]  # fmt: skip
        command += ["--key", str(r.cluster.secret), "-n", str(connections), "--duration", f"{seconds}s"]  # fmt: skip
        command += ["--json", str(self.report)]  # fmt: skip
        with open(r.home / "loadgen.log", "wb") as log:
            self.process = subprocess.Popen(
                command, env=clean_env({}), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dies_with_us
            )
        r.at_end(self.stop)
        r.strangers = True

    def end(self) -> tuple[int, dict[str, object]]:
        """Wait for its end; return its exit code and its report."""
        code = self.process.wait(120)
        said = json.loads(self.report.read_text()) if self.report.exists() else {}
        return code, said

    def stop(self) -> None:
        """Leave no process behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def kill_at_peak(r: Round) -> None:
    """A core dies while the load generator sends as fast as it can, and others keep many SENDs under way."""
    r.start()
    r.load(senders=4)
    r.load(senders=2, stem="full", window=64, interval=0.001)
    r.wait_flow()
    flood = Flood(r, 5)
    r.go_on(2.0)
    r.wait_flow(5)
    r.fault()
    r.core(1).kill()
    r.wait_flow(20)
    r.end_load()
    judge_flood(r, flood)


def judge_flood(r: Round, flood: Flood) -> None:
    """The load generator kept an account of its own: nothing is lost or damaged."""
    code, said = flood.end()
    r.notes["loadgen_exit"] = code
    assert said, f"the load generator said nothing, exit code {code}"
    r.notes["loadgen"] = {name: said[name] for name in LOADGEN_FIELDS}
    assert said["lost"] == 0, f"the load generator lost {said['lost']} messages"


LOADGEN_FIELDS = ("valid", "accepted", "delivered", "lost", "duplicates", "reordered", "rejected", "errors", "rate_per_s")


def cascade(r: Round) -> None:
    """One core dies under a flood that goes on; the other one's memory stays bounded."""
    r.start()
    r.load(senders=4)
    r.wait_flow()
    flood = Flood(r, 6)
    r.go_on(1.5)
    r.fault()
    r.core(1).kill()
    r.alone()
    sizes = [r.core(2).rss()]  # fmt: skip
    for _ in range(8):
        r.go_on(0.5)
        sizes.append(r.core(2).rss())
    r.end_load()
    judge_flood(r, flood)
    r.notes["survivor_rss_mib"] = [round(size / MIB) for size in sizes]  # fmt: skip
    grown = max(sizes) - sizes[0]  # fmt: skip
    assert grown < GROWTH_MAX, f"the survivor grew by {grown / MIB:.0f} MiB under the flood"


#: Bytes by which the survivor of a cascade may grow in 4 s: its bounds, and what it remembers of ids.
GROWTH_MAX = 256 * MIB


def disk_full(r: Round) -> None:
    """The small disk of a core fills under load; SENDs may be refused as low_disk, and go on once there is room."""
    cluster = r.make()
    core = cluster.core(1)
    disk = r.home / "disk"
    disk.mkdir()
    done = run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk))
    assert done.returncode == 0, done.stderr
    r.at_end(lambda: run("umount", "-l", str(disk)))
    core.data = disk / "data"
    core.more["wal"] = {"disk_reserve": "8MiB"}
    r.launch()
    r.load()
    r.wait_flow()
    ballast = Ballast(disk)
    r.fault()
    ballast.leave(4 * MIB)
    r.wait(lambda: core.metrics().sum("iris_wal_low_disk") >= 1, "the core notices")
    r.go_on(2.0)
    ballast.leave(0)
    r.go_on(1.0)
    r.notes["refused_while_full"] = r.account.refusals["low_disk"]  # fmt: skip
    ballast.drop()
    r.wait(lambda: core.metrics().sum("iris_wal_low_disk") == 0, "there is room again")
    r.wait_flow(30)
    r.end_load()


def gray(r: Round) -> None:
    """A core hangs for 5 s, keeps its connections and says nothing, then goes on as if nothing had been."""
    r.start()
    r.load()
    r.wait_flow()
    r.fault()
    r.core(1).pause()
    try:
        r.go_on(5.0)
    finally:
        r.core(1).resume()
    r.fault()
    r.wait_healthy()
    r.wait_flow(20)
    r.end_load()


def slow_link(r: Round) -> None:
    """The link between the cores is slow, then narrow, then stalls, then is reset, again and again."""
    cluster = r.make()
    proxy = Proxy(r.network.router, (r.core(2).link_address, LINK_PORT))
    r.at_end(proxy.close)
    cluster.core(1).ways[2] = "{}:{}".format(*proxy.address)
    r.launch()
    assert proxy.connections > 0, "the cores talk through the proxy"
    r.load()
    r.wait_flow()
    proxy.delay = 0.02
    r.wait_flow(30)
    r.notes["slowest_ms_at_20_ms_each_way"] = round(r.account.slowest * 1000)
    proxy.bandwidth = 64 * 1024
    r.wait_flow(30)
    proxy.delay, proxy.bandwidth = 0.0, 0
    r.wait_healthy()
    r.fault()
    proxy.stalled = True
    r.alone()
    r.wait_flow(30)
    proxy.stalled = False
    r.wait_healthy()
    for _ in range(3):
        r.fault()
        proxy.reset()
        r.wait_flow(20)
    r.wait_healthy()
    two_copies_are_two(r, proxy)
    r.notes["bytes_through_the_proxy"] = proxy.carried
    r.end_load()


def two_copies_are_two(r: Round, proxy: Proxy) -> None:
    """What is under way between the cores is lost with one of them; what was accepted with two copies is at the other."""
    assert r.crowd
    (reader,) = names("two", 1, core=1)
    r.crowd.add(reader, r.door())
    sender = r.crowd.add("two-sender", r.door())
    sender.recipients, sender.window, sender.interval = [reader], 50, 0.0
    sender.online = True
    proxy.delay = 0.03
    sent = 0
    for _ in range(TRIES):
        sender.budget = 200
        sent += 200
        wait_accepted(r, sender, sent - 50)
        if r.account.newest_copies[sender.name] == 2:
            break
        # The link was too slow for the pair, because the machine is: one copy was said, and what follows would show nothing.
        r.wait(lambda: sender.is_idle, "all are accepted")
        r.wait_healthy()
    assert r.account.newest_copies[sender.name] == 2, f"one copy at the end of each of {TRIES} bursts"
    r.fault()
    assert r.core(1).process
    r.core(1).process.kill()
    proxy.reset()
    r.core(1).ended()
    r.wait(lambda: sender.is_idle, "all are accepted")
    proxy.delay = 0.0
    assert r.peek([reader], sent) == sent


#: Bursts until one ends with two copies.
TRIES = 5


LOW_DISK = frozenset({"low_disk"})
BUSY = frozenset({"overloaded"})

SCENARIOS = [
    Scenario("kill-at-peak", "kill -9 of a core at full load", kill_at_peak, refusals=BUSY, gap_ms=2000),
    Scenario("cascade", "a core dies under a flood that goes on", cascade, refusals=BUSY, gap_ms=2000),
    Scenario("disk-full", "the small disk of a core fills under load", disk_full, refusals=LOW_DISK, needs_root=True),
    Scenario("gray", "a core hangs for 5 s (SIGSTOP)", gray, gap_ms=2000, ordered=False),
    Scenario(
        "slow-link", "delay, little bandwidth, a stall and resets between the cores", slow_link,
        gap_ms=2000, ordered=False,
    ),
]  # fmt: skip
