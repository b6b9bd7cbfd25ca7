//! What a compiler does to text before it looks at it: spliced lines are joined, trigraphs replaced.
//!
//! Whoever reads the result can still find where in the file each piece of it stands.

use std::borrow::Cow;

/// Joins spliced lines and, if told so, replaces trigraphs. The second result says where text was
/// removed: (position in the clean text, position in the original), ascending.
pub fn clean(bytes: &[u8], trigraphs: bool, returns: bool) -> (Cow<'_, [u8]>, Vec<(usize, usize)>) {
    let mut origins = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(step) = if trigraphs {
        memchr::memchr2(b'\\', b'?', &bytes[at..])
    } else {
        memchr::memchr(b'\\', &bytes[at..])
    } {
        at += step;
        let (byte, width) = match trigraph(&bytes[at..]) {
            Some(byte) if trigraphs => (byte, 3),
            _ => (bytes[at], 1),
        };
        if byte == b'\\'
            && let Some(end) = splice(bytes, at + width, returns)
        {
            text.extend_from_slice(&bytes[copied..at]);
            copied = end;
            origins.push((text.len(), end));
        } else if width == 3 {
            text.extend_from_slice(&bytes[copied..at]);
            text.push(byte);
            copied = at + 3;
            origins.push((text.len(), copied));
        }
        at = copied.max(at + 1);
    }
    if origins.is_empty() {
        return (Cow::Borrowed(bytes), origins);
    }
    text.extend_from_slice(&bytes[copied..]);
    (Cow::Owned(text), origins)
}

/// The end of the line break that follows a backslash, if one does. Compilers forgive blanks.
fn splice(bytes: &[u8], mut at: usize, returns: bool) -> Option<usize> {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | 0x0b | 0x0c)) {
        at += 1;
    }
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'\n', _) => Some(at + 1),
        (b'\r', Some(b'\n')) => Some(at + 2),
        (b'\r', _) if returns => Some(at + 1),
        _ => None,
    }
}

fn trigraph(bytes: &[u8]) -> Option<u8> {
    let [b'?', b'?', third, ..] = bytes else {
        return None;
    };
    let place = b"=/'()!<>-".iter().position(|b| b == third)?;
    Some(b"#\\^[]|{}~"[place])
}
