//! What several test crates need.

use std::io::Write;

/// Says aloud that a test, or a part of one, is skipped and why. In CI nothing is skipped.
///
/// The test harness keeps what a passing test prints to itself, unless it is written to the stream
/// directly.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
