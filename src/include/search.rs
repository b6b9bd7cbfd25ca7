//! Where a compiler looks for headers, in its own words: the output of `-v -E` on an empty input.
//!
//! Nothing is guessed: which directories exist, are duplicates or belong to the system is the
//! compiler's answer for exactly these flags. This file only reads it; whether the answer is still
//! true is [`crate::include::graph`]'s question.

use crate::id::Bytes;

/// More directories than this are not a search list but an attack on our memory.
const DIRECTORIES_MAX: usize = 4096;

/// Stands before directories for quoted names.
const QUOTE_MARK: &[u8] = b"#include \"...\" search starts here:";

/// Stands before directories for all names.
const ANGLE_MARK: &[u8] = b"#include <...> search starts here:";

/// Stands behind them.
const END_MARK: &[u8] = b"End of search list.";

/// A compiler's search list, every directory as the compiler spells it (maybe relative to the
/// working directory).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SearchList {
    /// Searched for `"name"` after the includer's own directory.
    pub quote: Vec<Bytes>,
    /// Searched for `<name>`, and for `"name"` after those.
    pub angle: Vec<Bytes>,
    /// Searched for `#embed` (`--embed-dir`); the compiler does not print them.
    pub embed: Vec<Bytes>,
    /// Directories that the compiler left out because they don't exist. When one appears, the list
    /// is stale.
    pub absent: Vec<Bytes>,
    /// Directories that it left out because they are others again. When one no longer is, the list
    /// is stale.
    pub duplicate: Vec<Bytes>,
}

/// Why a compiler's words about its search list can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSearchList {
    /// The marks around the list are missing.
    #[error("read the search list: no \"search starts here\" in the compiler's output")]
    Missing,
    /// A framework directory: `<A/b.h>` means `A.framework/Headers/b.h` there.
    #[error("search list has a framework directory: {0}")]
    Framework(String),
    /// A header map: names are looked up in a table.
    #[error("search list has a header map: {0}")]
    HeaderMap(String),
    /// A name of several lines that nobody has given.
    #[error("search list has a name of several lines: {0:?}")]
    Lines(String),
    /// Too many directories.
    #[error("search list has more than {DIRECTORIES_MAX} directories")]
    TooLong,
}

impl SearchList {
    /// Reads what `compiler -v -E …` printed on standard error, in the C locale, when it was given
    /// `words`: options, or directories alone. A name of several lines is known by them.
    pub fn parse_given<'a>(
        output: &[u8],
        words: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, BadSearchList> {
        let words: Vec<&[u8]> = words
            .map(without_slashes)
            .filter(|word| word.contains(&b'\n'))
            .collect();
        if words.is_empty() {
            return Self::parse(output);
        }
        let lines = on_one_line(output, &words);
        if marks(&lines) != marks(output) {
            // A name looks like what stands around the list.
            return Err(BadSearchList::Missing);
        }
        let mut list = Self::parse(&lines)?;
        for part in [
            &mut list.quote,
            &mut list.angle,
            &mut list.absent,
            &mut list.duplicate,
        ] {
            for name in part.iter_mut().filter(|name| name.contains(&NEWLINE)) {
                for byte in name.0.iter_mut().filter(|byte| **byte == NEWLINE) {
                    *byte = b'\n';
                }
                // What two lines happen to make together is no name.
                let given = without_slashes(name);
                if !words.iter().any(|word| word.ends_with(given)) {
                    return Err(BadSearchList::Lines(name.to_string()));
                }
            }
        }
        Ok(list)
    }

    /// Reads what `compiler -v -E …` printed on standard error, in the C locale.
    pub fn parse(output: &[u8]) -> Result<Self, BadSearchList> {
        let mut list = Self::default();
        let mut part = Part::Before;
        for line in output.split(|&b| b == b'\n') {
            match line {
                QUOTE_MARK => part = Part::Quote,
                ANGLE_MARK => part = Part::Angle,
                END_MARK => return Ok(list),
                _ => {}
            }
            let list = match (part, line) {
                (Part::Before, line) => {
                    if let Some(name) = quoted(line, b"ignoring nonexistent directory \"") {
                        list.absent.push(name);
                    } else if let Some(name) = quoted(line, b"ignoring duplicate directory \"") {
                        list.duplicate.push(name);
                    }
                    continue;
                }
                (_, [b'#', ..]) => continue,
                (Part::Quote, _) => &mut list.quote,
                (Part::Angle, _) => &mut list.angle,
            };
            let Some(name) = line.strip_prefix(b" ") else {
                return Err(BadSearchList::Missing);
            };
            let words = || String::from_utf8_lossy(name).into_owned();
            if name.ends_with(b" (framework directory)") {
                return Err(BadSearchList::Framework(words()));
            }
            if name.ends_with(b" (headermap)") {
                return Err(BadSearchList::HeaderMap(words()));
            }
            if list.len() >= DIRECTORIES_MAX {
                return Err(BadSearchList::TooLong);
            }
            list.push(name.into());
        }
        Err(BadSearchList::Missing)
    }
}

/// How many lines stand around lists.
fn marks(output: &[u8]) -> usize {
    let lines = output.split(|&b| b == b'\n');
    lines
        .filter(|line| [QUOTE_MARK, ANGLE_MARK, END_MARK].contains(line))
        .count()
}

/// Stands for a newline within a name: no name has a NUL.
const NEWLINE: u8 = 0;

/// The output with every name of several lines on one. Where an option ends and its name begins is not
/// known, so what is looked for is a name from its first newline on.
fn on_one_line(output: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut ends: Vec<&[u8]> = words
        .iter()
        .filter_map(|word| Some(&word[memchr::memchr(b'\n', word)?..]))
        .collect();
    // One may be the beginning of another.
    ends.sort_by_key(|end| std::cmp::Reverse(end.len()));
    let mut output = output.to_vec();
    for end in ends {
        let places: Vec<usize> = memchr::memmem::find_iter(&output, end).collect();
        for place in places {
            for byte in &mut output[place..place + end.len()] {
                if *byte == b'\n' {
                    *byte = NEWLINE;
                }
            }
        }
    }
    output
}

/// A compiler may leave out the slashes at a name's end.
fn without_slashes(word: &[u8]) -> &[u8] {
    let end = word.iter().rposition(|&byte| byte != b'/');
    &word[..end.map_or(0, |last| last + 1)]
}

#[derive(Clone, Copy)]
enum Part {
    Before,
    Quote,
    Angle,
}

fn quoted(line: &[u8], before: &[u8]) -> Option<Bytes> {
    Some(line.strip_prefix(before)?.strip_suffix(b"\"")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Using built-in specs.\n\
        ignoring nonexistent directory \"nope\"\n\
        ignoring duplicate directory \"./inc\"\n\
        \x20 as it is a non-system directory that duplicates a system directory\n\
        #include \"...\" search starts here:\n q\n\
        #include <...> search starts here:\n .\n a b\n /usr/include\n\
        End of search list.\n# 0 \"<stdin>\"\n";

    #[test]
    fn a_list_is_read_as_the_compiler_spells_it() {
        let list = SearchList::parse(OUTPUT.as_bytes()).unwrap();
        assert_eq!(list.quote, [Bytes::from("q")]);
        let angle = [".", "a b", "/usr/include"].map(Bytes::from);
        assert_eq!(list.angle, angle);
        assert_eq!(list.absent, [Bytes::from("nope")]);
        assert_eq!(list.duplicate, [Bytes::from("./inc")]);
    }

    #[test]
    fn a_name_of_several_lines_is_known_by_the_words_that_gave_it() {
        let told = "COLLECT_GCC_OPTIONS='-I' 'a\n b'\n\
            ignoring nonexistent directory \"no\nwhere\"\n\
            #include \"...\" search starts here:\n\
            #include <...> search starts here:\n a\n b\n a\n b\n/x\n d\n /usr/include\n\
            End of search list.\n";
        let parse = |words: &[&str]| {
            let words = words.iter().map(|word| word.as_bytes());
            SearchList::parse_given(told.as_bytes(), words)
        };
        let words = ["-I", "a\n b/", "-isystemno\nwhere", "a\n b\n/x"];
        let list = parse(&words).unwrap();
        let angle = ["a\n b", "a\n b\n/x", "d", "/usr/include"].map(Bytes::from);
        assert_eq!(list.angle, angle);
        assert_eq!(list.absent, [Bytes::from("no\nwhere")]);
        assert_eq!(parse(&["-Ix\n#include"]), Err(BadSearchList::Missing));
        // Two lines that only look like the name.
        let output = told.replace("a\n b\n a\n b\n/x\n ", "");
        let words = [&b"-Ix\n /usr/include"[..]];
        let error = SearchList::parse_given(output.as_bytes(), words.into_iter());
        assert_eq!(error, Err(BadSearchList::Lines("d\n /usr/include".into())));
    }

    #[test]
    fn what_is_no_plain_list_is_an_error() {
        let with = |line: &str| OUTPUT.replace(" /usr/include\n", line);
        for (output, error) in [
            (String::new(), BadSearchList::Missing),
            (OUTPUT.replace("End", "end"), BadSearchList::Missing),
            (with("x\n"), BadSearchList::Missing),
            (
                with(" /F (framework directory)\n"),
                BadSearchList::Framework("/F (framework directory)".into()),
            ),
            (
                with(" m.hmap (headermap)\n"),
                BadSearchList::HeaderMap("m.hmap (headermap)".into()),
            ),
            (with(&" /x\n".repeat(5000)), BadSearchList::TooLong),
        ] {
            assert_eq!(SearchList::parse(output.as_bytes()), Err(error));
        }
    }
}
