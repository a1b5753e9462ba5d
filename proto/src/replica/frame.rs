//! The frames that two replicas exchange: a length, a kind, a body. `docs/REPLICATION.md` has the tables.
//!
//! A length is checked before anything waits for a body; decoding borrows, and looks at each byte once. The link below is
//! ordered and whole; what does not parse ends it (I9).

use super::effects::{Mode, RefuseCode};
use crate::hlc::Hlc;
use crate::id::{Dot, Origin, ShardId, UserKey};
use crate::limits::REPLICA_FRAME_BYTES_MAX;
use crate::wire::{Reader, Writer};

/// The only version there is.
pub(crate) const VERSION: u8 = 1;
/// Entries in one KNOWN, CHECK or END frame, at most.
pub(crate) const ENTRIES_MAX: usize = 1024;
/// Ranges beyond the prefix in one entry of KNOWN, at most; further ones are not claimed.
pub(crate) const EXTRA_MAX: usize = 64;
/// Bytes of an entry in a LIVE frame.
const LIVE_ENTRY_BYTES: usize = 32;
/// Entries in one LIVE frame, at most.
pub(crate) const LIVE_MAX: usize = 4096;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const KNOWN: u8 = 2;
    pub(super) const CHECK: u8 = 3;
    pub(super) const RECORDS: u8 = 4;
    pub(super) const END: u8 = 5;
    pub(super) const REPORT: u8 = 6;
    pub(super) const BYE: u8 = 7;
    pub(super) const REFUSE: u8 = 8;
    pub(super) const DEDUP: u8 = 9;
    pub(super) const FENCED: u8 = 10;
    pub(super) const LIVE: u8 = 11;
    /// Who does not know such a kind skips it.
    pub(super) const IGNORABLE: u8 = 0x80;
}

/// The log of the sender has no damaged range.
const FLAG_SOUND: u8 = 1;
/// The sender is about to stop.
const FLAG_DRAINING: u8 = 2;

/// A frame that is not one. The link ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

impl From<crate::wire::Code> for Malformed {
    fn from(_: crate::wire::Code) -> Self {
        Self
    }
}

/// The first frame of each side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) version_min: u8,
    pub(crate) version_max: u8,
    pub(crate) me: Origin,
    pub(crate) partition: u16,
    pub(crate) partitions: u16,
    pub(crate) num_shards: u16,
    pub(crate) mode: Mode,
    pub(crate) sound: bool,
    pub(crate) draining: bool,
    pub(crate) state_id: u64,
    /// The highest incarnation of the receiver that the sender has a record of.
    pub(crate) known_incarnation: u32,
    pub(crate) hlc: Hlc,
    /// Bytes that the sender takes before it reports them synced.
    pub(crate) window_bytes: u32,
    /// Messages that the sender took alone since it last was in NORMAL.
    pub(crate) solo_msgs: u64,
    /// Entries in the KNOWN frames that follow.
    pub(crate) streams: u32,
}

/// A stream: the records of one origin in one shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct StreamKey {
    pub(crate) shard: ShardId,
    pub(crate) origin: Origin,
}

/// What the sender has of a stream, synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) stream: StreamKey,
    pub(crate) prefix: u64,
    pub(crate) extra: Vec<(u64, u64)>,
}

/// A number of a stream and the chain digest there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Point {
    pub(crate) stream: StreamKey,
    pub(crate) seq: u64,
    pub(crate) digest: u64,
}

/// How far the sender of a REPORT is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Report {
    /// Frames of the receiver up to this one are synced here.
    pub(crate) synced: u64,
    /// What our own frames up to this one hold is synced here, too.
    pub(crate) durable: u64,
    /// The newest stamp.
    pub(crate) hlc: Hlc,
    /// The receiver has synced what we had, and all else goes out as it is appended.
    pub(crate) live: bool,
}

/// A frame, borrowing its bytes.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Hello(Hello),
    Known(Vec<Known>),
    /// Points to compare.
    Check(Vec<Point>),
    /// Whole records, back to back.
    Records {
        number: u64,
        records: &'a [u8],
    },
    /// All that the sender has up to these points was sent: what was not is dead. `more`: further END frames follow.
    End {
        number: u64,
        more: bool,
        points: Vec<Point>,
    },
    Report(Report),
    Bye,
    Refuse(u8),
    Dedup {
        number: u64,
        shard: ShardId,
        body: &'a [u8],
    },
    Fenced(StreamKey),
    /// Of what the sender claimed in its greeting, only this is live. `more`: further LIVE frames follow.
    Live {
        number: u64,
        more: bool,
        entries: Vec<(UserKey, Dot)>,
    },
    /// Of an unknown kind that may be skipped.
    Skipped,
}

/// Takes a frame off the front of `bytes`: the frame and how many bytes it took. `None`: it is not whole yet.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some((header, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*header) as usize;
    if !(1..=REPLICA_FRAME_BYTES_MAX).contains(&len) {
        return Err(Malformed);
    }
    let Some(frame) = rest.get(..len) else { return Ok(None) };
    Ok(Some((decode(frame[0], &frame[1..])?, 4 + len)))
}

fn decode(kind: u8, body: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let r = &mut reader;
    let frame = match kind {
        kind::HELLO => Frame::Hello(read_hello(r)?),
        kind::KNOWN => Frame::Known(read_entries(r, read_known)?),
        kind::CHECK => Frame::Check(read_entries(r, read_point)?),
        kind::RECORDS => Frame::Records { number: r.u64()?, records: r.rest() },
        kind::END => {
            let (number, more) = (r.u64()?, r.u8()? != 0);
            Frame::End { number, more, points: read_entries(r, read_point)? }
        }
        kind::REPORT => {
            let (synced, durable, hlc) = (r.u64()?, r.u64()?, Hlc(r.u64()?));
            Frame::Report(Report { synced, durable, hlc, live: r.u8()? != 0 })
        }
        kind::BYE => Frame::Bye,
        kind::REFUSE => Frame::Refuse(r.u8()?),
        kind::DEDUP => Frame::Dedup { number: r.u64()?, shard: ShardId(r.u16()?), body: r.rest() },
        kind::FENCED => Frame::Fenced(read_stream(r)?),
        kind::LIVE => {
            Frame::Live { number: r.u64()?, more: r.u8()? != 0, entries: read_live(r.rest())? }
        }
        kind if kind & kind::IGNORABLE != 0 => {
            r.rest();
            Frame::Skipped
        }
        _ => return Err(Malformed),
    };
    reader.end()?;
    Ok(frame)
}

fn read_hello(r: &mut Reader<'_>) -> Result<Hello, Malformed> {
    let (version_min, version_max) = (r.u8()?, r.u8()?);
    let mode = Mode::of(r.u8()?).ok_or(Malformed)?;
    let flags = r.u8()?;
    Ok(Hello {
        version_min,
        version_max,
        mode,
        sound: flags & FLAG_SOUND != 0,
        draining: flags & FLAG_DRAINING != 0,
        me: read_origin(r)?,
        partition: r.u16()?,
        partitions: r.u16()?,
        num_shards: r.u16()?,
        state_id: r.u64()?,
        known_incarnation: r.u32()?,
        hlc: Hlc(r.u64()?),
        window_bytes: r.u32()?,
        solo_msgs: r.u64()?,
        streams: r.u32()?,
    })
}

fn read_origin(r: &mut Reader<'_>) -> Result<Origin, Malformed> {
    Ok(Origin { node: r.u32()?, incarnation: r.u32()? })
}

fn read_stream(r: &mut Reader<'_>) -> Result<StreamKey, Malformed> {
    Ok(StreamKey { shard: ShardId(r.u16()?), origin: read_origin(r)? })
}

fn read_known(r: &mut Reader<'_>) -> Result<Known, Malformed> {
    let (stream, prefix) = (read_stream(r)?, r.u64()?);
    let count = usize::from(r.u8()?);
    if count > EXTRA_MAX {
        return Err(Malformed);
    }
    let mut extra = Vec::with_capacity(count);
    let mut last = prefix;
    for _ in 0..count {
        let (from, to) = (r.u64()?, r.u64()?);
        if from <= last || to < from || to == u64::MAX {
            return Err(Malformed);
        }
        last = to;
        extra.push((from, to));
    }
    Ok(Known { stream, prefix, extra })
}

fn read_point(r: &mut Reader<'_>) -> Result<Point, Malformed> {
    Ok(Point { stream: read_stream(r)?, seq: r.u64()?, digest: r.u64()? })
}

/// 32 bytes an entry: inbox, origin, number.
fn read_live(bytes: &[u8]) -> Result<Vec<(UserKey, Dot)>, Malformed> {
    let (entries, rest) = bytes.as_chunks::<LIVE_ENTRY_BYTES>();
    let entry = |bytes: &[u8; LIVE_ENTRY_BYTES]| {
        let (inbox, dot) = bytes.split_first_chunk::<16>().ok_or(Malformed)?;
        let mut r = Reader::new(dot);
        Ok((UserKey(*inbox), Dot { origin: read_origin(&mut r)?, seq: r.u64()? }))
    };
    if rest.is_empty() { entries.iter().map(entry).collect() } else { Err(Malformed) }
}

fn read_entries<T>(
    r: &mut Reader<'_>,
    read: fn(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = usize::from(r.u16()?);
    if count > ENTRIES_MAX {
        return Err(Malformed);
    }
    (0..count).map(|_| read(r)).collect()
}

/// Appends a frame whose body `fill` writes.
fn put(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    fill(&mut Writer::new(out));
    let len = out.len() - start - 4;
    assert!(len <= REPLICA_FRAME_BYTES_MAX, "a frame of ours fits its own bound");
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
}

fn put_origin(w: &mut Writer<'_>, origin: Origin) {
    w.u32(origin.node).u32(origin.incarnation);
}

fn put_stream(w: &mut Writer<'_>, stream: StreamKey) {
    w.u16(stream.shard.0);
    put_origin(w, stream.origin);
}

fn put_points(w: &mut Writer<'_>, points: &[Point]) {
    w.u16(points.len() as u16);
    for point in points {
        put_stream(w, point.stream);
        w.u64(point.seq).u64(point.digest);
    }
}

pub(crate) fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    put(out, kind::HELLO, |w| {
        let sound = if hello.sound { FLAG_SOUND } else { 0 };
        let draining = if hello.draining { FLAG_DRAINING } else { 0 };
        w.u8(hello.version_min).u8(hello.version_max).u8(hello.mode as u8).u8(sound | draining);
        put_origin(w, hello.me);
        w.u16(hello.partition).u16(hello.partitions).u16(hello.num_shards);
        w.u64(hello.state_id).u32(hello.known_incarnation).u64(hello.hlc.0);
        w.u32(hello.window_bytes).u64(hello.solo_msgs).u32(hello.streams);
    });
}

pub(crate) fn put_known(out: &mut Vec<u8>, entries: &[Known]) {
    put(out, kind::KNOWN, |w| {
        w.u16(entries.len() as u16);
        for known in entries {
            put_stream(w, known.stream);
            w.u64(known.prefix).u8(known.extra.len() as u8);
            known.extra.iter().for_each(|(from, to)| _ = w.u64(*from).u64(*to));
        }
    });
}

pub(crate) fn put_check(out: &mut Vec<u8>, points: &[Point]) {
    put(out, kind::CHECK, |w| put_points(w, points));
}

/// The first bytes of a RECORDS frame; `bytes` of records follow.
pub(crate) fn put_records_head(out: &mut Vec<u8>, number: u64, bytes: usize) {
    assert!(9 + bytes <= REPLICA_FRAME_BYTES_MAX, "a frame of ours fits its own bound");
    Writer::new(out).u32(9 + bytes as u32).u8(kind::RECORDS).u64(number);
}

pub(crate) fn put_end(out: &mut Vec<u8>, number: u64, more: bool, points: &[Point]) {
    put(out, kind::END, |w| {
        w.u64(number).u8(u8::from(more));
        put_points(w, points);
    });
}

pub(crate) fn put_report(out: &mut Vec<u8>, report: Report) {
    let Report { synced, durable, hlc, live } = report;
    put(out, kind::REPORT, |w| _ = w.u64(synced).u64(durable).u64(hlc.0).u8(u8::from(live)));
}

pub(crate) fn put_bye(out: &mut Vec<u8>) {
    put(out, kind::BYE, |_| {});
}

pub(crate) fn put_refuse(out: &mut Vec<u8>, why: RefuseCode) {
    put(out, kind::REFUSE, |w| _ = w.u8(why as u8));
}

pub(crate) fn put_dedup(out: &mut Vec<u8>, number: u64, shard: ShardId, body: &[u8]) {
    put(out, kind::DEDUP, |w| _ = w.u64(number).u16(shard.0).bytes(body));
}

pub(crate) fn put_live(out: &mut Vec<u8>, number: u64, more: bool, entries: &[(UserKey, Dot)]) {
    put(out, kind::LIVE, |w| {
        w.u64(number).u8(u8::from(more));
        for (inbox, dot) in entries {
            w.bytes(&inbox.0);
            put_origin(w, dot.origin);
            w.u64(dot.seq);
        }
    });
}

pub(crate) fn put_fenced(out: &mut Vec<u8>, stream: StreamKey) {
    put(out, kind::FENCED, |w| put_stream(w, stream));
}
