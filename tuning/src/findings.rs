//! The table: each condition with what is required, what there is, and what to do.

use serde::Serialize;

use crate::catalogue::{ENTRIES, Entry, Scope, Severity};
use crate::facts::{Facts, Place, UNLIMITED};
use crate::knobs::{KNOBS, Knob, ehash_required, holds, knob_of, spaced};
use crate::sizing::{Request, Sizing};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The condition's name for scripts.
    pub id: &'static str,
    /// What is looked at.
    pub condition: &'static str,
    /// What is required of it.
    pub required: String,
    /// What there is.
    pub current: String,
    /// How bad it is, or would be.
    pub severity: Severity,
    /// Whether it holds.
    pub passed: bool,
    /// Why it is required.
    pub why: &'static str,
    /// Who can change it, if it does not hold.
    pub fix: Option<Fix>,
    /// What to do, if it does not hold.
    pub next: Option<String>,
}

/// Who can change what does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fix {
    /// `iris-tune apply`.
    Apply,
    /// Only the host of this container or network namespace.
    Host,
    /// What starts this container or this process.
    Starter,
    /// A person.
    Hand,
}

/// What there is, what is required, and whether it holds.
struct Verdict {
    required: String,
    current: String,
    passed: bool,
    severity: Severity,
    fix: Fix,
    next: String,
}

impl Verdict {
    fn new(required: impl Into<String>, current: impl Into<String>, passed: bool) -> Self {
        let (required, current) = (required.into(), current.into());
        let (severity, fix) = (Severity::Warning, Fix::Hand);
        Self { required, current, passed, severity, fix, next: String::new() }
    }

    fn fatal_if(mut self, is_fatal: bool) -> Self {
        self.severity = if is_fatal { Severity::Fatal } else { Severity::Warning };
        self
    }

    fn fixed(mut self, fix: Fix, next: impl Into<String>) -> Self {
        (self.fix, self.next) = (fix, next.into());
        self
    }
}

/// What a machine with those facts has and lacks, in the order of the catalogue.
pub fn findings(facts: &Facts, request: Request, sizing: &Sizing) -> Vec<Finding> {
    let asked = ENTRIES.iter().filter(|entry| entry.profiles.contains(&request.profile));
    asked.filter_map(|entry| Some(row(entry, verdict(entry, facts, request, sizing)?))).collect()
}

fn row(entry: &'static Entry, verdict: Verdict) -> Finding {
    let next = match verdict.fix {
        Fix::Apply => "iris-tune apply sets it".to_owned(),
        Fix::Hand if verdict.next.is_empty() => format!("iris-tune explain {}", entry.id),
        _ => verdict.next,
    };
    Finding {
        id: entry.id,
        condition: entry.condition,
        required: verdict.required,
        current: verdict.current,
        severity: verdict.severity,
        passed: verdict.passed,
        why: entry.why,
        fix: (!verdict.passed).then_some(verdict.fix),
        next: (!verdict.passed).then_some(next),
    }
}

fn verdict(entry: &Entry, facts: &Facts, request: Request, sizing: &Sizing) -> Option<Verdict> {
    if let Some(knob) = knob_of(entry.id) {
        return knob_verdict(knob, entry.scope, facts, request, sizing);
    }
    Some(match entry.id {
        "kernel.version" => kernel_version(facts),
        "kernel.io_uring" => io_uring(facts),
        "cpu.quota" => cpu_quota(facts),
        "cpu.clocksource" => clocksource(facts),
        "cpu.governor" => governor(facts)?,
        "memory.fits" => memory_fits(sizing),
        "memory.swap" => memory_swap(facts),
        "memory.huge_pages" => huge_pages(facts)?,
        "limit.nofile" => nofile(facts, request, sizing),
        "limit.memlock" => memlock(facts, request),
        "net.ehash" => ehash(facts, request)?,
        "nic.queues" => nic_queues(facts, sizing)?,
        "sysctl.order" => sysctl_order(facts, request, sizing),
        "unit.order" => unit_order(facts, sizing),
        other => unreachable!("no rule for {other}"),
    })
}

/// Who can set a kernel setting here, and how if not we.
pub fn fix_of(name: &str, wanted: &str, scope: Scope, facts: &Facts) -> (Fix, String) {
    let is_visible = facts.sysctls.contains_key(name);
    match scope {
        Scope::Host if facts.container.is_some() || !is_visible => {
            (Fix::Host, format!("set on the host: sysctl -w '{name}={wanted}'"))
        }
        _ if facts.proc_sys_read_only => (
            Fix::Starter,
            format!("set where the container is started: docker run --sysctl '{name}={wanted}'"),
        ),
        _ => (Fix::Apply, String::new()),
    }
}

fn knob_verdict(
    knob: &Knob,
    scope: Scope,
    facts: &Facts,
    request: Request,
    sizing: &Sizing,
) -> Option<Verdict> {
    let required = (knob.required)(facts, &request, sizing)?;
    let (fix, next) = fix_of(knob.name, &required, scope, facts);
    let current = facts.sysctls.get(knob.name);
    let passed = current.is_some_and(|current| holds(knob.order, current, &required));
    let current = current.map_or("not visible here".to_owned(), |current| spaced(current));
    Some(Verdict::new(required, current, passed).fixed(fix, next))
}

fn kernel_version(facts: &Facts) -> Verdict {
    let release = facts.kernel.as_deref().unwrap_or("unknown");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok);
    let passed = next().zip(next()).is_some_and(|version| version >= (6, 1));
    Verdict::new("6.1 or later", release, passed)
        .fatal_if(true)
        .fixed(Fix::Hand, "install Linux 6.1 or later; iris serve does not start before")
}

fn io_uring(facts: &Facts) -> Verdict {
    let disabled = facts.sysctls.get("kernel.io_uring_disabled").map_or("0", String::as_str);
    let group = facts.sysctls.get("kernel.io_uring_group").map_or("-1", String::as_str);
    let on_host = if facts.container.is_some() { "on the host: " } else { "" };
    match (disabled, facts.io_uring_errno) {
        ("2", _) => Verdict::new("allowed", "kernel.io_uring_disabled = 2", false)
            .fatal_if(true)
            .fixed(Fix::Hand, format!("{on_host}sysctl -w kernel.io_uring_disabled=0")),
        (_, Some(errno)) if errno != 0 => {
            let filter = if facts.seccomp { ", under a seccomp filter" } else { "" };
            let next = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (docker run \
                --security-opt seccomp=FILE), or see iris-tune explain kernel.io_uring";
            Verdict::new("allowed", format!("refused (errno {errno}){filter}"), false)
                .fatal_if(true)
                .fixed(Fix::Hand, next)
        }
        ("1", _) => {
            let next =
                "put the service's user into that group, or sysctl -w kernel.io_uring_disabled=0";
            Verdict::new("allowed", format!("only for root and group {group}"), false)
                .fixed(Fix::Hand, format!("{on_host}{next}"))
        }
        _ => Verdict::new("allowed", "allowed", true).fatal_if(true),
    }
}

fn cpu_quota(facts: &Facts) -> Verdict {
    let Some(quota) = facts.quota else { return Verdict::new("none", "none", true) };
    let current = format!("{} of {} us", quota.max_us, quota.period_us);
    Verdict::new("none", current, false).fixed(
        Fix::Starter,
        format!(
            "give whole CPUs instead: AllowedCPUs= in the unit, docker run --cpuset-cpus; planned for {} CPUs",
            quota.cpus().min(facts.cpus.len().max(1))
        ),
    )
}

fn clocksource(facts: &Facts) -> Verdict {
    let fast = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];
    let current = facts.clocksource.as_deref().unwrap_or("unknown");
    let passed = facts.clocksource.is_none() || fast.contains(&current);
    Verdict::new("tsc or as fast", current, passed)
}

/// Without a governor nothing changes the frequency, or the host does.
fn governor(facts: &Facts) -> Option<Verdict> {
    let governor = facts.governor.as_deref()?;
    Some(
        Verdict::new("performance", governor, governor == "performance")
            .fixed(Fix::Hand, "cpupower frequency-set -g performance"),
    )
}

/// A warning only when it is tight; what fits is shown as how bad it would be otherwise.
fn memory_fits(sizing: &Sizing) -> Verdict {
    let memory = &sizing.memory;
    let total = memory.total();
    let next = match memory.connections_max {
        0 => "more memory: it holds none besides what the server itself needs".to_owned(),
        most => format!("fewer connections, or more memory: about {most} fit"),
    };
    Verdict::new(mib(total), mib(memory.available), total <= memory.available / 100 * 85)
        .fatal_if(total > memory.available || total <= memory.available / 100 * 85)
        .fixed(Fix::Hand, next)
}

fn memory_swap(facts: &Facts) -> Verdict {
    if facts.swap == 0 {
        return Verdict::new("none", "none", true);
    }
    let mut lines = facts.unit.iter().filter(|line| line.name == "MemorySwapMax");
    let is_off = lines.next_back().is_some_and(|line| line.value == "0");
    let current = if is_off { "none (MemorySwapMax=0)".to_owned() } else { mib(facts.swap) };
    let verdict = Verdict::new("none", current, is_off);
    match facts.has_units() {
        true => verdict.fixed(Fix::Apply, ""),
        false => verdict.fixed(Fix::Starter, "docker run --memory-swap as much as --memory"),
    }
}

fn huge_pages(facts: &Facts) -> Option<Verdict> {
    let mode = facts.huge_pages.as_deref()?;
    let next = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
    let (fix, next) = match facts.container {
        Some(_) => (Fix::Host, format!("set on the host: {next}")),
        None => (Fix::Hand, next.to_owned()),
    };
    Some(Verdict::new("madvise or never", mode, mode != "always").fixed(fix, next))
}

fn nofile(facts: &Facts, request: Request, sizing: &Sizing) -> Verdict {
    let required = sizing.nofile;
    let by_unit = request.profile.unit().is_some() && facts.has_units();
    let current = if by_unit { facts.unit_limit("LimitNOFILE") } else { facts.nofile };
    let verdict = Verdict::new(required.to_string(), limit(current), current >= required)
        .fatal_if(current < sizing.files);
    match (by_unit, facts.container.is_some()) {
        (true, _) => verdict.fixed(Fix::Apply, ""),
        (false, true) => verdict.fixed(
            Fix::Starter,
            format!("set where the container is started: docker run --ulimit nofile={required}"),
        ),
        (false, false) => verdict.fixed(
            Fix::Starter,
            format!(
                "ulimit -Hn {required}, or `* hard nofile {required}` in /etc/security/limits.d"
            ),
        ),
    }
}

fn memlock(facts: &Facts, request: Request) -> Verdict {
    let by_unit = request.profile.unit().is_some() && facts.has_units();
    let current = if by_unit { facts.unit_limit("LimitMEMLOCK") } else { facts.memlock };
    let verdict = Verdict::new("unlimited", limit(current), current == UNLIMITED)
        .fatal_if(current < 512 << 10);
    match (by_unit, facts.container.is_some()) {
        (true, _) => verdict.fixed(Fix::Apply, ""),
        (false, true) => verdict.fixed(
            Fix::Starter,
            "set where the container is started: docker run --ulimit memlock=-1",
        ),
        (false, false) => verdict.fixed(Fix::Starter, "ulimit -l unlimited"),
    }
}

/// Kernels before 6.1 do not say, and are no kernels for Iris anyway.
fn ehash(facts: &Facts, request: Request) -> Option<Verdict> {
    let entries: i64 = facts.sysctls.get("net.ipv4.tcp_ehash_entries")?.trim().parse().ok()?;
    let required = ehash_required(request.connections);
    // A namespace that shares the host's table says so by a negative number (ip-sysctl.rst).
    let entries = entries.unsigned_abs();
    let on_host = if facts.container.is_some() { "set on the host: " } else { "" };
    let fix = if facts.container.is_some() { Fix::Host } else { Fix::Hand };
    Some(Verdict::new(required.to_string(), entries.to_string(), entries >= required).fixed(
        fix,
        format!("{on_host}thash_entries={required} on the kernel's command line, and a reboot"),
    ))
}

/// Below four reactors one queue is no narrow place. The widest interface counts: others may be for other things.
fn nic_queues(facts: &Facts, sizing: &Sizing) -> Option<Verdict> {
    let reactors = sizing.reactor_cpus.len() as u32;
    let widest = facts.nics.iter().max_by_key(|nic| (nic.spread, nic.queues))?;
    if reactors < 4 {
        return None;
    }
    let required = reactors.min(16);
    let rps = if widest.spread { ", spread by RPS" } else { "" };
    let current = format!("{}: {}{rps}", widest.name, widest.queues);
    let passed = widest.spread || widest.queues >= required;
    Some(Verdict::new(required.to_string(), current, passed).fixed(
        Fix::Hand,
        format!(
            "ethtool -L {} combined {required}, or RPS: iris-tune explain nic.queues",
            widest.name
        ),
    ))
}

/// The last word on each setting must not be less than what is required.
fn sysctl_order(facts: &Facts, request: Request, sizing: &Sizing) -> Verdict {
    let lower: Vec<String> = KNOBS
        .iter()
        .filter(|knob| {
            let entry = crate::catalogue::entry_of(knob.id);
            entry.is_some_and(|entry| entry.profiles.contains(&request.profile))
        })
        .filter_map(|knob| {
            let required = (knob.required)(facts, &request, sizing)?;
            let last = facts.configured.iter().rev().find(|line| line.name == knob.name)?;
            let is_lower = last.after_ours && !holds(knob.order, &last.value, &required);
            is_lower.then(|| format!("{}: {} = {}", last.file, last.name, last.value))
        })
        .collect();
    let current = if lower.is_empty() { "set nothing lower".to_owned() } else { lower.join("; ") };
    Verdict::new("set nothing lower", current, lower.is_empty())
        .fixed(Fix::Hand, "remove these lines: they take back at boot what is set")
}

fn unit_order(facts: &Facts, sizing: &Sizing) -> Verdict {
    let least = |name: &str| match name {
        "LimitNOFILE" => sizing.nofile,
        "LimitMEMLOCK" => UNLIMITED,
        _ => 0,
    };
    let after = facts.unit.iter().filter(|line| line.place == Place::After);
    let lower: Vec<String> = after
        .filter(|line| line.hard().is_some_and(|hard| hard < least(&line.name)))
        .map(|line| format!("{}: {}={}", line.file, line.name, line.value))
        .collect();
    let current = if lower.is_empty() { "set nothing lower".to_owned() } else { lower.join("; ") };
    Verdict::new("set nothing lower", current, lower.is_empty())
        .fixed(Fix::Hand, "remove these lines: they take back what the drop-in sets")
}

/// A limit, where the largest number is none.
pub fn limit(value: u64) -> String {
    if value == UNLIMITED { "unlimited".to_owned() } else { value.to_string() }
}

/// Whole MiB, upwards.
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
