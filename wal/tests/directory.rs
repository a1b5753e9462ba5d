//! A node's data directory on the real disk: lock, identity, and a log that is written, killed and read back.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use iris_wal::disk::{Access, Disk, SyncMethod};
use iris_wal::io::{
    Directory, Founding, IdentityError, NODE_NAME, OpenError, RealDisk, random_salt, self_test,
};
use iris_wal::recovery::{Recovered, recover};
use iris_wal::segment::SegmentHeader;
use iris_wal::store::{Reader, Supply, SupplyConfig, Writer};
use iris_wal::{AppendError, BLOCK, Body, Head, Log, LogConfig, Msg, Origin, Pos, Record};

const FOUNDING: Founding =
    Founding { cluster: None, node_id: 7, num_shards: 64, partitions: 2, now_s: 0 };

fn data() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_second_opener_is_refused_and_told_who_is_first() {
    let data = data();
    let first = Directory::open(data.path(), &FOUNDING).unwrap();
    let error = Directory::open(data.path(), &FOUNDING).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, OpenError::Locked { .. }), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    assert!(said.contains(data.path().to_str().unwrap()), "{said}");
    assert_eq!(first.identity().incarnation, 1, "the second opener changed nothing");
    drop(first);
    assert_eq!(Directory::open(data.path(), &FOUNDING).unwrap().identity().incarnation, 2);
}

#[test]
fn each_life_has_a_higher_incarnation_and_everything_else_stays() {
    let data = data();
    let first = Directory::open(data.path(), &FOUNDING).unwrap().identity().clone();
    for incarnation in 2..5 {
        let next = Directory::open(data.path(), &FOUNDING).unwrap().identity().clone();
        assert_eq!(next, iris_wal::io::Identity { incarnation, ..first.clone() });
    }
    assert_eq!(first.node[6] >> 4, 4, "a random UUID says so");
    assert_ne!(first.node, first.cluster);
}

#[test]
fn a_life_begins_above_every_life_before_and_not_below_the_time() {
    let (data, empty) = (data(), data());
    let life = |path: &Path, now_s: u32| {
        let founding = Founding { now_s, ..FOUNDING };
        Directory::open(path, &founding).unwrap().identity().incarnation
    };
    assert_eq!(life(data.path(), 1000), 1000);
    assert_eq!(life(data.path(), 1000), 1001);
    assert_eq!(life(data.path(), 500), 1002, "clocks step back");
    assert_eq!(life(empty.path(), 1003), 1003, "an empty disk does not know the others");
    let raised = Directory::open(data.path(), &FOUNDING).unwrap();
    raised.raise_incarnation(5000).unwrap();
    drop(raised);
    assert_eq!(life(data.path(), 2000), 5001);
}

#[test]
fn a_directory_founded_otherwise_is_refused_and_untouched() {
    let data = data();
    drop(Directory::open(data.path(), &FOUNDING).unwrap());
    let before = fs::read(data.path().join(NODE_NAME)).unwrap();
    for (other, what) in [
        (Founding { num_shards: 128, ..FOUNDING }, "number of shards 64"),
        (Founding { partitions: 3, ..FOUNDING }, "number of partitions 2"),
        (Founding { node_id: 8, ..FOUNDING }, "node id 7"),
        (Founding { cluster: Some([1; 16]), ..FOUNDING }, "cluster"),
    ] {
        let error = Directory::open(data.path(), &other).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert_eq!(fs::read(data.path().join(NODE_NAME)).unwrap(), before);
}

/// The identity of a directory that is opened now.
fn open(data: &Path) -> Result<iris_wal::io::Identity, OpenError> {
    Directory::open(data, &FOUNDING).map(|directory| directory.identity().clone())
}

fn altered(byte: u8) -> u8 {
    if byte == b'3' { b'4' } else { b'3' }
}

#[test]
fn any_altered_byte_of_one_copy_of_the_identity_is_made_up_for_by_the_other() {
    let data = data();
    let first = open(data.path()).unwrap();
    let path = data.path().join(NODE_NAME);
    let text = fs::read(&path).unwrap();
    assert_eq!(text.len(), 2 * BLOCK);
    for copy in [0, BLOCK] {
        for i in (copy..copy + 300).chain([copy + BLOCK - 2]) {
            let mut rotten = text.clone();
            rotten[i] = altered(rotten[i]);
            fs::write(&path, &rotten).unwrap();
            let next = open(data.path()).unwrap();
            assert_eq!(next, iris_wal::io::Identity { incarnation: 2, ..first.clone() });
            let mended = fs::read(&path).unwrap();
            assert_eq!(mended[..BLOCK], mended[BLOCK..], "byte {i}");
        }
    }
}

#[test]
fn an_identity_of_which_no_copy_is_whole_is_refused() {
    let data = data();
    open(data.path()).unwrap();
    let path = data.path().join(NODE_NAME);
    let text = fs::read(&path).unwrap();
    for i in 0..300 {
        let mut rotten = text.clone();
        rotten[i] = altered(rotten[i]);
        rotten[BLOCK + 299 - i] = altered(rotten[BLOCK + 299 - i]);
        fs::write(&path, &rotten).unwrap();
        let error = open(data.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Identity(IdentityError::Damaged { .. })),
            "byte {i}: {error}"
        );
        assert_eq!(fs::read(&path).unwrap(), rotten, "nothing is touched");
    }
    for len in [0, 1, 100, BLOCK - 1, 2 * BLOCK - 1, 2 * BLOCK + 1] {
        let mut cut = text.clone();
        cut.resize(len, b' ');
        cut[..len.min(10)].fill(b'x');
        fs::write(&path, &cut).unwrap();
        assert!(matches!(open(data.path()), Err(OpenError::Identity(_))), "{len} bytes");
    }
    let other = data_of_another_node();
    fs::write(&path, [&text[..BLOCK], &other[BLOCK..]].concat()).unwrap();
    let error = open(data.path()).unwrap_err().to_string();
    assert!(error.contains("two nodes"), "{error}");
}

fn data_of_another_node() -> Vec<u8> {
    let data = data();
    open(data.path()).unwrap();
    fs::read(data.path().join(NODE_NAME)).unwrap()
}

#[test]
fn no_incarnation_is_used_twice_wherever_a_start_was_cut_off() {
    let data = data();
    open(data.path()).unwrap();
    let path = data.path().join(NODE_NAME);
    let before = fs::read(&path).unwrap();
    open(data.path()).unwrap();
    let after = fs::read(&path).unwrap();
    let torn = |copy: &[u8]| [&copy[..100], &[0; BLOCK - 100][..]].concat();
    // What the second start may have left: the life it began counts only where both copies say so.
    for (left, incarnation) in [
        (before.clone(), 2),
        ([torn(&after), before[BLOCK..].to_vec()].concat(), 2),
        ([&after[..BLOCK], &before[BLOCK..]].concat(), 3),
        ([after[..BLOCK].to_vec(), torn(&before)].concat(), 3),
        (after.clone(), 3),
    ] {
        fs::write(&path, &left).unwrap();
        assert_eq!(open(data.path()).unwrap().incarnation, incarnation);
    }
}

#[test]
fn an_identity_of_one_line_is_taken_over() {
    let (cluster, node) =
        ("f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "0b7e4d1c-3a52-4f6e-9c1d-5e8f7a6b4c2d");
    let line = |incarnation: u32| {
        let sums = format!("1 {cluster} {node} 7 {incarnation} 64 2");
        let crc = crc32c::crc32c(sums.as_bytes());
        format!(r#"{{"format":1,"cluster":"{cluster}","node":"{node}","node_id":7,"#)
            + &format!(
                r#""incarnation":{incarnation},"num_shards":64,"partitions":2,"crc32c":"{crc:08x}"}}"#
            )
    };
    let data = data();
    let path = data.path().join(NODE_NAME);
    fs::write(&path, line(41) + "\n").unwrap();
    assert_eq!(open(data.path()).unwrap().incarnation, 42);
    // And as it is written from now on.
    let copy = format!("{:<1$}\n", line(42), BLOCK - 1);
    assert_eq!(fs::read_to_string(&path).unwrap(), copy.repeat(2));
    assert_eq!(open(data.path()).unwrap().incarnation, 43);
}

#[test]
fn a_new_life_keeps_the_files_it_needs_where_they_are() {
    use std::os::unix::fs::MetadataExt;
    let data = data();
    let files = [NODE_NAME, iris_wal::io::LOCK_NAME].map(|name| data.path().join(name));
    open(data.path()).unwrap();
    let look = || files.clone().map(|path| fs::metadata(path).unwrap()).map(|m| (m.ino(), m.len()));
    let before = look();
    open(data.path()).unwrap();
    assert_eq!(look(), before);
}

#[test]
fn logs_without_an_identity_are_refused() {
    let data = data();
    let directory = Directory::open(data.path(), &FOUNDING).unwrap();
    fs::write(directory.place(1).dir.join("00000001.seg"), b"x").unwrap();
    drop(directory);
    fs::remove_file(data.path().join(NODE_NAME)).unwrap();
    let error = Directory::open(data.path(), &FOUNDING).unwrap_err();
    assert!(matches!(error, OpenError::NoIdentity { .. }), "{error}");
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named() {
    let data = data();
    let file = data.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Directory::open(&file.join("below"), &FOUNDING).unwrap_err().to_string();
    assert!(error.starts_with("failed to create") && error.contains("file/below"), "{error}");
}

struct Node {
    log: Log,
    supply: Supply<RealDisk>,
    writer: Writer<RealDisk>,
}

fn boot(directory: &Directory, method: SyncMethod) -> (Node, Vec<(Pos, u32)>) {
    let place = directory.place(0);
    let mut live = Vec::new();
    let recovered =
        recover(&RealDisk, &place, &mut |meta| live.push((meta.pos, meta.len))).unwrap();
    assert_eq!(recovered.faults, []);
    let config = SupplyConfig {
        segment_bytes: 1 << 20,
        frame_bytes_max: 64 << 10,
        free_bytes_min: 0,
        method,
        ..SupplyConfig::default()
    };
    let supply = Supply::open(RealDisk, place.clone(), config, &recovered).unwrap();
    let config = LogConfig { frame_bytes_max: 64 << 10, ..LogConfig::default() };
    let writer = Writer::new(RealDisk, place.dir.clone(), method);
    (Node { log: Log::resume(config, recovered), supply, writer }, live)
}

impl Node {
    fn send(&mut self, seq: u64, payload: &[u8]) -> Pos {
        let origin = Origin { node: 7, incarnation: 1 };
        let body = Msg {
            msg_id: u128::from(seq),
            sender: [1; 16],
            msg_flags: 0,
            copy: false,
            recipients: &[2; 16],
            from: b"bob",
            payload,
        };
        let record =
            Record { head: Head { shard: 0, origin, seq, hlc: seq }, body: Body::Msg(body) };
        let pos = loop {
            match self.log.append(&record) {
                Ok(pos) => break pos,
                Err(error) => assert_eq!(error, AppendError::NoSegment),
            }
            for _ in 0..self.log.wants_segments() {
                let ready = self.supply.prepare(random_salt().unwrap(), 0).unwrap();
                self.log.add_segment(ready);
            }
        };
        while let Some(write) = self.log.take_write() {
            self.writer.perform(&write).unwrap();
            self.log.synced(write);
        }
        while let Some(mut footer) = self.log.take_footer() {
            while !self.writer.perform_footer(&mut footer).unwrap() {}
            self.log.footer_written(footer);
        }
        pos
    }
}

fn written_and_read_back(data: &Path, method: SyncMethod) {
    let payload = |seq: u64| vec![seq as u8; 1000 + (seq as usize * 977) % 40_000];
    let mut sent = Vec::new();
    for life in 0..3u64 {
        let directory = Directory::open(data, &FOUNDING).unwrap();
        let (mut node, live) = boot(&directory, method);
        assert_eq!(live.iter().map(|(pos, _)| *pos).collect::<Vec<_>>(), sent);
        for seq in life * 50 + 1..=life * 50 + 50 {
            sent.push(node.send(seq, &payload(seq)));
        }
    }
    let directory = Directory::open(data, &FOUNDING).unwrap();
    let (_, live) = boot(&directory, method);
    let mut reader = Reader::new(RealDisk, directory.place(0).dir);
    let mut read = 0;
    reader.read_records(&live, &mut |i, record| {
        let record = record.unwrap();
        let Body::Msg(msg) = record.body else { panic!("{record:?}") };
        assert_eq!(record.head.seq, i as u64 + 1);
        assert_eq!(msg.payload, payload(i as u64 + 1));
        read += 1;
    });
    assert_eq!(read, 150);
}

#[test]
fn a_log_on_the_real_disk_is_read_back_whatever_the_sync_method() {
    let probe = data();
    let works = self_test(probe.path(), Path::new("/none")).unwrap();
    assert!(fs::read_dir(probe.path()).unwrap().next().is_none(), "the self-test cleans up");
    assert!(works.medians.iter().any(|(method, _)| *method == works.method));
    let direct = works.medians.into_iter().map(|(method, _)| method);
    for method in direct.chain([SyncMethod::BufferedFdatasync]) {
        written_and_read_back(data().path(), method);
    }
}

#[test]
fn a_recycled_file_keeps_its_length_and_gets_a_new_header() {
    let data = data();
    let directory = Directory::open(data.path(), &FOUNDING).unwrap();
    let (mut node, _) = boot(&directory, SyncMethod::BufferedFdatasync);
    let ready = node.supply.prepare(11, 0).unwrap();
    node.supply.retire(ready.segment).unwrap();
    let again = node.supply.prepare(12, 5).unwrap();
    assert_eq!((ready.segment, again.segment, node.supply.spares()), (1, 2, 0));
    let path = directory.place(0).dir.join("00000002.seg");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    let header = SegmentHeader::decode(&fs::read(&path).unwrap()[..BLOCK]).unwrap();
    assert_eq!((header.salt, header.segment, header.created_hlc), (12, 2, 5));
    assert_eq!(header.owner, directory.identity().owner(0));
}

#[test]
fn free_space_is_what_the_file_system_says() {
    let data = data();
    let free = RealDisk.free_bytes(data.path()).unwrap();
    assert!(free > 0);
    let error = RealDisk.free_bytes(&data.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(RealDisk.open(&data.path().join("missing"), Access::Read).is_err());
}

#[test]
fn an_empty_directory_begins_at_one() {
    let data = data();
    let directory = Directory::open(data.path(), &FOUNDING).unwrap();
    let Recovered { next_segment, last_batch, records, .. } =
        recover(&RealDisk, &directory.place(1), &mut |_| {}).unwrap();
    assert_eq!((next_segment, last_batch, records), (1, 0, 0));
}
