//! The messages that a TOMB removes: dots, grouped by origin, as runs of consecutive sequence numbers.
//!
//! One acknowledgement of a busy inbox names hundreds of dots that mostly follow each other; a run says them in 12
//! bytes. A list from the core is encoded in its own order, so nothing is sorted and nothing is allocated.

use crate::codec::{put_u32, put_u64, u32_at, u64_at};
use crate::record::{Dot, Origin};

/// Dots that one TOMB may name.
pub const TARGETS_MAX: usize = 65_535;

const GROUP_BYTES: usize = 12;
const RUN_BYTES: usize = 12;

/// Consecutive dots of one origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Whose stream.
    pub origin: Origin,
    /// The first sequence number.
    pub first: u64,
    /// How many, at least 1.
    pub count: u32,
}

/// The dots of a TOMB, from a list or from a record's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// Dots in the caller's order; those that follow each other become a run.
    List(&'a [Dot]),
    /// As they stand in a record; only [`Targets::decode`] makes these, after checking them.
    Encoded(Encoded<'a>),
}

/// Checked bytes of groups and runs.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    bytes: &'a [u8],
    groups: u16,
    count: u32,
}

/// What contradicts itself in a TOMB's groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetsError(pub(crate) &'static str);

impl PartialEq for Targets<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.dots().eq(other.dots())
    }
}

impl Eq for Targets<'_> {}

impl<'a> Targets<'a> {
    /// How many dots.
    pub fn len(&self) -> usize {
        match self {
            Self::List(dots) => dots.len(),
            Self::Encoded(encoded) => encoded.count as usize,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dots as runs.
    pub fn runs(&self) -> Runs<'a> {
        match self {
            Self::List(dots) => Runs::List(dots),
            Self::Encoded(encoded) => {
                Runs::Encoded { bytes: encoded.bytes, origin: Origin::default(), left_in_group: 0 }
            }
        }
    }

    /// The dots one by one.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + use<'a> {
        self.runs().flat_map(|run| {
            (0..u64::from(run.count)).map(move |i| Dot { origin: run.origin, seq: run.first + i })
        })
    }

    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::List(_) => {
                let mut bytes = 0;
                let mut origin = None;
                for run in self.runs() {
                    if origin.replace(run.origin) != Some(run.origin) {
                        bytes += GROUP_BYTES;
                    }
                    bytes += RUN_BYTES;
                }
                bytes
            }
            Self::Encoded(encoded) => encoded.bytes.len(),
        }
    }

    /// Writes groups and runs into `out`, which is exactly `encoded_len` bytes; returns the numbers of groups and dots.
    pub(crate) fn encode_into(&self, out: &mut [u8]) -> (u16, u32) {
        if let Self::Encoded(encoded) = self {
            out.copy_from_slice(encoded.bytes);
            return (encoded.groups, encoded.count);
        }
        let (mut at, mut groups, mut group_at, mut runs_in_group) = (0, 0u16, 0, 0u32);
        let mut origin = None;
        for run in self.runs() {
            if origin.replace(run.origin) != Some(run.origin) {
                group_at = at;
                runs_in_group = 0;
                groups = groups.checked_add(1).expect("the log refuses more targets");
                put_u32(out, at, run.origin.node);
                put_u32(out, at + 4, run.origin.incarnation);
                at += GROUP_BYTES;
            }
            runs_in_group += 1;
            put_u32(out, group_at + 8, runs_in_group);
            put_u64(out, at, run.first);
            put_u32(out, at + 8, run.count);
            at += RUN_BYTES;
        }
        (groups, u32::try_from(self.len()).expect("the log refuses more targets"))
    }

    /// Checks that `bytes` are exactly `groups` groups with `count` dots in all.
    pub(crate) fn decode(groups: u16, count: u32, bytes: &'a [u8]) -> Result<Self, TargetsError> {
        if count as usize > TARGETS_MAX {
            return Err(TargetsError("a TOMB names too many messages"));
        }
        let (mut at, mut dots) = (0usize, 0u64);
        for _ in 0..groups {
            if bytes.len() - at < GROUP_BYTES {
                return Err(TargetsError("a TOMB's group passes its end"));
            }
            let runs = u32_at(bytes, at + 8) as usize;
            at += GROUP_BYTES;
            if runs == 0 || runs > (bytes.len() - at) / RUN_BYTES {
                return Err(TargetsError("a TOMB's runs pass its end"));
            }
            for _ in 0..runs {
                let (first, run) = (u64_at(bytes, at), u32_at(bytes, at + 8));
                if run == 0 || first.checked_add(u64::from(run)).is_none() {
                    return Err(TargetsError("a TOMB's run is empty or passes the last number"));
                }
                dots += u64::from(run);
                at += RUN_BYTES;
            }
        }
        if at != bytes.len() || dots != u64::from(count) {
            return Err(TargetsError("a TOMB's groups are not what its count says"));
        }
        Ok(Self::Encoded(Encoded { bytes, groups, count }))
    }
}

/// Iterates over the runs of [`Targets`].
#[derive(Clone, Debug)]
pub enum Runs<'a> {
    /// What is left of a list.
    List(&'a [Dot]),
    /// What is left of a record's bytes.
    Encoded {
        /// From the next group or run on.
        bytes: &'a [u8],
        /// The group that the next run belongs to.
        origin: Origin,
        /// Runs left in it.
        left_in_group: u32,
    },
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        match self {
            Self::List(dots) => {
                let first = *dots.first()?;
                let follows = |(i, dot): (usize, &Dot)| {
                    dot.origin == first.origin && first.seq.checked_add(i as u64) == Some(dot.seq)
                };
                let count = dots.iter().enumerate().take_while(|item| follows(*item)).count();
                *dots = &dots[count..];
                let count = u32::try_from(count).expect("the log refuses more targets");
                Some(Run { origin: first.origin, first: first.seq, count })
            }
            Self::Encoded { bytes, origin, left_in_group } => {
                if *left_in_group == 0 {
                    if bytes.is_empty() {
                        return None;
                    }
                    *origin = Origin { node: u32_at(bytes, 0), incarnation: u32_at(bytes, 4) };
                    *left_in_group = u32_at(bytes, 8);
                    *bytes = &bytes[GROUP_BYTES..];
                }
                let run = Run { origin: *origin, first: u64_at(bytes, 0), count: u32_at(bytes, 8) };
                *bytes = &bytes[RUN_BYTES..];
                *left_in_group -= 1;
                Some(run)
            }
        }
    }
}
