//! What a machine needs for so many connections of Iris: checked, set, and undone.
//!
//! In reading order: [`facts`] is what is known of a machine, [`sizing`] and [`knobs`] say what N connections need of it,
//! [`findings`] compares the two, and [`plan`] is the whole answer: a table, kernel settings, and files. None of these does
//! any I/O, so a recorded machine gives the same answer as a real one. [`changes`] decides what of a plan is left to do and
//! what `undo` gives back, from [`state`], the record of what was there before.
//!
//! [`gather`] reads facts from `/proc`, `/sys` and `/etc` under a root, [`disk`] writes, and [`commands`] puts it together
//! for [`cli`]; [`show`] prints.

pub mod catalogue;
pub mod changes;
pub mod cli;
pub mod commands;
pub mod disk;
pub mod facts;
pub mod findings;
pub mod gather;
pub mod knobs;
pub mod plan;
pub mod show;
pub mod sizing;
pub mod state;
