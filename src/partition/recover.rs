//! From the log to a serving partition.

use super::disk::Disk;
use super::edges::Edges;
use super::effects::Fx;
use super::housekeeping::{Housekeeping, Past};
use super::mirror::Mirror;
use super::pace::Pace;
use super::{Failed, Partition, Parts};
use crate::clock::Clock;
use crossbeam_channel::Sender;
use iris_proto::core::Core;
use iris_proto::replica::Now;
use iris_wal::disk::Disk as _;
use iris_wal::io::RealDisk;
use iris_wal::recovery::recover;
use iris_wal::{Log, Meta, views};
use std::time::Instant;

impl Partition {
    /// Reads the log, rebuilds the inboxes, and starts the disk's threads.
    pub(super) fn recover(parts: Parts, failed: Sender<Failed>) -> Result<Self, Failed> {
        let started = Instant::now();
        let mut core = Core::new(parts.settings.core.clone());
        let mut mirror = parts.mirror.map(|mirror| Mirror::new(parts.index, mirror));
        let (mut bad, mut targets) = (0_u64, Vec::new());
        let mut on_record = |meta: Meta<'_>| {
            if let Err(error) = views::recover(&mut core, &meta) {
                bad += 1;
                let (segment, offset) = (meta.pos.segment, meta.pos.offset);
                tracing::error!(segment, offset, %error, "a record of the log is not taken over");
            }
            if let Some(mirror) = &mut mirror {
                let view = views::view_of_meta(&meta, &mut targets);
                mirror.replica.recover(meta.pos.segment, &view);
            }
        };
        let mut recovered = recover(&RealDisk, &parts.store.place, &mut on_record)
            .map_err(|error| Failed::Because(error.to_string()))?;
        // A record that was not taken over may be a part of the checkpoint.
        recovered.checkpoint = recovered.checkpoint.filter(|_| bad == 0);
        for fault in &recovered.faults {
            tracing::error!(
                segment = fault.segment,
                from = fault.from,
                to = fault.to,
                kind = ?fault.kind,
                "a range of the log is damaged; it is kept as it is"
            );
        }
        parts.wal_metrics.unreadable.set(recovered.faults.len() as u64 + bad);
        parts.metrics.recovered_records.set(recovered.records);
        let name = format!("iris-p{}", parts.index);
        let dir = parts.store.place.dir.clone();
        let disk = Disk::start(&name, parts.store, &recovered, &parts.waker, &failed)?;
        let records = recovered.records;
        let sound = recovered.faults.is_empty();
        let torn = recovered.torn;
        let past = Past {
            last_segment: recovered.next_segment.saturating_sub(1),
            checkpoint: recovered.checkpoint,
            has_records: records > 0,
        };
        let log = Log::resume(parts.settings.log, recovered);
        let mut fx = Fx::new(
            parts.index,
            log,
            parts.links,
            &parts.settings.core,
            std::sync::Arc::clone(&parts.metrics),
            parts.wal_metrics,
        );
        let clock = Clock::new(parts.started);
        let now = Now { unix_ms: clock.unix_ms(), mono_ms: clock.monotonic_ms() };
        match &mut mirror {
            None => core.recovery_done(&mut fx, now.unix_ms),
            Some(mirror) => {
                let lsn = fx.log.durable();
                mirror.replica.recovery_done(&mut fx, &mut core, now, sound, lsn);
            }
        }
        parts.metrics.recovery_ns.set(started.elapsed().as_nanos() as u64);
        let inbox_messages = core.gauges().entries;
        tracing::info!(
            partition = parts.index,
            records,
            inbox_messages,
            ?torn,
            elapsed_ms = started.elapsed().as_millis() as u64,
            "log recovered"
        );
        let mut partition = Self {
            core,
            fx,
            inbox: parts.inbox,
            edges: Edges::new(parts.attachments),
            mirror,
            failed,
            disk,
            housekeeping: Housekeeping::new(parts.settings.disk_reserve, past, clock.instant()),
            clock,
            metrics: parts.metrics,
            unfinished: None,
            pace: Pace::new(parts.settings.batch_interval),
            more: true,
        };
        // Known from the first SEND on, and not only when the disk is next looked at.
        match RealDisk.free_bytes(&dir) {
            Ok(free) => partition.space(free),
            Err(error) => tracing::warn!(%error, "failed to ask for free disk space"),
        }
        partition.set_gauges();
        Ok(partition)
    }
}
