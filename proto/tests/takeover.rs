//! A login takes over from another one of the same user, in every order in which things can arrive.
//!
//! The real machines of a core and of edges, and what is under way between them, are searched depth first: each step that
//! is possible in a state is taken once, and each state is known by what has come to each component. In all of them at
//! most one session counts, and it is the newest; the old one is told, and nothing that it still says counts; no message
//! goes to the wrong session, none is lost, and in the end everything is delivered.

#[path = "takeover/model.rs"]
mod model;
#[path = "takeover/moves.rs"]
mod moves;
#[path = "takeover/world.rs"]
mod world;

use std::collections::{BTreeMap, HashSet};

use world::{Flaw, Scenario, Step, World};

/// States after which a search is given up: what a test takes has a bound.
const STATES_MAX: usize = 60_000;

/// What a search went through.
#[derive(Default, Debug)]
struct Searched {
    states: usize,
    steps: usize,
    ends: usize,
    longest: usize,
    seen: BTreeMap<&'static str, usize>,
}

/// Searches all states, or until something is wrong: then the steps that lead there, and what is wrong.
fn search(scenario: &Scenario, flaw: Flaw) -> Result<Searched, String> {
    let mut known = HashSet::new();
    let mut searched = Searched::default();
    let mut open: Vec<Vec<Step>> = vec![Vec::new()];
    while let Some(mut path) = open.pop() {
        let mut world = World::new(scenario, flaw);
        let wrong =
            |path: &[Step], what: String| Err(format!("{}: {path:?}: {what}", scenario.name));
        for (index, step) in path.iter().enumerate() {
            if let Err(what) = world.take(*step) {
                return wrong(&path[..=index], what);
            }
        }
        world.seen.clear();
        // Further down from here without starting again, as long as there is something new.
        loop {
            let steps = world.steps();
            let is_end = steps.iter().all(|step| step.is_voluntary());
            searched.steps += steps.len();
            searched.longest = searched.longest.max(path.len());
            let mut fresh = steps.into_iter().filter(|step| known.insert(world.key_after(*step)));
            let next = if is_end { None } else { fresh.next() };
            for step in fresh {
                open.push([&path[..], &[step]].concat());
            }
            if is_end {
                searched.ends += 1;
                if let Err(what) = world.check_end() {
                    return wrong(&path, what);
                }
            }
            for seen in world.seen.drain(..) {
                *searched.seen.entry(seen).or_default() += 1;
            }
            let Some(step) = next else { break };
            path.push(step);
            if let Err(what) = world.take(step) {
                return wrong(&path, what);
            }
        }
        searched.states = known.len() + 1;
        assert!(searched.states <= STATES_MAX, "{}: {searched:?}", scenario.name);
    }
    Ok(searched)
}

/// Searches, and checks that there was something to find.
fn explore(scenario: &Scenario, states_min: usize, seen: &[&str]) {
    let searched = search(scenario, Flaw::Nothing).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{}: {searched:?}", scenario.name);
    assert!(searched.states >= states_min, "{} states are too few: {searched:?}", searched.states);
    assert!(searched.ends > 0);
    for what in seen {
        assert!(searched.seen.contains_key(what), "{what:?} never happened: {searched:?}");
    }
}

const ONE_EDGE: Scenario = Scenario {
    name: "two sessions at one edge",
    sessions: &[0, 0],
    waiting: 1,
    coming: 1,
    window: 2,
    leave: &[0],
    losses: 0,
    ejects: false,
};
const TWO_EDGES: Scenario =
    Scenario { name: "two sessions at two edges", sessions: &[0, 1], coming: 0, ..ONE_EDGE };
const BUSY: Scenario =
    Scenario { name: "the same, with a message that comes", coming: 1, leave: &[], ..TWO_EDGES };
const ALL_MAY_LEAVE: Scenario =
    Scenario { name: "two sessions that may both leave", leave: &[0, 1], ..TWO_EDGES };
const THREE: Scenario = Scenario {
    name: "three sessions at two edges",
    sessions: &[0, 1, 0],
    waiting: 1,
    coming: 0,
    window: 1,
    leave: &[0],
    ..ONE_EDGE
};
const LINK_LOST: Scenario = Scenario {
    name: "two sessions, and a link that breaks",
    waiting: 1,
    coming: 0,
    leave: &[],
    losses: 1,
    ..TWO_EDGES
};
const EJECTED: Scenario = Scenario {
    name: "two sessions, and an operator who ends them",
    waiting: 1,
    coming: 0,
    leave: &[],
    ejects: true,
    ..TWO_EDGES
};

/// What happens in any takeover of a session that has deliveries.
const LATE: &[&str] = &[
    "a login took over",
    "an old session's ACK came late",
    "an old session's end came late",
    "one is left",
];

#[test]
fn a_takeover_at_one_edge_holds_in_every_order() {
    explore(&ONE_EDGE, 12_000, LATE);
}

#[test]
fn a_takeover_at_another_edge_holds_in_every_order() {
    explore(&TWO_EDGES, 600, LATE);
}

#[test]
fn a_takeover_holds_while_a_message_comes() {
    explore(&BUSY, 8_000, &LATE[..2]);
}

#[test]
fn a_takeover_holds_when_any_session_may_leave_meanwhile() {
    explore(&ALL_MAY_LEAVE, 2_800, LATE);
}

#[test]
fn three_sessions_that_take_over_from_each_other_hold_in_every_order() {
    explore(&THREE, 13_000, LATE);
}

#[test]
fn a_takeover_holds_while_a_link_breaks_and_comes_back() {
    explore(&LINK_LOST, 3_600, &["an older login came back and was refused"]);
}

#[test]
fn sessions_that_an_operator_ends_lose_nothing_in_any_order() {
    explore(&EJECTED, 3_000, &["a login took over"]);
}

#[test]
fn each_way_to_be_wrong_is_noticed() {
    for (flaw, wanted) in [
        (Flaw::KickLost, ["live at once", "differ"]),
        (Flaw::AckUnfenced, ["messages wait", "BadAck"]),
        (Flaw::LogoutUnfenced, ["counts, and", "does not count"]),
        (Flaw::DeliveryLost, ["instead of", "never reach"]),
    ] {
        let wrong = search(&ONE_EDGE, flaw).expect_err("it must be noticed");
        assert!(wanted.iter().any(|wanted| wrong.contains(wanted)), "{flaw:?}: {wrong}");
    }
}

#[cfg(feature = "sabotage")]
#[test]
fn machines_that_are_wrong_on_purpose_are_noticed() {
    use iris_proto::sabotage::{Sabotage, set};
    for (sabotage, name) in Sabotage::TAKEOVER {
        set(Some(sabotage));
        let found = [ONE_EDGE, TWO_EDGES, LINK_LOST]
            .iter()
            .find_map(|scenario| search(scenario, Flaw::Nothing).err());
        set(None);
        println!("{name}: {}", found.expect("nothing is wrong with any order"));
    }
}
