//! This machine's clock, for people who compare it with others'. Nothing is decided by it: time that passes is
//! measured by [`std::time::Instant`].

use std::time::{SystemTime, UNIX_EPOCH};

/// The time in milliseconds since 1970; 0 when the clock is set to an earlier one.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
