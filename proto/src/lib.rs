//! The decisions of Iris. State machines take bytes, time and randomness as arguments and give effects back; nothing
//! here opens a socket, reads a clock or allocates on a peer's word.
#![forbid(unsafe_code)]

pub mod admission;
pub mod core;
pub mod drain;
pub mod edge;
pub mod hlc;
pub mod id;
pub mod limits;
pub mod link;
pub mod peer;
pub mod replica;
pub mod sabotage;
pub mod session;
pub mod turnstile;
pub mod wheel;
pub mod wire;
