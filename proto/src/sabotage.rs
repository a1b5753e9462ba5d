//! Ways to be wrong on purpose, one at a time, so that the simulator can prove that it notices. Only the feature `sabotage`
//! compiles them in; without it [`is`] is false wherever it stands, and nothing is left of them.

/// A way to be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// I2: a healthy pair acknowledges before the peer has synced.
    AckBeforePeer,
    /// I1: a message taken alone is acknowledged before it is synced.
    AckBeforeSync,
    /// I1: a retry is answered before its record is synced.
    RetryAnswered,
    /// I1: a message is delivered before it is synced.
    DeliverUnsynced,
    /// I1: a greeting claims what is not synced.
    ClaimUnsynced,
    /// I1: frames are reported synced when they are appended.
    ReportUnsynced,
    /// I2: the first answer alone does not wait for its EPOCH.
    SoloUnsynced,
    /// I2: an answer says two copies where there is one.
    CopiesLie,
    /// I3: END is said before all was sent.
    EndTooEarly,
    /// I3: what the disk does not read is said to be dead.
    UnreadIgnored,
    /// I3: a segment goes before the peer has it.
    DroppedBeforePeer,
    /// I3: a MARK says more than is known.
    MarkTooHigh,
    /// I3: the log of a pair is taken for one of before the pair.
    LogWithoutPeer,
    /// I3: a TOMB goes before the message it removes.
    TombsPruned,
    /// I4: a TOMB that comes before its message is forgotten.
    EarlyTombLost,
    /// I3: a peer that fell back is not told what is live.
    NothingUnlisted,
    /// I4: what is in memory overtakes what is in the log.
    MemoryFirst,
    /// I5: of two records of an id both stay.
    BothKept,
    /// I5: a checkpoint forgets message ids.
    DedupForgotten,
    /// I5: ids of the peer are not remembered.
    ForeignIdsForgotten,
    /// I1: the peer is told of an id before its record.
    DedupTooEarly,
    /// order: a restart turns an inbox around.
    OrderLost,
    /// I4: a life goes on under the numbers of the one before.
    IncarnationReused,
    /// I4: digests are not compared, and numbers are used twice.
    DigestIgnored,
    /// edge: a SEND that is under way when its shard moves is forgotten.
    EdgeForgetsSend,
    /// edge: a SEND that a core leaves to another one is answered as accepted.
    EdgeAcceptsRefused,
    /// edge: an answer counts for the SEND after it, too.
    EdgeAcceptsMore,
    /// edge: an answer that comes from two cores is passed on twice.
    EdgeRepeatsAnswer,
    /// edge: deliveries begin at 1 again after a move.
    EdgeNotRenumbered,
    /// edge: acknowledgements keep the client's numbers after a move.
    EdgeAcksUntranslated,
    /// edge: deliveries of an older login are passed on.
    EdgeStaleLogin,
    /// edge: a SEND that no core answers is not refused.
    EdgeWaitsForever,
    /// takeover: the old session is not told.
    TakeoverUntold,
    /// takeover: what an old session acknowledges counts.
    TakeoverStaleAck,
    /// takeover: what the old session has under way is not delivered to the one that took over.
    TakeoverKeepsFlight,
}

/// Whether this way is on.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn is(_: Sabotage) -> bool {
    false
}

#[cfg(feature = "sabotage")]
pub use on::{is, set};

#[cfg(feature = "sabotage")]
mod on {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static NOW: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Whether this way is on, in this thread.
    pub fn is(what: Sabotage) -> bool {
        NOW.get() == Some(what)
    }

    /// Turns one way on in this thread, or none.
    pub fn set(what: Option<Sabotage>) {
        NOW.set(what);
    }

    impl Sabotage {
        /// Those that the search of all orders of a takeover must notice (`proto/tests/takeover.rs`), with their names.
        pub const TAKEOVER: [(Self, &'static str); 3] = [
            (Self::TakeoverUntold, "takeover_untold"),
            (Self::TakeoverStaleAck, "takeover_stale_ack"),
            (Self::TakeoverKeepsFlight, "takeover_keeps_flight"),
        ];

        /// Those that the simulator must notice: name, and what it breaks.
        pub const ALL: [(Self, &'static str, &'static str); 32] = [
            (
                Self::AckBeforePeer,
                "ack_before_peer",
                "I2: a healthy pair acknowledges before the peer has synced",
            ),
            (
                Self::AckBeforeSync,
                "ack_before_sync",
                "I1: a message taken alone is acknowledged before it is synced",
            ),
            (
                Self::RetryAnswered,
                "retry_answered",
                "I1: a retry is answered before its record is synced",
            ),
            (
                Self::DeliverUnsynced,
                "deliver_unsynced",
                "I1: a message is delivered before it is synced",
            ),
            (Self::ClaimUnsynced, "claim_unsynced", "I1: a greeting claims what is not synced"),
            (
                Self::ReportUnsynced,
                "report_unsynced",
                "I1: frames are reported synced when they are appended",
            ),
            (
                Self::SoloUnsynced,
                "solo_unsynced",
                "I2: the first answer alone does not wait for its EPOCH",
            ),
            (Self::CopiesLie, "copies_lie", "I2: an answer says two copies where there is one"),
            (Self::EndTooEarly, "end_too_early", "I3: END is said before all was sent"),
            (
                Self::UnreadIgnored,
                "unread_ignored",
                "I3: what the disk does not read is said to be dead",
            ),
            (
                Self::DroppedBeforePeer,
                "dropped_before_peer",
                "I3: a segment goes before the peer has it",
            ),
            (Self::MarkTooHigh, "mark_too_high", "I3: a MARK says more than is known"),
            (
                Self::LogWithoutPeer,
                "log_without_peer",
                "I3: the log of a pair is taken for one of before the pair",
            ),
            (Self::TombsPruned, "tombs_pruned", "I3: a TOMB goes before the message it removes"),
            (
                Self::EarlyTombLost,
                "early_tomb_lost",
                "I4: a TOMB that comes before its message is forgotten",
            ),
            (
                Self::NothingUnlisted,
                "nothing_unlisted",
                "I3: a peer that fell back is not told what is live",
            ),
            (
                Self::MemoryFirst,
                "memory_first",
                "I4: what is in memory overtakes what is in the log",
            ),
            (Self::BothKept, "both_kept", "I5: of two records of an id both stay"),
            (Self::DedupForgotten, "dedup_forgotten", "I5: a checkpoint forgets message ids"),
            (
                Self::ForeignIdsForgotten,
                "foreign_ids_forgotten",
                "I5: ids of the peer are not remembered",
            ),
            (
                Self::DedupTooEarly,
                "dedup_too_early",
                "I1: the peer is told of an id before its record",
            ),
            (Self::OrderLost, "order_lost", "order: a restart turns an inbox around"),
            (
                Self::IncarnationReused,
                "incarnation_reused",
                "I4: a life goes on under the numbers of the one before",
            ),
            (
                Self::DigestIgnored,
                "digest_ignored",
                "I4: digests are not compared, and numbers are used twice",
            ),
            (
                Self::EdgeForgetsSend,
                "edge_forgets_send",
                "edge: a SEND that is under way when its shard moves is forgotten",
            ),
            (
                Self::EdgeAcceptsRefused,
                "edge_accepts_refused",
                "edge: a SEND that a core leaves to another one is answered as accepted",
            ),
            (
                Self::EdgeAcceptsMore,
                "edge_accepts_more",
                "edge: an answer counts for the SEND after it, too",
            ),
            (
                Self::EdgeRepeatsAnswer,
                "edge_repeats_answer",
                "edge: an answer that comes from two cores is passed on twice",
            ),
            (
                Self::EdgeNotRenumbered,
                "edge_not_renumbered",
                "edge: deliveries begin at 1 again after a move",
            ),
            (
                Self::EdgeAcksUntranslated,
                "edge_acks_untranslated",
                "edge: acknowledgements keep the client's numbers after a move",
            ),
            (
                Self::EdgeStaleLogin,
                "edge_stale_login",
                "edge: deliveries of an older login are passed on",
            ),
            (
                Self::EdgeWaitsForever,
                "edge_waits_forever",
                "edge: a SEND that no core answers is not refused",
            ),
        ];

        /// The one with this name.
        pub fn of(name: &str) -> Option<Self> {
            Self::ALL.iter().find(|(_, of, _)| *of == name).map(|(what, ..)| *what)
        }
    }
}
