"""Networks that break: between the cores, one way, between an edge and a core, around a region."""

from __future__ import annotations

from collections.abc import Callable

from harness.cluster import ChaosNode
from harness.crowd import User
from harness.net import Namespaces
from harness.round import Round, Scenario, names


def net(r: Round) -> Namespaces:
    """Return the network, which can be cut."""
    assert isinstance(r.network, Namespaces)
    return r.network


def addresses(*nodes: ChaosNode) -> list[str]:
    """Return the addresses of nodes."""
    return [node.link_address for node in nodes]


def split(r: Round) -> None:
    """Core 1 and edge 1 on one side, core 2 and edge 2 on the other."""
    left, right = addresses(r.core(1), r.edge(1)), addresses(r.core(2), r.edge(2))
    net(r).cut(left, right)


def say_again_elsewhere(r: Round, user: User, edge: int) -> None:
    """The user comes back at another edge and sends all it ever sent once more, with the same ids."""
    r.log_out([user])
    user.edges = r.door(edge)
    user.again = list(user.begun)
    user.online = True
    r.wait(lambda: user.is_idle, f"{user.name} is answered again at edge {edge}")


def two_sides(r: Round) -> tuple[list[User], list[User]]:
    """Senders at both edges, to the same users who are away and to readers who are there."""
    shared = names("both-off", 4)
    assert r.crowd
    for name in shared:
        r.crowd.add(name, r.door(1, 2))
    left = r.load(edges=(1,), stem="left", senders=3, online=1, offline=0)
    right = r.load(edges=(2,), stem="right", senders=3, online=1, offline=0)
    for number, user in enumerate((*left, *right)):
        user.interval = 0.025
        user.recipients = [*shared[number % 4 :], *shared[: number % 4], *user.recipients]
    return left, right


def partition_pair(r: Round) -> None:
    """Both sides take messages for the same users, and some messages under the same id; then it heals."""
    r.start(edges=2)
    left, right = two_sides(r)
    assert r.crowd
    roamer = r.crowd.add("roamer", r.door(1))
    roamer.recipients, roamer.window = names("both-off", 4), 8
    roamer.online = True
    r.wait_flow()
    r.fault()
    split(r)
    r.wait_flow(30)
    roamer.budget = 60
    r.wait(lambda: roamer.is_idle, "the roamer's messages are accepted on one side")
    say_again_elsewhere(r, roamer, 2)
    taken_twice = r.account.copies[1]
    r.wait_flow(30)
    r.notes["accepted_alone"] = taken_twice
    r.fault()
    net(r).heal()
    r.wait_healthy()
    r.wait_flow(20)
    r.end_load()
    look_twice(r, names("both-off", 4))


def look_twice(r: Round, readers: list[str]) -> None:
    """After healing, each core alone has all messages of users who were away, and each once."""
    for lone in (1, 2):
        r.look_alone(lone, readers)


def one_way(r: Round) -> None:
    """Packets of core 1 do not reach core 2, then the other way round; the other direction works."""
    r.start()
    r.load()
    r.wait_flow()
    for source, target in ((1, 2), (2, 1)):
        r.fault()
        net(r).cut(addresses(r.core(source)), addresses(r.core(target)), one_way=True)
        r.alone()
        r.wait_flow(40)
        r.fault()
        net(r).heal()
        r.wait_healthy()
        r.wait_flow(20)
    r.end_load()


def edge_cut(r: Round) -> None:
    """One edge does not reach one core; the other edge does, and the cores see each other."""
    r.start(edges=2)
    r.load(edges=(1,), stem="cut", core=1)
    others = r.load(edges=(2,), stem="whole", core=1)
    r.wait_flow()
    r.fault()
    net(r).cut(addresses(r.edge(1)), addresses(r.core(1)))
    r.wait_flow(80)
    r.fault()
    net(r).heal()
    r.wait_flow(60)
    r.end_load()
    gaps = r.account.gaps(r.faults, [user.name for user in others], r.load_ended)
    r.notes["gap_ms_of_the_other_edge"] = round(max(gaps) * 1000)


def region_cut(r: Round) -> None:
    """A region, edge and core, is cut off from the rest, goes on by itself, and comes back."""
    r.start(edges=2)
    two_sides(r)
    r.wait_flow()
    for _ in range(2):
        r.fault()
        split(r)
        r.alone()
        r.wait_flow(50)
        r.fault()
        net(r).heal()
        r.wait_healthy()
        r.wait_flow(20)
    r.end_load()
    look_twice(r, names("both-off", 4))


def scenario(name: str, about: str, run: Callable[[Round], None], **more: object) -> Scenario:
    """Return a scenario that needs a network that can be cut."""
    return Scenario(name, about, run, needs_root=True, ordered=False, **more)  # type: ignore[arg-type]


SCENARIOS = [
    scenario(
        "partition-pair", "the cores and their edges are parted, both take messages for the same users", partition_pair,
        gap_ms=2000,
    ),
    scenario("one-way", "packets between the cores are lost in one direction, then in the other", one_way, gap_ms=2000),
    scenario("edge-cut", "an edge does not reach one core", edge_cut, gap_ms=2000),
    scenario("region-cut", "an edge and a core are cut off from the rest, and come back", region_cut, gap_ms=2000),
]  # fmt: skip
