//! Where a compiler looks for headers, in its own words: the output of `-v -E` on an empty input.
//!
//! Nothing is guessed: which directories exist, are duplicates or belong to the system is the
//! compiler's answer for exactly these flags. This file only reads it; whether the answer is still
//! true is [`crate::include::graph`]'s question.

use crate::id::Bytes;

/// More directories than this are not a search list but an attack on our memory.
const DIRECTORIES_MAX: usize = 4096;

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
    /// Too many directories.
    #[error("search list has more than {DIRECTORIES_MAX} directories")]
    TooLong,
}

impl SearchList {
    /// Reads what `compiler -v -E …` printed on standard error, in the C locale.
    pub fn parse(output: &[u8]) -> Result<Self, BadSearchList> {
        let mut list = Self::default();
        let mut part = Part::Before;
        for line in output.split(|&b| b == b'\n') {
            match line {
                b"#include \"...\" search starts here:" => part = Part::Quote,
                b"#include <...> search starts here:" => part = Part::Angle,
                b"End of search list." => return Ok(list),
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
