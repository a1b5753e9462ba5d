//! What a node says over the link, read by the table in `docs/REPLICATION.md` and not by the code that wrote it.

use iris_proto::id::{Dot, Origin};

const KNOWN: u8 = 2;

/// The first record that KNOWN frames claim and that is among those which are not synced.
pub(crate) fn claimed_unsynced(
    mut bytes: &[u8],
    unsynced: &[(u64, u16, Dot)],
) -> Option<(u16, Dot)> {
    let mut found = None;
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        bytes = rest;
        if frame.first() == Some(&KNOWN) {
            found = found.or_else(|| claimed_in(&frame[1..], unsynced));
        }
    }
    found
}

fn claimed_in(body: &[u8], unsynced: &[(u64, u16, Dot)]) -> Option<(u16, Dot)> {
    let mut body = Body(body);
    for _ in 0..body.number(2)? {
        let shard = body.number(2)? as u16;
        let origin = Origin { node: body.number(4)? as u32, incarnation: body.number(4)? as u32 };
        let mut claimed = vec![(1, body.number(8)?)];
        for _ in 0..body.number(1)? {
            claimed.push((body.number(8)?, body.number(8)?));
        }
        let is_claimed = |seq: u64| claimed.iter().any(|(from, to)| (*from..=*to).contains(&seq));
        let mut of_stream =
            unsynced.iter().filter(|(_, of, dot)| (*of, dot.origin) == (shard, origin));
        if let Some((_, shard, dot)) = of_stream.find(|(.., dot)| is_claimed(dot.seq)) {
            return Some((*shard, *dot));
        }
    }
    None
}

/// Little-endian numbers, one after the other.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(number.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}
