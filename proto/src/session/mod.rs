//! What a client may say when, and how long it may be silent: the edge's half of a connection.
//!
//! ```text
//!   Hello ──HELLO──▶ LoggingIn ──WELCOME──▶ Active ──SEND──▶ Sending
//!     └───────────────────── any fault ──────┴─────────────────┴──▶ closed by the driver with the code
//! ```
//!
//! The machine is fed whole frames and the passing of time; it answers with what to do or with the [`Code`] that ends
//! the connection. It knows no token, no socket and no inbox. It is 16 bytes, because a node holds millions of it.

mod slow;

pub use slow::{Changes, STALLED_S, SlowBounds, Waiting};

use crate::limits::SEND_WINDOW_MAX;
use crate::wire::{ClientFrame, Code};

/// Seconds on the node's monotonic clock.
pub type Seconds = u32;

/// How long a client may take and be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// From the first byte to a complete login.
    pub login_s: Seconds,
    /// From the last whole frame to the end; the PING comes at three eighths to a half of it. At least 2.
    pub idle_s: Seconds,
}

impl Patience {
    /// After how much silence one of the connections gets its PING. Those that logged in or were heard together, as after
    /// a restart, are apart after some PINGs, and the node has no waves of them.
    fn ping_s(&self, chance: u64) -> Seconds {
        self.idle_s / 2 - share(chance, self.idle_s / 8)
    }
}

/// How long connections may outlast their tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outlast {
    /// So long, each of them.
    pub grace_s: Seconds,
    /// And up to so long more, so that those who got their tokens together do not come back together.
    pub jitter_s: Seconds,
}

impl Outlast {
    /// How long one of them may; `chance` is a number of its own, of which all bits count.
    pub fn seconds(&self, chance: u64) -> Seconds {
        self.grace_s.saturating_add(share(chance, self.jitter_s))
    }
}

/// Evenly one of 0 to `most`, inclusive, by the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): neighbours
/// are apart.
fn share(chance: u64, most: Seconds) -> Seconds {
    let mixed = (chance ^ chance >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ mixed >> 31) % (u64::from(most) + 1)) as Seconds
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Hello,
    LoggingIn,
    /// Live, and no SEND came yet: any number is right.
    Active,
    /// Live; the next SEND has the number that follows.
    Sending,
}

/// What the passing of time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing; look again at this time.
    At(Seconds),
    /// Send a PING, then look again at this time.
    Ping(Seconds),
    /// End the connection.
    Close(Code),
}

/// One connection's rules.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    heard_s: Seconds,
    /// When it ends, because its token did.
    ends_s: Seconds,
    /// The number of the next SEND, once there was one.
    next_seq: u32,
    unanswered: u16,
    state: State,
    pinged: bool,
}

const _: () = assert!(size_of::<Session>() <= 16);

impl Session {
    /// A connection that was just accepted.
    pub fn new(now_s: Seconds) -> Self {
        Self {
            heard_s: now_s,
            ends_s: Seconds::MAX,
            next_seq: 0,
            unanswered: 0,
            state: State::Hello,
            pinged: false,
        }
    }

    /// Whether the login is done.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active | State::Sending)
    }

    /// Whether no HELLO came yet: such a client may not make the server hold more than one.
    pub fn awaits_hello(&self) -> bool {
        self.state == State::Hello
    }

    /// When it ends, because its token did.
    pub fn ends_s(&self) -> Seconds {
        self.ends_s
    }

    /// Checks a frame against the state. `Ok` means the driver may act on it.
    pub fn handle_frame(&mut self, now_s: Seconds, frame: &ClientFrame<'_>) -> Result<(), Code> {
        match (self.state, frame) {
            (State::Hello, ClientFrame::Hello(_)) => {
                self.state = State::LoggingIn;
                return Ok(());
            }
            (State::Hello | State::LoggingIn, _) | (_, ClientFrame::Hello(_)) => {
                return Err(Code::OutOfOrder);
            }
            (State::Active | State::Sending, ClientFrame::Send(send)) => {
                self.handle_send(send.seq)?;
            }
            (State::Active | State::Sending, _) => {}
        }
        self.heard_s = now_s;
        self.pinged = false;
        Ok(())
    }

    /// Numbers without gap or repeat: an answer then names one SEND, and answers join into runs.
    fn handle_send(&mut self, seq: u32) -> Result<(), Code> {
        if self.state == State::Sending && seq != self.next_seq {
            return Err(Code::BadSeq);
        }
        if u32::from(self.unanswered) >= SEND_WINDOW_MAX {
            return Err(Code::SendWindow);
        }
        self.state = State::Sending;
        self.next_seq = seq.wrapping_add(1);
        self.unanswered += 1;
        Ok(())
    }

    /// The token was good, and with what it may be outlasted ([`Outlast`]) the connection ends at `ends_s`.
    pub fn handle_verified(&mut self, ends_s: Seconds) {
        assert!(self.state == State::LoggingIn, "a token is verified once, after HELLO");
        self.ends_s = ends_s;
    }

    /// The core knows the user: WELCOME goes out. False if there is nothing to welcome (a repeat).
    pub fn handle_welcome(&mut self, now_s: Seconds) -> bool {
        if self.state != State::LoggingIn {
            return false;
        }
        self.state = State::Active;
        self.heard_s = now_s;
        true
    }

    /// SENDs were answered. A core is a peer too: answers beyond what was asked give no credit.
    pub fn handle_answers(&mut self, count: u16) {
        self.unanswered = self.unanswered.saturating_sub(count);
    }

    /// What is due now. `chance` is a number of the connection's own, of which all bits count.
    pub fn handle_time(&mut self, now_s: Seconds, patience: &Patience, chance: u64) -> Due {
        if !self.is_active() {
            let end = self.heard_s.saturating_add(patience.login_s);
            return if now_s >= end { Due::Close(Code::LoginTimeout) } else { Due::At(end) };
        }
        if now_s >= self.ends_s {
            return Due::Close(Code::TokenExpired);
        }
        let end = self.heard_s.saturating_add(patience.idle_s);
        let ping = self.heard_s.saturating_add(patience.ping_s(chance));
        if now_s >= end {
            Due::Close(Code::IdleTimeout)
        } else if now_s >= ping && !self.pinged {
            self.pinged = true;
            Due::Ping(end.min(self.ends_s))
        } else {
            Due::At(if self.pinged { end } else { ping }.min(self.ends_s))
        }
    }
}

#[cfg(test)]
mod tests;
