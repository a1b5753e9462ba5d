//! Counts instructions: each benchmark runs alone under `valgrind --tool=callgrind`, which collects only while
//! [`crate::work::measured`] runs. The program is its own measured program, so nothing else has to be installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, bail};

use crate::work::Bench;

/// Matches `iris_micro::work::measured` and no function that is called in it.
const MEASURED: &str = "iris_micro::work::measured*";

/// Tells the C library to copy with loops: valgrind counts an instruction of the CPU that copies by itself (`rep movsb`)
/// once for each byte, and large copies would outweigh all else.
const NO_REP: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS");

/// How to count.
pub(crate) struct Counter {
    /// The program `valgrind`.
    pub(crate) valgrind: PathBuf,
    /// Benchmarks at a time. They do not disturb each other's counts.
    pub(crate) at_once: usize,
}

impl Counter {
    /// The version, or what to do if it is not there.
    pub(crate) fn version(&self) -> anyhow::Result<String> {
        let output = Command::new(&self.valgrind).arg("--version").output();
        let output = output.with_context(|| {
            let valgrind = self.valgrind.display();
            format!(
                "cannot run {valgrind}, which counts the instructions: apt-get install valgrind"
            )
        })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Instructions of each benchmark, in their order.
    pub(crate) fn count(&self, benches: &[Bench]) -> anyhow::Result<Vec<u64>> {
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut counts = Vec::new();
            while let Some(bench) = benches.get(next.fetch_add(1, Ordering::Relaxed)) {
                counts.push((bench.name, self.count_one(&exe, bench.name)));
            }
            counts
        };
        let mut counts = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.at_once.max(1)).map(|_| scope.spawn(work)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Vec<_>>| thread.join();
            threads.into_iter().flat_map(|thread| join(thread).expect("no panic")).collect()
        });
        in_order(benches, &mut counts)
    }

    fn count_one(&self, exe: &Path, name: &str) -> anyhow::Result<u64> {
        let mut command = Command::new(&self.valgrind);
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.args(["--collect-atstart=no", &format!("--toggle-collect={MEASURED}")]);
        // The environment lies on the stack: with another one, addresses and with them counts would differ a little.
        command.arg(exe).args(["run", name]).env_clear().env(NO_REP.0, NO_REP.1);
        let output = command.output();
        let output = output.with_context(|| format!("cannot run {}", self.valgrind.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("{name} failed under valgrind ({}):\n{said}", output.status);
        }
        collected(&said).with_context(|| format!("{name}: valgrind counted nothing:\n{said}"))
    }
}

fn in_order(
    benches: &[Bench],
    counts: &mut Vec<(&'static str, anyhow::Result<u64>)>,
) -> anyhow::Result<Vec<u64>> {
    let place = |name| benches.iter().position(|bench| bench.name == name);
    counts.sort_by_key(|(name, _)| place(*name));
    counts.drain(..).map(|(_, count)| count).collect()
}

/// The count in what callgrind says at its end. 0 is none: the function was not found.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("==7== Collected : 0\n"), None);
        assert_eq!(collected("valgrind: no such tool\n"), None);
    }
}
