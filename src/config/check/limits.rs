//! The section `limits`.

use iris_proto::limits::FRAME_BODY_BYTES_MAX;
use iris_proto::wire::HEADER_BYTES;

use super::super::LimitsConfig;
use super::super::units::{ByteSize, Rate};
use super::{GIB, Name, Reader};

/// Messages, logins and connections in a second, at most: a bound against slips of the pen.
const PER_SECOND_MAX: u64 = 1_000_000;
/// Bytes in a second, at most.
const BYTES_PER_SECOND_MAX: u64 = 4 * GIB;
/// Bytes that a burst lets through at least: the largest SEND must fit, or it never went.
const BURST_BYTES_MIN: u64 = (HEADER_BYTES + FRAME_BODY_BYTES_MAX) as u64;
/// Seconds in which a rate allows its burst, at most.
const BURST_SECONDS_MAX: u64 = 24 * 3600;
/// Entries of a table.
const TABLE_ENTRIES: std::ops::RangeInclusive<i64> = 1024..=1 << 24;

impl Reader<'_> {
    pub(super) fn limits(&mut self) -> Option<LimitsConfig> {
        let connection_messages = self.rate("connection_messages");
        let connection_bytes = self.rate_of_bytes("connection_bytes");
        let user_messages = self.rate("user_messages");
        let user_bytes = self.rate_of_bytes("user_bytes");
        let flood_factor = self.integer(("limits", "flood_factor"), 0..=1000);
        let user_logins = self.rate("user_logins");
        let accepts = self.rate("accepts");
        let count = 0..=super::CONNECTIONS_MAX;
        let pending = self.integer(("limits", "pending_logins_max"), count.clone());
        let prefix_accepts = self.rate("prefix_accepts");
        let prefix_logins = self.rate("prefix_logins");
        let prefix_connections = self.integer(("limits", "prefix_connections_max"), count);
        let prefix_v4 = self.integer(("limits", "prefix_v4"), 8..=32);
        let prefix_v6 = self.integer(("limits", "prefix_v6"), 16..=128);
        let table_entries = self.integer(("limits", "table_entries"), TABLE_ENTRIES);
        Some(LimitsConfig {
            connection_messages: connection_messages?,
            connection_bytes: connection_bytes?,
            user_messages: user_messages?,
            user_bytes: user_bytes?,
            flood_factor: u32::try_from(flood_factor?).ok()?,
            user_logins: user_logins?,
            accepts: accepts?,
            pending_logins_max: u32::try_from(pending?).ok()?,
            prefix_accepts: prefix_accepts?,
            prefix_logins: prefix_logins?,
            prefix_connections_max: u32::try_from(prefix_connections?).ok()?,
            prefix_v4: u8::try_from(prefix_v4?).ok()?,
            prefix_v6: u8::try_from(prefix_v6?).ok()?,
            table_entries: usize::try_from(table_entries?).ok()?,
        })
    }

    /// A rate of messages, logins or connections; `None` inside: off.
    fn rate(&mut self, name: &'static str) -> Option<Option<Rate>> {
        let name = ("limits", name);
        let Some(rate) = self.parsed_rate(name, false)? else { return Some(None) };
        let most = PER_SECOND_MAX * rate.per.as_secs();
        if !(1..=most).contains(&rate.units) {
            let cause = format!("{} in that time is out of range", rate.units);
            self.note_key(name, cause, format!("use 1 to {PER_SECOND_MAX} a second, or \"off\""));
            return None;
        }
        self.sound_burst(name, rate).map(Some)
    }

    fn rate_of_bytes(&mut self, name: &'static str) -> Option<Option<Rate>> {
        let name = ("limits", name);
        let Some(rate) = self.parsed_rate(name, true)? else { return Some(None) };
        let most = BYTES_PER_SECOND_MAX * rate.per.as_secs();
        if !(1..=most).contains(&rate.units) {
            let cause = format!("{} in that time is out of range", ByteSize(rate.units));
            self.note_key(name, cause, "use 1B to 4GiB a second, or \"off\"");
            return None;
        }
        let burst = rate.burst.unwrap_or(rate.burst().max(BURST_BYTES_MIN));
        if burst < BURST_BYTES_MIN {
            let cause =
                format!("a burst of {} lets the largest SEND never through", ByteSize(burst));
            self.note_key(
                name,
                cause,
                format!("use a burst of {} or more", ByteSize(BURST_BYTES_MIN)),
            );
            return None;
        }
        self.sound_burst(name, Rate { burst: Some(burst), ..rate }).map(Some)
    }

    fn parsed_rate(&mut self, name: Name, of_bytes: bool) -> Option<Option<Rate>> {
        let parsed = Rate::parse(&self.text(name)?, of_bytes);
        if let Err(cause) = &parsed {
            self.note_key(name, cause.clone(), "s, m and h are the times; burst may be left out");
        }
        parsed.ok()
    }

    /// A burst that is one, and that its rate allows in a day.
    fn sound_burst(&mut self, name: Name, rate: Rate) -> Option<Rate> {
        let most = u128::from(rate.units) * u128::from(BURST_SECONDS_MAX);
        let asked = u128::from(rate.burst()) * u128::from(rate.per.as_secs());
        if asked == 0 || asked > most {
            let cause = "the burst is nothing, or more than the rate allows in a day";
            self.note_key(name, cause, "use a smaller burst, 1 at least, or a higher rate");
            return None;
        }
        Some(rate)
    }
}
