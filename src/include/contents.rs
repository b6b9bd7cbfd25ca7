//! What files say, by content: their directives with interned names, each content once.
//!
//! A slot is the index of a content for as long as nothing is let go of. This file knows no place
//! and no search list.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::Digest;
use crate::include::definitions::Definitions;
use crate::include::directives::{self, Directives, Form, Use};
use crate::include::suspects::{Notes, Source, Suspects};
use crate::include::words::name_hash;

/// All contents that are in memory.
#[derive(Debug, Default)]
pub(super) struct Contents {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_digest: BTreeMap<Digest, u32>,
    bytes: usize,
    bytes_max: usize,
    names: BTreeMap<Arc<[u8]>, u32>,
    spelled: Vec<Arc<[u8]>>,
    /// The slots in which a macro is defined, by the hash of its name.
    definers: BTreeMap<u32, Vec<u32>>,
    suspects: Suspects,
}

#[derive(Debug)]
struct Slot {
    digest: Digest,
    used: u64,
    bytes: usize,
    /// The scan that last had this content in reach.
    reached: u64,
    digested: Arc<Digested>,
    notes: Arc<Notes>,
}

/// [`Directives`] with interned names.
#[derive(Clone, Debug, Default)]
pub(super) struct Digested {
    pub(super) includes: Box<[(Use, Form, u32)]>,
    /// Each with the number of its operand.
    pub(super) computed: Box<[(directives::Computed, u32)]>,
    pub(super) wrappers: Box<[Vec<u8>]>,
    pub(super) puzzles: Box<[Vec<u8>]>,
    pub(super) puzzle: Option<(u32, Vec<u8>)>,
    /// Each with the hash of the macro that would have to ask, if it is no operator.
    pub(super) probes: Box<[(Use, u32, Option<u32>)]>,
    pub(super) written: Box<[(Form, u32)]>,
    pub(super) condition_words: Box<[u32]>,
    pub(super) bare_words: Box<[u32]>,
    pub(super) definitions: Definitions,
    pub(super) flags: Flags,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    pub(super) uses_time: bool,
    pub(super) assembler_string: Option<u32>,
    pub(super) assembler_text: Option<u32>,
    pub(super) pragma: Option<(u32, &'static str)>,
    pub(super) once: bool,
    pub(super) imports: bool,
    /// It includes by macro.
    pub(super) computed: bool,
    /// Macros in it ask for files, wherever they are used.
    pub(super) roams: bool,
}

impl Contents {
    /// None; at most so many bytes are kept beyond a scan.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ..Self::default()
        }
    }

    /// The memory that they hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many names were interned.
    pub(super) fn names(&self) -> usize {
        self.spelled.len()
    }

    /// A name by its number.
    pub(super) fn spelled(&self, number: u32) -> &Arc<[u8]> {
        &self.spelled[number as usize]
    }

    /// A name's number.
    pub(super) fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(&number) = self.names.get(name) {
            return number;
        }
        let name: Arc<[u8]> = name.into();
        let number = self.spelled.len() as u32;
        self.spelled.push(name.clone());
        self.names.insert(name, number);
        number
    }

    /// The slot with this content.
    pub(super) fn find(&mut self, digest: &Digest, scan: u64) -> Option<(u32, Arc<Digested>)> {
        let slot = *self.by_digest.get(digest)?;
        let found = &mut self.slots[slot as usize];
        found.used = scan;
        Some((slot, found.digested.clone()))
    }

    /// Reads a content that is not there yet.
    pub(super) fn keep(&mut self, digest: Digest, text: &[u8], scan: u64) -> u32 {
        let digested = Arc::new(self.intern(directives::read(text)));
        let bytes = digested.bytes();
        self.bytes += bytes;
        let slot = Slot {
            digest,
            used: scan,
            bytes,
            reached: 0,
            digested,
            notes: Arc::default(),
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.by_digest.insert(digest, place);
        self.enlist(place);
        place
    }

    /// What is in a slot.
    pub(super) fn get(&self, slot: u32) -> &Arc<Digested> {
        &self.slots[slot as usize].digested
    }

    /// Puts a content in reach of a scan; whether it was not yet.
    pub(super) fn reach(&mut self, slot: u32, scan: u64) -> bool {
        let slot = &mut self.slots[slot as usize];
        slot.used = scan;
        std::mem::replace(&mut slot.reached, scan) != scan
    }

    /// The definitions of a macro in all contents that are in reach of a scan.
    pub(super) fn definitions(&self, name: &[u8], scan: u64) -> Vec<Vec<u8>> {
        let slots = self.definers.get(&name_hash(name));
        let mut texts: Vec<&[u8]> = slots
            .into_iter()
            .flatten()
            .map(|&slot| &self.slots[slot as usize])
            .filter(|slot| slot.reached == scan)
            .flat_map(|slot| slot.digested.definitions.of(name))
            .collect();
        texts.sort_unstable();
        texts.dedup();
        texts.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Goes up when more macros are suspected, and what [`Contents::notes`] tells changes.
    pub(super) fn suspicions(&self) -> u32 {
        self.suspects.version()
    }

    /// What in a content concerns macros that ask for files.
    pub(super) fn notes(&mut self, slot: u32) -> &Arc<Notes> {
        let slot = &mut self.slots[slot as usize];
        if slot.notes.version != self.suspects.version() {
            slot.notes = Arc::new(self.suspects.note(slot.digested.source()));
        }
        &slot.notes
    }

    /// Lets go of what was not used for longest, if it is too much; true then, since slots have other
    /// contents from now on.
    pub(super) fn shrink(&mut self) -> bool {
        if self.bytes <= self.bytes_max {
            return false;
        }
        self.shrink_to(self.bytes_max / 4 * 3);
        true
    }

    /// Lets go of what was not used for longest, until so many bytes are left at most.
    fn shrink_to(&mut self, bytes: usize) {
        let used = |slot: &u32| self.slots[*slot as usize].used;
        let mut slots: Vec<(u64, u32)> = (self.by_digest.values())
            .map(|slot| (used(slot), *slot))
            .collect();
        slots.sort_unstable();
        for (_, slot) in slots {
            if self.bytes <= bytes {
                break;
            }
            let old = &mut self.slots[slot as usize];
            self.by_digest.remove(&old.digest);
            self.bytes -= old.bytes;
            old.bytes = 0;
            old.digested = Arc::default();
            old.notes = Arc::default();
            self.free.push(slot);
        }
        self.definers.clear();
        self.suspects = Suspects::default();
        for slot in self.by_digest.values().copied().collect::<Vec<_>>() {
            self.slots[slot as usize].notes = Arc::default();
            self.enlist(slot);
        }
    }

    /// Lets go of names that are in use no more, and of what was not used for longest until there are
    /// no more than so many. Nobody may hold a name's number or a slot.
    pub(super) fn shrink_names(&mut self, names_max: usize) {
        let mut bytes = self.bytes;
        while self.names() > names_max {
            self.forget_names();
            if self.names() > names_max {
                bytes /= 2;
                self.shrink_to(bytes);
            }
        }
    }

    /// Numbers anew the names that are still in use.
    fn forget_names(&mut self) {
        let old = std::mem::take(&mut self.spelled);
        self.names.clear();
        for at in 0..self.slots.len() {
            let digested = std::mem::take(&mut self.slots[at].digested);
            let mut digested = Arc::unwrap_or_clone(digested);
            let includes = digested.includes.iter_mut().map(|one| &mut one.2);
            let computed = digested.computed.iter_mut().map(|one| &mut one.1);
            let probes = digested.probes.iter_mut().map(|one| &mut one.1);
            let written = digested.written.iter_mut().map(|one| &mut one.1);
            for number in includes.chain(computed).chain(probes).chain(written) {
                *number = self.number(&old[*number as usize]);
            }
            self.slots[at].digested = Arc::new(digested);
        }
    }

    /// Notes where macros are defined, and which of them may ask for files.
    fn enlist(&mut self, slot: u32) {
        let digested = self.slots[slot as usize].digested.clone();
        for hash in digested.definitions.hashes() {
            let slots = self.definers.entry(hash).or_default();
            if slots.last() != Some(&slot) {
                slots.push(slot);
            }
        }
        let others = self.slots.iter().map(|slot| slot.digested.source());
        self.suspects.add(digested.source(), others);
    }

    fn intern(&mut self, found: Directives) -> Digested {
        let includes = found.includes.into_iter();
        let includes = includes.map(|include| {
            let number = self.number(&include.name);
            (include.usage, include.form, number)
        });
        Digested {
            includes: includes.collect(),
            flags: Flags {
                uses_time: found.uses_time,
                assembler_string: found.assembler_string,
                assembler_text: found.assembler_text,
                pragma: found.pragma,
                once: found.once,
                imports: found.imports,
                computed: (found.computed.iter()).any(|c| c.through.is_empty() && !c.roams),
                roams: !found.probes.is_empty() || found.computed.iter().any(|c| c.roams),
            },
            puzzles: found.puzzles.into(),
            puzzle: found.puzzle,
            probes: (found.probes.into_iter())
                .map(|(probe, through)| (probe.usage, self.number(&probe.name), through))
                .collect(),
            written: (found.written.into_iter())
                .map(|include| (include.form, self.number(&include.name)))
                .collect(),
            condition_words: found.condition_words.into(),
            bare_words: found.bare_words.into(),
            computed: (found.computed.into_iter())
                .map(|computed| {
                    let number = self.number(&computed.operand);
                    (computed, number)
                })
                .collect(),
            wrappers: found.wrappers.into(),
            definitions: found.definitions,
        }
    }
}

impl Digested {
    fn source(&self) -> Source<'_> {
        Source {
            definitions: &self.definitions,
            wrappers: &self.wrappers,
            puzzles: &self.puzzles,
            bare_words: &self.bare_words,
            condition_words: &self.condition_words,
        }
    }

    fn bytes(&self) -> usize {
        let computed = self.computed.iter();
        let names = self.wrappers.iter().chain(&self.puzzles);
        size_of::<Slot>()
            + size_of::<Self>()
            + 64
            + self.includes.len() * 8
            + computed
                .map(|(c, _)| 72 + c.operand.len() + c.through.len())
                .sum::<usize>()
            + names.map(|name| 24 + name.len()).sum::<usize>()
            + self.probes.len() * 16
            + self.written.len() * 8
            + (self.condition_words.len() + self.bare_words.len()) * 4
            // The definitions, and where they are noted.
            + self.definitions.bytes() * 2
    }
}
