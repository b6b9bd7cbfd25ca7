//! Which macros ask whether a file exists, so that a condition that uses one does.
//!
//! A missed `#include` is an error that a compiler reports; a missed `__has_include` is silent. So
//! wrappers are followed through any number of other macros, and where that does not suffice (a
//! parameter within the name, an operator handed to a macro, a name that may be pasted together)
//! a macro is a puzzle: a condition that uses it can't be scanned. Over-estimates only.

use std::collections::BTreeSet;

use crate::include::directives::Form;
use crate::include::words::{Argument, calls, identifier, name_hash, words};

/// A name that would have to be pasted together from more words is not reckoned with: of enough words
/// every name can be made.
const PIECES_MAX: usize = 4;

/// What one file adds, as [`crate::include::suspects`] has noted it.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// Its definitions that mention a macro that may ask.
    pub mentions: &'a [Box<[u8]>],
    /// Those that wrap an operator.
    pub wrappers: &'a [Vec<u8>],
    /// Those that are puzzles.
    pub puzzles: &'a [Vec<u8>],
    /// Hashes of its words of which such a macro's name may be pasted together.
    pub pieces: &'a [u32],
}

/// The macros that ask.
#[derive(Debug, Default)]
pub struct Asking {
    /// Those whose argument is the name that is asked for.
    pub wrappers: BTreeSet<Vec<u8>>,
    /// Those whose use in a condition can't be followed.
    pub puzzles: BTreeSet<Vec<u8>>,
    /// Operands that macro bodies hand to wrappers.
    pub operands: BTreeSet<Vec<u8>>,
    /// A macro that asks and whose name may be pasted together from words.
    pub pasted: Option<Vec<u8>>,
}

impl Asking {
    /// Follows the macros of all files.
    pub fn of(texts: &[Text<'_>]) -> Self {
        let mut asking = Self::default();
        let mut pending: BTreeSet<Vec<u8>> = BTreeSet::new();
        for text in texts {
            asking.wrappers.extend(text.wrappers.iter().cloned());
            asking.puzzles.extend(text.puzzles.iter().cloned());
        }
        pending.extend(asking.wrappers.iter().chain(&asking.puzzles).cloned());
        while let Some(name) = pending.pop_first() {
            for text in texts {
                for definition in text.mentions {
                    pending.extend(asking.follow(&name, definition));
                }
            }
        }
        asking.pasted = asking.find_pasted(texts);
        asking
    }

    /// Takes in a definition whose body may mention a macro that asks; its name, if it asks as well
    /// and that is news.
    pub fn follow(&mut self, name: &[u8], definition: &[u8]) -> Option<Vec<u8>> {
        let own = identifier(definition);
        let (parameters, body) = parts(definition);
        let mentions = words(body).filter(|word| *word == name).count();
        if mentions == 0 || own == name {
            return None;
        }
        let is_parameter = |word: &[u8]| {
            word == b"__VA_ARGS__" || words(parameters).any(|parameter| parameter == word)
        };
        let mut puzzle = self.puzzles.contains(name);
        let mut wrapper = body.trim_ascii() == name;
        if !puzzle && !wrapper {
            let mut called = 0;
            for call in calls(body).filter(|call| call.callee == name) {
                called += 1;
                match call.argument {
                    Argument::Literal(Form::Angle, literal) => {
                        puzzle |= words(literal).any(is_parameter);
                    }
                    Argument::Literal(Form::Quote, _) => {}
                    Argument::Text(operand) if operand.contains(&b'#') => puzzle = true,
                    Argument::Text(operand) if words(operand).any(is_parameter) => wrapper = true,
                    Argument::Text(operand) => drop(self.operands.insert(operand.to_vec())),
                }
            }
            // Handed to another macro, or made by a paste.
            puzzle |= called < mentions || memchr::memmem::find(body, b"##").is_some();
        }
        let news = (wrapper && self.wrappers.insert(own.to_vec()))
            | (puzzle && self.puzzles.insert(own.to_vec()));
        news.then(|| own.to_vec())
    }

    /// A macro that asks whose name is a sequence of two or more words that occur, but not of more than
    /// [`PIECES_MAX`].
    fn find_pasted(&self, texts: &[Text<'_>]) -> Option<Vec<u8>> {
        let names = || self.wrappers.iter().chain(&self.puzzles);
        names().next()?;
        let known: BTreeSet<u32> = texts.iter().flat_map(|text| text.pieces).copied().collect();
        names()
            .find(|name| {
                // pieces[n]: of how few words, shorter than the name, its first n bytes are made.
                let mut pieces: Vec<usize> = vec![usize::MAX; name.len() + 1];
                pieces[0] = 0;
                for end in 1..=name.len() {
                    let is_word = |start: &usize| {
                        pieces[*start] < PIECES_MAX
                            && end - start < name.len()
                            && known.contains(&name_hash(&name[*start..end]))
                    };
                    let fewest = (0..end)
                        .filter(is_word)
                        .map(|start| pieces[start] + 1)
                        .min();
                    pieces[end] = fewest.unwrap_or(usize::MAX);
                }
                pieces[name.len()] <= PIECES_MAX
            })
            .cloned()
    }
}

/// The words of a definition's body that a paste may get hold of.
pub fn piece_words(definition: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (parameters, body) = parts(definition);
    words(body).filter(move |word| {
        let end = word.as_ptr().addr() - body.as_ptr().addr() + word.len();
        let start = end - word.len();
        // What is called is expanded, unless `##` takes it first.
        let called = body[end..].trim_ascii_start().first() == Some(&b'(')
            && !body[..start].trim_ascii_end().ends_with(b"##");
        !called && !words(parameters).any(|parameter| parameter == *word)
    })
}

/// The parameters and the body of a definition.
pub fn parts(definition: &[u8]) -> (&[u8], &[u8]) {
    let rest = &definition[identifier(definition).len()..];
    let list = rest.strip_prefix(b"(");
    match list.and_then(|list| Some((list, memchr::memchr(b')', list)?))) {
        Some((list, close)) => (&list[..close], &list[close + 1..]),
        None => (b"", rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include::directives;
    use crate::include::suspects::{Source, Suspects};

    fn asking(text: &str) -> Asking {
        let found = directives::read(text.as_bytes());
        let source = Source {
            definitions: &found.definitions,
            wrappers: &found.wrappers,
            puzzles: &found.puzzles,
            condition_words: &found.condition_words,
            bare_words: &found.bare_words,
        };
        let mut suspects = Suspects::default();
        suspects.add(source, [source].into_iter());
        let notes = suspects.note(source);
        Asking::of(&[Text {
            mentions: &notes.mentions,
            wrappers: &found.wrappers,
            puzzles: &found.puzzles,
            pieces: &notes.pieces,
        }])
    }

    #[test]
    fn macros_that_ask_are_followed_or_are_puzzles() {
        let has = "#define HAS(x) __has_include(x)\n";
        for (text, expect) in [
            ("", "wraps HAS"),
            ("#define TWO(x) HAS(x)\n", "wraps HAS TWO"),
            (
                "#define TWO(x) HAS(x)\n#define THREE(y) (TWO(y) || X)\n",
                "wraps HAS THREE TWO",
            ),
            ("#define TWO HAS\n", "wraps HAS TWO"),
            ("#define COND HAS(NAME)\n", "wraps HAS asks NAME"),
            ("#define COND HAS(<x.h>)\n", "wraps HAS"),
            (
                "#define TWO(x) HAS(x)\n#define COND TWO(NAME)\n",
                "wraps HAS TWO asks NAME",
            ),
            ("#define TWO(x) HAS(#x)\n", "wraps HAS puzzle TWO"),
            ("#define TWO(x) HAS(<a/x.h>)\n", "wraps HAS puzzle TWO"),
            ("#define TWO(f) f(HAS)\n", "wraps HAS puzzle TWO"),
            (
                "#define TWO(f) f(HAS)\n#define COND TWO(X)\n",
                "wraps HAS puzzle COND TWO",
            ),
            (
                "#define TWO(x) APPLY(__has_include, x)\n",
                "wraps HAS puzzle TWO",
            ),
            ("#define TWO(x) __has_ ## x\n", "wraps HAS puzzle TWO"),
            ("#define TWO defined(__has_include)\n", "wraps HAS"),
            ("#define OTHER(x) y(x)\n", "wraps HAS"),
            (
                "#define TWO(x) HA ## x\n#if TWO(S)(NAME)\n",
                "wraps HAS pasted HAS",
            ),
        ] {
            let asking = asking(&format!("{has}{text}"));
            let list = |what: &str, names: &BTreeSet<Vec<u8>>| {
                let names = names.iter().map(|name| String::from_utf8_lossy(name));
                let names: Vec<_> = names.collect();
                match names.is_empty() {
                    true => String::new(),
                    false => format!("{what} {} ", names.join(" ")),
                }
            };
            let pasted: BTreeSet<Vec<u8>> = asking.pasted.iter().cloned().collect();
            let words = list("wraps", &asking.wrappers)
                + &list("asks", &asking.operands)
                + &list("puzzle", &asking.puzzles)
                + &list("pasted", &pasted);
            assert_eq!(words.trim_end(), expect, "{text}");
        }
    }
}
