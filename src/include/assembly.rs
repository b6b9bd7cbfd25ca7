//! The assembler's directives that read files: in assembly itself, and in the strings of `asm`.
//!
//! Knows no more of assembly than these two words, and looks for them everywhere.

use memchr::memmem;

use super::directives::Use;
use super::words::is_word;

/// The assembler's directives in `text` that read a file, wherever they stand, each with the name
/// that it reads when that is a literal: in quotes, which are escaped within a string of C. The first
/// field is where it stands.
pub fn assembly(text: &[u8]) -> impl Iterator<Item = (usize, Use, Option<&[u8]>)> {
    let words = [(Use::Incbin, &b".incbin"[..]), (Use::Assembly, b".include")];
    let occurrences = words.into_iter().flat_map(move |(usage, word)| {
        memmem::find_iter(text, word).map(move |at| (usage, at, at + word.len()))
    });
    occurrences.filter_map(move |(usage, start, end)| {
        // `x.include(y)` is none, `"\n.include"` is one.
        let begins = match &text[..start] {
            [.., b'\\', b'n' | b't' | b'r'] => true,
            [.., before] => !is_word(*before),
            [] => true,
        };
        let ends = text.get(end).is_none_or(|&after| !is_word(after));
        (begins && ends).then(|| (start, usage, literal(&text[end..])))
    })
}

/// The name in quotes at the start of `text`, after blanks. One with a macro's argument or an escape
/// in it is none.
fn literal(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start();
    let (rest, close): (&[u8], &[u8]) = match text {
        [b'"', rest @ ..] => (rest, b"\""),
        [b'\\', b'"', rest @ ..] => (rest, b"\\\""),
        _ => return None,
    };
    let end = memmem::find(rest, close)?;
    let name = &rest[..end];
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | b'%' | b'&' | b'\n');
    (!name.is_empty() && name.iter().all(is_plain)).then_some(name)
}

/// The line of a position, from 1.
pub fn line_at(text: &[u8], at: usize) -> u32 {
    1 + memchr::memchr_iter(b'\n', &text[..at]).count() as u32
}
