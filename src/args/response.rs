//! Response files: `@file` stands for the words in it.
//!
//! gcc and clang read them nearly alike: blanks separate, both kinds of quotes group, a backslash
//! takes the next byte as it is, everywhere. Where the two differ, or a file can't be read, the
//! expansion fails and the compile stays local. Files are read by the caller's function, by name
//! as spelled, relative to the working directory even when they are nested, as both do.

use crate::id::Bytes;

/// The most response files in one command, nested ones included: one that names itself ends here.
pub const RESPONSE_FILES_MAX: usize = 64;

/// The most bytes of all response files of a command together.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// A command line without response files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The words after the compiler's name.
    pub words: Vec<Bytes>,
    /// For each word its index in the command line, unless it came from a file.
    pub origins: Vec<Option<usize>>,
    /// The response files as they were named, in the order of reading.
    pub files: Vec<Bytes>,
}

/// Expands `argv` after its first word; the error is the `@file` that could not be.
pub(super) fn expand(
    argv: &[Bytes],
    read: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Expanded, Bytes> {
    let mut done = Expanded {
        words: Vec::with_capacity(argv.len()),
        origins: Vec::with_capacity(argv.len()),
        files: Vec::new(),
    };
    let mut bytes = 0;
    // Words to come, the next one last, so that a file's words take its place.
    let mut pending: Vec<(Bytes, Option<usize>)> = Vec::with_capacity(argv.len());
    let indexed = argv.iter().cloned().enumerate().skip(1).rev();
    pending.extend(indexed.map(|(index, word)| (word, Some(index))));
    while let Some((word, origin)) = pending.pop() {
        let Some(name) = word.strip_prefix(b"@") else {
            done.words.push(word);
            done.origins.push(origin);
            continue;
        };
        if done.files.len() == RESPONSE_FILES_MAX {
            return Err(word);
        }
        let text = read(name).filter(|text| bytes + text.len() <= RESPONSE_BYTES_MAX);
        let Some(words) = text.as_deref().and_then(split) else {
            return Err(word);
        };
        bytes += text.map_or(0, |text| text.len());
        done.files.push(Bytes::from(name));
        pending.extend(words.into_iter().rev().map(|word| (word, None)));
    }
    Ok(done)
}

/// The words of a response file; none when compilers would not agree about them.
fn split(text: &[u8]) -> Option<Vec<Bytes>> {
    let marked = text.starts_with(b"\xef\xbb\xbf") || text.starts_with(b"\xff\xfe");
    if marked || text.starts_with(b"\xfe\xff") || text.contains(&0) {
        return None;
    }
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => word.get_or_insert_default().push(rest.next()?),
            _ if quote == Some(byte) => quote = None,
            b'"' | b'\'' if quote.is_none() => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            b' ' | b'\t' | b'\n' | b'\r' if quote.is_none() => words.extend(word.take()),
            // Only one of the two families takes these for blanks.
            b'\x0b' | b'\x0c' if quote.is_none() => return None,
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    let clear = quote.is_none() && words.iter().all(|word| !word.is_empty());
    clear.then(|| words.into_iter().map(Bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str, files: &[(&str, &str)]) -> Result<String, String> {
        let argv: Vec<Bytes> = line.split(' ').map(Bytes::from).collect();
        let mut read = |name: &[u8]| {
            let found = files.iter().find(|(file, _)| file.as_bytes() == name)?;
            Some(found.1.as_bytes().to_vec())
        };
        let join = |words: Vec<Bytes>| {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            words.join("|")
        };
        match expand(&argv, &mut read) {
            Ok(expanded) => Ok(join(expanded.words)),
            Err(word) => Err(word.to_string()),
        }
    }

    #[test]
    fn words_take_the_place_of_their_file() {
        for (line, files, expect) in [
            ("gcc -c a.c", &[][..], Ok("-c|a.c")),
            ("gcc @r -c", &[("r", "-DA  -DB\n")], Ok("-DA|-DB|-c")),
            ("gcc @r @r", &[("r", "x")], Ok("x|x")),
            ("gcc @r", &[("r", "")], Ok("")),
            ("gcc @r z", &[("r", "a @s b"), ("s", "c")], Ok("a|c|b|z")),
            (
                "gcc @r",
                &[("r", r#"-D"A B" 'c d' e\ f"#)],
                Ok("-DA B|c d|e f"),
            ),
            (
                "gcc @r",
                &[("r", r#"-DX=\"y\" 'a\'b' "a\"b""#)],
                Ok("-DX=\"y\"|a'b|a\"b"),
            ),
            ("gcc @r", &[("r", "a\r\nb")], Ok("a|b")),
            ("gcc -o @r", &[("r", "out.o")], Ok("-o|out.o")),
            ("gcc @missing", &[], Err("@missing")),
            ("gcc @r", &[("r", "'open")], Err("@r")),
            ("gcc @r", &[("r", "end\\")], Err("@r")),
            ("gcc @r", &[("r", "a '' b")], Err("@r")),
            ("gcc @r", &[("r", "@r")], Err("@r")),
            ("gcc @r", &[("r", "a\0b")], Err("@r")),
            ("gcc @r", &[("r", "\u{feff}a")], Err("@r")),
        ] {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(run(line, files), expect, "{line} {files:?}");
        }
    }

    #[test]
    fn a_word_knows_where_it_came_from() {
        let argv: Vec<Bytes> = ["gcc", "@r", "a.c"].map(Bytes::from).into();
        let expanded = expand(&argv, &mut |_| Some(b"-c -g".to_vec())).unwrap();
        assert_eq!(expanded.origins, [None, None, Some(2)]);
        assert_eq!(expanded.files, [Bytes::from("r")]);
    }

    #[test]
    fn files_that_are_too_big_are_refused() {
        let argv = [Bytes::from("gcc"), Bytes::from("@r")];
        let big = vec![b'a'; RESPONSE_BYTES_MAX + 1];
        assert!(expand(&argv, &mut |_| Some(big.clone())).is_err());
    }
}
