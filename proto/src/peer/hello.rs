//! HELLO: who a node is, what it can do, and how much it may be sent.

use super::code::{End, EndCode};
use super::frame::{kind, malformed, put, read};
use super::{VERSION_MAX, VERSION_MIN};
use crate::wire::{Code, Reader};

const MAGIC: [u8; 4] = *b"IRLK";
/// Bytes of a cluster's name, at most; at least 1.
pub const CLUSTER_BYTES_MAX: usize = 63;
/// Bytes of a node's and of a region's name, at most.
const NAME_BYTES_MAX: usize = 64;
/// Ranges of shards in one HELLO, at most.
const RANGES_MAX: usize = 256;

/// What a node does, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Roles(pub u8);

impl Roles {
    /// It holds clients' connections.
    pub const EDGE: Self = Self(1);
    /// It holds inboxes.
    pub const CORE: Self = Self(2);

    /// Whether all of `roles` are among these.
    pub fn has(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// These and those.
    pub fn with(self, roles: Self) -> Self {
        Self(self.0 | roles.0)
    }
}

/// What a link is for. Each purpose has a link of its own, so that neither waits behind the other's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Clients of the dialling edge and inboxes of the dialled core: batches of [`crate::link`].
    Clients = 1,
    /// Two cores that mirror each other: one opaque stream per partition.
    Replication = 2,
}

/// Which shards a core serves: ranges of `first..=last`, ascending and apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardRanges(Vec<(u16, u16)>);

impl ShardRanges {
    /// All shards of a cluster.
    pub fn all(num_shards: u16) -> Self {
        assert!(num_shards > 0, "a cluster has at least one shard");
        Self(vec![(0, num_shards - 1)])
    }

    /// None: those of an edge.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Ranges of which each is `first..=last`; `None` if they are not ascending and apart.
    pub fn of(ranges: &[(u16, u16)]) -> Option<Self> {
        let each = ranges.iter().all(|(first, last)| first <= last);
        let apart = ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
        (each && apart && ranges.len() <= RANGES_MAX).then(|| Self(ranges.to_vec()))
    }

    /// Whether a shard is among them.
    pub fn contains(&self, shard: u16) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= shard);
        after > 0 && self.0[after - 1].1 >= shard
    }

    /// The last shard of all.
    fn last(&self) -> Option<u16> {
        self.0.last().map(|(_, last)| *last)
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0.iter().copied()
    }
}

/// What each side says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The oldest version it speaks.
    pub version_min: u16,
    /// The newest version it speaks.
    pub version_max: u16,
    /// What the link is for; both say the same.
    pub purpose: Purpose,
    /// What it does.
    pub roles: Roles,
    /// Its number in the cluster, from 1.
    pub node: u32,
    /// Which life of the node: another one for each start.
    pub incarnation: u64,
    /// Shards of the cluster.
    pub num_shards: u16,
    /// Partitions of a core; 0 of an edge. Channels are numbered like them.
    pub partitions: u16,
    /// Reactors of an edge; 0 of a core.
    pub reactors: u16,
    /// Milliseconds between its heartbeats.
    pub heartbeat_ms: u32,
    /// Bytes of BATCH that the other side may have under way on each channel.
    pub credit: u32,
    /// The shards it serves.
    pub shards: ShardRanges,
    /// The cluster's name.
    pub cluster: String,
    /// Where it is.
    pub region: String,
    /// Its name.
    pub name: String,
}

impl Hello {
    /// Decodes a body. What follows the fields of this version is for later ones.
    pub(super) fn decode(body: &[u8]) -> Result<Self, End> {
        let mut r = Reader::new(body);
        if r.array::<4>().ok() != Some(MAGIC) {
            let text = "the first bytes are no HELLO of a link";
            return Err(End::ours(EndCode::Garbage, text));
        }
        let versions = read(|| Ok((r.u16()?, r.u16()?)), "HELLO")?;
        // Before the rest, which another version may have written otherwise.
        if versions.0 > VERSION_MAX || versions.1 < VERSION_MIN {
            let (least, most) = versions;
            let text = format!(
                "the peer speaks versions {least} to {most}, this node {VERSION_MIN} to {VERSION_MAX}"
            );
            return Err(End::ours(EndCode::Version, text));
        }
        let hello = read(|| Self::fields(versions, &mut r), "HELLO")?;
        let has_shards_of_cluster = hello.shards.last().is_none_or(|last| last < hello.num_shards);
        let has_numbers = hello.node > 0 && hello.num_shards > 0 && hello.heartbeat_ms > 0;
        if !has_numbers || !has_shards_of_cluster || hello.cluster.is_empty() {
            return Err(malformed("HELLO"));
        }
        Ok(hello)
    }

    fn fields(versions: (u16, u16), r: &mut Reader<'_>) -> Result<Self, Code> {
        let purpose = match r.u8()? {
            1 => Purpose::Clients,
            2 => Purpose::Replication,
            _ => return Err(Code::Malformed),
        };
        let roles = Roles(r.u8()?);
        let (node, incarnation) = (r.u32()?, r.u64()?);
        let (num_shards, partitions, reactors) = (r.u16()?, r.u16()?, r.u16()?);
        let (heartbeat_ms, credit) = (r.u32()?, r.u32()?);
        let count = usize::from(r.u16()?);
        if count > RANGES_MAX {
            return Err(Code::Malformed);
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            ranges.push((r.u16()?, r.u16()?));
        }
        let shards = ShardRanges::of(&ranges).ok_or(Code::Malformed)?;
        Ok(Self {
            version_min: versions.0,
            version_max: versions.1,
            purpose,
            roles,
            node,
            incarnation,
            num_shards,
            partitions,
            reactors,
            heartbeat_ms,
            credit,
            shards,
            cluster: label(r, CLUSTER_BYTES_MAX)?,
            region: label(r, NAME_BYTES_MAX)?,
            name: label(r, NAME_BYTES_MAX)?,
        })
    }

    /// Appends the whole frame.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, kind::HELLO, 0, |w| {
            w.bytes(&MAGIC).u16(self.version_min).u16(self.version_max);
            w.u8(self.purpose as u8).u8(self.roles.0).u32(self.node).u64(self.incarnation);
            w.u16(self.num_shards).u16(self.partitions).u16(self.reactors);
            w.u32(self.heartbeat_ms).u32(self.credit);
            w.u16(self.shards.0.len() as u16);
            self.shards.iter().for_each(|(first, last)| {
                w.u16(first).u16(last);
            });
            w.str8(&self.cluster).str8(&self.region).str8(&self.name);
        });
    }
}

/// A name that people read: not longer than `max`, without control characters, so that no log line can be forged.
fn label(r: &mut Reader<'_>, max: usize) -> Result<String, Code> {
    let text = r.str8()?;
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(Code::Malformed);
    }
    Ok(text.to_owned())
}
