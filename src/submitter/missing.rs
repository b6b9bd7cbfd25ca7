//! What a compiler elsewhere meant when it said that a file is not there: the user's own mistake, or
//! a file that the scanner overlooked.
//!
//! The test is whether the file exists *here*, at a place where the compiler looks, and was not part
//! of the job. So nothing depends on the words or the language of a diagnostic, only on its shape:
//! `place:line:column: what: name: why`, or a name in quotes. A name that is no file here is no
//! evidence of anything. This file reads text; where the compiler looks and what exists there is the
//! caller's to know.

use crate::id::{AbsPath, Bytes};

/// Lines of diagnostics that are looked at, from the end: a missing file ends a compile.
const LINES_MAX: usize = 64;
/// Names that are looked for, over all lines.
const NAMES_MAX: usize = 256;
/// A longer line is source text or an attack, and no complaint.
const LINE_BYTES_MAX: usize = 16 << 10;

/// What compilers and assemblers say of files that are not there, where no catalog translates them.
const PHRASES: [&[u8]; 5] = [
    b"No such file or directory",
    b"file not found",
    b"Could not find incbin file",
    b"Could not find include file",
    b"profile count data file",
];

/// A file as a compiler spells it, and a line in it.
pub type Place = (Bytes, u32);

/// A line that may complain of a missing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file with the directive, as the compiler spells it, and its line; none when the command
    /// line, or text that the compiler made itself, asked for the file.
    pub place: Option<Place>,
    /// What may be the missing file's name, the likeliest first.
    pub names: Vec<Bytes>,
    /// Whether the line says, in English, that a file is missing.
    pub certain: bool,
}

/// What complaints came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No file is missing that exists here: what the compiler says is so.
    Nothing,
    /// A file that exists here and was part of the job is said to be missing.
    Contradiction(AbsPath),
    /// A file that exists here was not part of the job.
    Missed(Missed),
}

/// A file that the scanner overlooked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The file with the directive and its line, as in [`Complaint::place`].
    pub place: Option<Place>,
    /// The name that the compiler looked for.
    pub name: Bytes,
    /// Where it exists.
    pub there: There,
}

/// A regular file that a name may mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct There {
    /// Its canonical path.
    pub file: AbsPath,
    /// The absolute path on which a compiler comes to it.
    pub spelled: Bytes,
}

/// The lines of `text` that may complain of a missing file.
pub fn complaints(text: &[u8]) -> Vec<Complaint> {
    let plain = without_colours(text);
    let lines: Vec<&[u8]> = plain.split(|&b| b == b'\n').collect();
    let mut room = NAMES_MAX;
    let mut found = Vec::new();
    for line in lines.iter().rev().take(LINES_MAX) {
        if line.len() > LINE_BYTES_MAX {
            continue;
        }
        let certain = says_so(line);
        let (place, message) = placed(line);
        // Source text that is quoted below a message begins with blanks; it names no place.
        if message.is_empty() || (message[0].is_ascii_whitespace() && place.is_none()) {
            continue;
        }
        let mut names = names(message, certain);
        names.truncate(room);
        if !names.is_empty() {
            room -= names.len();
            found.push(Complaint {
                place,
                names,
                certain,
            });
        }
    }
    found.reverse();
    found
}

/// Whether a line says in English that a file is missing.
pub fn says_so(text: &[u8]) -> bool {
    PHRASES
        .iter()
        .any(|phrase| memchr::memmem::find(text, phrase).is_some())
}

/// Tells where a name leads here, with the place that asks for it.
pub type Exists<'a> = dyn FnMut(Option<&Place>, &Bytes) -> Vec<There> + 'a;

/// Judges complaints; `listed` tells whether a path was part of the job.
pub fn judge(
    complaints: &[Complaint],
    exists: &mut Exists<'_>,
    listed: &dyn Fn(&AbsPath) -> bool,
) -> Finding {
    let mut contradiction = None;
    for complaint in complaints {
        for name in &complaint.names {
            for there in exists(complaint.place.as_ref(), name) {
                if !listed(&there.file) {
                    return Finding::Missed(Missed {
                        place: complaint.place.clone(),
                        name: name.clone(),
                        there,
                    });
                }
                // Compilers mention files for many reasons.
                if complaint.certain && contradiction.is_none() {
                    contradiction = Some(there.file);
                }
            }
        }
    }
    contradiction.map_or(Finding::Nothing, Finding::Contradiction)
}

/// The text without escape sequences that colour it or link it.
fn without_colours(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte != 0x1b {
            plain.push(byte);
            at += 1;
            continue;
        }
        let ends: fn(u8) -> bool = match text.get(at + 1) {
            Some(b'[') => |b| (0x40..=0x7e).contains(&b),
            // A hyperlink, up to BEL or ESC \.
            Some(b']') => |b| matches!(b, 0x07 | b'\\'),
            _ => |_| true,
        };
        at += 2;
        while let Some(&byte) = text.get(at)
            && !ends(byte)
        {
            at += 1;
        }
        at += 1;
    }
    plain
}

/// Splits `path:line:column: message`; there may be no column, or no place at all.
fn placed(line: &[u8]) -> (Option<Place>, &[u8]) {
    for colon in memchr::memchr_iter(b':', line) {
        let (number, rest) = digits(&line[colon + 1..]);
        let Some(number) = number else { continue };
        let rest = match digits(rest.strip_prefix(b":").unwrap_or(rest)) {
            (Some(_), after) => after,
            (None, _) => rest,
        };
        if let Some(message) = rest.strip_prefix(b":") {
            let path = &line[..colon];
            // Such are the compiler's names for what is no file.
            let is_file = !matches!(path.first(), None | Some(b'<' | b'{'));
            let place = is_file.then(|| (Bytes::from(path), number));
            return (place, message.trim_ascii());
        }
    }
    // `<command-line>: fatal error: …`, `cc1: fatal error: …`
    match memchr::memmem::find(line, b": ") {
        Some(colon) if !line[0].is_ascii_whitespace() => (None, line[colon + 2..].trim_ascii()),
        _ => (None, b""),
    }
}

fn digits(text: &[u8]) -> (Option<u32>, &[u8]) {
    let length = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..length]).ok();
    (
        number.and_then(|number| number.parse().ok()),
        &text[length..],
    )
}

/// What may be a file's name in a message.
fn names(message: &[u8], certain: bool) -> Vec<Bytes> {
    let mut found: Vec<Bytes> = Vec::new();
    let mut take = |name: &[u8]| {
        let name = name.trim_ascii();
        let like_a_file = name.iter().any(|b| matches!(b, b'.' | b'/'))
            && !name.iter().any(u8::is_ascii_whitespace);
        let name = Bytes::from(name);
        if !name.is_empty() && (certain || like_a_file) && !found.contains(&name) {
            found.push(name);
        }
    };
    // `what: name: why`; the name may have a colon itself.
    let colons: Vec<usize> = memchr::memmem::find_iter(message, b": ").collect();
    if let [first, .., last] = colons[..] {
        take(&message[first + 2..last]);
    }
    if let Some(last) = colons.last() {
        // `Error: file not found: name`
        take(&message[last + 2..]);
    }
    let quotes = ["'", "\"", "`", "‘", "’", "“", "”", "„", "«", "»"];
    let mut pieces: Vec<&[u8]> = vec![message];
    for mark in quotes.into_iter().chain([": "]) {
        pieces = pieces
            .into_iter()
            .flat_map(|piece| split(piece, mark.as_bytes()))
            .collect();
    }
    for piece in pieces {
        take(piece);
        // GNU as: `can't open name for reading: why`
        if let Some(start) = memchr::memmem::find(piece, b" open ") {
            let rest = &piece[start + 6..];
            take(rest.strip_suffix(b" for reading").unwrap_or(rest));
        }
    }
    found
}

fn split<'a>(text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for hit in memchr::memmem::find_iter(text, by) {
        parts.push(&text[start..hit]);
        start = hit + by.len();
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found when the files `here` exist and `sent` were part of the job.
    fn finding(text: &str, here: &[&str], sent: &[&str]) -> String {
        let path = |name: &str| AbsPath::parse(format!("/{name}")).unwrap();
        let mut exists = |_: Option<&Place>, name: &Bytes| {
            let name = name.to_string();
            let found = here.iter().filter(|other| **other == name);
            let there = |name: &&str| There {
                file: path(name),
                spelled: path(name).into(),
            };
            found.map(there).collect()
        };
        let listed = |file: &AbsPath| sent.iter().any(|name| path(name) == *file);
        match judge(&complaints(text.as_bytes()), &mut exists, &listed) {
            Finding::Nothing => "nothing".to_owned(),
            Finding::Contradiction(file) => format!("{file} was there"),
            Finding::Missed(missed) => match missed.place {
                Some((file, line)) => format!("{file}:{line} wants {}", missed.name),
                None => format!("{}", missed.name),
            },
        }
    }

    #[test]
    fn a_file_that_exists_here_was_missed_in_every_language() {
        for (text, expect) in [
            (
                "In file included from m.c:3:\nd/a.h:1:10: fatal error: x.h: No such file or directory\n    1 | #include <x.h>\n      |          ^~~~~\ncompilation terminated.\n",
                "d/a.h:1 wants x.h",
            ),
            (
                "m.c:7:10: schwerwiegender Fehler: x.h: Datei oder Verzeichnis nicht gefunden\nKompilierung beendet.\n",
                "m.c:7 wants x.h",
            ),
            (
                "m.c:7:10: erreur fatale : x.h : Aucun fichier ou dossier de ce type\n",
                "m.c:7 wants x.h",
            ),
            (
                "m.c:7:10: 致命的エラー: x.h: そのようなファイルやディレクトリはありません\n",
                "m.c:7 wants x.h",
            ),
            (
                "m.c:7: fatal error: x.h: No such file or directory\n",
                "m.c:7 wants x.h",
            ),
            (
                "\x1b[01m\x1b[Km.c:7:10:\x1b[m\x1b[K \x1b[01;31m\x1b[Kfatal error: \x1b[m\x1b[Kx.h: No such file or directory\n",
                "m.c:7 wants x.h",
            ),
            (
                "m.c:7:10: fatal error: 'x.h' file not found\n#include <x.h>\n         ^~~~~\n1 error generated.\n",
                "m.c:7 wants x.h",
            ),
            (
                "<command-line>: fatal error: x.h: No such file or directory\n",
                "x.h",
            ),
            ("cc1: fatal error: x.h: No such file or directory\n", "x.h"),
            (
                "/tmp/ccYs1.s: Assembler messages:\n/tmp/ccYs1.s:12: Error: file not found: x.h\n",
                "/tmp/ccYs1.s:12 wants x.h",
            ),
            (
                "/tmp/a.s:2: Error: can't open x.h for reading: No such file or directory\n",
                "/tmp/a.s:2 wants x.h",
            ),
            (
                "<inline asm>:1:10: error: Could not find incbin file 'x.h'\n",
                "x.h",
            ),
            (
                "a:1:2:7:10: fatal error: x.h: No such file or directory\n",
                "a:1 wants x.h",
            ),
            (
                "m.c:2:1: warning: \u{2018}x.h\u{2019} profile count data file not found [-Wmissing-profile]\n",
                "m.c:2 wants x.h",
            ),
        ] {
            assert_eq!(finding(text, &["x.h"], &["m.c"]), expect, "{text}");
        }
        let odd = "m.c:1:10: fatal error: no: such, 'file'.h: No such file or directory\n";
        let name = "no: such, 'file'.h";
        assert_eq!(finding(odd, &[name], &[]), format!("m.c:1 wants {name}"));
        let spaced = "m.c:1:10: fatal error: 'no such file' file not found\n";
        assert_eq!(
            finding(spaced, &["no such file"], &[]),
            "m.c:1 wants no such file"
        );
    }

    #[test]
    fn what_is_not_here_either_is_the_users_mistake() {
        for text in [
            "m.c:7:10: fatal error: y.h: No such file or directory\ncompilation terminated.\n",
            "m.c:7:10: fatal error: 'y.h' file not found\n",
            "m.c:7:1: error: unknown type name 'x'\n",
            "",
        ] {
            assert_eq!(finding(text, &["x.h"], &[]), "nothing", "{text}");
        }
    }

    #[test]
    fn a_file_of_the_job_is_missed_only_by_a_compiler_that_says_so() {
        let missing = "m.c:7:10: fatal error: x.h: No such file or directory\n";
        assert_eq!(finding(missing, &["x.h"], &["x.h"]), "/x.h was there");
        let mentioned = "x.h:7:10: error: 'x.h' is a bad name\n";
        assert_eq!(finding(mentioned, &["x.h"], &["x.h"]), "nothing");
    }

    #[test]
    fn endless_diagnostics_are_read_within_bounds() {
        let line = "m.c:1:1: error: 'a.h' 'b.h' 'c.h' 'd.h' 'e.h' 'f.h' 'g.h' 'h.h' 'i.h'\n";
        let text = line.repeat(100_000) + &"x".repeat(1 << 20);
        let found = complaints(text.as_bytes());
        assert!(found.len() <= LINES_MAX);
        let names: usize = found.iter().map(|complaint| complaint.names.len()).sum();
        assert!(names <= NAMES_MAX, "{names}");
    }
}
