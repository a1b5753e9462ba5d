//! The command as it is typed: what it says and with which exit code it ends. Programs beside this file stand for
//! valgrind, so that the counts are known; one test asks the real one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const SAME: i32 = 0;
const MORE: i32 = 99;
const INVALID: i32 = 2;

/// A directory with a baseline, and who counts.
struct Bench {
    dir: TempDir,
    valgrind: PathBuf,
}

impl Bench {
    fn with(valgrind: &str) -> Self {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(valgrind);
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir, valgrind: if beside.exists() { beside } else { valgrind.into() } }
    }

    /// A million instructions for each benchmark are recorded.
    fn recorded() -> Self {
        let bench = Self::with("counts-alike");
        assert_eq!(code(&bench.run(&["record"])), SAME);
        bench
    }

    fn baseline(&self) -> PathBuf {
        self.dir.path().join("baseline.json")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iris-micro"));
        command.arg(arguments[0]).arg("--baseline").arg(self.baseline());
        command.arg("--valgrind").arg(&self.valgrind).args(&arguments[1..]);
        command.output().expect("the command starts")
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let text = std::fs::read_to_string(self.baseline()).expect("it was recorded");
        let mut baseline = serde_json::from_str(&text).expect("it is JSON");
        change(&mut baseline);
        std::fs::write(self.baseline(), baseline.to_string()).expect("it can be written");
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ends by itself")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_was_just_recorded_is_within_the_limit() {
    let output = Bench::recorded().run(&["check"]);
    assert_eq!(code(&output), SAME, "{}", said(&output));
    assert!(said(&output).contains("within 5 % of the baseline of 20"), "{}", said(&output));
}

#[test]
fn work_that_doubled_since_the_baseline_fails_the_check() {
    let bench = Bench::recorded();
    bench.change(|baseline| baseline["counts"][2]["instructions"] = 500_000.into());
    let output = bench.run(&["check"]);
    assert_eq!(code(&output), MORE, "{}", said(&output));
    let said = said(&output);
    let loud: Vec<&str> = said.lines().filter(|line| line.ends_with("MORE")).collect();
    assert_eq!(loud.len(), 1, "{said}");
    assert!(loud[0].contains("+100.00 %"), "{said}");
    assert!(said.contains("1 of "), "{said}");
    let output = bench.run(&["check", "--limit", "100"]);
    assert_eq!(code(&output), SAME, "a limit can be given: {}", self::said(&output));
}

#[test]
fn only_the_named_benchmarks_are_checked() {
    let bench = Bench::recorded();
    bench.change(|baseline| baseline["counts"][0]["instructions"] = 1.into());
    let output = bench.run(&["check", "log/append"]);
    assert_eq!(code(&output), SAME, "{}", said(&output));
    let output = bench.run(&["check", "nobody"]);
    assert_eq!(code(&output), INVALID);
    assert!(said(&output).contains("iris-micro list"), "{}", said(&output));
}

#[test]
fn another_compiler_is_told_and_decides_nothing() {
    let bench = Bench::recorded();
    bench.change(|baseline| baseline["facts"]["rustc"] = "rustc 1.0.0".into());
    let output = bench.run(&["check"]);
    assert_eq!(code(&output), SAME, "{}", said(&output));
    assert!(said(&output).contains("rustc: rustc 1.0.0 in the baseline, rustc 1."));
}

#[test]
fn a_run_that_says_nothing_says_why() {
    let bench = Bench::with("no-such-valgrind");
    let output = bench.run(&["record"]);
    assert_eq!(code(&output), INVALID);
    assert!(said(&output).contains("apt-get install valgrind"), "{}", said(&output));

    let output = Bench::with("counts-nothing").run(&["record"]);
    assert_eq!(code(&output), INVALID);
    assert!(said(&output).contains("valgrind counted nothing"), "{}", said(&output));

    let bench = Bench::with("counts-alike");
    let output = bench.run(&["check"]);
    assert_eq!(code(&output), INVALID);
    assert!(said(&output).contains("make bench-baseline"), "{}", said(&output));
}

#[test]
fn a_baseline_that_lacks_a_benchmark_says_nothing() {
    let bench = Bench::recorded();
    bench.change(|baseline| {
        baseline["counts"].as_array_mut().expect("a list").pop();
    });
    let output = bench.run(&["check"]);
    assert_eq!(code(&output), INVALID);
    assert!(said(&output).contains("not in the baseline"), "{}", said(&output));
}

#[test]
fn valgrind_counts_the_same_each_time() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: there is no valgrind here (apt-get install valgrind)");
        return;
    }
    let bench = Bench::recorded();
    let bench = Bench { valgrind: "valgrind".into(), ..bench };
    let counts = || {
        let output = bench.run(&["check", "session/life", "link/decode-send", "--limit", "1e9"]);
        assert_eq!(code(&output), SAME, "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = counts();
    assert!(first.contains("session/life"), "{first}");
    assert_eq!(first, counts());
}
