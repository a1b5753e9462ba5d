//! What a user types, and what comes back: the real binary, no server code linked.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// `iris` in `dir`, with nothing of ours in the environment.
fn iris(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("IRIS_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    iris(dir, args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Exit code and stderr of a command that must fail.
fn fail(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{}", text(&output.stdout));
    (output.status.code().unwrap(), text(&output.stderr).to_owned())
}

/// A server under `--dev` on free ports. Killed when dropped.
struct Server {
    child: Child,
    ports: Value,
    /// What it printed until it was ready.
    banner: String,
}

impl Server {
    fn start(dir: &Path, extra: &[&str]) -> Self {
        let ports_file = dir.join("ports.json");
        let mut command = iris(dir, &["serve", "--dev", "--tcp", "127.0.0.1:0"]);
        command.args(["--admin", "127.0.0.1:0", "--ports-file"]).arg(&ports_file).args(extra);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The banner is printed after the ports file is there, so its last line means: all is there.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                let mut error = String::new();
                child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("the server ended before it was ready: {error}");
            };
            banner += &line;
            banner.push('\n');
            if line.starts_with("Stop with") {
                break;
            }
        }
        let ports = serde_json::from_slice(&std::fs::read(&ports_file).unwrap()).unwrap();
        Self { child, ports, banner }
    }

    fn admin(&self) -> &str {
        self.ports["admin"].as_str().unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&mut self, signal: i32) -> ExitStatus {
        // SAFETY: kill(2) takes two numbers; the child is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_prints_every_problem_with_line_and_fix_and_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("iris.toml"),
        "[listen]\ntcp = \"0.0.0.0\"\nbaklog = 3\n\n[reactor]\ncount = 5000\n",
    )
    .unwrap();
    let output = run(dir.path(), &["check", "--config", "iris.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout),
        "\
iris.toml:2: listen.tcp: \"0.0.0.0\" is not an IP address and port; \
write it like \"0.0.0.0:7400\"; IPv6 like \"[::1]:7400\"
iris.toml:3: listen.baklog: there is no such key; did you mean backlog?
iris.toml:6: reactor.count: 5000 is out of range; use 0 to 4096
iris.toml: auth.keys: there is no key, so nobody could log in; \
add keys = [{ file = \"PATH\", alg = \"HS256\" }] or jwks_file below [auth], \
or try things out with `iris serve --dev`
"
    );
    let output = run(dir.path(), &["check", "--config", "iris.toml", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 4);
    assert_eq!(problems[1]["line"], 3);
    assert_eq!(problems[1]["key"], "listen.baklog");
    assert_eq!(problems[1]["fix"], "did you mean backlog?");
}

#[test]
fn check_of_a_sound_file_says_what_is_in_effect_and_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let defaults = run(dir.path(), &["check", "--defaults"]);
    let edited = text(&defaults.stdout)
        .replace("#keys = []", "keys = [{ file = \"secret\", alg = \"HS256\" }]")
        .replace("#count = 0", "count = 2");
    std::fs::write(dir.path().join("iris.toml"), edited).unwrap();
    let output = run(dir.path(), &["check", "--config", "iris.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).starts_with("iris.toml: sound: 2 reactors"));
    let mut command = iris(dir.path(), &["check", "--config", "iris.toml", "--json"]);
    let output = command.env("IRIS_CORE__PARTITIONS", "3").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["effective"]["partitions"], 3);
    assert_eq!(report["config"]["core"]["partitions"]["from"], "IRIS_CORE__PARTITIONS");
    assert_eq!(report["config"]["wal"]["sync"]["value"], "auto");
}

#[test]
fn serve_without_a_configuration_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let (code, error) = fail(&mut iris(dir.path(), &["serve"]));
    assert_eq!(code, 2);
    assert_eq!(
        error,
        "iris: serve needs a configuration; use --config FILE, or --dev to try things out on this machine\n"
    );
    std::fs::write(dir.path().join("iris.toml"), "").unwrap();
    let (code, error) = fail(&mut iris(dir.path(), &["serve", "--config", "iris.toml"]));
    assert_eq!(code, 78);
    assert!(error.starts_with("iris: iris.toml: auth.keys: there is no key"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was touched");
}

#[test]
fn a_development_server_says_where_it_is_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    assert!(server.get("/livez").contains("200 OK"));
    assert!(server.get("/readyz").ends_with("ready\n"));
    assert!(server.get("/metrics").contains("iris_build_info{version="));
    for word in [server.admin(), "alice", "bob", "iris token --user NAME", "iris-loadgen"] {
        assert!(server.banner.contains(word), "{word}: {}", server.banner);
    }
    let key = std::fs::read_to_string(dir.path().join("iris-data/dev.key")).unwrap();
    assert_eq!(key.trim().len(), 64);

    // A second server beside it: its ports are in use.
    let tcp = server.ports["tcp"].as_str().unwrap().to_owned();
    let admin = server.admin().to_owned();
    let (code, error) = fail(iris(dir.path(), &["serve", "--dev", "--tcp", &tcp]).args([
        "--admin",
        &admin,
        "--data-dir",
        "other",
    ]));
    assert_eq!(code, 75, "{error}");
    assert!(error.contains(&format!("iris: {admin} is in use by another process")), "{error}");
    assert!(!dir.path().join("other").exists(), "nothing was touched");

    assert_eq!(server.signal(libc::SIGTERM).code(), Some(0));
    let again = Server::start(dir.path(), &[]);
    let key_again = std::fs::read_to_string(dir.path().join("iris-data/dev.key")).unwrap();
    assert_eq!(key, key_again, "the key outlives the server");
    drop(again);
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let args = ["serve", "--dev", "--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (code, error) = fail(&mut iris(dir.path(), &args));
    assert_eq!(code, 75, "{error}");
    let errors: Vec<&str> = error.lines().filter(|line| line.starts_with("iris: ")).collect();
    assert_eq!(errors.len(), 1, "{error}");
    let pid = server.child.id().to_string();
    assert!(errors[0].contains("iris-data is in use") && errors[0].contains(&pid), "{error}");
    assert!(server.get("/readyz").ends_with("ready\n"));
}

#[test]
fn the_log_of_a_server_is_sound_and_a_flipped_bit_in_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(server.signal(libc::SIGKILL).code(), None);
    let verify = run(dir.path(), &["wal", "verify", "iris-data", "--json"]);
    let lines: Vec<Value> =
        text(&verify.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(verify.status.code(), Some(0), "{lines:?}");
    assert_eq!(lines.last().unwrap()["verdict"], "sound");
    for args in [["wal", "stat", "iris-data"], ["wal", "dump", "iris-data"]] {
        assert_eq!(run(dir.path(), &args).status.code(), Some(0), "{args:?}");
    }
    let alike = run(dir.path(), &["wal", "diff", "iris-data", "iris-data", "--json"]);
    assert_eq!(alike.status.code(), Some(0), "{}", text(&alike.stdout));

    let log = dir.path().join("iris-data/wal/p000");
    let segment = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().len() == "00000000.seg".len())
        .unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 9).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 9).unwrap();
    let damaged = run(dir.path(), &["wal", "verify", "iris-data"]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?} {segment:?}");

    for nothing in [".", "nowhere"] {
        let (code, error) = fail(&mut iris(dir.path(), &["wal", "verify", nothing]));
        assert_eq!((code, error.lines().count()), (2, 1), "{error}");
        let cause =
            format!("iris: {nothing}: there is no log in it that can be read; name a node's");
        assert!(error.starts_with(&cause), "{error}");
    }
}

#[test]
fn ctrl_c_ends_a_server_like_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--data-dir", "elsewhere"]);
    assert_eq!(server.signal(libc::SIGINT).code(), Some(0));
    assert!(dir.path().join("elsewhere/dev.key").exists());
}

#[test]
fn token_prints_a_token_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (code, error) = fail(&mut iris(dir.path(), &["token", "--user", "alice"]));
    assert_eq!(code, 2);
    assert!(
        error.contains("there is no key at ./iris-data/dev.key; start `iris serve --dev`"),
        "{error}"
    );
    std::fs::write(dir.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let output = run(dir.path(), &["token", "--user", "alice", "--key", "secret", "--ttl", "1h"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let token = text(&output.stdout).strip_suffix('\n').unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{token}");
    for (user, ttl) in [("", "1h"), ("a\nb", "1h"), ("alice", "1 hour")] {
        let args = ["token", "--user", user, "--key", "secret", "--ttl", ttl];
        assert_eq!(fail(&mut iris(dir.path(), &args)).0, 2, "{user:?} {ttl:?}");
    }
}

#[test]
fn version_and_help_are_on_stdout_and_unknown_words_fail() {
    let dir = tempfile::tempdir().unwrap();
    let version: Value =
        serde_json::from_slice(&run(dir.path(), &["version", "--json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(text(&run(dir.path(), &["version"]).stdout).starts_with("iris "));
    let commands = ["serve", "check", "token", "status", "core", "pki", "wal"];
    let helps = commands.iter().map(|command| vec![*command, "--help"]).chain([vec!["--help"]]);
    for args in helps {
        let args = args.as_slice();
        let output = run(dir.path(), args);
        assert!(output.status.success());
        assert!(
            text(&output.stdout).contains("iris serve")
                || text(&output.stdout).contains("Examples:")
        );
    }
    let (code, error) = fail(&mut iris(dir.path(), &["server"]));
    assert_eq!(code, 2);
    assert!(error.contains("serve"), "{error}");
}

#[test]
fn status_of_a_server_is_a_table_for_people_and_an_object_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let admin = server.admin();
    let output = run(dir.path(), &["status", "--admin", admin]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}");
    for word in
        [admin, "node 1", "edge, core", "0 open, 0 logged in", "0 messages wait", "\nhealthy\n"]
    {
        assert!(table.contains(word), "{word}\n{table}");
    }
    assert!(!table.contains("copies=1"), "a node alone has no mirror: {table}");

    let output = run(dir.path(), &["status", "--admin", admin, "--json"]);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&seen["healthy"], &seen["problems"]), (&Value::Bool(true), &serde_json::json!([])));
    let status = &seen["nodes"][0]["status"];
    assert_eq!(status["ready"], true);
    assert_eq!(status["mirror"], Value::Null);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));

    // Lines, one each time, until nobody reads them.
    let mut watch = iris(dir.path(), &["status", "--admin", admin, "--json", "--watch", "10ms"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines().take(3);
    for line in lines {
        assert!(serde_json::from_str::<Value>(&line.unwrap()).unwrap()["healthy"] == true);
    }
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn status_of_a_node_that_is_not_there_exits_10_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (admin, closed) = (server.admin().to_owned(), "127.0.0.77:1");
    let output = run(dir.path(), &["status", "--admin", &admin, "--admin", closed]);
    assert_eq!(output.status.code(), Some(10));
    let table = text(&output.stdout);
    assert!(table.contains("127.0.0.77:1: unreachable: connection refused"), "{table}");
    assert!(table.contains("node 1") && table.ends_with("not healthy\n"), "{table}");
    // The port for clients speaks no HTTP.
    let clients = server.ports["tcp"].as_str().unwrap();
    let output = run(dir.path(), &["status", "--admin", clients]);
    assert_eq!(output.status.code(), Some(10));
    assert!(text(&output.stdout).contains("no admin server of Iris"), "{}", text(&output.stdout));
    for (args, word) in [
        (&["status", "--admin", "nowhere:x"][..], "HOST:PORT"),
        (&["status", "--config", "missing.toml"], "missing.toml"),
        (&["status", "--watch", "often"], "duration"),
    ] {
        let (code, error) = fail(&mut iris(dir.path(), args));
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn only_the_mirror_of_a_core_can_be_retired() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let args = ["core", "retire-node", "--node", "2", "--yes", "--admin"];
    let (code, error) = fail(iris(dir.path(), &args).arg(server.admin()));
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("node 1 is no core of a pair"), "{error}");
    let (code, error) = fail(iris(dir.path(), &args).arg("127.0.0.77:1"));
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("connection refused") && error.contains("--admin"), "{error}");
    let none = ["core", "retire-node", "--node", "0"];
    assert_eq!(fail(&mut iris(dir.path(), &none)).0, 2);
}

/// Runs `iris serve --dev` with that limit on itself.
fn with_limit(dir: &Path, resource: libc::__rlimit_resource_t, bytes: u64) -> (i32, String) {
    let mut command = iris(dir, &["serve", "--dev", "--tcp", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0"]);
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: between fork and exec only setrlimit(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    fail(&mut command)
}

#[test]
fn too_few_descriptors_or_too_little_locked_memory_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (code, error) = with_limit(dir.path(), libc::RLIMIT_NOFILE, 40);
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("at most 40 open files") && error.contains("LimitNOFILE="), "{error}");
    let (code, error) = with_limit(dir.path(), libc::RLIMIT_MEMLOCK, 4096);
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("4096 bytes") && error.contains("LimitMEMLOCK="), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was touched");
}

#[test]
fn more_connections_than_memory_holds_are_refused_by_the_name_of_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let serve = ["serve", "--dev", "--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut command = iris(dir.path(), &serve);
    // 468 GB of idle connections.
    let (code, error) = fail(command.env("IRIS_REACTOR__CONNECTIONS_MAX", "100000000"));
    assert_eq!(code, 71, "{error}");
    assert!(error.contains("reactor.connections_max is 100000000"), "{error}");
}

/// A filter that fails io_uring_setup(2) with EPERM, as container runtimes do, and allows the rest.
fn block_io_uring() -> std::io::Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: prctl(2) reads the program, which lives until it returns.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program),
        ]
    };
    if results == [0, 0] { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn a_seccomp_filter_that_blocks_io_uring_is_named_as_the_cause() {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if disabled.is_ok_and(|value| value.trim() != "0") {
        println!("skipped: kernel.io_uring_disabled is not 0, so seccomp would not be the cause");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = iris(dir.path(), &["serve", "--dev", "--tcp", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0"]);
    // SAFETY: between fork and exec only prctl(2) is called, on memory of this stack.
    unsafe { command.pre_exec(block_io_uring) };
    let (code, error) = fail(&mut command);
    assert_eq!(code, 69, "{error}");
    assert!(error.starts_with("iris: a seccomp filter blocks io_uring (EPERM); allow"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was touched");
}

/// The blocks of text of a page that a command's output must hold.
fn generated(page: &str, name: &str) -> String {
    let begin = format!("<!-- generated: {name} -->\n\n```text\n");
    let start = page.find(&begin).unwrap_or_else(|| panic!("no {name}")) + begin.len();
    page[start..].split("```").next().unwrap().to_owned()
}

#[test]
fn capacity_prints_the_published_sheets_and_what_they_rest_on() {
    let dir = tempfile::tempdir().unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CAPACITY.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (dau, number) in
        [("1M", 1_000_000), ("100M", 100_000_000), ("5000000000", 5_000_000_000_u64)]
    {
        let output = run(dir.path(), &["capacity", "--dau", dau]);
        assert_eq!(output.status.code(), Some(0));
        let shown = text(&output.stdout);
        assert!(shown.contains(&generated(&page, &format!("sheet {number}"))), "{shown}");
        assert!(shown.contains("an estimate") && shown.contains("--egress-price"), "{shown}");
        let json = run(dir.path(), &["capacity", "--dau", dau, "--json"]);
        let plan: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((&plan["dau"], &plan["estimate"]), (&number.into(), &true.into()));
        assert!(plan["total"]["dollars_per_month"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn capacity_plans_by_reports_of_ones_own_and_by_flags() {
    let dir = tempfile::tempdir().unwrap();
    let run_of = |name: &str| format!("{}/bench/runs/{name}", env!("CARGO_MANIFEST_DIR"));
    let search = run_of("2026-11-28-6.18.44-2cores-search/search-1.json");
    let idle = run_of("2026-11-28-6.18.44-2cores-tls/idle-clear.json");
    let args =
        ["capacity", "--dau", "100M", "--json", "--clear", "--edge-cpus", "8", "--regions", "2"];
    let output = run(dir.path(), &[&args[..], &["--from", &search, "--from", &idle]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |list: &str, name: &str| {
        let all = plan[list].as_array().unwrap().iter();
        all.clone().find(|entry| entry["name"] == name).unwrap().clone()
    };
    assert_eq!(of("measured", "rss_bytes_per_connection")["value"], 405.8);
    let rate = of("measured", "messages_per_second_and_cpu");
    assert_eq!(rate["value"], 518_735.0 / 2.0);
    assert!(rate["source"].as_str().unwrap().contains("search-1.json"));
    let cpus = of("assumed", "edge-cpus");
    assert_eq!((&cpus["value"], &cpus["source"]), (&8.0.into(), &"given".into()));
    assert_eq!(plan["regions"].as_array().unwrap().len(), 2);
    let mut command = iris(dir.path(), &["capacity", "--dau", "1M", "--from", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let line =
        b"capacity: 50,000 connections of idle meet kernel<5000; confirmed 3 times, within 5 %\n";
    child.stdin.take().unwrap().write_all(line).unwrap();
    let output = child.wait_with_output().unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["total"]["edges"], 10, "450,000 connections, 50,000 each, and one spare");
}

#[test]
fn capacity_says_what_is_wrong_with_what_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("other.json"), "{}").unwrap();
    for (args, wanted) in [
        (&["--dau", "0"][..], "such as 1000000, 100M or 5G"),
        (&["--dau", "1M", "--concurrency", "2"], "--concurrency: from 0.1 % to 100 %"),
        (&["--dau", "1M", "--regions", "eu=0.5"], "sum up to 1"),
        (&["--dau", "1M", "--from", "none.json"], "name a file that iris-loadgen wrote"),
        (&["--dau", "1M", "--from", "other.json"], "no report of iris-loadgen"),
        (&[], "--dau"),
    ] {
        let (code, error) = fail(&mut iris(dir.path(), &[&["capacity"], args].concat()));
        assert!(code == 2 && error.contains(wanted), "{args:?}: {error}");
    }
}

#[test]
fn every_command_is_in_the_completions_and_has_a_manual_page_and_examples() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(dir.path(), &["--help"]);
    let commands = text(&help.stdout).lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.len() >= 14 && names.contains(&"capacity"), "{names:?}");
    let pages = dir.path().join("man");
    let output = run(dir.path(), &["man", "--out", "man"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for shell in ["bash", "zsh", "fish"] {
        let output = run(dir.path(), &["completions", shell]);
        let script = text(&output.stdout);
        for name in names.iter().filter(|name| **name != "help") {
            assert!(script.contains(*name), "{shell} lacks {name}");
        }
    }
    for name in names.iter().filter(|name| **name != "help") {
        let page = std::fs::read_to_string(pages.join(format!("iris-{name}.1"))).unwrap();
        assert!(page.contains(".SH"), "{name}");
        let help = run(dir.path(), &[name, "--help"]);
        let is_plain = ["version"].contains(name);
        assert!(is_plain || text(&help.stdout).contains("Examples:"), "{name} has no examples");
    }
    assert!(std::fs::read_to_string(pages.join("iris.1")).unwrap().contains(".SH"));
    let (code, error) = fail(&mut iris(dir.path(), &["man", "--out", "man/iris.1"]));
    assert!(code == 2 && error.contains("--out"), "{error}");
    assert_eq!(fail(&mut iris(dir.path(), &["completions", "csh"])).0, 2);
}

#[test]
fn a_shard_follows_from_the_name_and_the_number_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["shard", "alice"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains(" of 64 (the default: "), "{}", text(&output.stdout));
    let shard = |args: &[&str]| -> Value {
        let output = run(dir.path(), &[&["shard", "alice", "--json"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(shard(&["--num-shards", "1"])["shard"], 0);
    // SHA-256 of "alice" begins with 2bd806c9: place 0x2b of 256 (docs/PROTOCOL.md, appendix).
    assert_eq!(shard(&["--num-shards", "256"])["shard"], 0x2b);
    std::fs::write(
        dir.path().join("iris.toml"),
        "[core]\nnum_shards = 4096\n[cluster]\ncores = [{ node = 1, addr = \"10.0.0.1:1\" }, \
         { node = 2, addr = \"10.0.0.2:1\" }]\n",
    )
    .unwrap();
    let of_file = shard(&["--config", "iris.toml"]);
    assert_eq!(of_file["shard"], 0x2bd);
    assert!([1, 2].contains(&of_file["preferred"].as_u64().unwrap()));
    for (args, wanted) in [
        (&["shard", ""][..], "1 to 128 bytes"),
        (&["shard", "alice", "--num-shards", "0"], "0 is not in 1..=4096"),
        (&["shard", "alice", "--config", "none.toml"], "failed to read the configuration"),
    ] {
        let (code, error) = fail(&mut iris(dir.path(), args));
        assert!(code == 2 && error.contains(wanted), "{args:?}: {error}");
    }
}
