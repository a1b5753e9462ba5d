//! The whole answer for a machine: threads and memory, the table, kernel settings, and the files to write.

use std::fmt::Write as _;

use serde::Serialize;

use crate::catalogue::{Severity, entry_of};
use crate::facts::{Facts, UNLIMITED};
use crate::findings::{Finding, Fix, findings, fix_of, mib};
use crate::knobs::{KNOBS, holds, join, spaced};
use crate::sizing::{Profile, Request, Sizing, size};

/// Kernel settings, for sysctl.d(5). Its name is its place in the order of reading.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/90-iris.conf";
/// The drop-in's name, in the directory of each unit.
pub const DROP_IN: &str = "50-iris-tune.conf";
/// A part of a configuration.
pub const CONFIG_FILE: &str = "/etc/iris/iris-tune.toml";

const INFALLIBLE: &str = "writing to a String cannot fail";

/// What is to be done, and what is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// What it takes.
    pub sizing: Sizing,
    /// The table.
    pub findings: Vec<Finding>,
    /// Kernel settings.
    pub settings: Vec<Setting>,
    /// Files.
    pub files: Vec<Planned>,
}

/// A kernel setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its condition.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its value now.
    pub current: Option<String>,
    /// Its value to be: no less than what is required, than its value now, and than what other files say.
    pub wanted: String,
    /// Who can set it.
    pub by: Fix,
}

impl Setting {
    /// Whether it is for us to set, and is not so yet.
    pub fn is_due(&self) -> bool {
        self.by == Fix::Apply && self.current.as_deref() != Some(self.wanted.as_str())
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Where, from the root.
    pub path: String,
    /// What.
    pub contents: String,
}

/// The plan for a machine with those facts.
pub fn plan(facts: &Facts, request: Request) -> Plan {
    let sizing = size(facts, request);
    let findings = findings(facts, request, &sizing);
    let settings = settings(facts, request, &sizing);
    let mut files = Vec::new();
    let mut add = |path: &str, contents| files.push(Planned { path: path.to_owned(), contents });
    if !settings.is_empty() {
        add(SYSCTL_FILE, sysctl_file(request, &settings));
    }
    if let Some(unit) = request.profile.unit() {
        if facts.has_units() {
            add(&drop_in_path(unit), drop_in(facts, request, &sizing));
        }
        add(CONFIG_FILE, config(facts, request, &sizing));
    }
    Plan { request, sizing, findings, settings, files }
}

/// Where the drop-in of a unit lies.
pub fn drop_in_path(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.d/{DROP_IN}")
}

fn settings(facts: &Facts, request: Request, sizing: &Sizing) -> Vec<Setting> {
    let mut settings = Vec::new();
    for knob in KNOBS {
        let entry = entry_of(knob.id).expect("a test finds every knob in the catalogue");
        if !entry.profiles.contains(&request.profile) {
            continue;
        }
        let Some(required) = (knob.required)(facts, &request, sizing) else { continue };
        let current = facts.sysctls.get(knob.name).map(|value| spaced(value));
        // What another file says may not be in force yet; at the next boot it would be, and ours must not lower it.
        let others = facts.configured.iter().filter(|line| line.name == knob.name);
        let others = others.map(|line| line.value.as_str()).chain(current.as_deref());
        let wanted = others.fold(required, |wanted, other| join(knob.order, other, &wanted));
        let (by, _) = fix_of(knob.name, &wanted, entry.scope, facts);
        debug_assert!(holds(knob.order, &wanted, current.as_deref().unwrap_or(&wanted)));
        settings.push(Setting { id: knob.id, name: knob.name, current, wanted, by });
    }
    settings
}

fn head(request: Request, what: &str) -> String {
    let noun = match request.profile {
        Profile::Core => "users",
        _ => "connections",
    };
    let tls = if request.tls { " by TLS" } else { "" };
    format!(
        "# {what} for {} {noun}{tls}, profile {}.\n\
         # Written by iris-tune: `iris-tune apply` writes it anew, `iris-tune undo` puts back what was here before.\n",
        request.connections,
        request.profile.name(),
    )
}

fn sysctl_file(request: Request, settings: &[Setting]) -> String {
    let mut text = head(request, "Kernel settings");
    text += "# `iris-tune explain ID` says more. No value is lower than it was.\n";
    for setting in settings.iter().filter(|setting| setting.by == Fix::Apply) {
        let why = entry_of(setting.id).map_or("", |entry| entry.why);
        // The module of connection tracking may be loaded later: no reason to fail (sysctl.d(5)).
        let dash = if setting.id == "net.conntrack" { "-" } else { "" };
        writeln!(text, "\n# {}: {why}", setting.id).expect(INFALLIBLE);
        writeln!(text, "{dash}{} = {}", setting.name, setting.wanted).expect(INFALLIBLE);
    }
    let elsewhere = |fix, title: &str, text: &mut String| {
        let mut title = Some(title);
        for setting in settings.iter().filter(|setting| setting.by == fix) {
            if let Some(title) = title.take() {
                writeln!(text, "\n# {title}").expect(INFALLIBLE);
            }
            writeln!(text, "# {} = {}", setting.name, setting.wanted).expect(INFALLIBLE);
        }
    };
    elsewhere(Fix::Host, "Set on the host; a container cannot:", &mut text);
    elsewhere(Fix::Starter, "Set where the container is started (docker run --sysctl):", &mut text);
    text
}

fn drop_in(facts: &Facts, request: Request, sizing: &Sizing) -> String {
    let mut text = head(request, "Limits");
    let nofile = facts.unit_limit_of_others("LimitNOFILE").max(sizing.nofile);
    let nofile = if nofile == UNLIMITED { "infinity".to_owned() } else { nofile.to_string() };
    let memory = &sizing.memory;
    text +=
        "\n[Service]\n# Slots of a ring's table; connections are no open files of the process.\n";
    writeln!(text, "LimitNOFILE={nofile}").expect(INFALLIBLE);
    text += "# Rings are locked memory, counted over all processes of the user.\nLimitMEMLOCK=infinity\n";
    if facts.swap > 0 {
        text += "# A page of a reactor that comes back from disk stops all its clients.\nMemorySwapMax=0\n";
    }
    let least = memory.total().saturating_sub(memory.system);
    writeln!(text, "# A MemoryMax=, if there is to be one, takes {} or more.", mib(least))
        .expect(INFALLIBLE);
    text
}

/// A part of a configuration, with the keys of `src/config/schema.rs` that follow from the machine and N.
fn config(facts: &Facts, request: Request, sizing: &Sizing) -> String {
    let mut text = head(request, "Configuration of a node");
    text += "# The server does not read this file: take these keys over into its own configuration.\n\n[node]\n";
    let profile = request.profile;
    text += match profile {
        Profile::Edge => "roles = [\"edge\"]\n",
        Profile::Core => "roles = [\"core\"]\n",
        _ => "roles = [\"edge\", \"core\"]\n",
    };
    if profile == Profile::Latency && facts.quota.is_none() {
        text += "# Keeps a busy CPU from halting between messages, for its idle time.\nhalt_poll_us = 200\n";
    }
    if !sizing.reactor_cpus.is_empty() {
        reactor_keys(&mut text, facts, request, sizing);
    }
    if !sizing.partition_cpus.is_empty() {
        let cpus = list(&sizing.partition_cpus);
        let fixed = match facts.log_partitions {
            0 => "Fixed once the data directory is founded",
            _ => "As the data directory was founded",
        };
        writeln!(text, "\n[core]\n# On CPU {cpus}. {fixed}.").expect(INFALLIBLE);
        writeln!(text, "partitions = {}", sizing.partition_cpus.len()).expect(INFALLIBLE);
    }
    text
}

fn reactor_keys(text: &mut String, facts: &Facts, request: Request, sizing: &Sizing) {
    // Where we cannot raise net.core.somaxconn, the server would refuse more than it is.
    let somaxconn = facts.sysctls.get("net.core.somaxconn");
    let somaxconn = somaxconn.and_then(|value| value.trim().parse::<u64>().ok());
    let backlog = match (facts.proc_sys_read_only, somaxconn) {
        (true, Some(somaxconn)) => sizing.backlog.min(somaxconn).max(1),
        _ => sizing.backlog,
    };
    let mut line = |line: String| writeln!(text, "{line}").expect(INFALLIBLE);
    line(format!("\n[listen]\nbacklog = {backlog}"));
    line(format!("\n[reactor]\n# On CPU {}.", list(&sizing.reactor_cpus)));
    line(format!("count = {}", sizing.reactor_cpus.len()));
    line(format!("connections_max = {}", request.connections));
    line(format!(
        "# Up to {} for each reactor, in {} of so many slots.",
        sizing.connections_per_reactor,
        if sizing.rings_per_reactor == 1 {
            "one ring".to_owned()
        } else {
            format!("{} rings", sizing.rings_per_reactor)
        },
    ));
    line(format!("ring_slots = {}", sizing.ring_slots));
    line("# An eighth of the memory, for clients that do not read.".to_owned());
    line(format!("out_total_max = \"{}MiB\"", sizing.out_total >> 20));
}

/// CPU numbers with runs as ranges: `0-3,8`.
pub fn list(numbers: &[u32]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in sorted {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// Whether the plan may be carried out: what is fatal and not ours to change stands against it.
pub fn obstacles(plan: &Plan) -> impl Iterator<Item = &Finding> {
    plan.findings.iter().filter(|finding| {
        !finding.passed && finding.severity == Severity::Fatal && finding.fix != Some(Fix::Apply)
    })
}
