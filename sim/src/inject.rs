//! How faults begin and end.

use crate::disks;
use crate::faults::Kind;
use crate::model::Broken;
use crate::random::Random;
use crate::world::World;

/// A fault that lasts.
pub(crate) struct Ongoing {
    pub(crate) kind: Kind,
    pub(crate) node: usize,
    pub(crate) until_ms: u64,
}

impl World {
    pub(crate) fn fault_some(&mut self) -> Result<(), Broken> {
        let now_ms = self.now_ms;
        let over: Vec<Ongoing> = self.faults.extract_if(.., |of| of.until_ms <= now_ms).collect();
        for fault in &over {
            self.end_fault(fault)?;
        }
        if self.now_ms < self.next_fault_ms || self.kinds.is_empty() {
            return Ok(());
        }
        self.next_fault_ms = self.now_ms + self.random.between(20, 200);
        let kind = self.kinds[self.random.below(self.kinds.len() as u64) as usize];
        let any = self.random.below(2) as usize;
        let node = if kind.destroys() { self.victim } else { any };
        let until_ms = self.now_ms + self.random.between(5, 200);
        self.trace(|| format!("fault {} at node {} until {until_ms}", kind.name(), node + 1));
        *self.counts.entry(kind).or_default() += 1;
        let fault = Ongoing { kind, node, until_ms };
        self.begin_fault(&fault)?;
        self.faults.push(fault);
        Ok(())
    }

    fn begin_fault(&mut self, fault: &Ongoing) -> Result<(), Broken> {
        let Ongoing { kind, node, until_ms } = *fault;
        let for_ms = until_ms - self.now_ms;
        let disk = self.nodes[node].disk.clone();
        let eio = std::io::ErrorKind::Other;
        match kind {
            Kind::Crash | Kind::Kill => self.stop(node, kind, for_ms)?,
            Kind::CrashBoth => {
                self.stop(0, kind, for_ms)?;
                let other = self.random.between(0, 100);
                self.stop(1, kind, other)?;
            }
            Kind::Partition => self.net.cut = [true, true],
            Kind::OneWay => self.net.cut[node] = true,
            Kind::Delay => self.net.delay_ms = (5, 5 + self.random.below(40)),
            Kind::Reset => self.close_link(node, self.random.clone().one_in(2)),
            Kind::SlowDisk => self.nodes[node].write_ms = (5, 5 + self.random.below(80)),
            Kind::ClockJump => {
                let far = self.random.between(1, 5000) as i64;
                let by = if self.random.one_in(2) { far } else { -far };
                self.nodes[node].clock_ms += by;
            }
            Kind::Drain => self.drain(node),
            Kind::WriteError => disk.fail_next_write(eio),
            Kind::SyncError => disk.fail_next_sync(eio),
            Kind::ReadError => {
                disk.fail_reads(true);
                self.nodes[node].reads_fail = true;
            }
            Kind::DiskFull => disk.leave_free(self.random.below(512 << 10)),
            Kind::BitRot => self.rot(node),
            Kind::Misdirected => {
                let random = Random::new(self.random.draw());
                let other = self.nodes[1 - node].disk.clone();
                if let Some(life) = &mut self.nodes[node].life {
                    life.misdirect = Some((random, other));
                }
            }
            Kind::OldImage => {
                let machine = &mut self.nodes[node];
                machine.image = Some((disk.image(), machine.incarnation));
                self.model.image_taken(node);
            }
            Kind::EmptyDisk => {
                self.stop(node, Kind::Crash, for_ms)?;
                self.replace_disk(node, None);
            }
            Kind::EdgeCut => {
                self.edge_cut = Some(node);
                self.clients.node_is_gone(node);
            }
            Kind::GrayPeer => {
                self.nodes[node].write_ms = (30, 30 + self.random.below(150));
                self.net.delay_ms = (10, 10 + self.random.below(40));
            }
            Kind::Resend => self.resend_until_ms = until_ms,
            Kind::EdgeRestart | Kind::LinkCut | Kind::LinkReset | Kind::LinkDelay => {
                panic!("edges choose their own faults")
            }
        }
        Ok(())
    }

    fn end_fault(&mut self, fault: &Ongoing) -> Result<(), Broken> {
        let node = fault.node;
        let disk = self.nodes[node].disk.clone();
        match fault.kind {
            Kind::Partition => self.net.cut = [false, false],
            Kind::OneWay => self.net.cut[node] = false,
            Kind::Delay => self.net.delay_ms = (0, 2),
            Kind::SlowDisk => self.nodes[node].write_ms = (0, 2),
            Kind::GrayPeer => {
                self.nodes[node].write_ms = (0, 2);
                self.net.delay_ms = (0, 2);
            }
            Kind::ReadError => {
                disk.fail_reads(false);
                self.nodes[node].reads_fail = false;
            }
            Kind::DiskFull => disk.leave_free(u64::MAX),
            Kind::EdgeCut => self.edge_cut = None,
            Kind::OldImage => {
                if let Some(image) = self.nodes[node].image.take() {
                    let restart = self.random.between(1, 60);
                    self.stop(node, Kind::Crash, restart)?;
                    self.replace_disk(node, Some(image));
                }
            }
            Kind::Crash
            | Kind::CrashBoth
            | Kind::Kill
            | Kind::Reset
            | Kind::ClockJump
            | Kind::Drain
            | Kind::WriteError
            | Kind::SyncError
            | Kind::BitRot
            | Kind::Misdirected
            | Kind::EmptyDisk
            | Kind::Resend
            | Kind::EdgeRestart
            | Kind::LinkCut
            | Kind::LinkReset
            | Kind::LinkDelay => {}
        }
        Ok(())
    }

    pub(crate) fn end_faults(&mut self) -> Result<(), Broken> {
        let all = std::mem::take(&mut self.faults);
        for fault in &all {
            self.end_fault(fault)?;
        }
        self.with_edges(Self::end_edge_faults)?;
        self.trace(|| "no more faults".to_owned());
        Ok(())
    }

    fn drain(&mut self, node: usize) {
        let now = self.now(node);
        if let Some(life) = &mut self.nodes[node].life {
            life.replica.drain(&mut life.fx, &mut life.core, now);
            self.nodes[node].draining = true;
            self.clients.node_is_gone(node);
        }
    }

    /// A bit flips on a disk that is not being written this moment.
    fn rot(&mut self, node: usize) {
        let (disk, other) = (self.nodes[node].disk.clone(), self.nodes[1 - node].disk.clone());
        if let Some(lost) = disks::rot(&disk, &other, &mut self.random) {
            self.trace(|| format!("node {} can no longer read {lost:?}", node + 1));
            self.model.destroyed(node, &lost);
        }
    }

    /// A node that is down gets another disk: an image of its own, or an empty one.
    fn replace_disk(&mut self, node: usize, image: Option<(iris_wal::disk::mem::Image, u32)>) {
        let machine = &mut self.nodes[node];
        let is_empty = image.is_none();
        let (image, incarnation) = image.unwrap_or_default();
        machine.disk.restore(&image);
        machine.incarnation = incarnation;
        machine.image = None;
        self.model.image_restored(node, is_empty);
    }
}
