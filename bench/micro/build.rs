//! Tells the program what it was compiled with: its counts are true for that alone.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let version = Command::new(of("RUSTC")).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=MICRO_RUSTC={}", version.unwrap_or_default());
    println!("cargo::rustc-env=MICRO_TARGET={}", of("TARGET"));
    println!("cargo::rustc-env=MICRO_PROFILE={}", of("PROFILE"));
    let flags = of("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    println!("cargo::rustc-env=MICRO_RUSTFLAGS={flags}");
}
