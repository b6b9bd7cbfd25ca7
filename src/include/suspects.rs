//! Which macros of all known files together may ask whether a file exists, and what in each file has
//! to do with them.
//!
//! What asks in one compile is only ever found among these suspects, so of its hundreds of files few
//! need to be looked at, and each file is searched for suspects once and not in every scan. More files
//! only add suspects, so that the answer here holds for any choice of them.

use crate::include::asking::{Asking, parts, piece_words};
use crate::include::definitions::Definitions;
use crate::include::words::{name_hash, words};

/// What one file says.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its macros.
    pub definitions: &'a Definitions,
    /// Those that wrap an operator.
    pub wrappers: &'a [Vec<u8>],
    /// Those that are puzzles.
    pub puzzles: &'a [Vec<u8>],
    /// Hashes of the words in its conditions; sorted.
    pub condition_words: &'a [u32],
    /// Those that no `(` follows.
    pub bare_words: &'a [u32],
}

/// What in one file has to do with suspects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The version of the suspects for which this holds.
    pub version: u32,
    /// Definitions that mention one, as they follow `#define`.
    pub mentions: Box<[Box<[u8]>]>,
    /// Hashes of words of which a suspect's name may be pasted together; sorted.
    pub pieces: Box<[u32]>,
    /// A condition mentions one.
    pub asked: bool,
}

/// The suspects.
#[derive(Debug, Default)]
pub struct Suspects {
    asking: Asking,
    version: u32,
    /// Hashes of their names, sorted.
    names: Vec<u32>,
    /// Hashes of the parts of their names, sorted.
    fragments: Vec<u32>,
    /// A bit for the lower 16 of each hash: nearly every word is told from it to be neither.
    sieve: Vec<u64>,
}

impl Suspects {
    /// Goes up when there are more.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Takes in a file; `others` are those that are there.
    pub fn add<'a>(
        &mut self,
        source: Source<'_>,
        others: impl Iterator<Item = Source<'a>> + Clone,
    ) {
        let mut pending: Vec<Vec<u8>> = Vec::new();
        for (own, all) in [
            (source.wrappers, &mut self.asking.wrappers),
            (source.puzzles, &mut self.asking.puzzles),
        ] {
            for name in own {
                if all.insert(name.clone()) {
                    pending.push(name.clone());
                }
            }
        }
        for definition in &self.note(source).mentions {
            for word in words(parts(definition).1) {
                if self.is_name(word) {
                    pending.extend(self.asking.follow(word, definition));
                }
            }
        }
        if pending.is_empty() {
            return;
        }
        while let Some(name) = pending.pop() {
            for other in others.clone() {
                for definition in other.definitions.mentioning(&name) {
                    pending.extend(self.asking.follow(&name, definition));
                }
            }
        }
        self.asking.operands.clear();
        self.index();
    }

    /// What in a file has to do with suspects.
    pub fn note(&self, source: Source<'_>) -> Notes {
        let mut notes = Notes {
            version: self.version,
            ..Notes::default()
        };
        if self.names.is_empty() {
            return notes;
        }
        notes.asked = (source.condition_words.iter().chain(source.bare_words))
            .any(|&hash| self.sifts(hash) && self.names.binary_search(&hash).is_ok());
        let mut mentions: Vec<Box<[u8]>> = Vec::new();
        let is_fragment = |hash: u32| self.fragments.binary_search(&hash).is_ok();
        let bare = source.bare_words.iter().copied();
        let mut pieces: Vec<u32> = bare
            .filter(|&hash| self.sifts(hash) && is_fragment(hash))
            .collect();
        for definition in source.definitions.all() {
            let body = parts(definition).1;
            let hashes = || words(body).map(name_hash).filter(|&hash| self.sifts(hash));
            if hashes().next().is_none() {
                continue;
            }
            if hashes().any(|hash| self.names.binary_search(&hash).is_ok()) {
                mentions.push(definition.into());
            }
            let words = piece_words(definition).map(name_hash);
            pieces.extend(words.filter(|&hash| is_fragment(hash)));
        }
        pieces.sort_unstable();
        pieces.dedup();
        notes.mentions = mentions.into();
        notes.pieces = pieces.into();
        notes
    }

    fn is_name(&self, word: &[u8]) -> bool {
        self.asking.wrappers.contains(word) || self.asking.puzzles.contains(word)
    }

    fn sifts(&self, hash: u32) -> bool {
        let bit = (hash & 0xffff) as usize;
        self.sieve[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// Makes the hashes anew.
    fn index(&mut self) {
        self.version += 1;
        self.names.clear();
        self.fragments.clear();
        for name in self.asking.wrappers.iter().chain(&self.asking.puzzles) {
            self.names.push(name_hash(name));
            for start in 0..name.len() {
                for end in start + 1..=name.len() {
                    if end - start < name.len() {
                        self.fragments.push(name_hash(&name[start..end]));
                    }
                }
            }
        }
        self.sieve = vec![0; 1024];
        for hashes in [&mut self.names, &mut self.fragments] {
            hashes.sort_unstable();
            hashes.dedup();
            for hash in hashes {
                let bit = (*hash & 0xffff) as usize;
                self.sieve[bit / 64] |= 1 << (bit % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include::asking::Text;
    use crate::include::directives::{self, Directives};

    fn source(found: &Directives) -> Source<'_> {
        Source {
            definitions: &found.definitions,
            wrappers: &found.wrappers,
            puzzles: &found.puzzles,
            condition_words: &found.condition_words,
            bare_words: &found.bare_words,
        }
    }

    fn text<'a>(found: &'a Directives, notes: &'a Notes) -> Text<'a> {
        Text {
            mentions: &notes.mentions,
            wrappers: &found.wrappers,
            puzzles: &found.puzzles,
            pieces: &notes.pieces,
        }
    }

    /// Whatever is known besides and in which order it came, what asks in some files is the same as if
    /// only these were known.
    #[test]
    fn other_files_do_not_change_what_asks_in_some() {
        let texts = [
            "#define HAS(x) __has_include(x)\n",
            "#define TWO(x) HAS(x)\n#define THREE(y) (TWO(y) || X)\n",
            "#define COND TWO(NAME)\n#define Q HAS(#x)\n",
            "#define TWO __has_include\n#define HAS(x) __has_ ## x\n",
            "#define P(x) HA ## x\n#if P(S)(NAME)\n#define S1 S\n",
            "#define FOUR(f) f(THREE)\n#define FIVE FOUR(TWO)\n#if FIVE && SIX\n",
            "#define APPLY(f, x) f(x)\n#define SIX APPLY(HAS, \"y\")\n",
            "#define NOTHING 1\n#if NOTHING\n",
        ];
        let found: Vec<Directives> = texts
            .iter()
            .map(|text| directives::read(text.as_bytes()))
            .collect();
        let all = |order: &[usize]| {
            let mut suspects = Suspects::default();
            for at in 0..order.len() {
                let others = order[..=at].iter().map(|&at| source(&found[at]));
                suspects.add(source(&found[order[at]]), others);
            }
            suspects
        };
        let forward: Vec<usize> = (0..texts.len()).collect();
        let backward: Vec<usize> = (0..texts.len()).rev().collect();
        let everything = [all(&forward), all(&backward)];
        for chosen in 0_usize..1 << texts.len() {
            let order: Vec<usize> = (0..texts.len())
                .filter(|at| chosen >> at & 1 == 1)
                .collect();
            let asking = |suspects: &Suspects| {
                let notes = order.iter().map(|&at| suspects.note(source(&found[at])));
                let notes: Vec<Notes> = notes.collect();
                let texts = order.iter().zip(&notes);
                let texts: Vec<Text<'_>> =
                    texts.map(|(&at, notes)| text(&found[at], notes)).collect();
                let asking = Asking::of(&texts);
                format!("{asking:?}")
            };
            let alone = asking(&all(&order));
            for suspects in &everything {
                assert_eq!(alone, asking(suspects), "{order:?}");
            }
        }
    }
}
