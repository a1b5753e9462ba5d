//! Kernel settings: what N connections require of each, and how two values are joined without lowering either.

use serde::Serialize;

use crate::facts::Facts;
use crate::sizing::{Profile, Request, SLOTS_MAX, Sizing};

/// What makes one value of a setting more than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Numbers, each on its own: the higher one is more.
    Higher,
    /// Two numbers, a range: the wider one is more.
    Wider,
    /// Words, here from least to most.
    Ranked(&'static [&'static str]),
}

/// A kernel setting.
#[derive(Debug)]
pub struct Knob {
    /// The condition that it is, in the catalogue.
    pub id: &'static str,
    /// Its name, with dots.
    pub name: &'static str,
    /// How values compare.
    pub order: Order,
    /// What is required; `None`: nothing.
    pub required: fn(&Facts, &Request, &Sizing) -> Option<String>,
}

/// Bytes of a page.
const PAGE: u64 = 4096;

/// All of them.
pub const KNOBS: &[Knob] = &[
    Knob {
        id: "net.somaxconn",
        name: "net.core.somaxconn",
        order: Order::Higher,
        required: |_, _, sizing| Some(sizing.backlog.to_string()),
    },
    Knob {
        id: "net.syn_backlog",
        name: "net.ipv4.tcp_max_syn_backlog",
        order: Order::Higher,
        required: |_, _, sizing| {
            // The kernel's own follows the memory; below a storm it is enough.
            Some(if sizing.backlog > 4096 { sizing.backlog } else { 512 }.to_string())
        },
    },
    Knob {
        id: "net.syncookies",
        name: "net.ipv4.tcp_syncookies",
        order: Order::Higher,
        required: |_, _, _| Some("1".to_owned()),
    },
    Knob {
        id: "net.netdev_backlog",
        name: "net.core.netdev_max_backlog",
        order: Order::Higher,
        required: |_, _, sizing| Some(if sizing.backlog > 4096 { "16384" } else { "1000" }.into()),
    },
    Knob {
        id: "net.tcp_mem",
        name: "net.ipv4.tcp_mem",
        order: Order::Higher,
        required: |facts, request, _| Some(tcp_mem(facts.memory, request.connections)),
    },
    Knob {
        id: "net.tcp_rmem",
        name: "net.ipv4.tcp_rmem",
        order: Order::Higher,
        required: |_, request, _| Some(format!("4096 16384 {}", socket_buffer(request.profile))),
    },
    Knob {
        id: "net.tcp_wmem",
        name: "net.ipv4.tcp_wmem",
        order: Order::Higher,
        required: |_, request, _| Some(format!("4096 16384 {}", socket_buffer(request.profile))),
    },
    Knob {
        id: "net.wmem_max",
        name: "net.core.wmem_max",
        order: Order::Higher,
        required: |_, _, _| Some((256 << 10).to_string()),
    },
    Knob {
        id: "net.orphans",
        name: "net.ipv4.tcp_max_orphans",
        order: Order::Higher,
        required: |_, request, _| Some((request.connections / 4).max(16_384).to_string()),
    },
    Knob {
        id: "net.time_wait",
        name: "net.ipv4.tcp_max_tw_buckets",
        order: Order::Higher,
        required: |_, request, _| Some((request.connections / 4).max(16_384).to_string()),
    },
    Knob {
        id: "net.conntrack",
        name: "net.netfilter.nf_conntrack_max",
        order: Order::Higher,
        // A setting that is not there belongs to a module that is not loaded, and tracks nothing.
        required: |facts, request, _| {
            facts.sysctls.get("net.netfilter.nf_conntrack_max")?;
            Some((2 * request.connections + 65_536).to_string())
        },
    },
    Knob {
        id: "net.ports",
        name: "net.ipv4.ip_local_port_range",
        order: Order::Wider,
        required: |_, _, _| Some("1024 65535".to_owned()),
    },
    Knob {
        id: "net.tw_reuse",
        name: "net.ipv4.tcp_tw_reuse",
        order: Order::Ranked(&["0", "2", "1"]),
        required: |_, _, _| Some("1".to_owned()),
    },
    Knob {
        id: "fs.nr_open",
        name: "fs.nr_open",
        order: Order::Higher,
        required: |_, _, sizing| Some(sizing.nofile.min(SLOTS_MAX).to_string()),
    },
];

/// Settings that are only looked at.
pub const WATCHED: [&str; 3] =
    ["kernel.io_uring_disabled", "kernel.io_uring_group", "net.ipv4.tcp_ehash_entries"];

/// The knob of that condition.
pub fn knob_of(id: &str) -> Option<&'static Knob> {
    KNOBS.iter().find(|knob| knob.id == id)
}

/// Pages: the kernel's own 9 % and one a connection, a quarter of the memory at most; in the kernel's ratio.
fn tcp_mem(memory: u64, connections: u64) -> String {
    let pages = memory / PAGE;
    let high = (pages / 100 * 9).saturating_add(connections).min(pages / 4);
    format!("{} {} {high}", high / 2, high / 3 * 2)
}

/// The most that one socket buffers: links between nodes carry more than clients.
fn socket_buffer(profile: Profile) -> u64 {
    match profile {
        Profile::Edge | Profile::Core => 4 << 20,
        Profile::Node | Profile::Latency | Profile::Loadgen => 256 << 10,
    }
}

/// Buckets of the kernel's table of sockets that so many connections need.
pub fn ehash_required(connections: u64) -> u64 {
    let per_bucket = if connections > 5_000_000 { 2 } else { 16 };
    (connections / per_bucket).max(1).next_power_of_two()
}

/// The least value that is no less than either. Words that are no numbers count as nothing.
pub fn join(order: Order, left: &str, right: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) =
        (left.split_whitespace().collect(), right.split_whitespace().collect());
    let count = left.len().max(right.len());
    let words = (0..count).map(|index| {
        let pair = (left.get(index).copied(), right.get(index).copied());
        match order {
            Order::Higher => best(pair, |word| word.parse::<i128>().ok()),
            // The first number of a range is more when it is lower.
            Order::Wider if index == 0 => best(pair, |word| Some(-word.parse::<i128>().ok()?)),
            Order::Wider => best(pair, |word| word.parse::<i128>().ok()),
            Order::Ranked(words) => {
                best(pair, |word| words.iter().position(|known| *known == word))
            }
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The word of higher rank; one without a rank is none.
fn best<'a, R: Ord>(
    (left, right): (Option<&'a str>, Option<&'a str>),
    rank: impl Fn(&str) -> Option<R>,
) -> &'a str {
    let ranked = |word: Option<&'a str>| word.and_then(|word| Some((rank(word)?, word)));
    match (ranked(left), ranked(right)) {
        (Some(left), Some(right)) if right.0 > left.0 => right.1,
        (Some((_, word)), _) | (None, Some((_, word))) => word,
        (None, None) => left.or(right).unwrap_or_default(),
    }
}

/// Whether `current` is no less than `required`.
pub fn holds(order: Order, current: &str, required: &str) -> bool {
    !current.is_empty() && join(order, current, required) == spaced(current)
}

/// The words of a value with single spaces: the kernel writes tabs.
pub fn spaced(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::entry_of;
    use proptest::prelude::*;

    #[test]
    fn every_knob_is_in_the_catalogue() {
        for knob in KNOBS {
            assert!(entry_of(knob.id).is_some(), "{}", knob.id);
        }
    }

    #[test]
    fn values_are_joined_number_by_number() {
        for (order, left, right, joined) in [
            (Order::Higher, "4096", "65535", "65535"),
            (Order::Higher, "70000", "65535", "70000"),
            (Order::Higher, "1\t20\t3", "10 2 30", "10 20 30"),
            (Order::Higher, "", "5", "5"),
            (Order::Higher, "junk", "5", "5"),
            (Order::Wider, "32768\t60999", "1024 65535", "1024 65535"),
            (Order::Wider, "900 50000", "1024 65535", "900 65535"),
            (Order::Ranked(&["0", "2", "1"]), "2", "1", "1"),
            (Order::Ranked(&["0", "2", "1"]), "1", "2", "1"),
            (Order::Ranked(&["0", "2", "1"]), "7", "0", "0"),
        ] {
            assert_eq!(join(order, left, right), joined, "{left:?} and {right:?}");
        }
    }

    #[test]
    fn tcp_mem_follows_the_memory() {
        assert_eq!(tcp_mem(1 << 30, 50_000), "32768 43690 65536", "a quarter at most");
        let high: u64 = tcp_mem(24 << 30, 1_000_000).rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(high, (24 << 30) / 4096 / 100 * 9 + 1_000_000);
    }

    #[test]
    fn the_table_of_sockets_grows_with_them() {
        assert_eq!(ehash_required(100_000), 8192);
        assert_eq!(ehash_required(1_000_000), 65_536);
        assert_eq!(ehash_required(10_000_000), 8_388_608);
    }

    fn orders() -> impl Strategy<Value = Order> {
        prop_oneof![Just(Order::Higher), Just(Order::Wider), Just(Order::Ranked(&["0", "2", "1"])),]
    }

    fn values() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-2]",
            "[0-9]{1,19}",
            "[0-9]{1,5}[ \t][0-9]{1,6}",
            "[0-9]{1,7} [0-9]{1,7} [0-9]{1,7}"
        ]
    }

    proptest! {
        #[test]
        fn a_join_is_no_less_than_either_part(order in orders(), a in values(), b in values()) {
            let joined = join(order, &a, &b);
            let known = |value: &str| match order {
                Order::Ranked(words) => words.contains(&value),
                _ => true,
            };
            if known(&a) {
                prop_assert!(holds(order, &joined, &a), "{joined} holds {a}");
            }
            if known(&b) {
                prop_assert!(holds(order, &joined, &b), "{joined} holds {b}");
            }
            prop_assert_eq!(join(order, &joined, &b), joined.clone(), "a second time changes nothing");
        }
    }
}
