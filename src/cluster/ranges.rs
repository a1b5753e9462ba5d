//! Numbers for the reactors of edges. A range goes to one link, and is free again once the link is gone and every
//! partition has let go of it: until then frames under way name it.

use std::ops::Range;
use std::sync::Arc;

/// Reactors are numbered in 12 bits (`ConnId`).
const REACTORS_MAX: u16 = 1 << 12;

/// A range in use.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) reactors: Range<u16>,
    /// Held by everybody who may still see frames of the range.
    pub(super) in_use: Arc<()>,
}

/// All ranges.
#[derive(Debug)]
pub(super) struct Ranges {
    /// Reactors of this process come first.
    near: u16,
    leases: Vec<Lease>,
}

impl Ranges {
    pub(super) fn new(near: u16) -> Self {
        Self { near, leases: Vec::new() }
    }

    /// The first free range of that many numbers; `None` if there is none.
    pub(super) fn lease(&mut self, count: u16) -> Option<Lease> {
        // The one kept here is the last one.
        self.leases.retain(|lease| Arc::strong_count(&lease.in_use) > 1);
        self.leases.sort_unstable_by_key(|lease| lease.reactors.start);
        let mut start = self.near;
        for lease in &self.leases {
            if lease.reactors.start - start >= count {
                break;
            }
            start = lease.reactors.end;
        }
        let end = start.checked_add(count).filter(|end| *end <= REACTORS_MAX)?;
        let lease = Lease { reactors: start..end, in_use: Arc::new(()) };
        self.leases.push(lease.clone());
        Some(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_given_out_again_once_nobody_holds_it() {
        let mut ranges = Ranges::new(2);
        let first = ranges.lease(3).unwrap();
        let second = ranges.lease(10).unwrap();
        assert_eq!((first.reactors.clone(), second.reactors.clone()), (2..5, 5..15));
        let held = Arc::clone(&first.in_use);
        drop(first);
        assert_eq!(ranges.lease(3).unwrap().reactors, 15..18, "somebody still sees its frames");
        drop(held);
        assert_eq!(ranges.lease(4).unwrap().reactors, 15..19, "too narrow");
        assert_eq!(ranges.lease(2).unwrap().reactors, 2..4);
        drop(second);
    }

    #[test]
    fn numbers_are_bounded() {
        let mut ranges = Ranges::new(0);
        let all = ranges.lease(4096).unwrap();
        assert!(ranges.lease(1).is_none());
        drop(all);
        assert!(ranges.lease(4097).is_none() && ranges.lease(u16::MAX).is_none());
    }
}
