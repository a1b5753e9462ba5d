//! Records: what is written is what is read, and no bytes can do harm.

use iris_wal::record::{RecordError, decode};
use iris_wal::{
    Body, Checkpoint, Dot, Epoch, Head, Mark, Msg, Origin, Reason, Record, Targets, Tomb,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A record that owns what it borrows.
#[derive(Clone, Debug)]
enum Owned {
    Msg { msg_id: u128, flags: u16, copy: bool, to: Vec<[u8; 16]>, from: Vec<u8>, payload: Vec<u8> },
    Tomb { inbox: [u8; 16], reason: u8, targets: Vec<Dot> },
    Dedup(Vec<u8>),
    Epoch(u8, u64, Vec<u8>),
    Mark(u64, Vec<u8>),
    Checkpoint(u32),
}

fn dots() -> impl Strategy<Value = Vec<Dot>> {
    // Few origins and small steps, so that runs and groups of all lengths come up.
    vec((0u32..3, 0u32..2, 0u64..4), 0..60).prop_map(|steps| {
        let mut seq = 1;
        let dots = steps.into_iter().map(|(node, incarnation, step)| {
            seq += step;
            Dot { origin: Origin { node: node / 2, incarnation }, seq }
        });
        dots.collect()
    })
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn owned() -> impl Strategy<Value = Owned> {
    let msg = (
        any::<u128>(),
        any::<u16>(),
        any::<bool>(),
        vec(any::<[u8; 16]>(), 0..9),
        bytes(256),
        bytes(300),
    );
    prop_oneof![
        msg.prop_map(|(msg_id, flags, copy, to, from, payload)| Owned::Msg {
            msg_id,
            flags,
            copy,
            to,
            from,
            payload
        }),
        (any::<[u8; 16]>(), any::<u8>(), dots()).prop_map(|(inbox, reason, targets)| Owned::Tomb {
            inbox,
            reason,
            targets
        }),
        bytes(300).prop_map(Owned::Dedup),
        (any::<u8>(), any::<u64>(), bytes(100)).prop_map(|(s, id, vv)| Owned::Epoch(s, id, vv)),
        (any::<u64>(), bytes(100)).prop_map(|(hlc, vv)| Owned::Mark(hlc, vv)),
        any::<u32>().prop_map(Owned::Checkpoint),
    ]
}

fn head() -> impl Strategy<Value = Head> {
    any::<(u16, u32, u32, u64, u64)>().prop_map(|(shard, node, incarnation, seq, hlc)| {
        let origin = Origin { node, incarnation };
        Head { shard, origin, seq, hlc }
    })
}

fn with_record<T>(head: Head, owned: &Owned, f: impl FnOnce(&Record<'_>) -> T) -> T {
    let flat: Vec<u8>;
    let body = match owned {
        Owned::Msg { msg_id, flags, copy, to, from, payload } => {
            flat = to.concat();
            Body::Msg(Msg {
                msg_id: *msg_id,
                sender: [4; 16],
                msg_flags: *flags,
                copy: *copy,
                recipients: &flat,
                from,
                payload,
            })
        }
        Owned::Tomb { inbox, reason, targets } => Body::Tomb(Tomb {
            inbox: *inbox,
            reason: Reason(*reason),
            targets: Targets::List(targets),
        }),
        Owned::Dedup(body) => Body::Dedup(body),
        Owned::Epoch(state, state_id, vv) => {
            Body::Epoch(Epoch { state: *state, state_id: *state_id, peer_vv: vv })
        }
        Owned::Mark(heartbeat_hlc, vv) => Body::Mark(Mark { heartbeat_hlc: *heartbeat_hlc, vv }),
        Owned::Checkpoint(began) => Body::Checkpoint(Checkpoint { began: *began }),
    };
    f(&Record { head, body })
}

proptest! {
    #[test]
    fn a_record_reads_back_as_written(head in head(), owned in owned()) {
        with_record(head, &owned, |record| {
            let mut bytes = record.to_vec();
            bytes.extend_from_slice(b"what follows");
            let (read, len) = decode(&bytes).unwrap();
            prop_assert_eq!(&read, record);
            prop_assert_eq!(len, record.encoded_len());
            // A record that was read is written again to the same bytes: that is how copies are shipped.
            prop_assert_eq!(&read.to_vec()[..], &bytes[..len]);
            Ok(())
        })?;
    }

    #[test]
    fn a_cut_or_a_flipped_bit_is_an_error(head in head(), owned in owned(), at in any::<usize>()) {
        with_record(head, &owned, |record| {
            let bytes = record.to_vec();
            prop_assert!(decode(&bytes[..at % bytes.len()]).is_err());
            let mut flipped = bytes.clone();
            let bit = at % (bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&flipped).is_err());
            Ok(())
        })?;
    }

    #[test]
    fn arbitrary_bytes_with_a_correct_checksum_never_panic(
        kind in 0u8..7, flags in 0u16..4, mut bytes in vec(any::<u8>(), 40..200), small in any::<bool>()
    ) {
        let len = bytes.len();
        bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[4..6].copy_from_slice(&[kind, 1]);
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        if small && len > 80 {
            // Counts that could fit, so that decoding gets further than the first bound.
            bytes[54..60].copy_from_slice(&[1, 0, 2, 0, 0, 0]);
            bytes[68..72].copy_from_slice(&[1, 0, 1, 0]);
        }
        let crc = crc32c::crc32c(&bytes[..len - 4]);
        bytes[len - 4..].copy_from_slice(&crc.to_le_bytes());
        if let Ok((record, _)) = decode(&bytes)
            && let Body::Tomb(tomb) = record.body
        {
            prop_assert_eq!(tomb.targets.dots().count(), tomb.targets.len());
        }
    }
}

#[test]
fn a_busy_inbox_is_acknowledged_in_few_bytes() {
    let origin = Origin { node: 1, incarnation: 1 };
    let targets: Vec<Dot> = (1..=10_000).map(|seq| Dot { origin, seq }).collect();
    let targets = Targets::List(&targets);
    let tomb = Tomb { inbox: [1; 16], reason: Reason::ACKED, targets };
    let record = Record { head: Head::default(), body: Body::Tomb(tomb) };
    assert_eq!(record.encoded_len(), 36 + 24 + 12 + 12 + 4);
    assert_eq!(targets.runs().count(), 1);
}

#[test]
fn a_length_is_never_followed_out_of_bounds() {
    let record = Record { head: Head::default(), body: Body::Dedup(&[1; 64]) };
    for len in [0u32, 1, 39, 105, 1 << 20, u32::MAX] {
        let mut bytes = record.to_vec();
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        assert_eq!(decode(&bytes), Err(RecordError::Length { len, available: 104 }));
    }
}
