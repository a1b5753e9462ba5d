//! Ending a user's sessions from outside: how the wish of an operator, or of another node, gets to the threads that hold
//! connections.
//!
//! Every reactor looks for the user among its connections, some in each turn, so nothing keeps an index of users by
//! connection. In a cluster the gateway tells the other nodes (`docs/LINKS.md`, section 6).

use crate::rt::Waker;
use crossbeam_channel::{Receiver, Sender, bounded};
use iris_proto::id::UserKey;
use tokio::sync::mpsc::UnboundedSender;

/// Wishes that wait for one thread, at most.
const WISHES_MAX: usize = 64;

/// A wish that the sessions of a user end.
#[derive(Clone, Debug)]
pub struct Eject {
    /// Whose.
    pub user: UserKey,
    /// Told how many ended, once; and dropped then.
    pub ended: Option<UnboundedSender<u64>>,
}

/// A thread has as many wishes waiting as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// A way to one thread.
#[derive(Clone, Debug)]
struct Way {
    waker: Waker,
    wishes: Sender<Eject>,
}

impl Way {
    fn ask(&self, wish: Eject) -> Result<(), Full> {
        // A thread that has ended holds no connections.
        if self.wishes.try_send(wish).is_err_and(|error| error.is_full()) {
            return Err(Full);
        }
        self.waker.wake();
        Ok(())
    }
}

/// Ways to all reactors of this process.
#[derive(Clone, Debug, Default)]
pub struct Ejector {
    reactors: Vec<Way>,
    gateway: Option<Way>,
}

impl Ejector {
    /// Ways to threads with these wakers, and where each takes its wishes.
    pub fn new(
        reactors: &[Waker],
        gateway: Option<&Waker>,
    ) -> (Self, Vec<Receiver<Eject>>, Option<Receiver<Eject>>) {
        let way = |waker: &Waker| {
            let (wishes, receiver) = bounded(WISHES_MAX);
            (Way { waker: waker.clone(), wishes }, receiver)
        };
        let (reactors, of_reactors) = reactors.iter().map(way).unzip();
        let (gateway, of_gateway) = gateway.map(way).unzip();
        (Self { reactors, gateway }, of_reactors, of_gateway)
    }

    /// Ends the sessions of a user that this process holds. Each reactor says to `ended` how many those were.
    pub fn here(&self, user: UserKey, ended: Option<&UnboundedSender<u64>>) -> Result<(), Full> {
        let wish = || Eject { user, ended: ended.cloned() };
        let mut asked = Ok(());
        for way in &self.reactors {
            // All are asked, also after one that is full.
            asked = asked.and(way.ask(wish()));
        }
        asked
    }

    /// Has other nodes end them. Whether there are any.
    pub fn elsewhere(&self, user: UserKey) -> Result<bool, Full> {
        let Some(gateway) = &self.gateway else { return Ok(false) };
        gateway.ask(Eject { user, ended: None }).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reactor_is_asked_and_says_how_many_and_a_full_one_is_told() {
        let wakers = [Waker::of_parking(), Waker::of_parking()];
        let (ejector, inboxes, gateway) = Ejector::new(&wakers, None);
        assert!(gateway.is_none());
        let user = UserKey::of("ann");
        let (sender, mut ended) = tokio::sync::mpsc::unbounded_channel();
        assert_eq!(ejector.here(user, Some(&sender)), Ok(()));
        drop(sender);
        for (inbox, count) in inboxes.iter().zip([2, 1]) {
            let wish = inbox.try_recv().unwrap();
            assert_eq!(wish.user, user);
            wish.ended.unwrap().send(count).unwrap();
        }
        assert_eq!((ended.try_recv(), ended.try_recv()), (Ok(2), Ok(1)));
        assert!(
            ended
                .try_recv()
                .is_err_and(|e| e == tokio::sync::mpsc::error::TryRecvError::Disconnected)
        );
        for _ in 0..WISHES_MAX {
            assert_eq!(ejector.here(user, None), Ok(()));
        }
        drop(inboxes[1].try_recv());
        assert_eq!(ejector.here(user, None), Err(Full));
        assert_eq!(inboxes[1].len(), WISHES_MAX, "the other one was asked all the same");
        assert_eq!(ejector.elsewhere(user), Ok(false));
    }
}
