//! What is known of a machine, as data.

use std::collections::BTreeMap;

use serde::Serialize;

/// No limit, where a limit is a number.
pub const UNLIMITED: u64 = u64::MAX;
/// What systemd gives a unit as its hard limit of open files unless told otherwise (systemd-system.conf(5)).
pub const SYSTEMD_NOFILE: u64 = 524_288;
/// And as locked memory, bytes.
pub const SYSTEMD_MEMLOCK: u64 = 8 << 20;

/// A machine, or the part of it that a container shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// Numbers of the CPUs that may be used.
    pub cpus: Vec<u32>,
    /// How much of them: the control group's `cpu.max`.
    pub quota: Option<Quota>,
    /// Memory of the machine, bytes.
    pub memory: u64,
    /// What the control group allows of it, bytes.
    pub memory_limit: Option<u64>,
    /// Swap, bytes.
    pub swap: u64,
    /// Network interfaces of hardware.
    pub nics: Vec<Nic>,
    /// Values of the kernel settings that matter here, by name; those that the kernel does not show are missing.
    pub sysctls: BTreeMap<String, String>,
    /// What files other than ours say about them, in the order in which they are read at boot.
    pub configured: Vec<Configured>,
    /// The kind of container this is, if it is one.
    pub container: Option<String>,
    /// Whether `/proc/sys` is mounted read-only.
    pub proc_sys_read_only: bool,
    /// Whether process 1 is systemd.
    pub systemd: bool,
    /// Transparent huge pages: always, madvise or never.
    pub huge_pages: Option<String>,
    /// What the kernel tells the time by.
    pub clocksource: Option<String>,
    /// How the first CPU chooses its frequency.
    pub governor: Option<String>,
    /// Hard limit of open files of this process.
    pub nofile: u64,
    /// Soft limit of locked memory of this process, bytes.
    pub memlock: u64,
    /// What the unit and its drop-ins say of limits in `[Service]`, in the order in which they are read.
    pub unit: Vec<UnitLine>,
    /// Partitions of the log that is there already.
    pub log_partitions: u32,
    /// Why no io_uring could be made (errno), 0 if it could; `None`: it was not tried.
    pub io_uring_errno: Option<i32>,
    /// Whether a seccomp filter is on this process.
    pub seccomp: bool,
}

/// A share of the CPUs: so many us of each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Time of all CPUs together, us.
    pub max_us: u64,
    /// In that time, us.
    pub period_us: u64,
}

impl Quota {
    /// Whole CPUs that it makes, at least one.
    pub fn cpus(self) -> usize {
        (self.max_us / self.period_us.max(1)).max(1) as usize
    }
}

/// A network interface of hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Receive queues.
    pub queues: u32,
    /// Whether packets are spread over CPUs after they came (RPS).
    pub spread: bool,
}

/// A line of a file of sysctl.d(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Configured {
    /// The file.
    pub file: String,
    /// Whether it is read after ours and so has the last word.
    pub after_ours: bool,
    /// The setting, with dots.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A line of the unit, or of a drop-in of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnitLine {
    /// The file.
    pub file: String,
    /// Whether that is our drop-in, or is read before or after it.
    pub place: Place,
    /// The setting, such as `LimitNOFILE`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where a file stands in the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Before ours.
    Before,
    /// It is ours.
    Ours,
    /// After ours: it has the last word.
    After,
}

impl Facts {
    /// Memory that there is for a server: that of the machine, or less where a limit says so. Bytes.
    pub fn memory_available(&self) -> u64 {
        let of_unit = self.unit.iter().rev().find(|line| line.name == "MemoryMax");
        let of_unit = of_unit.and_then(|line| bytes_of(&line.value, self.memory));
        [self.memory_limit, of_unit].into_iter().flatten().fold(self.memory, u64::min)
    }

    /// Whether a unit of systemd can be what starts the server here.
    pub fn has_units(&self) -> bool {
        self.systemd || self.container.is_none()
    }

    /// The limit of that name which the service gets: the hard part of the last line, else what systemd gives.
    pub fn unit_limit(&self, name: &str) -> u64 {
        let lines = self.unit.iter().filter(|line| line.name == name);
        lines.rev().find_map(UnitLine::hard).unwrap_or_else(|| systemd_default(name))
    }

    /// The highest limit of that name in files other than ours, systemd's own among them.
    pub fn unit_limit_of_others(&self, name: &str) -> u64 {
        let others = self.unit.iter().filter(|line| line.name == name && line.place != Place::Ours);
        others.filter_map(UnitLine::hard).fold(systemd_default(name), u64::max)
    }
}

impl UnitLine {
    /// The hard part of a limit.
    pub fn hard(&self) -> Option<u64> {
        bytes_of(self.value.rsplit(':').next()?, 0)
    }
}

fn systemd_default(name: &str) -> u64 {
    match name {
        "LimitNOFILE" => SYSTEMD_NOFILE,
        "LimitMEMLOCK" => SYSTEMD_MEMLOCK,
        _ => UNLIMITED,
    }
}

/// A number with the suffixes of systemd (`K`, `M`, `G`, `T`, powers of 1024; `infinity`; `%` of `whole`).
pub fn bytes_of(text: &str, whole: u64) -> Option<u64> {
    let text = text.trim();
    if text == "infinity" {
        return Some(UNLIMITED);
    }
    if let Some(percent) = text.strip_suffix('%') {
        return Some(whole / 100 * percent.trim().parse::<u64>().ok()?);
    }
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[split..].trim() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_units_are_read_as_systemd_reads_them() {
        for (text, bytes) in [
            ("524288", Some(524_288)),
            ("8M", Some(8 << 20)),
            ("infinity", Some(UNLIMITED)),
            ("50%", Some(500)),
            ("1G ", Some(1 << 30)),
            ("lots", None),
            ("", None),
            ("99999999999999999999", None),
            ("999999999999T", None),
        ] {
            assert_eq!(bytes_of(text, 1000), bytes, "{text}");
        }
    }

    #[test]
    fn the_smallest_limit_of_memory_counts() {
        let mut facts = Facts { memory: 1000, ..Facts::default() };
        assert_eq!(facts.memory_available(), 1000);
        facts.memory_limit = Some(700);
        assert_eq!(facts.memory_available(), 700);
        let (file, name, value) = ("u".to_owned(), "MemoryMax".to_owned(), "50%".to_owned());
        facts.unit.push(UnitLine { file, place: Place::Before, name, value });
        assert_eq!(facts.memory_available(), 500);
    }

    #[test]
    fn the_last_line_of_a_unit_counts_and_others_are_told_from_ours() {
        let line = |place, value: &str| UnitLine {
            file: String::new(),
            place,
            name: "LimitNOFILE".to_owned(),
            value: value.to_owned(),
        };
        let mut facts = Facts::default();
        assert_eq!(facts.unit_limit("LimitNOFILE"), SYSTEMD_NOFILE);
        facts.unit = vec![line(Place::Before, "1024:700000"), line(Place::Ours, "1048576")];
        assert_eq!(facts.unit_limit("LimitNOFILE"), 1_048_576);
        assert_eq!(facts.unit_limit_of_others("LimitNOFILE"), 700_000);
        facts.unit.push(line(Place::After, "10"));
        assert_eq!(facts.unit_limit("LimitNOFILE"), 10);
    }

    #[test]
    fn part_of_a_cpu_is_no_cpu_but_there_is_always_one() {
        assert_eq!(Quota { max_us: 250_000, period_us: 100_000 }.cpus(), 2);
        assert_eq!(Quota { max_us: 50_000, period_us: 100_000 }.cpus(), 1);
    }
}
