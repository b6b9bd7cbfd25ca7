//! The macro definitions in reach of one compile, and what its computed includes expand to.
//!
//! Evaluations are kept from scan to scan and dropped when a file comes or goes that defines one of
//! the names on which they depend: units of a project share all but a few of their files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::Bytes;
use crate::include::asking::{Asking, Text};
use crate::include::computed::{self, MacroTable, Target};
use crate::include::directives;
use crate::include::graph::Digested;

/// Every name that an operand can expand to.
pub(super) type Names = Result<Arc<BTreeSet<Target>>, computed::Unknown>;

/// The definitions in reach of a compile.
#[derive(Debug)]
pub(super) struct Reach {
    /// The `-D` that it belongs to.
    pub(super) defines: Vec<Bytes>,
    /// When it was last used.
    pub(super) used: u64,
    /// The command line, read as if it were a file.
    pub(super) line: Arc<Digested>,
    /// Files by slot.
    contents: BTreeMap<usize, Arc<Digested>>,
    evaluated: BTreeMap<Vec<u8>, Evaluated>,
    asking: Option<Arc<Asking>>,
}

/// An evaluated operand.
#[derive(Debug)]
struct Evaluated {
    names: Names,
    /// Hashes of the names that it depends on, sorted.
    on: Vec<u32>,
}

impl Reach {
    /// Nothing but a command line.
    pub(super) fn new(defines: &[Bytes], line: Arc<Digested>) -> Self {
        Self {
            defines: defines.to_vec(),
            used: 0,
            line,
            contents: BTreeMap::new(),
            evaluated: BTreeMap::new(),
            asking: None,
        }
    }

    /// How many of these files it does not have, and how many others it has.
    pub(super) fn distance(&self, contents: &BTreeMap<usize, Arc<Digested>>) -> usize {
        let common = contents
            .iter()
            .filter(|(slot, content)| {
                let ours = self.contents.get(slot);
                ours.is_some_and(|ours| Arc::ptr_eq(ours, content))
            })
            .count();
        self.contents.len() + contents.len() - 2 * common
    }

    /// Makes these the files in reach.
    pub(super) fn become_of(&mut self, contents: BTreeMap<usize, Arc<Digested>>) {
        let mut changed: BTreeSet<u32> = BTreeSet::new();
        let (mut differs, mut asks) = (false, false);
        for (one, other) in [(&self.contents, &contents), (&contents, &self.contents)] {
            for (slot, content) in one {
                let same = other.get(slot);
                if !same.is_some_and(|same| Arc::ptr_eq(same, content)) {
                    differs = true;
                    // Without macros and conditions it changes nothing about who asks.
                    asks |= content.definitions.bytes() > 0 || !content.bare_words.is_empty();
                    changed.extend(content.definitions.hashes());
                }
            }
        }
        if differs {
            self.evaluated
                .retain(|_, one| !one.on.iter().any(|hash| changed.contains(hash)));
            if asks {
                self.asking = None;
            }
            self.contents = contents;
        }
    }

    /// All files, the command line first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Digested>> {
        [&self.line].into_iter().chain(self.contents.values())
    }

    /// The macros that ask whether files exist.
    pub(super) fn asking(&mut self) -> Arc<Asking> {
        if let Some(asking) = &self.asking {
            return asking.clone();
        }
        let asks = |one: &Arc<Digested>| !one.wrappers.is_empty() || !one.puzzles.is_empty();
        let asking = if self.all().any(asks) {
            let texts: Vec<Text<'_>> = self
                .all()
                .map(|one| Text {
                    definitions: &one.definitions,
                    wrappers: &one.wrappers,
                    puzzles: &one.puzzles,
                    bare_words: &one.bare_words,
                })
                .collect();
            Asking::of(&texts)
        } else {
            Asking::default()
        };
        self.asking.insert(Arc::new(asking)).clone()
    }

    /// Every name that an operand can expand to. `definers` tells in which slots macros are defined,
    /// by the hash of their names.
    pub(super) fn names(&mut self, operand: &[u8], definers: &BTreeMap<u32, Vec<u32>>) -> Names {
        if let Some(evaluated) = self.evaluated.get(operand) {
            return evaluated.names.clone();
        }
        let mut asked = Asked {
            reach: self,
            definers,
            on: BTreeSet::new(),
        };
        let names = computed::targets(operand, &mut asked).map(Arc::new);
        let on = asked.on.into_iter().collect();
        let names_too = names.clone();
        self.evaluated
            .insert(operand.to_vec(), Evaluated { names, on });
        names_too
    }
}

/// A [`Reach`] during one evaluation.
struct Asked<'a> {
    reach: &'a Reach,
    definers: &'a BTreeMap<u32, Vec<u32>>,
    on: BTreeSet<u32>,
}

impl MacroTable for Asked<'_> {
    fn definitions(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let hash = directives::name_hash(name);
        self.on.insert(hash);
        let slots = self.definers.get(&hash).map_or(&[][..], Vec::as_slice);
        let contents = slots
            .iter()
            .filter_map(|&slot| self.reach.contents.get(&(slot as usize)));
        let texts: BTreeSet<&[u8]> = [&self.reach.line]
            .into_iter()
            .chain(contents)
            .flat_map(|content| content.definitions.of(name))
            .collect();
        texts.into_iter().map(<[u8]>::to_vec).collect()
    }
}
