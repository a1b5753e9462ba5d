//! Flags that only one scenario has.

use super::{Flags, Part, parse_duration};
use clap::Args;
use std::time::Duration;

/// Flags of `composite`.
#[derive(Clone, Debug, Args)]
pub struct CompositeFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Users that send to each other, as a share or a count: an even number, a share is rounded down to one
    #[arg(long, value_name = "PART", default_value = "1%")]
    pub active: Part,
    /// Time for which all users are silent before memory is measured and any message is sent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub hold: Duration,
}
