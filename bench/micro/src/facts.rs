//! What a count depends on besides the code: compiler, options, valgrind, C library, CPU.

use std::collections::BTreeMap;
use std::process::Command;

/// Names and values. They stand in the baseline, and differences are told.
pub(crate) type Facts = BTreeMap<String, String>;

/// Flags of the CPU that change which code of the C library and of hashes runs under valgrind.
const CPU_FLAGS: [&str; 3] = ["sse4_2", "avx2", "bmi2"];

/// The facts of this program on this machine.
pub(crate) fn here(valgrind: String) -> Facts {
    let facts = [
        ("rustc", env!("MICRO_RUSTC").to_owned()),
        ("target", env!("MICRO_TARGET").to_owned()),
        ("profile", env!("MICRO_PROFILE").to_owned()),
        ("rustflags", env!("MICRO_RUSTFLAGS").to_owned()),
        ("valgrind", valgrind),
        ("libc", said_by("getconf", &["GNU_LIBC_VERSION"])),
        ("cpu", cpu()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Today, as `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    said_by("date", &["-u", "+%F"])
}

/// What differs: a line for each fact.
pub(crate) fn differences(baseline: &Facts, now: &Facts) -> Vec<String> {
    let names = baseline.keys().chain(now.keys().filter(|name| !baseline.contains_key(*name)));
    let of = |facts: &Facts, name: &str| match facts.get(name).map(String::as_str) {
        None | Some("") => "none".to_owned(),
        Some(value) => value.to_owned(),
    };
    let line = |name: &String| {
        let (before, after) = (of(baseline, name), of(now, name));
        (before != after).then(|| format!("{name}: {before} in the baseline, {after} now"))
    };
    names.filter_map(line).collect()
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &&str| line.split(' ').any(|word| word == *flag);
    let mut words = vec![std::env::consts::ARCH];
    words.extend(CPU_FLAGS.into_iter().filter(|flag| has(flag)));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(of: &[(&str, &str)]) -> Facts {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let baseline = facts(&[("rustc", "1.92"), ("libc", "2.36"), ("old", "x")]);
        let now = facts(&[("rustc", "1.95"), ("libc", "2.36"), ("new", "y")]);
        let lines = [
            "old: x in the baseline, none now",
            "rustc: 1.92 in the baseline, 1.95 now",
            "new: none in the baseline, y now",
        ];
        assert_eq!(differences(&baseline, &now), lines);
        assert!(differences(&now, &now).is_empty());
    }

    #[test]
    fn this_program_knows_what_it_was_compiled_with() {
        let here = here("valgrind-3".to_owned());
        assert!(here["rustc"].starts_with("rustc 1."), "{here:?}");
        assert!(!here["profile"].is_empty() && !here["cpu"].is_empty(), "{here:?}");
        assert_eq!(today().len(), "2026-11-27".len());
    }
}
