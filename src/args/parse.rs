//! Walks a command line as a driver does: which words are options, values and inputs.
//!
//! An iterator without allocations: the client walks every call's words before it talks to
//! anybody. It knows what an option is called, from [`super::table`], and neither what the whole
//! means nor what stands in response files, which are expanded before.

use crate::id::Bytes;

use super::compiler::Family;
use super::table::{self, Form, Meaning};

/// One option with its value, or one input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// What it means.
    pub meaning: Meaning,
    /// Its words as they were spelled: one, or two when the value stands apart.
    pub words: &'a [Bytes],
    /// The value of an option, or the input itself.
    pub value: &'a [u8],
    /// The number of its first word.
    pub at: usize,
}

impl<'a> Item<'a> {
    /// The option as it was spelled, without a value that stands apart.
    pub(super) fn word(&self) -> &'a [u8] {
        &self.words[0]
    }
}

/// The items of a command line; `words` begins after the compiler's name.
pub(super) fn items(family: Family, words: &[Bytes]) -> Items<'_> {
    Items {
        family,
        words,
        at: 0,
        only_inputs: false,
    }
}

/// See [`items`].
pub(super) struct Items<'a> {
    family: Family,
    words: &'a [Bytes],
    at: usize,
    only_inputs: bool,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let at = self.at;
        let word: &[u8] = self.words.get(at)?;
        let mut count = 1;
        let mut value = word;
        let meaning = if self.only_inputs || word.len() < 2 || word[0] != b'-' {
            Meaning::Input
        } else if let Some(rule) = table::find(self.family, word) {
            value = &word[rule.spelling.len()..];
            let apart = match rule.form {
                Form::Flag | Form::Joined => false,
                Form::Separate => true,
                Form::Either => value.is_empty(),
            };
            match self.words.get(at + 1) {
                Some(next) if apart => {
                    value = next;
                    count = 2;
                    rule.meaning
                }
                None if apart => Meaning::Incomplete,
                _ => rule.meaning,
            }
        } else {
            Meaning::Unknown
        };
        self.only_inputs |= meaning == Meaning::EndOfOptions;
        self.at += count;
        Some(Item {
            meaning,
            words: &self.words[at..self.at],
            value,
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_stand_apart_are_never_inputs() {
        for (line, inputs) in [
            ("-c a.c -o a.o", "a.c"),
            ("-I -c a.c", "a.c"),
            ("-o a.c -x c b.c", "b.c"),
            ("-include -E a.c b.c", "a.c b.c"),
            ("-MF x.d -MT y -MQ z a.c", "a.c"),
            ("-MFx.d y a.c", "y a.c"),
            ("-Xlinker a.c -Xassembler b.c -Xpreprocessor c.c d.c", "d.c"),
            ("--param x=1 -aux-info f -imacros m -D X -U Y a.c", "a.c"),
            ("-l m -L dir -T script -u sym -z now a.o", "a.o"),
            ("-", "-"),
        ] {
            let words: Vec<Bytes> = line.split(' ').map(Bytes::from).collect();
            let found: Vec<_> = items(Family::Gcc, &words)
                .filter(|item| item.meaning == Meaning::Input)
                .map(|item| String::from_utf8_lossy(item.value).into_owned())
                .collect();
            assert_eq!(found.join(" "), inputs, "{line}");
        }
    }

    #[test]
    fn only_inputs_follow_two_dashes_in_clang() {
        let words: Vec<Bytes> = ["-c", "--", "-o", "-x.c"].map(Bytes::from).into();
        let count = |family| {
            items(family, &words)
                .filter(|item| item.meaning == Meaning::Input)
                .count()
        };
        assert_eq!(count(Family::Clang), 2);
        assert_eq!(count(Family::Gcc), 0);
    }

    #[test]
    fn a_missing_value_is_told() {
        let words = [Bytes::from("a.c"), Bytes::from("-o")];
        let last = items(Family::Gcc, &words).last().unwrap();
        assert_eq!(last.meaning, Meaning::Incomplete);
    }
}
