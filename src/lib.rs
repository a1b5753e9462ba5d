//! The Iris server.
