//! The text of a configuration file, parsed and checked as `iris check` and `iris serve` do.

use iris::config::{Host, parse, schema};

/// A file of this text, checked as for `--dev`, so that a file without keys can be sound.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let host = Host { cpus: 4, name: "fuzz".to_owned(), nofile_hard: 20_000, ..Host::default() };
    match parse(text, true, &host) {
        Err(problems) => {
            assert!(!problems.list.is_empty());
            for problem in &problems.list {
                assert!(!problem.cause.is_empty() && !problem.fix.is_empty(), "{problem:?}");
            }
            assert!(problems.to_string().lines().count() >= problems.list.len());
            assert!(problems.to_json().is_array());
        }
        Ok((config, layers)) => {
            assert_eq!(layers.iter().count(), schema::KEYS.len(), "every key has a value");
            let (reactor, core, wal) = (&config.reactor, &config.core, &config.wal);
            assert!((1..=4096).contains(&reactor.count) && reactor.connections_max > 0);
            assert!((1..=1 << 20).contains(&reactor.ring_slots));
            assert!(!reactor.login_timeout.is_zero() && !reactor.idle_timeout.is_zero());
            assert!((1..=4096).contains(&core.num_shards) && core.inbox_messages_max > 0);
            assert!((1..=usize::from(core.num_shards)).contains(&core.partitions));
            assert!(wal.segment_size.is_multiple_of(4096) && wal.batch_max.is_multiple_of(4096));
            assert!(wal.batch_max as u64 <= wal.segment_size / 4);
            assert!(config.listen.admin.ip().is_loopback() || config.listen.admin_allow_remote);
            assert!(config.roles.edge || config.roles.core);
            assert!(config.roles.edge && config.roles.core || config.cluster.is_some());
            assert!(config.node.node_id > 0 && config.node.name.len() <= 64);
            assert!(reactor.rings_per_reactor() >= 1 && reactor.connections_per_reactor() >= 1);
            assert!(!format!("{config:?}").is_empty());
        }
    }
}
