//! Numbers and names as they are shown: short, with units, and of a known width.
//!
//! Names come from other machines, and a terminal obeys what it is shown: nothing that is not
//! printable gets past [`clean`].

use std::time::Duration;

/// A name without anything that a terminal would obey or that would take no cell or two.
pub fn clean(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars()
        .map(|c| match is_plain(c) {
            true => c,
            false => '\u{fffd}',
        })
        .collect()
}

/// Whether a character takes one cell, or two as in East Asian scripts, and changes nothing else.
fn is_plain(c: char) -> bool {
    // Format characters turn text around or hide it.
    let is_format = matches!(c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !is_format
}

/// A count in at most five characters: `999`, `12.3k`, `4.56M`.
pub fn count(value: u64) -> String {
    scaled(value as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A size in at most six characters: `999B`, `12.3K`, `4.56M`; K is 1024.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["B", "K", "M", "G", "T", "P", "E"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    let mut is_whole = true;
    while value >= 999.5
        && let Some(next) = units.next()
    {
        value /= step;
        unit = next;
        is_whole = false;
    }
    match value {
        _ if is_whole => format!("{value:.0}{unit}"),
        small if small < 9.995 => format!("{small:.2}{unit}"),
        middle if middle < 99.95 => format!("{middle:.1}{unit}"),
        large => format!("{large:.0}{unit}"),
    }
}

/// A duration in at most six characters: `12ms`, `1.25s`, `59.9s`, `4m05s`, `3h07m`, `12d03h`.
pub fn duration(of: Duration) -> String {
    let seconds = of.as_secs_f64();
    let whole = of.as_secs();
    match seconds {
        s if s < 0.9995 => format!("{:.0}ms", s * 1000.0),
        s if s < 9.995 => format!("{s:.2}s"),
        s if s < 59.95 => format!("{s:.1}s"),
        s if s < 3600.0 => format!("{}m{:02}s", whole / 60, whole % 60),
        s if s < 86400.0 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86400, whole / 3600 % 24),
    }
}

/// A share of a whole: `37%`, `-` of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{:.0}%", part as f64 * 100.0 / whole as f64),
    }
}

/// `count` things, in words: `1 node`, `2 nodes`.
pub fn plural(count: u64, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        for (value, as_count, as_bytes) in [
            (0, "0", "0B"),
            (999, "999", "999B"),
            (1000, "1.00k", "0.98K"),
            (12_345, "12.3k", "12.1K"),
            (999_499, "999k", "976K"),
            (999_500, "1.00M", "976K"),
            (u64::MAX, "18.4E", "16.0E"),
        ] {
            assert_eq!(
                (&*count(value), &*bytes(value)),
                (as_count, as_bytes),
                "{value}"
            );
        }
    }

    #[test]
    fn durations_take_six_characters_at_most() {
        for (ms, expect) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.00s"),
            (9_994, "9.99s"),
            (9_996, "10.0s"),
            (59_940, "59.9s"),
            (60_000, "1m00s"),
            (3_599_999, "59m59s"),
            (3_600_000, "1h00m"),
            (86_400_000, "1d00h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), expect, "{ms}");
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        for (name, expect) in [
            (&b"src/a.c"[..], "src/a.c"),
            (b"\x1b[2Ja\nb", "\u{fffd}[2Ja\u{fffd}b"),
            (b"a\xffb", "a\u{fffd}b"),
            ("\u{9b}2J\u{202e}x".as_bytes(), "\u{fffd}2J\u{fffd}x"),
            ("größe.c".as_bytes(), "größe.c"),
        ] {
            assert_eq!(clean(name), expect);
        }
    }
}
