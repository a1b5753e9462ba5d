"""Processes that end: kill -9 of cores and edges, alone and together, once and again and again."""

from __future__ import annotations

from harness.round import Round, Scenario, names, wait_accepted


def kill_one(r: Round, recipients_of: int, victim: int) -> None:
    """Kill a core while everybody sends to users of one of the two, and go on alone for a while."""
    r.start()
    r.load(core=recipients_of)
    r.load(core=recipients_of, senders=3, stem="piped", window=64, interval=0.001)
    r.wait_flow(60)
    r.fault()
    r.core(victim).kill()
    r.wait_flow(150)
    r.end_load()


def kill_preferred(r: Round) -> None:
    kill_one(r, recipients_of=1, victim=1)


def kill_other(r: Round) -> None:
    kill_one(r, recipients_of=1, victim=2)


def graceful_vs_kill(r: Round) -> None:
    """Both ways for a core to go, each measured."""
    r.start()
    r.load(core=1)
    r.wait_flow()
    marks = []
    for way in ("graceful", "kill"):
        r.fault()
        marks.append(way)
        if way == "graceful":
            r.core(1).stop()
        else:
            r.core(1).kill()
        r.wait_flow(60)
        r.core(1).start()
        r.wait_healthy()
        r.wait_flow(400 if way == "graceful" else 20)
    r.end_load()
    names_of_all = [user.name for user in r.senders]
    for number, way in enumerate(marks):
        upto = [*r.faults, r.load_ended][number + 1]
        gaps = r.account.gaps(r.faults[number : number + 1], names_of_all, upto)
        r.notes[f"{way}_gap_ms"] = round(max(gaps) * 1000)


def thousand_then_kill(r: Round) -> None:
    """1,000 messages to a user who is away; the moment the last one is accepted, the core that took them dies."""
    r.start()
    r.load(senders=2, core=1)
    (reader,) = names("reader", 1, core=1)
    assert r.crowd
    r.crowd.add(reader, r.door())
    sender = r.crowd.add("sender", r.door())
    sender.recipients, sender.window, sender.interval = [reader], 200, 0.0
    sender.receipt_every = 0
    sender.online = True
    r.wait(lambda: sender.is_live, "the sender logs in")
    sender.budget = 1000
    wait_accepted(r, sender, 1000)
    r.fault()
    r.core(1).kill()
    # Only the other core is left, and nothing heals yet.
    found = r.peek([reader], 1000)
    assert found == 1000, f"{found} of 1000 are at the survivor"
    r.notes["found_at_survivor"] = found
    r.wait_flow()
    r.end_load()


def both_cores(r: Round) -> None:
    """Both cores at once; clients stay, and are refused by name if it takes long."""
    r.start()
    r.load()
    r.wait_flow(60)
    r.fault()
    for number in (1, 2):
        assert (process := r.core(number).process)
        process.kill()
    for number in (1, 2):
        r.core(number).ended()
    for number in (1, 2):
        r.core(number).start(wait=False)
    r.wait_flow(30)
    r.end_load()


def edge_and_core(r: Round) -> None:
    """An edge and a core at once: its clients come back at the other edge."""
    r.start(edges=2)
    r.load(core=1, edges=(1, 2), stem="a")
    r.load(core=1, edges=(2, 1), stem="b")
    r.wait_flow()
    r.fault()
    for node in (r.edge(1), r.core(1)):
        assert node.process
        node.process.kill()
    for node in (r.edge(1), r.core(1)):
        node.ended()
    r.wait_flow(60)
    broken = {one.user for one in r.account.broken}
    strays = [name for name in broken if not name.startswith(("a-", "probe-"))]
    assert not strays, f"clients of the edge that lives lost their connections: {strays}"
    r.end_load()


def sniper(r: Round) -> None:
    """A core is killed every 2 s, one after the other, and started again; nobody is thrown out."""
    r.start()
    r.load()
    r.wait_flow()
    for number in (1, 2, 1, 2):
        r.fault()
        r.core(number).kill()
        r.go_on(0.2)
        r.core(number).start(wait=False)
        r.go_on(1.8)
    r.wait_flow(20)
    r.end_load()


UNAVAILABLE = frozenset({"shard_unavailable"})

SCENARIOS = [
    Scenario("kill-preferred", "kill -9 of the core that edges prefer", kill_preferred, gap_ms=1000, quick=True),
    Scenario("kill-other", "kill -9 of the core that only mirrors", kill_other, gap_ms=1000),
    Scenario("graceful-vs-kill", "SIGTERM of a core, then kill -9 of it", graceful_vs_kill, gap_ms=1000),
    Scenario(
        "thousand-then-kill", "1,000 messages, then kill -9 at once: 1,000 of 1,000", thousand_then_kill,
        gap_ms=1000, quick=True,
    ),
    Scenario("both-cores", "kill -9 of both cores at once", both_cores, refusals=UNAVAILABLE, quick=True),
    Scenario("edge-and-core", "kill -9 of an edge and a core at once", edge_and_core, drops=True),
    Scenario("sniper", "a core is killed every 2 s", sniper, refusals=UNAVAILABLE),
]
