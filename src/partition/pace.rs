//! When the open batch is written: as soon as the writer is free, unless records may gather first.

use std::time::Duration;

/// Nanoseconds of the node's monotonic clock.
type Nanos = u64;

/// What a configuration may say is far below the 584 years that fit.
fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

/// What waits in the open batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// Whether somebody waits for an answer to a record of it.
    pub awaited: bool,
    /// Whether more fits. A batch without room is written whatever its pace.
    pub has_room: bool,
    /// How long records that nobody waits for may gather.
    pub unawaited_max: Duration,
}

/// The pace of one log's batches.
#[derive(Debug)]
pub(super) struct Pace {
    /// From the begin of one batch to that of the next, at the least.
    interval: Nanos,
    last: Option<Nanos>,
    unawaited_since: Option<Nanos>,
    /// Until when the open batch waits on purpose.
    until: Option<Nanos>,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval: nanos(interval), last: None, unawaited_since: None, until: None }
    }

    /// Whether the open batch, which is not empty, is to be written now.
    pub(super) fn is_due(&mut self, now: Nanos, open: Open) -> bool {
        let next = self.last.map(|last| last + self.interval);
        self.until = if !open.has_room {
            None
        } else if open.awaited {
            next
        } else {
            let since = *self.unawaited_since.get_or_insert(now);
            next.max(Some(since + nanos(open.unawaited_max)))
        };
        self.until.is_none_or(|until| until <= now)
    }

    /// The batch is on its way to the disk.
    pub(super) fn begun(&mut self, now: Nanos) {
        *self = Self { last: Some(now), unawaited_since: None, until: None, ..*self };
    }

    /// There is nothing to write.
    pub(super) fn nothing(&mut self) {
        (self.unawaited_since, self.until) = (None, None);
    }

    /// How long nobody needs to look, if a batch waits on purpose.
    pub(super) fn sleep_max(&self, now: Nanos) -> Option<Duration> {
        self.until.filter(|&until| until > now).map(|until| Duration::from_nanos(until - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const INTERVAL: Duration = Duration::from_millis(2);
    const AWAITED: Open =
        Open { awaited: true, has_room: true, unawaited_max: Duration::from_millis(5) };
    const UNAWAITED: Open = Open { awaited: false, ..AWAITED };

    #[test]
    fn without_an_interval_what_somebody_waits_for_is_written_at_once() {
        let (mut pace, now) = (Pace::new(Duration::ZERO), 7 * MS);
        for _ in 0..3 {
            assert!(pace.is_due(now, AWAITED));
            pace.begun(now);
        }
    }

    #[test]
    fn batches_begin_an_interval_apart_and_the_first_after_a_pause_at_once() {
        let (mut pace, now) = (Pace::new(INTERVAL), 7 * MS);
        assert!(pace.is_due(now, AWAITED));
        pace.begun(now);
        assert!(!pace.is_due(now + MS, AWAITED));
        assert_eq!(pace.sleep_max(now + MS), Some(INTERVAL / 2));
        assert!(pace.is_due(now + 2 * MS, AWAITED));
        pace.begun(now + 2 * MS);
        pace.nothing();
        assert_eq!(pace.sleep_max(now + 2 * MS), None);
        assert!(pace.is_due(now + 9 * MS, AWAITED));
    }

    #[test]
    fn what_nobody_waits_for_gathers_until_somebody_does() {
        let (mut pace, now) = (Pace::new(Duration::ZERO), 7 * MS);
        assert!(!pace.is_due(now, UNAWAITED));
        assert!(!pace.is_due(now + 4 * MS, UNAWAITED));
        assert_eq!(pace.sleep_max(now + 4 * MS), Some(INTERVAL / 2));
        assert!(pace.is_due(now + 4 * MS, AWAITED));
        assert!(!pace.is_due(now + 4 * MS, UNAWAITED));
        assert!(pace.is_due(now + 5 * MS, UNAWAITED));
        pace.begun(now + 5 * MS);
        assert!(!pace.is_due(now + 6 * MS, UNAWAITED), "counts anew for the next batch");
    }

    #[test]
    fn what_nobody_waits_for_keeps_to_the_interval_too() {
        let mut pace = Pace::new(20 * INTERVAL);
        pace.begun(7 * MS);
        assert!(!pace.is_due(8 * MS, UNAWAITED));
        assert!(!pace.is_due(46 * MS, UNAWAITED));
        assert!(pace.is_due(47 * MS, UNAWAITED));
    }

    #[test]
    fn a_full_batch_waits_for_nothing() {
        let (mut pace, now) = (Pace::new(INTERVAL), 7 * MS);
        pace.begun(now);
        for open in [AWAITED, UNAWAITED] {
            assert!(pace.is_due(now, Open { has_room: false, ..open }));
        }
    }
}
