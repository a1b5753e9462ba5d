//! What a plan assumes: how people use it, how full machines may be, what machines there are and what they cost. Each
//! with the flag that changes it and a source.

/// Seconds of an hour.
const HOUR: f64 = 3600.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// The unit of a value, for showing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// 0 to 1.
    Share,
    /// A plain number.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Time,
    /// Dollars.
    Dollars,
}

/// Something assumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[expect(missing_docs, reason = "TABLE says what each is")]
pub enum Assumption {
    Concurrency,
    Messages,
    Recipients,
    Peak,
    Payload,
    Retention,
    Window,
    Copies,
    CpuMax,
    MemoryMax,
    DiskMax,
    Spare,
    ConnectionsMax,
    EdgeCpus,
    EdgeMemory,
    EdgePrice,
    CoreCpus,
    CoreMemory,
    CoreDisk,
    CorePrice,
    EgressPrice,
}

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which one.
    pub what: Assumption,
    /// The flag that changes it, without dashes; also its name in JSON.
    pub flag: &'static str,
    /// What it is.
    pub text: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// The default.
    pub default: f64,
    /// The least and the most that makes sense.
    pub range: (f64, f64),
    /// Why the default.
    pub source: &'static str,
}

const WHATSAPP: &str = "WhatsApp in 2014 (R. Reed, Erlang Factory: 147 M connections at the peak of 465 M users a month, of \
    whom 70 % came daily; 19 G messages in and 40 G out a day)";

const fn row(
    what: Assumption,
    flag: &'static str,
    text: &'static str,
    (unit, default, range): (Unit, f64, (f64, f64)),
    source: &'static str,
) -> Row {
    Row { what, flag, text, unit, default, range, source }
}

/// All of them, in the order of the enum.
pub const TABLE: [Row; 21] = [
    row(
        Assumption::Concurrency,
        "concurrency",
        "daily users who are connected at the peak",
        (Unit::Share, 0.45, (0.001, 1.0)),
        WHATSAPP,
    ),
    row(
        Assumption::Messages,
        "messages",
        "SENDs of a user a day",
        (Unit::Count, 60.0, (0.0, 1e7)),
        "the same: 58",
    ),
    row(
        Assumption::Recipients,
        "recipients",
        "recipients of a SEND",
        (Unit::Count, 2.1, (1.0, 128.0)),
        "the same: 2.1; each counts as a message of its own",
    ),
    row(
        Assumption::Peak,
        "peak",
        "messages in the busiest second, to the mean of the day",
        (Unit::Count, 2.0, (1.0, 1000.0)),
        "the same: 1.6, and some more",
    ),
    row(
        Assumption::Payload,
        "payload",
        "bytes of a payload",
        (Unit::Bytes, 256.0, (0.0, 65_536.0)),
        "a line of text, encrypted end to end; pictures are elsewhere",
    ),
    row(
        Assumption::Retention,
        "retention",
        "how long a message for who is away waits, on average",
        (Unit::Time, 4.0 * HOUR, (0.0, 3650.0 * 24.0 * HOUR)),
        "a guess: phones come back some times a day",
    ),
    row(
        Assumption::Window,
        "window",
        "core.dedup_window",
        (Unit::Time, HOUR, (60.0, 24.0 * HOUR)),
        "the default",
    ),
    row(
        Assumption::Copies,
        "copies",
        "cores that hold each inbox",
        (Unit::Count, 2.0, (1.0, 2.0)),
        "a pair",
    ),
    row(
        Assumption::CpuMax,
        "cpu-max",
        "how busy a machine may be at the peak",
        (Unit::Share, 0.5, (0.01, 1.0)),
        "the rest is for storms, failures and growth",
    ),
    row(
        Assumption::MemoryMax,
        "memory-max",
        "memory that may be in use, the kernel's for connections included",
        (Unit::Share, 0.75, (0.01, 1.0)),
        "the rest is for buffers, caches and the system",
    ),
    row(
        Assumption::DiskMax,
        "disk-max",
        "disk of a core that may be in use",
        (Unit::Share, 0.7, (0.01, 1.0)),
        "the rest is for times without the mirror, when the log grows",
    ),
    row(
        Assumption::Spare,
        "spare",
        "spare edges of a region, one at least",
        (Unit::Share, 0.1, (0.0, 10.0)),
        "one in ten may be gone, or drained for an upgrade",
    ),
    row(
        Assumption::ConnectionsMax,
        "connections-max",
        "connections of an edge, at most",
        (Unit::Count, 1e6, (1.0, 1e9)),
        "held for ten minutes in bench/runs/2026-11-28-6.18.44-2cores-1000000; reactor.connections_max",
    ),
    row(
        Assumption::EdgeCpus,
        "edge-cpus",
        "CPUs of an edge",
        (Unit::Count, 2.0, (1.0, 4096.0)),
        "as measured; for more, that it scales with CPUs is assumed, too",
    ),
    row(
        Assumption::EdgeMemory,
        "edge-memory",
        "memory of an edge",
        (Unit::Bytes, 16.0 * GIB, (GIB / 4.0, 65_536.0 * GIB)),
        "8 GiB a CPU",
    ),
    row(
        Assumption::EdgePrice,
        "edge-price",
        "dollars an hour for an edge",
        (Unit::Dollars, 0.113, (0.0, 1e6)),
        "about the list price of AWS r6a.large (2 vCPU, 16 GiB) in the east of the USA; not looked up: give yours",
    ),
    row(
        Assumption::CoreCpus,
        "core-cpus",
        "CPUs of a core",
        (Unit::Count, 2.0, (1.0, 4096.0)),
        "as measured; for more, that it scales with CPUs is assumed, too",
    ),
    row(
        Assumption::CoreMemory,
        "core-memory",
        "memory of a core",
        (Unit::Bytes, 16.0 * GIB, (GIB / 4.0, 65_536.0 * GIB)),
        "8 GiB a CPU",
    ),
    row(
        Assumption::CoreDisk,
        "core-disk",
        "disk of a core",
        (Unit::Bytes, 436.0 * GIB, (GIB, 1e9 * GIB)),
        "that of such a machine",
    ),
    row(
        Assumption::CorePrice,
        "core-price",
        "dollars an hour for a core",
        (Unit::Dollars, 0.172, (0.0, 1e6)),
        "about the list price of AWS i4i.large (2 vCPU, 16 GiB, NVMe); not looked up: give yours",
    ),
    row(
        Assumption::EgressPrice,
        "egress-price",
        "dollars for a GB (10^9 bytes) that goes out to clients",
        (Unit::Dollars, 0.05, (0.0, 1e3)),
        "about the list price of AWS beyond 150 TB a month; less comes at up to 0.09, transit costs less; give yours",
    ),
];

/// A value and whether somebody gave it.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: f64,
    /// Where a value that is not the default comes from.
    given: Option<String>,
}

/// The values of all assumptions.
#[derive(Clone, Debug, PartialEq)]
pub struct Assumed([Held; TABLE.len()]);

impl Default for Assumed {
    fn default() -> Self {
        Self(TABLE.map(|row| Held { value: row.default, given: None }))
    }
}

impl Assumed {
    /// The value.
    pub fn value(&self, what: Assumption) -> f64 {
        self.0[what as usize].value
    }

    /// Why it has its value.
    pub fn source(&self, what: Assumption) -> &str {
        self.0[what as usize].given.as_deref().unwrap_or(TABLE[what as usize].source)
    }

    /// Takes another value from `source`. An error says what may be given.
    pub fn set(&mut self, what: Assumption, value: f64, source: &str) -> Result<(), String> {
        let Row { flag, range: (least, most), unit, .. } = TABLE[what as usize];
        if !(value.is_finite() && (least..=most).contains(&value)) {
            let (least, most) = (super::show::value(least, unit), super::show::value(most, unit));
            return Err(format!("--{flag}: from {least} to {most}"));
        }
        self.0[what as usize] = Held { value, given: Some(source.to_owned()) };
        Ok(())
    }
}

/// Users who are near each other, and served by machines near them.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its share of the users.
    pub share: f64,
}

/// Why regions are as they are.
pub const REGIONS_SOURCE: &str =
    "about where the users of the Internet are (ITU, Facts and Figures), rounded";

/// From how many daily users on, which regions.
const REGIONS: [(u64, &[(&str, f64)]); 3] = [
    (0, &[("one", 1.0)]),
    (50_000_000, &[("americas", 0.2), ("europe-africa", 0.3), ("asia-pacific", 0.5)]),
    (
        500_000_000,
        &[
            ("north-america", 0.07),
            ("latin-america", 0.1),
            ("europe", 0.13),
            ("africa-mideast", 0.18),
            ("south-asia", 0.24),
            ("east-asia-pacific", 0.28),
        ],
    ),
];

/// Regions of an installation, at most.
const REGIONS_MAX: usize = 64;

/// The regions for so many daily users, if nobody says which.
pub fn regions_of(dau: u64) -> Vec<Region> {
    let (_, regions) = REGIONS.iter().rfind(|(from, _)| dau >= *from).expect("the first is from 0");
    regions.iter().map(|(name, share)| Region { name: (*name).to_owned(), share: *share }).collect()
}

/// Regions as they are typed: `eu=0.4,us=0.6`, or a number of alike ones.
pub fn parse_regions(text: &str) -> Result<Vec<Region>, String> {
    let wrong = || {
        format!(
            "{text:?} is not a number of regions, 1 to {REGIONS_MAX}, or names with shares that \
             sum up to 1, such as eu=0.4,us=0.6"
        )
    };
    if let Ok(count) = text.parse::<usize>() {
        if !(1..=REGIONS_MAX).contains(&count) {
            return Err(wrong());
        }
        let share = 1.0 / count as f64;
        return Ok((1..=count).map(|n| Region { name: n.to_string(), share }).collect());
    }
    let mut regions: Vec<Region> = Vec::new();
    for part in text.split(',') {
        let (name, share) = part.split_once('=').ok_or_else(wrong)?;
        let share: f64 = share.trim().parse().map_err(|_| wrong())?;
        let name = name.trim().to_owned();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_new = !regions.iter().any(|region| region.name == name);
        let is_good = (1..=32).contains(&name.len()) && name.chars().all(is_name) && is_new;
        if !(is_good && share > 0.0 && share <= 1.0) {
            return Err(wrong());
        }
        regions.push(Region { name, share });
    }
    let sum: f64 = regions.iter().map(|region| region.share).sum();
    if (sum - 1.0).abs() > 0.001 || regions.len() > REGIONS_MAX {
        return Err(wrong());
    }
    Ok(regions)
}
