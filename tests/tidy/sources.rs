//! Rules for sources: where what may stand, and what may stand nowhere.

use crate::tree::{Faults, File, code_of, files, has_word};

/// Where `unsafe` may stand, and what for.
const UNSAFE_HOMES: [(&str, &str); 6] = [
    ("ring/src/", "io_uring and sockets: what the kernel points at is owned by the ring"),
    ("wal/src/io/mod.rs", "statvfs(2)"),
    (
        "src/rt.rs",
        "eventfd(2) and futex(2) of parked threads, sched_setscheduler(2), mallopt(3), clock_gettime(2)",
    ),
    ("loadgen/src/net/plain.rs", "ppoll(2) over a few sockets"),
    ("loadgen/src/net/wake.rs", "eventfd(2) and ppoll(2) over several rings"),
    ("tests/cli.rs", "kill(2), setrlimit(2) and seccomp(2) for processes under test"),
];

/// What a part of the tree does not do: the part, words that would show it, why not, and who may.
struct Ban {
    place: &'static str,
    words: &'static [&'static str],
    why: &'static str,
    but: &'static [(&'static str, &'static str)],
}

const BANS: [Ban; 4] = [
    Ban {
        place: "proto/src/",
        words: &[
            "Instant",
            "SystemTime",
            "RandomState",
            "thread_rng",
            "getrandom",
            "std::time",
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "std::process",
        ],
        why: "proto takes time, randomness and identity as arguments and does no I/O (I10)",
        but: &[(
            "proto/src/core/tests/model.rs",
            "how many seeds to run comes from the environment, and a failing seed is printed",
        )],
    },
    Ban {
        place: "wal/src/",
        words: &["Instant", "SystemTime", "std::fs", "std::net", "std::thread", "std::process"],
        why: "the log decides; files, clocks and threads come from wal/src/io and from callers",
        but: &[("wal/src/io/", "the real disk, and its self-test, which takes the time")],
    },
    Ban {
        place: "src/",
        words: &["Instant::now", "SystemTime::now"],
        why: "time is read once a turn by src/clock.rs and handed on",
        but: &[
            ("src/clock.rs", "the clock itself"),
            ("src/boot.rs", "the main thread: start and time-outs of stopping"),
            ("src/boot/drain.rs", "the main thread: time-outs of stopping"),
            ("src/admin/", "the control thread: uptime, idle connections"),
            ("src/cli/token.rs", "a command that ends at once"),
            ("src/cli/http.rs", "a command: how long it waits for an answer"),
            ("src/cli/top/", "a command: the time between two looks"),
            ("src/cli/bundle/mod.rs", "a command: the time between two looks"),
            ("src/partition/disk.rs", "the writer's thread times its syncs"),
            ("src/partition/recover.rs", "before anybody is served: how long recovery takes"),
            ("src/preflight/mod.rs", "before anything runs: how long to wait for a port"),
            ("src/reactor/lanes.rs", "once, when the thread starts"),
            ("src/halt_poll.rs", "a thread that does nothing but look at the clock"),
        ],
    },
    Ban {
        place: "",
        words: &["Mutex", "RwLock", "Condvar"],
        why: "threads share nothing but bounded queues and counters with one writer (I8)",
        but: &[
            ("src/queue.rs", "the bounded queue itself"),
            ("wal/src/disk/mem.rs", "the disk of tests, shared with the test that crashes it"),
            (
                "tls/src/client.rs",
                "rustls asks for a store that threads may share; each has its own",
            ),
            ("loadgen/tests/", "a peer for tests, which its test looks into"),
        ],
    },
];

/// Where a program waits for a time: never to let something happen, always for a reason of its own.
const SLEEPS: [(&str, &str); 7] = [
    ("src/cli/drain.rs", "between two looks at a node that drains"),
    ("src/cli/status.rs", "between two looks of status --watch"),
    ("src/cli/top/mod.rs", "between two looks"),
    ("src/cli/bundle/mod.rs", "between two looks at the metrics"),
    ("src/partition/disk.rs", "leaves the disk to batches between writes that nobody waits for"),
    ("loadgen/src/run.rs", "the main thread draws the progress while generator threads work"),
    ("clients/python/src/iris_client/_driver.py", "the wait before reconnecting"),
];

/// Where a condition is polled: a short wait between two looks, and a failure when time is up.
const POLLS: [(&str, &str); 10] = [
    ("src/admin/drain.rs", "the control thread asks whether the main thread has begun"),
    ("bench/peers/brokers.py", "polls for ports files and open ports"),
    ("bench/recovery.py", "polls for the server's ports file"),
    ("bench/pair.py", "polls for ports files and for both cores"),
    ("bench/survivor.py", "looks at the survivor each second of a load"),
    ("bench/hostile.py", "polls for users who send, and for memory that stays as it is"),
    ("src/admin/reload.rs", "the control thread asks whether reactors have taken limits"),
    ("src/supervisor/watchdog.rs", "the control thread looks whether each thread turns"),
    ("bench/slow.py", "looks at the server each second of a load"),
    (
        "src/admin/retire.rs",
        "the control thread asks whether partitions, which wait for nobody, took a wish",
    ),
];

/// Columns of a line of Rust, at most. rustfmt keeps code to 100; prose in comments may go on a little.
const COLUMNS_MAX: usize = 125;
/// Longer lines: a table's row in a comment cannot be broken; nor can some texts.
const WIDE: [(&str, &str); 1] = [("src/config/tests.rs", "a message is compared as a whole")];

/// Lines of a file, at most.
const LINES_MAX: usize = 700;
/// Longer files, with the reason.
const LONG: [(&str, &str); 0] = [];

/// Fails for an exception that nothing needs any more.
fn end_of_list(faults: &mut Faults, list: &[(&str, &str)], seen: &[String], name: &str) {
    for (place, _) in list {
        if !seen.iter().any(|path| path.starts_with(place)) {
            faults.add("tests/tidy/sources.rs", 0, format!("{name}: {place} needs no exception"));
        }
    }
}

fn is_listed(list: &[(&str, &str)], file: &File) -> bool {
    list.iter().any(|(place, _)| file.is_in(&[place]))
}

#[test]
fn unsafe_stays_where_the_kernel_is_called() {
    let (mut faults, mut seen) = (Faults::default(), Vec::new());
    for file in files(&[".rs"]) {
        for (number, line) in file.lines().filter(|(_, line)| has_word(&code_of(line), "unsafe")) {
            seen.push(file.path.clone());
            if !is_listed(&UNSAFE_HOMES, &file) {
                let what =
                    "unsafe here; call what ring/ offers, or add to UNSAFE_HOMES with a reason";
                faults.add(&file.path, number, format!("{what}: {}", line.trim()));
            }
        }
    }
    end_of_list(&mut faults, &UNSAFE_HOMES, &seen, "UNSAFE_HOMES");
    faults.end();
}

#[test]
fn each_part_keeps_to_its_side_of_the_line() {
    let mut faults = Faults::default();
    let sources = files(&[".rs"]);
    for ban in &BANS {
        let mut seen = Vec::new();
        for file in sources.iter().filter(|file| file.path.starts_with(ban.place)) {
            for (number, line) in file.lines() {
                let code = code_of(line);
                let Some(word) = ban.words.iter().find(|word| has_word(&code, word)) else {
                    continue;
                };
                seen.push(file.path.clone());
                if !is_listed(ban.but, file) {
                    faults.add(&file.path, number, format!("{word}: {}", ban.why));
                }
            }
        }
        end_of_list(&mut faults, ban.but, &seen, "BANS");
    }
    faults.end();
}

#[test]
fn nothing_is_left_over() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
        concat!("mark.", "xfail"),
    ];
    let mut faults = Faults::default();
    for file in files(&[".rs", ".py", ".md", ".toml", ".sh", "Makefile", "run"]) {
        for (number, line) in file.lines() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                faults.add(&file.path, number, format!("{word}: do it now, or say it in prose"));
            }
        }
    }
    faults.end();
}

#[test]
fn nothing_waits_for_a_fixed_time() {
    let words = ["thread::sleep(", "time.sleep(", "asyncio.sleep(", "time::sleep("];
    let (mut faults, mut seen) = (Faults::default(), Vec::new());
    for file in files(&[".rs", ".py"]) {
        for (number, line) in file.lines() {
            // Zero is no time: it lets other tasks of the loop run.
            let code = code_of(&line.replace("asyncio.sleep(0)", ""));
            if !words.iter().any(|word| code.contains(word)) {
                continue;
            }
            seen.push(file.path.clone());
            if !is_listed(&SLEEPS, &file) && !is_listed(&POLLS, &file) {
                let what = "wait for a condition (tests/e2e/support/wait.py), not for a time";
                faults.add(&file.path, number, what);
            }
        }
    }
    end_of_list(&mut faults, &SLEEPS, &seen, "SLEEPS");
    end_of_list(&mut faults, &POLLS, &seen, "POLLS");
    faults.end();
}

#[test]
fn lines_and_files_fit_a_screen_and_a_head() {
    let (mut faults, mut wide, mut long) = (Faults::default(), Vec::new(), Vec::new());
    for file in files(&[".rs", ".py"]) {
        for (number, line) in file.lines().filter(|_| file.path.ends_with(".rs")) {
            let is_row = line.trim_start().starts_with("/// |");
            if line.chars().count() > COLUMNS_MAX && !is_row {
                wide.push(file.path.clone());
                if !is_listed(&WIDE, &file) {
                    faults.add(&file.path, number, format!("more than {COLUMNS_MAX} columns"));
                }
            }
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            long.push(file.path.clone());
            if !is_listed(&LONG, &file) {
                let what =
                    format!("{lines} lines, {LINES_MAX} at most: split it along a named part");
                faults.add(&file.path, lines, what);
            }
        }
    }
    end_of_list(&mut faults, &WIDE, &wide, "WIDE");
    end_of_list(&mut faults, &LONG, &long, "LONG");
    faults.end();
}

#[test]
fn nothing_names_one_machine_or_one_registry() {
    let hosts = ["crates.io", "pypi.org", "pythonhosted.org", "npmjs.org", "proxy.golang.org"];
    let places = ["/work/", "/tmp/", "/root/", "/home/"];
    let mut faults = Faults::default();
    let endings = [".rs", ".py", ".md", ".toml", ".sh", ".json", ".txt", "Makefile", "run"];
    for file in files(&endings).iter().filter(|file| !file.path.starts_with("tests/tidy")) {
        let in_test = file.path.contains("tests");
        for (number, line) in file.lines() {
            if let Some(host) = hosts.iter().find(|host| line.contains(*host)) {
                let what = format!("{host}: packages come from wherever the machine is set up for");
                faults.add(&file.path, number, what);
            }
            // A path begins a word; `ring/work/` is another one.
            let begins = |place: &&&str| {
                line.match_indices(**place).any(|(start, _)| {
                    !line[..start].ends_with(|c: char| c.is_alphanumeric() || "._-/<}".contains(c))
                })
            };
            if let Some(place) = places.iter().find(begins).filter(|_| !in_test) {
                let what = format!("{place} is a path of one machine: take it as an argument");
                faults.add(&file.path, number, what);
            }
        }
    }
    faults.end();
}
