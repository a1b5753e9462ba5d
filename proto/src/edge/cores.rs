//! What is known of the cores: links, partitions, and who is trusted to answer.

use super::CoreIndex;
use crate::id::ShardId;
use crate::peer::{PartitionState, ShardRanges};

/// For how long a partition that refused its shard, or did not answer, is not chosen. Milliseconds.
const DOUBT_MS: u64 = 1000;

/// The weight of a core for a shard: the highest one is preferred (Thaler and Ravishankar, "Using Name-Based Mappings to
/// Increase Hit Rates", 1998). All edges must agree, so the function is part of the protocol: the finalizer of
/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over `shard << 32 | node`.
pub fn weight(shard: ShardId, node: u32) -> u64 {
    let mut z = (u64::from(shard.0) << 32 | u64::from(node)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// One partition of a core.
#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    state: PartitionState,
    /// Since when it serves without a fault.
    good_since_ms: u64,
    /// Not chosen before.
    doubted_until_ms: u64,
}

#[derive(Debug)]
struct Core {
    node: u32,
    is_up: bool,
    /// Which link it is: what belongs to an older one is void.
    epoch: u16,
    partitions: Vec<Partition>,
    serves: Vec<bool>,
}

/// All cores.
#[derive(Debug)]
pub(super) struct Cores {
    list: Vec<Core>,
    /// When the first one of all served.
    began_ms: Option<u64>,
}

impl Cores {
    pub(super) fn new(nodes: &[u32]) -> Self {
        let core = |node: &u32| Core {
            node: *node,
            is_up: false,
            epoch: 0,
            partitions: Vec::new(),
            serves: Vec::new(),
        };
        Self { list: nodes.iter().map(core).collect(), began_ms: None }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn up(&mut self, core: CoreIndex, partitions: u16, shards: &ShardRanges, all: u16) {
        let core = &mut self.list[core];
        core.is_up = partitions > 0;
        core.epoch = core.epoch.wrapping_add(1);
        core.partitions = vec![Partition::default(); usize::from(partitions)];
        core.serves = (0..all).map(|shard| shards.contains(shard)).collect();
    }

    pub(super) fn down(&mut self, core: CoreIndex) {
        self.list[core].is_up = false;
    }

    pub(super) fn is_up(&self, core: CoreIndex) -> bool {
        self.list[core].is_up
    }

    pub(super) fn epoch(&self, core: CoreIndex) -> u16 {
        self.list[core].epoch
    }

    /// The partition of a shard. Only of a core that was up.
    pub(super) fn partition(&self, core: CoreIndex, shard: ShardId) -> u16 {
        shard.0 % self.list[core].partitions.len() as u16
    }

    pub(super) fn set_state(
        &mut self,
        core: CoreIndex,
        partition: u16,
        state: PartitionState,
        now_ms: u64,
    ) {
        if let Some(partition) = self.list[core].partitions.get_mut(usize::from(partition)) {
            if state == PartitionState::Serving && partition.state != state {
                partition.good_since_ms = now_ms;
            }
            if state.takes() {
                self.began_ms.get_or_insert(now_ms);
            }
            partition.state = state;
        }
    }

    /// The state of a shard's partition there; recovering if the core is away or does not serve it.
    pub(super) fn state(&self, core: CoreIndex, shard: ShardId) -> PartitionState {
        let known = &self.list[core];
        if !known.is_up || !known.serves[usize::from(shard.0)] {
            return PartitionState::Recovering;
        }
        known.partitions[usize::from(self.partition(core, shard))].state
    }

    /// A shard's partition there refused it or does not answer.
    pub(super) fn doubt(&mut self, core: CoreIndex, shard: ShardId, now_ms: u64) {
        if self.list[core].is_up {
            let partition = self.partition(core, shard);
            let partition = &mut self.list[core].partitions[usize::from(partition)];
            partition.doubted_until_ms = now_ms + DOUBT_MS;
            partition.good_since_ms = now_ms + DOUBT_MS;
        }
    }

    pub(super) fn is_doubted(&self, core: CoreIndex, shard: ShardId) -> bool {
        let partition = self.partition(core, shard);
        self.list[core].partitions[usize::from(partition)].doubted_until_ms > 0
    }

    /// Forgets doubts whose time is over.
    pub(super) fn expire(&mut self, now_ms: u64) {
        for partition in self.list.iter_mut().flat_map(|core| &mut core.partitions) {
            if partition.doubted_until_ms <= now_ms {
                partition.doubted_until_ms = 0;
            }
        }
    }

    /// The usable core with the highest weight, of those that lack no record if there is one.
    pub(super) fn best(&self, shard: ShardId) -> Option<CoreIndex> {
        (0..self.len())
            .filter(|core| self.state(*core, shard).takes() && !self.is_doubted(*core, shard))
            .max_by_key(|core| {
                let is_whole = self.state(*core, shard) == PartitionState::Serving;
                (is_whole, weight(shard, self.list[*core].node), *core)
            })
    }

    /// Whether the first choice for a shard should wait for cores that are not there yet.
    pub(super) fn may_grow(&self, shard: ShardId, now_ms: u64, settle_ms: u64) -> bool {
        let began_ms = self.began_ms.unwrap_or(now_ms);
        let serves = |core| self.state(core, shard).takes();
        now_ms < began_ms + settle_ms && !(0..self.len()).all(serves)
    }

    /// Whether the shard's partition there serves without a fault, and lacks no record, since that time.
    pub(super) fn is_good_since(&self, core: CoreIndex, shard: ShardId, then_ms: u64) -> bool {
        let partition = self.partition(core, shard);
        let is_whole = self.state(core, shard) == PartitionState::Serving;
        is_whole && self.list[core].partitions[usize::from(partition)].good_since_ms <= then_ms
    }
}
