use std::path::Path;

use super::*;

const HOST: Host = Host { cpus: 8, name: String::new(), nofile_hard: 20_000, credentials: None };

fn host() -> Host {
    Host { name: "host".to_owned(), ..HOST }
}

/// Loads a file of that text under `--dev` (which needs no key) with those variables.
fn load_dev(text: &str, env: &[(&str, &str)]) -> Result<Config, Problems> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(&file, text).unwrap();
    load_file(&file, true, env)
}

fn load_file(file: &Path, dev: bool, env: &[(&str, &str)]) -> Result<Config, Problems> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let file = Some(file.to_owned());
    let sources = Sources { file, dev, env: env.collect(), flags: Vec::new() };
    load(&sources, &host()).map(|(config, _)| config)
}

/// Place, key and cause of every problem, one per line.
fn problems(text: &str, env: &[(&str, &str)]) -> Vec<(Origin, String)> {
    let list = load_dev(text, env).unwrap_err().list;
    assert!(list.iter().all(|p| !p.cause.is_empty() && !p.fix.is_empty()), "{list:?}");
    list.into_iter().map(|p| (p.origin, format!("{}: {}", p.key, p.cause))).collect()
}

fn line(line: usize) -> Origin {
    Origin::File { line }
}

#[test]
fn the_defaults_are_sound_and_follow_the_machine() {
    let config = load_dev("", &[]).unwrap();
    assert_eq!(config.reactor.count, 8);
    assert_eq!(config.core.partitions, 2);
    assert_eq!(config.reactor.ring_slots, 20_000);
    assert_eq!(config.reactor.connections_per_reactor(), 156_250);
    assert_eq!(config.reactor.rings_per_reactor(), 8);
    assert_eq!(config.node.name, "host");
    assert_eq!(config.node.data_dir, Path::new("./iris-data"));
    assert_eq!(config.listen.tcp, Some("127.0.0.1:7400".parse().unwrap()));
    assert_eq!(config.wal.segment_size, 64 << 20);
    assert_eq!(config.reactor.idle_timeout, Duration::from_secs(300));
    assert!(config.auth.keys.is_empty());
}

#[test]
fn a_price_is_money_or_nothing() {
    let price = |text: &str| load_dev(&format!("node.price_per_hour = {text:?}"), &[]);
    assert_eq!(price("").unwrap().node.price_per_hour, None);
    assert_eq!(price("0.192").unwrap().node.price_per_hour, Some(0.192));
    for wrong in ["0", "-1", "$1", "inf", "NaN", "1e9", "free"] {
        let problems = price(wrong).unwrap_err().list;
        assert_eq!(problems[0].key, "node.price_per_hour", "{wrong}");
    }
    assert!(load_dev("node.price_per_hour = 0.5", &[]).is_err(), "it is written as a string");
}

#[test]
fn one_reactor_gets_exactly_the_connections_of_the_node() {
    let config = load_dev("reactor = { count = 1, connections_max = 100000 }", &[]).unwrap();
    assert_eq!(config.reactor.connections_per_reactor(), 100_000);
    assert_eq!(config.reactor.rings_per_reactor(), 5);
}

#[test]
fn the_file_overrides_defaults_the_environment_the_file_and_flags_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(
        &file,
        "[listen]\ntcp = \"127.0.0.2:1\"\nadmin = \"127.0.0.2:2\"\nbacklog = 7\n",
    )
    .unwrap();
    let env = vec![
        ("IRIS_LISTEN__TCP".to_owned(), "127.0.0.3:1".to_owned()),
        ("IRIS_LISTEN__ADMIN".to_owned(), "127.0.0.3:2".to_owned()),
        ("IRIS_REACTOR__COUNT".to_owned(), "3".to_owned()),
        ("IRIS_NODE__ROLES".to_owned(), "[\"core\", \"edge\"]".to_owned()),
    ];
    let flags = vec![("listen", "tcp", "--tcp", "127.0.0.4:1".to_owned())];
    let sources = Sources { file: Some(file), dev: true, env, flags };
    let (config, layers) = load(&sources, &host()).unwrap();
    assert_eq!(config.listen.tcp, Some("127.0.0.4:1".parse().unwrap()));
    assert_eq!(config.listen.admin, "127.0.0.3:2".parse().unwrap());
    assert_eq!((config.listen.backlog, config.reactor.count), (7, 3));
    assert_eq!(layers.value("listen", "tcp").origin, Origin::Flag("--tcp".to_owned()));
    assert_eq!(layers.value("listen", "backlog").origin, line(4));
}

#[test]
fn all_problems_come_at_once_each_with_its_line() {
    let text = "\
[node]
node_id = 0
nam = \"x\"

[listen]
tcp = \"localhost\"
admin = \"0.0.0.0:7480\"

[reactor]
count = \"4\"
login_timeout = \"10\"
out_bytes_max = \"1KiB\"

[reaktor]
count = 1

[wal]
sync = \"fsync\"
segment_size = \"1025KiB\"
batch_max = \"1MiB\"
";
    let found = problems(text, &[("IRIS_LOG__LEVEL", "loud="), ("IRIS_CORE__SHARDS", "1")]);
    let expected = [
        (line(2), "node.node_id: 0 is out of range"),
        (line(3), "node.nam: there is no such key"),
        (line(6), "listen.tcp: \"localhost\" is not an IP address and port"),
        (line(7), "listen.admin: 0.0.0.0 is not loopback"),
        (line(10), "reactor.count: this must be an integer, not a string"),
        (
            line(11),
            "reactor.login_timeout: \"10\" is not a duration such as \"30s\", \"250ms\" or \"1h\"",
        ),
        (line(12), "reactor.out_bytes_max: 1KiB is out of range"),
        (line(14), "reaktor: there is no such section"),
        (line(18), "wal.sync: \"fsync\" is none of the choices"),
        (line(19), "wal.segment_size: 1025KiB is no multiple of 4KiB"),
        (line(20), "wal.batch_max: 1MiB is more than a quarter of a segment"),
        (Origin::Env("IRIS_CORE__SHARDS".to_owned()), "core.shards: there is no such key"),
    ];
    for (i, (origin, cause)) in expected.iter().enumerate() {
        assert_eq!((&found[i].0, found[i].1.as_str()), (origin, *cause));
    }
    assert_eq!(found[12].0, Origin::Env("IRIS_LOG__LEVEL".to_owned()));
    assert_eq!(found.len(), 13);
}

#[test]
fn a_fix_names_the_nearest_key_or_the_right_section() {
    let fix = |text: &str| load_dev(text, &[]).unwrap_err().list[0].fix.clone();
    assert_eq!(fix("[reactor]\nconections_max = 1"), "did you mean connections_max?");
    assert_eq!(fix("[listne]\ntcp = 1"), "did you mean listen?");
    assert_eq!(fix("[wal]\ndata_dir = \"x\""), "it belongs below [node]");
    assert_eq!(fix("data_dir = \"x\""), "put it below [node]");
}

#[test]
fn broken_syntax_is_reported_by_line_beside_other_problems() {
    let found = problems("[node\nname = \"x\"\n\n[reactor]\ncount = -1\nring_slots = = 3\n", &[]);
    let lines: Vec<&Origin> = found.iter().map(|(origin, _)| origin).collect();
    assert!(found[0].1.contains("this is not TOML"), "{found:?}");
    assert!(lines.contains(&&line(1)) && lines.contains(&&line(5)) && lines.contains(&&line(6)));
    let of_line_6 = found.iter().filter(|(origin, _)| *origin == line(6)).count();
    assert_eq!(of_line_6, 1, "{found:?}");
}

#[test]
fn values_of_every_wrong_type_are_problems_and_never_a_panic() {
    for key in schema::KEYS {
        for value in [
            "1.5",
            "1979-05-27",
            "{ a = 1 }",
            "[[1]]",
            "-1",
            "99999999999999999999",
            "\"\\u0000\"",
            "true",
        ] {
            let text = format!("[{}]\n{} = {value}\n", key.section, key.name);
            if let Err(problems) = load_dev(&text, &[]) {
                assert!(!problems.to_string().is_empty());
            } else {
                // Some of these are fine for some keys, such as true for a boolean.
                assert!(["true", "-1", "\"\\u0000\""].contains(&value), "{text}");
            }
        }
    }
}

#[test]
fn outside_development_a_key_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(&file, "[node]\ndata_dir = \"data\"\n").unwrap();
    let problems = load_file(&file, false, &[]).unwrap_err();
    assert_eq!(problems.list.len(), 1);
    assert_eq!(problems.list[0].key, "auth.keys");
    assert!(problems.list[0].fix.contains("--dev"), "{problems}");
}

#[test]
fn keys_are_read_relative_to_the_file_and_each_bad_one_is_named_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(dir.path().join("secret"), [b'x'; 32]).unwrap();
    std::fs::write(
        &file,
        "[auth]\nkeys = [\n  { file = \"secret\", alg = \"HS256\", kid = \"a\" },\n  { file = \"secret\", alg = \"HS256\" },\n]\n",
    )
    .unwrap();
    let config = load_file(&file, false, &[]).unwrap();
    assert_eq!(config.auth.keys.len(), 2);
    assert_eq!(config.node.data_dir, Path::new("/var/lib/iris"));

    std::fs::write(
        &file,
        "[auth]\nkeys = [\n  { file = \"gone\", alg = \"HS256\" },\n  { file = \"secret\", alg = \"HS512\" },\n  \
         { file = \"secret\" },\n  7,\n  { file = \"secret\", alg = \"ES256\", x = 1 },\n]\njwks_file = \"no.json\"\n",
    )
    .unwrap();
    let list = load_file(&file, false, &[]).unwrap_err().list;
    let lines: Vec<Origin> = list.iter().map(|problem| problem.origin.clone()).collect();
    assert_eq!(lines, [line(3), line(4), line(5), line(6), line(7), line(7), line(9)]);
}

#[test]
fn relative_paths_of_the_file_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(&file, "[node]\ndata_dir = \"data\"\n").unwrap();
    let config = load_file(&file, true, &[]).unwrap();
    assert_eq!(config.node.data_dir, dir.path().join("data"));
    let config = load_file(&file, true, &[("IRIS_NODE__DATA_DIR", "here")]).unwrap();
    assert_eq!(config.node.data_dir, Path::new("here"));
}

#[test]
fn variables_of_others_are_not_looked_at_and_slips_are_caught() {
    let ok = [
        ("IRIS_TOKEN", "x"),
        ("IRIS_CORE_PORT", "tcp://1.2.3.4:5"),
        ("IRISH__X", "1"),
        ("PATH", "/"),
    ];
    assert!(load_dev("", &ok).is_ok());
    let one = problems("", &[("IRIS_LOG_LEVEL", "debug")]);
    assert_eq!(one[0].1, "log.level: one underscore between section and key");
    let unknown = problems("", &[("IRIS_FOO__BAR", "1")]);
    assert_eq!(unknown[0].1, "foo: there is no such section");
    let not_toml = problems("", &[("IRIS_REACTOR__COUNT", "four")]);
    assert_eq!(not_toml[0].0, Origin::Env("IRIS_REACTOR__COUNT".to_owned()));
}

#[test]
fn numbers_that_do_not_go_together_are_found() {
    let cause = |text: &str| problems(text, &[])[0].1.clone();
    assert!(cause("[core]\npartitions = 5\nnum_shards = 4").contains("cannot share"));
    assert!(cause("[listen]\ntcp = \"127.0.0.1:7480\"").contains("port 7480"));
    assert!(cause("[node]\nroles = [\"edge\"]").contains("needs others"));
    assert!(cause("[node]\nroles = []").contains("has a role"));
    assert!(cause("[node]\nroles = [\"edge\", \"cloud\"]").contains("no role"));
    let remote = "[listen]\nadmin_allow_remote = true\nadmin = \"0.0.0.0:1\"";
    assert!(cause(remote).contains("whoever reaches the admin server"));
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let locked = format!("{remote}\nadmin_token = \"{}\"", token.display());
    assert!(load_dev(&locked, &[]).is_ok());
    assert!(load_dev("[listen]\ntcp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"", &[]).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let dir = tempfile::tempdir().unwrap();
    let missing = load_file(&dir.path().join("none"), true, &[]).unwrap_err();
    assert_eq!(missing.list.len(), 1);
    assert!(missing.to_string().contains("failed to read"), "{missing}");
    let latin1 = dir.path().join("latin1.toml");
    std::fs::write(&latin1, [0xff, 0xfe]).unwrap();
    assert!(load_file(&latin1, true, &[]).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn the_generated_key_verifies_only_under_dev() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(dir.path().join("secret"), [b'x'; 32]).unwrap();
    std::fs::write(&file, "[auth]\nkeys = [{ file = \"secret\", alg = \"HS256\" }]\n").unwrap();
    let data_dir = dir.path().join("data");
    let env = [("IRIS_NODE__DATA_DIR", data_dir.to_str().unwrap())];
    let dev = load_file(&file, true, &env).unwrap().verifier().unwrap();
    let secret = load_or_create_dev_key(&data_dir).unwrap();
    let token = crate::auth::sign_hs256(&secret, None, "a", 1, 60);
    assert!(dev.verify(&token, 2).is_ok());
    assert!(dev.verify(&crate::auth::sign_hs256(&[b'x'; 32], None, "a", 1, 60), 2).is_ok());
    let production = load_file(&file, false, &env).unwrap().verifier().unwrap();
    assert!(production.verify(&token, 2).is_err());
    assert_eq!(production.num_keys(), 1);
}

#[test]
fn a_cut_or_garbled_file_never_panics() {
    let text = schema::reference().replace("\n#", "\n");
    let prose_cut: String = text
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| format!("{line}\n"))
        .collect();
    load_dev(&prose_cut.replace("/var/lib", "/tmp"), &[]).unwrap();
    for at in (0..prose_cut.len()).step_by(11) {
        for garble in ["", "\"", "[", "=", "{", "\n", "\u{0}"] {
            // Ends are valid or not; what matters is that each run gives one of the two answers.
            let _ = load_dev(&format!("{}{garble}", &prose_cut[..at]), &[]);
            let _ = load_dev(&format!("{}{garble}{}", &prose_cut[..at], &prose_cut[at..]), &[]);
        }
    }
}

/// A directory with certificates of nodes 1 and 2, and the text of a sound [cluster] for node 1.
fn cluster() -> (tempfile::TempDir, String) {
    use crate::cluster::pki;
    let dir = tempfile::tempdir().unwrap();
    let now = std::time::UNIX_EPOCH + Duration::from_millis(crate::clock::unix_ms());
    pki::init(dir.path(), "prod", now).unwrap();
    (1..3).for_each(|node| drop(pki::issue(dir.path(), node, 90, now).unwrap()));
    let text = "[cluster]\nid = \"prod\"\nca = \"ca.pem\"\ncert = \"node-1.pem\"\n\
                key = \"node-1-key.pem\"\n\
                cores = [{ node = 1, addr = \"10.0.0.1:7410\" }, { node = 2, addr = \"10.0.0.2:7410\" }]\n";
    (dir, text.to_owned())
}

#[test]
fn a_node_of_a_cluster_has_one_role_or_both() {
    let (dir, cluster) = cluster();
    let file = dir.path().join("iris.toml");
    for (roles, node, wanted) in [
        ("\"core\"", 1, Roles { edge: false, core: true }),
        ("\"edge\", \"core\"", 1, Roles { edge: true, core: true }),
    ] {
        let text = format!("[node]\nroles = [{roles}]\nnode_id = {node}\n{cluster}");
        std::fs::write(&file, text).unwrap();
        let config = load_file(&file, true, &[]).unwrap();
        assert_eq!(config.roles, wanted);
        let has = config.cluster.as_ref().unwrap();
        assert_eq!((has.id.as_str(), has.cores.len()), ("prod", 2));
        assert_eq!((config.reactors() > 0, config.partitions() > 0), (wanted.edge, wanted.core));
    }
    let cores_elsewhere = cluster.replace("node = 1", "node = 3");
    let edge = format!("[node]\nroles = [\"edge\"]\n{cores_elsewhere}");
    std::fs::write(&file, edge).unwrap();
    let config = load_file(&file, true, &[]).unwrap();
    assert_eq!((config.reactors(), config.partitions()), (8, 0));
    let without_key = format!("[node]\nroles = [\"core\"]\n{cluster}");
    std::fs::write(&file, without_key).unwrap();
    assert!(load_file(&file, false, &[]).is_ok(), "who holds no connections needs no key");
}

#[test]
fn what_is_wrong_with_a_cluster_is_told_by_name() {
    let (dir, cluster) = cluster();
    let file = dir.path().join("iris.toml");
    let cause = |text: String| {
        std::fs::write(&file, text).unwrap();
        let list = load_file(&file, true, &[]).unwrap_err().list;
        assert!(list.iter().all(|problem| !problem.fix.is_empty()), "{list:?}");
        list.iter().map(|p| format!("{}: {}", p.key, p.cause)).collect::<Vec<_>>().join("\n")
    };
    for (from, to, wanted) in [
        ("id = \"prod\"", "id = \"Prod\"", "cluster.id: \"Prod\" cannot be"),
        ("id = \"prod\"", "", "cluster.id: there are cores but no cluster"),
        ("id = \"prod\"", "id = \"test\"", "not the certificate of node-1.test.iris"),
        ("\"ca.pem\"", "\"none.pem\"", "cluster.ca: "),
        ("\"node-1.pem\"", "\"node-2.pem\"", "not the certificate of node-1.prod.iris"),
        ("\"node-1-key.pem\"", "\"node-2-key.pem\"", "cluster.key: "),
        ("\"node-1.pem\"", "\"\"", "cluster.cert: nodes show each other"),
        ("node = 2", "node = 1", "node 1 stands twice"),
        ("10.0.0.2:7410", "10.0.0.1:7410", "10.0.0.1:7410 stands twice"),
        ("node = 1", "node = 3", "node 1 has the role core and is not listed"),
        ("node = 1", "node = 0", "0 is no number"),
        ("10.0.0.1:7410", "core-one", "\"core-one\" is not an IP address"),
        ("addr = \"10.0.0.1:7410\"", "port = 1", "a core has no field \"port\""),
        ("id = \"prod\"", "id = \"prod\"\nheartbeat = \"1ms\"", "cluster.heartbeat: 1ms"),
        ("id = \"prod\"", "id = \"prod\"\nlisten = \"here\"", "cluster.listen: \"here\""),
    ] {
        let said = cause(cluster.replacen(from, to, 1));
        assert!(said.contains(wanted), "{wanted:?}: {said}");
    }
    let edge = format!("[node]\nroles = [\"edge\"]\n{cluster}");
    assert!(cause(edge).contains("is listed and has not the role core"));
    let three = cluster.replace("cores = [", "cores = [{ node = 3, addr = \"10.0.0.3:1\" }, ");
    assert!(cause(three).contains("3 cores; 2 at most"));
}

#[test]
fn clients_come_in_the_clear_or_by_tls_and_one_of_both_is_needed() {
    let config = load_dev("listen = { tcp = \"\", tls = \"127.0.0.1:7443\" }", &[]).unwrap();
    assert_eq!((config.listen.tcp, config.tls.is_some()), (None, true));
    let config = load_dev("", &[]).unwrap();
    assert!(config.listen.tls.is_none() && config.tls.is_none());
    for (text, place, wanted) in [
        ("[listen]\ntcp = \"\"", 2, "listen.tcp: clients could not connect"),
        (
            "[listen]\ntls = \"127.0.0.1:7400\"",
            2,
            "listen.tls: port 7400 is that of listen.tcp, too",
        ),
        ("[listen]\ntls = \"[::]:7480\"", 2, "listen.admin: port 7480 is that of listen.tls, too"),
    ] {
        let found = problems(text, &[]);
        assert!(found.iter().any(|(_, problem)| problem.contains(wanted)), "{found:?}");
        assert!(place > 0 && found.len() == 1, "{found:?}");
    }
}

#[test]
fn what_cannot_be_meant_by_tls_is_said() {
    let tls = "[listen]\ntls = \"127.0.0.1:7443\"\n[tls]\n";
    for (text, wanted) in [
        ("versions = []", "tls.versions: it is empty"),
        ("versions = [\"1.3\", \"1.3\"]", "tls.versions: \"1.3\" stands twice"),
        ("versions = [\"1.1\"]", "tls.versions: \"1.1\" is none of the choices"),
        ("groups = \"x25519\"", "tls.groups: this must be a list of strings"),
        ("groups = [1]", "tls.groups: an item is a string, not an integer"),
        ("certs = [{ cert = \"a\" }]", "tls.certs: a certificate needs cert and key"),
        ("certs = [{ crt = \"a\" }]", "tls.certs: a certificate has no field \"crt\""),
        ("certs = [\"a\"]", "tls.certs: a certificate is a table, not a string"),
        ("client_auth = \"required\"", "tls.client_ca: clients show certificates"),
        ("client_user = \"cn\"", "tls.client_user: certificates name users"),
        ("client_user = \"name\"", "tls.client_user: \"name\" is none of the choices"),
        ("handshakes_per_turn = 0", "tls.handshakes_per_turn: 0 is out of range"),
    ] {
        let found = problems(&format!("{tls}{text}"), &[]);
        assert!(found.len() == 1 && found[0].1.contains(wanted), "{text}: {found:?}");
        assert_eq!(found[0].0 == Origin::Default, text.starts_with("client_auth"), "{text}");
    }
    let server = load_file_text(&format!("{tls}[auth]\nkeys = []\n"));
    assert!(
        server.iter().any(|problem| problem.contains("tls.certs: listen.tls is set")),
        "{server:?}"
    );
}

/// What is wrong with a file without `--dev`.
fn load_file_text(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    std::fs::write(&file, text).unwrap();
    let list = load_file(&file, false, &[]).unwrap_err().list;
    list.into_iter().map(|problem| format!("{}: {}", problem.key, problem.cause)).collect()
}
