"""One round of a scenario: a cluster, its clients, what is done to them, and the account at the end."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support import tokens
from support.server import iris
from support.wait import until

from .account import Account, Verdict
from .cluster import CLIENT_PORT, ChaosCluster, ChaosNode, names, preferred, shard
from .crowd import Crowd, User
from .net import Network

#: Seconds to wait for what a sound cluster does in one.
PATIENCE = 45.0

#: Messages that a user sees of its inbox without ACK, at most: the window is 1,024.
PEEK_MAX = 1000

_never = threading.Event()


@dataclass(frozen=True)
class Scenario:
    """What is done in a round, and what must hold beside the checks of the account."""

    name: str
    about: str
    run: Callable[[Round], None]
    #: Names of refusals that clients may see; they send again until they are accepted.
    refusals: frozenset[str] = frozenset()
    #: Whether clients may lose their connection: an edge goes.
    drops: bool = False
    #: Milliseconds without an ACCEPTED at most, of any client in any round; 0: measured only.
    gap_ms: int = 0
    #: Whether messages of a sender to a user come in their order: nodes did not take messages apart from each other.
    ordered: bool = True
    #: Needs a network that can be cut, or mounts: root.
    needs_root: bool = False
    #: Part of the quick set that `make test` runs.
    quick: bool = False


@dataclass
class Outcome:
    """What one round showed."""

    verdict: Verdict
    failures: list[str]
    gaps: list[float]
    dropped: int
    refusals: dict[str, int]
    copies: dict[int, int]
    seconds: float
    notes: dict[str, object] = field(default_factory=dict)


class Round:
    """What a scenario works with."""

    def __init__(self, scenario: Scenario, home: Path, network: Network) -> None:
        self.scenario = scenario
        self.home = home
        self.network = network
        self.account = Account()
        self.crowd: Crowd | None = None
        self.cluster: ChaosCluster | None = None
        self.faults: list[float] = []
        #: Users whose pauses count as gaps; empty: all senders.
        self.watched: list[str] = []
        self.senders: list[User] = []
        self.probes: list[User] = []
        self.notes: dict[str, object] = {}
        self.failures: list[str] = []
        self.load_ended = 0.0
        #: Cores whose log holds damage that the scenario made.
        self.damaged: set[int] = set()
        #: Others than our users may have left messages in inboxes: the load generator ends once each message came, and
        #: what a core that took over delivers again it acknowledges no more.
        self.strangers = False
        self._at_end: list[Callable[[], object]] = []

    # ---- the cluster

    def make(self, cores: int = 2, edges: int = 1) -> ChaosCluster:
        """Make a cluster whose nodes do not run yet."""
        self.cluster = ChaosCluster(self.home, self.network, cores, edges)
        key = self.cluster.secret.read_bytes().strip()
        self.crowd = Crowd(self.account, lambda user: tokens.user_token(key, user))
        return self.cluster

    def start(self, cores: int = 2, edges: int = 1) -> ChaosCluster:
        """Start a cluster, and wait until it answers with as many copies as it has cores."""
        cluster = self.make(cores, edges)
        self.launch()
        return cluster

    def launch(self) -> None:
        """Start all nodes that do not run, and wait until the pair is healthy."""
        assert self.cluster
        idle = [node for node in self.cluster.nodes if not node.runs]
        for node in idle:
            node.start(wait=False)
        for node in idle:
            node.wait_ready(node.ports)
        self.wait_healthy()

    def core(self, number: int) -> ChaosNode:
        """Return a core by its number, from 1."""
        assert self.cluster
        return self.cluster.core(number)

    def edge(self, number: int = 1) -> ChaosNode:
        """Return an edge by its number, from 1."""
        assert self.cluster
        return self.cluster.edge(number)

    def door(self, *edges: int) -> list[tuple[str, int]]:
        """Return where clients connect: these edges, or all, in this order."""
        assert self.cluster
        chosen = [self.edge(number) for number in edges] or self.cluster.edges
        return [(edge.listen, CLIENT_PORT) for edge in chosen]

    def wait_healthy(self, *edges: int, timeout: float = PATIENCE) -> None:
        """Wait until SENDs to each partition of each core are accepted with one copy on each core."""
        assert self.cluster and self.crowd
        numbers = [core.number for core in self.cluster.cores]
        if not self.probes:
            for core in numbers:
                for partition in (0, 1):
                    stem = names(f"probe-{core}{partition}", 400, core, tuple(numbers))
                    name = next(name for name in stem if shard(name) % 2 == partition)
                    probe = self.crowd.add(name, self.door(*edges))
                    probe.recipients, probe.interval, probe.receipt_every = [name], 0.02, 0
                    self.probes.append(probe)
        for probe in self.probes:
            self.account.newest_copies.pop(probe.name, None)
            probe.online = True

        def healthy() -> bool:
            behind = [p for p in self.probes if self.account.newest_copies.get(p.name) != len(numbers)]
            for probe in behind:
                if probe.is_idle:
                    probe.budget = 1
            return not behind

        began = time.monotonic()
        self.wait(healthy, f"SENDs are accepted with {len(numbers)} copies", timeout)
        self.notes["heal_ms_max"] = max(
            int(self.notes.get("heal_ms_max", 0)), round((time.monotonic() - began) * 1000)
        )

    def alone(self, timeout: float = PATIENCE) -> None:
        """Wait until SENDs are accepted with one copy: what is left of the pair goes on."""
        for probe in self.probes:
            self.account.newest_copies.pop(probe.name, None)

        def single() -> bool:
            behind = [p for p in self.probes if self.account.newest_copies.get(p.name) != 1]
            for probe in behind:
                if probe.is_idle:
                    probe.budget = 1
            return not behind

        self.wait(single, "SENDs are accepted with one copy", timeout)

    # ---- waiting

    def wait(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait until the condition holds; fail with ``what``."""

        def checked() -> object:
            if self.crowd:
                self.crowd.check()
            return condition()

        until(checked, what, timeout)

    def go_on(self, seconds: float) -> None:
        """Let the load run for so long: the length of a phase, not a wait for anything."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.crowd:
                self.crowd.check()
            _never.wait(min(left, 0.1))

    # ---- the load

    def load(
        self,
        *,
        senders: int = 6,
        core: int | None = None,
        edges: tuple[int, ...] = (),
        stem: str = "s",
        online: int = 3,
        offline: int = 3,
        window: int = 1,
        interval: float = 0.01,
        to: list[str] | None = None,
    ) -> list[User]:
        """Let senders send to readers who are there and to some who are not; return the senders.

        With ``core``, all recipients are users whose preferred core that is.
        """
        assert self.crowd
        here = names(f"{stem}-on", online, core) if to is None else []
        away = names(f"{stem}-off", offline, core) if to is None else []
        for name in (*here, *away):
            reader = self.crowd.users.get(name) or self.crowd.add(name, self.door(*edges))
            reader.online = reader.online or name in here
        targets = to or [name for pair in zip(here, away) for name in pair] or here or away
        made = []
        for number in range(senders):
            sender = self.crowd.add(f"{stem}-{number}", self.door(*edges))
            turn = number % len(targets)
            sender.recipients = targets[turn:] + targets[:turn]
            sender.window, sender.interval, sender.budget = window, interval, 1 << 30
            sender.online = True
            made.append(sender)
        self.senders += made
        return made

    def wait_flow(self, more: int = 20, users: list[User] | None = None) -> None:
        """Wait until each sender had so many more SENDs accepted."""
        chosen = users or self.senders
        goals = [(user, len(self.account.answers[user.name]) + more) for user in chosen]
        self.wait(
            lambda: all(len(self.account.answers[user.name]) >= goal for user, goal in goals),
            f"each sender has {more} more SENDs accepted",
        )

    def fault(self) -> None:
        """Something fails now: gaps are counted from here."""
        self.faults.append(time.monotonic())

    def end_load(self, users: list[User] | None = None) -> None:
        """No new messages; wait until all that were begun are accepted."""
        chosen = users or self.senders
        if not self.load_ended:
            self.load_ended = time.monotonic()
        for user in chosen:
            user.budget = 0
        self.wait(lambda: all(user.is_idle for user in chosen), "every SEND is answered in the end")

    def peek(self, readers: list[str], expected: int) -> int:
        """Let users who are away look into their inboxes and acknowledge nothing; return how many messages are there."""
        assert self.crowd
        users = [self.crowd.users[name] for name in readers]
        before = len(self.account.received)
        found = lambda: {g.key for g in self.account.received[before:] if g.key.to in readers}  # noqa: E731
        for user in users:
            user.acks, user.quiet, user.online = False, True, True
        self.wait(lambda: all(user.is_live for user in users), "readers log in")
        try:
            self.wait(lambda: len(found()) >= expected, "inboxes hold what was accepted")
        except AssertionError as failure:
            raise AssertionError(f"{failure}: {len(found())} of {expected} messages") from None
        self.log_out(users)
        for user in users:
            user.acks, user.quiet = True, False
        return len(found())

    def look_alone(self, lone: int, readers: list[str]) -> None:
        """Kill the other core, see that this one has all messages of readers who are away, and start the other again."""
        due = Counter(key.to for key in self.account.accepted if key.to in readers)
        assert due and not any(key.to in readers for key in self.account.arrived()), "all are away"
        expected = sum(min(count, PEEK_MAX) for count in due.values())
        self.core(3 - lone).kill()
        self.alone()
        self.notes[f"found_at_core_{lone}_alone"] = self.peek(readers, expected)
        self.core(3 - lone).start()
        self.wait_healthy()

    # ---- the end

    def finish(self) -> None:
        """Let everything heal, empty all inboxes, and see that nothing comes back."""
        assert self.crowd and self.cluster
        self.network.heal()
        self.end_load()
        self.launch()
        everybody = list(self.crowd.users.values())
        self.go_home(everybody)
        self.relogin(everybody)
        missing = lambda: self.account.accepted.keys() - self.account.arrived()  # noqa: E731
        try:
            self.wait(lambda: not missing(), "every accepted message is delivered")
            if self.strangers:
                self.log_out(everybody)
                self.wait(lambda: self.leftover() is not None, "both cores hold the same number of messages")
                self.notes["left_by_the_load_generator"] = self.leftover()
            else:
                self.wait(lambda: self.waiting() == 0, "no inbox holds anything, on any core")
            self.account.confirm_all(time.monotonic())
        except AssertionError as failure:
            left = {node.home.name: node_waiting(node) for node in self.cluster.cores}
            self.failures.append(f"{failure}; left: {left}")
        self.relogin(everybody)
        self.log_out(everybody)
        self.look_inside()
        self.restart_cores()
        self.relogin(everybody)
        self.log_out(everybody)
        for user in everybody:
            if user.refused_for_good:
                self.failures.append(f"{user.name} was refused for good: {sorted(set(user.refused_for_good))}")

    def go_home(self, users: list[User]) -> None:
        """Wait until each user's shard is at the core that edges prefer for it.

        Shards go back there in order once it has everything, and what was not acknowledged is delivered again then, which
        is no fault (docs/PROTOCOL.md, section 7). Nobody acknowledges anything here, so all of it comes later, too.
        """
        assert self.cluster
        self.log_out(users)
        for user in users:
            user.acks, user.quiet, user.online = False, False, True
        self.wait(lambda: all(user.is_live for user in users), "everybody looks in")
        numbers = [core.number for core in self.cluster.cores]
        there = Counter(preferred(user.name, numbers) for user in users)
        at_home = lambda core: core.metrics().sum("iris_users_online") >= there[core.number]  # noqa: E731
        self.wait(lambda: all(map(at_home, self.cluster.cores)), "everybody is at the core that is preferred")

    def restart_cores(self) -> None:
        """Both cores at once, in order: what was acknowledged stays gone when logs are read again."""
        assert self.cluster
        for core in self.cluster.cores:
            core.stop()
        for core in self.cluster.cores:
            core.start(wait=False)
        for core in self.cluster.cores:
            core.wait_ready(core.ports)
        self.wait_healthy()

    def look_inside(self) -> None:
        """Note what the cores say of their mirrors; a stream that was fenced or a lost record is a failure."""
        assert self.cluster
        lag = lambda: sum(int(core.metrics().sum("iris_mirror_lag_records")) for core in self.cluster.cores)  # noqa: E731
        self.wait(lambda: lag() == 0, "both cores have all records")
        for core in self.cluster.cores:
            said = core.metrics()
            for name in ("splits", "failovers"):
                self.notes[f"{name}_at_core_{core.number}"] = int(said.sum(f"iris_mirror_{name}_total"))
            for name in ("iris_mirror_fenced_streams", "iris_mirror_lost_records_total"):
                if count := int(said.sum(name)):
                    self.failures.append(f"{name} of {core.home.name} is {count}")

    def relogin(self, users: list[User]) -> None:
        """Each user begins a new connection, in which nothing fails."""
        self.log_out(users)
        for user in users:
            user.acks, user.quiet, user.online = True, True, True
        self.wait(lambda: all(user.is_live for user in users), "everybody logs in")

    def log_out(self, users: list[User]) -> None:
        """Each user closes its connection in order."""
        for user in users:
            user.online = False
        self.wait(lambda: all(user.state == "away" for user in users), "everybody logs out")

    def leftover(self) -> int | None:
        """Return how many messages wait on each core, if that is the same number and nothing is under way between them."""
        assert self.cluster
        counts = {node_waiting(core) for core in self.cluster.cores}
        lag = sum(core.metrics().sum("iris_mirror_lag_records") for core in self.cluster.cores)
        return counts.pop() if len(counts) == 1 and lag == 0 else None

    def waiting(self) -> int:
        """Return how many messages wait in inboxes, over all cores."""
        assert self.cluster
        return sum(node_waiting(core) for core in self.cluster.cores)

    def shut_down(self) -> None:
        """Stop all nodes in order, and look at what they leave."""
        assert self.cluster
        for node in (*self.cluster.edges, *self.cluster.cores):
            if node.runs:
                node.stop()
        for core in self.cluster.cores:
            done = iris("wal", "verify", str(core.data), "--json")
            said = json.loads(done.stdout.splitlines()[-1])["verdict"] if done.stdout else done.stderr
            if said != "sound" and core.number not in self.damaged:
                self.failures.append(f"the log of {core.home.name} is {said}")

    def outcome(self, seconds: float) -> Outcome:
        """Return what the round showed, judged by its scenario."""
        account, scenario = self.account, self.scenario
        verdict = account.check(self.faults)
        failures = [*self.failures, *verdict.examples]
        watched = self.watched or [user.name for user in self.senders]
        gaps = account.gaps(self.faults, watched, self.load_ended) if self.faults else []
        if scenario.ordered and verdict.reordered:
            first = account.out_of_order(self.faults)[0]
            what = f"{first.sender}->{first.to} {first.id.hex()}"
            failures.append(f"{verdict.reordered} messages came after later ones of the same sender, the first {what}")
        surprises = sorted(account.refusals.keys() - scenario.refusals)
        if surprises:
            failures.append("refused: " + ", ".join(f"{account.refusals[name]} {name}" for name in surprises))
        if account.broken and not scenario.drops:
            lost = account.broken[0]
            failures.append(f"{len(account.broken)} connections were lost, the first of {lost.user}: {lost.why}")
        if scenario.gap_ms and gaps and max(gaps) * 1000 > scenario.gap_ms:
            failures.append(f"{max(gaps) * 1000:.0f} ms without an ACCEPTED, {scenario.gap_ms} at most")
        if self.cluster:
            failures += [fault for node in self.cluster.nodes for fault in node.faults()]
        return Outcome(
            verdict, failures, gaps, len(account.broken), dict(account.refusals), dict(account.copies), seconds,
            {**self.notes, "slowest_send_ms": round(account.slowest * 1000)},
        )  # fmt: skip

    def at_end(self, action: Callable[[], object]) -> None:
        """Have this done once the nodes have ended, whatever happens before."""
        self._at_end.append(action)

    def clean_up(self) -> None:
        """Leave nothing behind but files."""
        if self.crowd:
            self.crowd.stop()
        if self.cluster:
            self.cluster.cleanup()
        for action in reversed(self._at_end):
            action()
        self.network.close()


def node_waiting(node: ChaosNode) -> int:
    """Return how many messages wait in a core's inboxes."""
    return int(node.metrics().sum("iris_inbox_messages"))


def wait_accepted(r: Round, sender: User, count: int) -> None:
    """Return as soon as so many SENDs of a user are accepted."""
    answers = r.account.answers[sender.name]
    deadline = time.monotonic() + 60
    while len(answers) < count:
        assert r.crowd
        r.crowd.check()
        assert time.monotonic() < deadline, f"{len(answers)} of {count} were accepted in 60 s"


def run_round(scenario: Scenario, home: Path, network: Network) -> Outcome:
    """Run one round; whatever goes wrong is a failure of it, but for Ctrl-C."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    began = time.monotonic()
    round_ = Round(scenario, home, network)
    try:
        # A round that failed on the way is finished as well: what is lost shows only when all inboxes were read.
        for part in (lambda: scenario.run(round_), round_.finish, round_.shut_down):
            try:
                part()
            except Exception as failure:  # noqa: BLE001 - it is reported
                round_.failures.append(f"{type(failure).__name__}: {failure}")
        round_.load_ended = round_.load_ended or time.monotonic()
        outcome = round_.outcome(time.monotonic() - began)
        if outcome.failures:
            round_.account.write(home / "account.jsonl")
        return outcome
    finally:
        round_.clean_up()
