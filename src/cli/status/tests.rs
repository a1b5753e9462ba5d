use super::*;

/// What a core of a pair says in `/status`, as far as it is looked at.
fn core(id: u64, mirror: u64, state: &str) -> Value {
    let linked = state == "normal" || state == "healing";
    let problems = match state {
        "normal" => json!([]),
        _ => json!([{ "name": state, "text": "it serves without the other" }]),
    };
    json!({
        "node": { "id": id, "name": format!("core-{id}"), "region": "here" },
        "roles": ["core"], "version": "1.2.3", "revision": "abc",
        "time_unix_ms": 1_700_000_100_000_u64, "uptime_seconds": 75,
        "phase": "ready", "ready": true,
        "healthy": state == "normal", "problems": problems,
        "clients": null,
        "inboxes": { "messages": 17 },
        "mirror": {
            "node": mirror, "state": state, "mode": if linked { "normal" } else { "solo" },
            "linked": linked, "retired": false,
            "lag": { "records": 3, "bytes": 2048, "ms": 4 },
            "one_copy_messages": 5,
            "failovers": 2, "last_failover": { "unix_ms": 1_700_000_010_000_u64, "took_ms": 31 },
            "splits": 1, "last_split": { "mine": 7, "theirs": 8, "collapsed": 2, "conflicts": 1 },
        },
        "links": { "up": 1, "cores": [] },
    })
}

fn edge(up: bool) -> Value {
    json!({
        "node": { "id": 101, "name": "edge", "region": "here" },
        "roles": ["edge"], "version": "1.2.3", "revision": "abc",
        "time_unix_ms": 1, "uptime_seconds": 1, "phase": "ready", "ready": true,
        "healthy": true, "problems": [],
        "clients": { "connections": 12, "logged_in": 11 },
        "inboxes": null, "mirror": null,
        "links": { "up": 1, "cores": [{
            "node": 2, "serving_partitions": 4, "mirror": null,
            "clients": { "up": up, "last_end": if up { Value::Null } else { json!("silent") } },
        }] },
    })
}

fn node(admin: &str, status: Value) -> Node {
    Node { admin: admin.to_owned(), status: Ok(status) }
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.problems.iter().map(|problem| problem.name.as_str()).collect()
}

/// The row of that name, split at two or more spaces.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no row {name} in\n{table}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).skip(1).collect()
}

#[test]
fn a_pair_with_two_copies_is_healthy_and_stands_side_by_side() {
    let seen = Seen::of(vec![
        node("127.0.0.1:1", core(1, 2, "normal")),
        node("127.0.0.1:2", core(2, 1, "normal")),
    ]);
    assert!(seen.is_healthy());
    let table = table::render(&seen);
    for (name, cells) in [
        ("admin", ["127.0.0.1:1", "127.0.0.1:2"]),
        ("name", ["core-1, here", "core-2, here"]),
        ("version", ["1.2.3 (abc)", "1.2.3 (abc)"]),
        ("phase", ["ready, up 1 min 15 s", "ready, up 1 min 15 s"]),
        ("mirror", ["node 2, linked", "node 1, linked"]),
        ("state", ["normal, mode normal", "normal, mode normal"]),
        ("lag", ["3 records, 2.0 KiB, 4 ms", "3 records, 2.0 KiB, 4 ms"]),
        ("copies=1", ["5 messages", "5 messages"]),
        ("last failover", ["1 min 30 s ago, took 31 ms (2 in all)"; 2]),
        ("splits", ["1", "1"]),
        ("last split", ["mine 7, theirs 8, both 2, conflicts 1"; 2]),
    ] {
        assert_eq!(row(&table, name), cells, "{table}");
    }
    assert!(!table.contains("clients"), "a row that applies to no node is left out: {table}");
    assert!(table.ends_with("\nhealthy\n"), "{table}");
}

#[test]
fn a_core_alone_and_one_that_is_gone_are_named_with_what_to_do() {
    let gone =
        Node { admin: "127.0.0.1:2".to_owned(), status: Err("connection refused".to_owned()) };
    let seen = Seen::of(vec![node("127.0.0.1:1", core(1, 2, "solo")), gone]);
    assert_eq!(names(&seen), ["solo", "unreachable"]);
    let table = table::render(&seen);
    assert_eq!(row(&table, "state"), ["solo, mode solo"]);
    for line in [
        "node 1: solo: it serves without the other; bring the other core back",
        "127.0.0.1:2: unreachable: connection refused; look at the process",
        "not healthy",
    ] {
        assert!(table.lines().any(|shown| shown.starts_with(line)), "{line}\n{table}");
    }
    let json = seen.to_json();
    assert_eq!(json["healthy"], false);
    assert_eq!(json["problems"][0]["node"], 1);
    assert_eq!(json["problems"][1]["node"], Value::Null);
    assert_eq!(json["problems"][1]["admin"], "127.0.0.1:2");
    assert_eq!(json["nodes"][0]["status"]["mirror"]["state"], "solo");
    assert_eq!(json["nodes"][0]["error"], Value::Null);
    assert_eq!(json["nodes"][1]["reachable"], false);
    assert_eq!(json["nodes"][1]["error"], "connection refused");
}

#[test]
fn two_cores_that_both_run_alone_are_a_split_whoever_is_asked_first() {
    let pair = [("a", core(1, 2, "solo")), ("b", core(2, 1, "solo"))];
    for order in [[0, 1], [1, 0]] {
        let asked = order.map(|index| node(pair[index].0, pair[index].1.clone()));
        assert_eq!(names(&Seen::of(asked.into())), ["solo", "solo", "split"]);
    }
    // Not of one pair, or one of them not alone.
    let others = vec![node("a", core(1, 2, "solo")), node("b", core(3, 4, "solo"))];
    assert_eq!(names(&Seen::of(others)), ["solo", "solo"]);
    let one = vec![node("a", core(1, 2, "solo")), node("b", core(2, 1, "healing"))];
    assert_eq!(names(&Seen::of(one)), ["solo", "healing"]);
}

#[test]
fn two_addresses_that_are_one_node_by_its_number_are_found() {
    let seen = Seen::of(vec![
        node("a", core(1, 2, "normal")),
        node("b", core(1, 2, "normal")),
        node("b", core(1, 2, "normal")),
    ]);
    assert_eq!(names(&seen), ["same_node", "same_node"], "one address asked twice is no mistake");
}

#[test]
fn an_edge_shows_which_cores_it_sees() {
    let table = table::render(&Seen::of(vec![node("a", edge(true)), node("b", edge(false))]));
    assert_eq!(row(&table, "clients"), ["12 open, 11 logged in"; 2]);
    assert_eq!(row(&table, "cores"), ["2: 4 partitions serve", "2: not linked, silent"]);
    assert!(!table.contains("copies=1"), "{table}");
}

#[test]
fn what_a_server_says_can_break_neither_the_table_nor_the_verdict() {
    for status in [
        json!({ "node": { "id": 1 } }),
        json!({ "node": { "id": 1 }, "healthy": "yes", "problems": 7, "mirror": [], "links": 1 }),
        json!({ "node": { "id": 1 }, "healthy": true, "problems": [{ "name": "\u{1b}[2J", "text": "\n" }],
                "roles": [1, null], "links": { "cores": [null, {}, { "node": 1, "clients": {} }] },
                "clients": {}, "inboxes": {}, "mirror": { "node": u64::MAX, "last_failover": [] } }),
    ] {
        let seen = Seen::of(vec![node("a", status)]);
        assert!(!seen.is_healthy());
        let table = table::render(&seen);
        assert!(!table.contains('\u{1b}') && table.ends_with("not healthy\n"), "{table}");
    }
}

#[test]
fn who_is_asked_is_named_by_flags_by_a_file_or_by_default() {
    let all = |admins: &[&str], file: Option<&str>| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("iris.toml");
        let file = file.map(|text| std::fs::write(&path, text).map(|()| path.clone()).unwrap());
        addresses(admins.iter().map(|admin| (*admin).to_owned()).collect(), file)
    };
    assert_eq!(all(&[], None).unwrap(), ["127.0.0.1:7480"]);
    assert_eq!(all(&["a:1", "b"], None).unwrap(), ["a:1", "b:7480"]);
    // Keys that cannot be read do not matter here.
    let file = "[auth]\nkeys = [{ file = \"missing\", alg = \"HS256\" }]\n[listen]\nadmin = \"0.0.0.0:99\"\n";
    assert_eq!(all(&["a:1"], Some(file)).unwrap(), ["a:1", "127.0.0.1:99"]);
    for (file, word) in [
        ("[listen]\nadmin = \"127.0.0.1:0\"\n", "--admin"),
        ("[listen]\nadmin = 7\n", "listen.admin"),
        ("[listen]\nadmin = \"x\"\n", "iris.toml:2: listen.admin"),
        ("[listen]\nadmim = \"127.0.0.1:1\"\n", "did you mean admin?"),
    ] {
        let failure = all(&[], Some(file)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains(word), "{failure}");
    }
    let many = vec!["a:1"; NODES_MAX + 1];
    assert_eq!(all(&many, None).unwrap_err().exit, Exit::Usage);
}

#[test]
fn every_problem_that_a_node_names_has_a_next_step() {
    for name in [
        "not_ready",
        "low_disk",
        "damaged",
        "connection_limit",
        "core_not_linked",
        "mirror_not_linked",
        "solo",
        "healing",
        "fenced",
        "recovering",
        "draining",
        "fenced_streams",
        "damaged_log",
        "lost_records",
        "unreachable",
        "split",
        "same_node",
    ] {
        assert_ne!(next_step(name), next_step("something else"), "{name}");
    }
}
