//! Words and calls in a line of C, for those who ask what macros could lead to.
//!
//! Knows no literals and no comments: the text has none, or it does not matter there.

use super::directives::Form;

/// The identifier at the start of `text`, possibly empty.
pub fn identifier(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&b| !is_word(b)).unwrap_or(text.len());
    &text[..end]
}

/// Whether a byte can stand in an identifier (`$` and all of UTF-8 can, in practice).
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// A hash of a macro's name.
pub fn name_hash(name: &[u8]) -> u32 {
    // FNV-1a; a collision only costs a comparison.
    name.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// All words of a text: names and numbers.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| !is_word(b)).filter(|word| !word.is_empty())
}

/// A call in a macro's body or a condition.
pub struct Call<'a> {
    /// The word before the parenthesis.
    pub callee: &'a [u8],
    /// What follows it.
    pub argument: Argument<'a>,
}

/// What stands in a call's parentheses.
pub enum Argument<'a> {
    /// A file's name, first of all.
    Literal(Form, &'a [u8]),
    /// Something else, all of it.
    Text(&'a [u8]),
}

/// Every `word ( …`, nested ones too.
pub fn calls(line: &[u8]) -> impl Iterator<Item = Call<'_>> {
    memchr::memchr_iter(b'(', line).filter_map(move |open| {
        let before = line[..open].trim_ascii_end();
        let start = before
            .iter()
            .rposition(|&b| !is_word(b))
            .map_or(0, |last| last + 1);
        let callee = &before[start..];
        let rest = line[open + 1..].trim_ascii_start();
        let close = match rest.first()? {
            b'"' => Some((Form::Quote, b'"')),
            b'<' => Some((Form::Angle, b'>')),
            _ => None,
        };
        if let Some((form, close)) = close {
            let end = memchr::memchr(close, &rest[1..])?;
            let argument = Argument::Literal(form, &rest[1..=end]);
            return Some(Call { callee, argument });
        }
        if callee.is_empty() {
            return None;
        }
        let mut depth = 0_usize;
        let end = rest.iter().position(|&b| {
            match b {
                b'(' => depth += 1,
                b')' if depth == 0 => return true,
                b')' => depth -= 1,
                _ => {}
            }
            false
        });
        let argument = Argument::Text(rest[..end.unwrap_or(rest.len())].trim_ascii());
        Some(Call { callee, argument })
    })
}
