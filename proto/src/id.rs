//! Identities: users, inboxes, messages, connections, and where a user lives.

use sha2::{Digest, Sha256};

/// A user's identity inside a cluster: the first 16 bytes of SHA-256 over the user's name in UTF-8 (FIPS 180-4).
///
/// It is the name of the user's inbox in every log, so it depends on nothing that can be lost or reconfigured. A
/// keyed hash would be faster by some 50 ns and would make the key part of the data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UserKey(pub [u8; 16]);

impl UserKey {
    /// The key of the user called `name`.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// The first eight bytes, big-endian: the place of this user on the circle of shards.
    pub fn place(self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

impl std::fmt::Debug for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A shard of the users, in `0..num_shards`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ShardId(pub u16);

/// The shard of a user: `floor(place * num_shards / 2^64)`, so that a shard is a contiguous range of places.
///
/// `num_shards` is at least 1.
pub fn shard_for_user(user: UserKey, num_shards: u16) -> ShardId {
    assert!(num_shards > 0, "a cluster has at least one shard");
    ShardId(((u128::from(user.place()) * u128::from(num_shards)) >> 64) as u16)
}

/// A message id chosen by the sender: a UUIDv7 (RFC 9562, section 5.7), big-endian, so that order is order in time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MsgId(pub u128);

impl MsgId {
    /// Milliseconds since the Unix epoch from the id's first 48 bits.
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// Whether version and variant say UUIDv7.
    pub fn is_v7(self) -> bool {
        (self.0 >> 76) & 0xf == 7 && (self.0 >> 62) & 0b11 == 0b10
    }

    /// A UUIDv7 of a time in milliseconds (48 bits are used) and 74 bits of randomness or counter.
    pub fn v7(unix_ms: u64, random: u128) -> Self {
        let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
        let rand_a = (random >> 62) & 0xfff;
        let rand_b = random & ((1 << 62) - 1);
        Self(time | 7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)
    }
}

impl std::fmt::Debug for MsgId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let x = self.0;
        let (a, b, c) = ((x >> 96) as u32, (x >> 80) as u16, (x >> 64) as u16);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", (x >> 48) as u16, x & 0xffff_ffff_ffff)
    }
}

/// One connection in one life of one reactor. Never reused: the generation moves on when the slot is freed.
///
/// Layout: reactor (12 bits), slot (28 bits), generation (24 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl ConnId {
    /// Packs the parts; each is cut to its width.
    pub fn new(reactor: u16, slot: u32, generation: u32) -> Self {
        let (reactor, slot) = (u64::from(reactor & 0xfff), u64::from(slot & 0xfff_ffff));
        Self(reactor << 52 | slot << 24 | u64::from(generation & 0xff_ffff))
    }

    /// Which reactor owns the connection.
    pub fn reactor(self) -> u16 {
        (self.0 >> 52) as u16
    }

    /// Its place in the reactor's slab.
    pub fn slot(self) -> u32 {
        (self.0 >> 24) as u32 & 0xfff_ffff
    }

    /// How often that place was used before, modulo 2^24.
    pub fn generation(self) -> u32 {
        self.0 as u32 & 0xff_ffff
    }
}

impl std::fmt::Debug for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}/{}#{}", self.reactor(), self.slot(), self.generation())
    }
}

/// Who wrote a record first: a node in one of its lives. Incarnations grow by one at each start, synced before use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Origin {
    /// The node's number in its cluster.
    pub node: u32,
    /// Which life of that node.
    pub incarnation: u32,
}

/// A record's identity within its shard: origin and place in that origin's gapless stream, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Dot {
    /// Who wrote it first.
    pub origin: Origin,
    /// Its place in that stream.
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_user_is_the_start_of_sha_256() {
        // FIPS 180-4 example: SHA-256("abc").
        assert_eq!(format!("{:?}", UserKey::of("abc")), "ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn shards_cover_all_places_and_nothing_else() {
        for num_shards in [1, 2, 3, 64, 4096, u16::MAX] {
            assert_eq!(shard_for_user(UserKey([0; 16]), num_shards), ShardId(0));
            assert_eq!(shard_for_user(UserKey([0xff; 16]), num_shards), ShardId(num_shards - 1));
        }
    }

    #[test]
    fn a_v7_id_keeps_its_time_and_says_so() {
        let id = MsgId::v7(0x0123_4567_89ab, u128::MAX);
        assert!(id.is_v7());
        assert_eq!(id.unix_ms(), 0x0123_4567_89ab);
        assert_eq!(format!("{id:?}"), "01234567-89ab-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_connection_id_gives_its_parts_back() {
        let id = ConnId::new(0xfff, 0xfff_ffff, 0xff_ffff);
        assert_eq!((id.reactor(), id.slot(), id.generation()), (0xfff, 0xfff_ffff, 0xff_ffff));
    }
}
