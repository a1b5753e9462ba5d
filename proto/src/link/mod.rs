//! What reactors and partitions say to each other: batches of frames, one after the other in one buffer.
//!
//! Inside one process a batch crosses a bounded queue; between machines the same bytes cross TCP. Frames have the wire
//! protocol's header (type, 24-bit length) and are checked like a client's, because a peer is never believed (I9).
//!
//! Users are named by [`UserKey`] wherever a name is not shown to a person. A connection is named by [`ConnId`], which is
//! never reused, so an answer that comes late finds nobody instead of somebody else.

mod to_core;
mod to_edge;

pub use to_core::{LinkSend, PresenceAsk, ReceiptPost, ToCore};
pub use to_edge::ToEdge;

use crate::id::{ConnId, UserKey};
use crate::wire::{Code, Reader};

impl Reader<'_> {
    pub(crate) fn conn(&mut self) -> Result<ConnId, Code> {
        Ok(ConnId(self.u64()?))
    }

    pub(crate) fn user_key(&mut self) -> Result<UserKey, Code> {
        Ok(UserKey(self.array()?))
    }
}

#[cfg(test)]
mod tests;
