//! The include graph in memory, shared by all jobs of a submitter, and its bounds.
//!
//! A node is a file together with the directory in which it was found, since `"name"` is looked for
//! there first; a file reached through a symlink is two nodes, as compilers differ about which
//! directory counts. What a node includes depends on nothing else but the search list, so its edges
//! are kept per search list, and a file's directives per content.
//!
//! It knows disks only as a [`Disk`], and has no notion of jobs, workers or wires. The way through it
//! is in `include/walk.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{AbsPath, Bytes, Digest};
use crate::include::directives::{self, Definitions, Directives, Form, Use};
use crate::include::places::{Disk, Found, PlaceId, Places, What};
use crate::include::reach::Reach;
use crate::include::request::{Decline, Family, Forced, Language, Scan, ScanRequest};
use crate::include::search::SearchList;
use crate::include::walk::Walk;

/// Search lists whose edges are kept.
const CONFIGURATIONS_MAX: usize = 64;
/// Names that are learned from failures, at most.
const LEARNED_MAX: usize = 1024;
/// How often a scan begins anew because files change under it.
const ATTEMPTS: usize = 8;
/// The graph.
#[derive(Debug)]
pub struct Graph {
    pub(super) places: Places,
    pub(super) contents: Vec<Slot>,
    pub(super) free: Vec<usize>,
    pub(super) by_digest: BTreeMap<Digest, usize>,
    pub(super) content_bytes: usize,
    pub(super) content_bytes_max: usize,
    pub(super) places_max: usize,
    pub(super) names: BTreeMap<Arc<[u8]>, u32>,
    /// The slots in which a macro is defined, by the hash of its name.
    pub(super) definers: BTreeMap<u32, Vec<u32>>,
    /// What computed includes came to in compiles so far.
    pub(super) reaches: Vec<Reach>,
    pub(super) spelled: Vec<Arc<[u8]>>,
    pub(super) nodes: Vec<Node>,
    pub(super) node_of: BTreeMap<Found, NodeId>,
    pub(super) configurations: BTreeMap<Configuration, Table>,
    pub(super) learned: BTreeMap<AbsPath, BTreeSet<Bytes>>,
    pub(super) learned_count: usize,
    pub(super) remembered: BTreeMap<Remember, (u64, Scan)>,
    pub(super) remembered_entries: usize,
    pub(super) scan: u64,
    pub(super) marked: Vec<u64>,
    pub(super) visited: Vec<u64>,
    pub(super) ranks: Vec<u32>,
    pub(super) by_rank: Vec<PlaceId>,
}

/// A file's directives, shared by all files with the same content.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) digest: Digest,
    pub(super) used: u64,
    pub(super) bytes: usize,
    pub(super) digested: Arc<Digested>,
}

/// [`Directives`] with interned names.
#[derive(Debug)]
pub(super) struct Digested {
    pub(super) includes: Box<[(Use, Form, u32)]>,
    pub(super) computed: Box<[directives::Computed]>,
    pub(super) wrappers: Box<[Vec<u8>]>,
    pub(super) puzzles: Box<[Vec<u8>]>,
    pub(super) puzzle: Option<(u32, Vec<u8>)>,
    pub(super) probes: Box<[(Use, u32, bool)]>,
    pub(super) written: Box<[(Form, u32)]>,
    pub(super) condition_words: Box<[u32]>,
    pub(super) bare_words: Box<[u32]>,
    pub(super) definitions: Definitions,
    pub(super) flags: Flags,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    pub(super) uses_time: bool,
    pub(super) assembler_string: bool,
    pub(super) assembler_text: bool,
    pub(super) module: bool,
    pub(super) pragma: Option<&'static str>,
    /// It includes by macro.
    pub(super) computed: bool,
    /// It defines such a wrapper, or something worse.
    pub(super) wrapper: bool,
    /// Macros in it ask for quoted names.
    pub(super) probes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u32);

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) found: Found,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Configuration {
    pub(super) cwd: AbsPath,
    pub(super) search: SearchList,
    pub(super) named: Vec<Bytes>,
}

/// What is known under one search list.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) used: u64,
    pub(super) epoch: u64,
    pub(super) cwd: Option<PlaceId>,
    pub(super) quote: Vec<PlaceId>,
    pub(super) angle: Vec<PlaceId>,
    pub(super) embed: Vec<PlaceId>,
    /// Places that belong to every scan.
    pub(super) base: Vec<PlaceId>,
    /// First matches on the list, by name: for `"name"` and `<name>`.
    pub(super) matches: [Vec<Option<Arc<Match>>>; 2],
    pub(super) edges: Vec<Option<Edges>>,
}

/// Where a look-up leads.
#[derive(Debug, Default)]
pub(super) struct Match {
    pub(super) found: Option<Found>,
    pub(super) passed: Vec<PlaceId>,
}

/// What a node leads to.
#[derive(Debug)]
pub(super) struct Edges {
    pub(super) version: u32,
    pub(super) enter: Box<[NodeId]>,
    pub(super) mark: Box<[PlaceId]>,
    pub(super) flags: Flags,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Remember {
    pub(super) main: Found,
    pub(super) configuration: Configuration,
    pub(super) forced: Vec<(Forced, Bytes)>,
    pub(super) defines: Vec<Bytes>,
    pub(super) extra: Vec<Bytes>,
    pub(super) family: Family,
    pub(super) language: Language,
}

impl Graph {
    /// An empty graph that keeps at most so many bytes of directives and so many places.
    pub fn new(content_bytes_max: usize, places_max: usize) -> Self {
        Self {
            places: Places::default(),
            contents: Vec::new(),
            free: Vec::new(),
            by_digest: BTreeMap::new(),
            content_bytes: 0,
            content_bytes_max,
            places_max,
            names: BTreeMap::new(),
            definers: BTreeMap::new(),
            reaches: Vec::new(),
            spelled: Vec::new(),
            nodes: Vec::new(),
            node_of: BTreeMap::new(),
            configurations: BTreeMap::new(),
            learned: BTreeMap::new(),
            learned_count: 0,
            remembered: BTreeMap::new(),
            remembered_entries: 0,
            scan: 0,
            marked: Vec::new(),
            visited: Vec::new(),
            ranks: Vec::new(),
            by_rank: Vec::new(),
        }
    }

    /// Every file that the compile could open.
    pub fn scan(
        &mut self,
        disk: &mut dyn Disk,
        request: &ScanRequest<'_>,
    ) -> Result<Scan, Decline> {
        self.bound(disk);
        let key = Configuration {
            cwd: request.cwd.clone(),
            search: request.search.clone(),
            named: request.named_dirs.to_vec(),
        };
        let mut table = self.configurations.remove(&key).unwrap_or_default();
        let mut result = Err(Decline::Budget);
        for _ in 0..ATTEMPTS {
            self.scan += 1;
            table.used = self.scan;
            self.places.refresh(disk);
            result = Walk {
                graph: self,
                disk,
                table: &mut table,
                request,
                key: &key,
                stack: Vec::new(),
                visited: Vec::new(),
                uses_time: false,
                trusted: true,
            }
            .run();
            if !matches!(result, Err(Decline::Changing(_))) {
                break;
            }
        }
        self.configurations.insert(key, table);
        result
    }

    /// Remembers that `includer` opens `name` although no scan found it, from a compile that failed
    /// for want of it.
    pub fn learn(&mut self, includer: &AbsPath, name: &[u8]) {
        if self.learned_count >= LEARNED_MAX {
            return;
        }
        let names = self.learned.entry(includer.clone()).or_default();
        if names.insert(name.into()) {
            self.learned_count += 1;
            self.places.epoch += 1;
            self.places.changes += 1;
        }
    }

    /// Where the bytes with this digest were last seen. Whoever sends them verifies the digest while
    /// reading, since the file may have changed.
    pub fn source(&self, digest: &Digest) -> Option<&AbsPath> {
        self.places.blob(digest)
    }

    /// The memory that directives hold, in bytes.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// How many places are remembered.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Lets go of what was not used for longest. Directives go one by one: the edges made from them
    /// stay. Places only go all together, since everything refers to them.
    fn bound(&mut self, disk: &mut dyn Disk) {
        if self.content_bytes > self.content_bytes_max {
            let mut slots: Vec<(u64, usize)> = self
                .by_digest
                .values()
                .map(|&slot| (self.contents[slot].used, slot))
                .collect();
            slots.sort_unstable();
            for (_, slot) in slots {
                if self.content_bytes <= self.content_bytes_max / 4 * 3 {
                    break;
                }
                self.by_digest.remove(&self.contents[slot].digest);
                self.content_bytes -= self.contents[slot].bytes;
                self.contents[slot].bytes = 0;
                self.contents[slot].digested = Arc::new(Digested::nothing());
                self.free.push(slot);
            }
            // They would keep alive what was let go of.
            self.reaches.clear();
            self.definers.clear();
            for slot in self.by_digest.values().copied().collect::<Vec<_>>() {
                self.define(slot);
            }
        }
        while self.configurations.len() > CONFIGURATIONS_MAX {
            let oldest = self
                .configurations
                .iter()
                .min_by_key(|(_, table)| table.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.configurations.remove(&key);
            }
        }
        if self.places.len() + self.nodes.len() + self.spelled.len() > self.places_max {
            self.places.release(disk);
            let mut fresh = Self::new(self.content_bytes_max, self.places_max);
            fresh.places.number_after(&self.places);
            fresh.learned = std::mem::take(&mut self.learned);
            fresh.learned_count = self.learned_count;
            *self = fresh;
        }
    }

    pub(super) fn node(&mut self, found: Found) -> NodeId {
        let next = NodeId(self.nodes.len() as u32);
        let nodes = &mut self.nodes;
        *self.node_of.entry(found).or_insert_with(|| {
            nodes.push(Node { found });
            next
        })
    }

    /// The directives of a file, read again if they were let go of.
    pub(super) fn digested(
        &mut self,
        disk: &mut dyn Disk,
        file: PlaceId,
        bytes: Option<Vec<u8>>,
    ) -> Result<(usize, Arc<Digested>), Decline> {
        let digest = |places: &Places| match &places.get(file).what {
            What::File(file) => file.known.map(|known| known.digest),
            _ => None,
        };
        let scan = self.scan;
        let mut bytes = bytes;
        loop {
            let before = digest(&self.places);
            if let Some(slot) = before.and_then(|digest| self.by_digest.get(&digest)) {
                self.contents[*slot].used = scan;
                return Ok((*slot, self.contents[*slot].digested.clone()));
            }
            let text = match bytes.take() {
                Some(bytes) => bytes,
                None => self.places.read(disk, file)?,
            };
            if before.is_some() && digest(&self.places) != before {
                // It changed since this scan began: begin again.
                return Err(Decline::Changing(self.places.get(file).path.to_string()));
            }
            let Some(digest) = digest(&self.places) else {
                return Err(Decline::Changing(self.places.get(file).path.to_string()));
            };
            let digested = self.intern(directives::read(&text));
            self.keep(digest, digested);
        }
    }

    pub(super) fn intern(&mut self, found: Directives) -> Digested {
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
                module: found.module,
                pragma: found.pragma,
                computed: found.computed.iter().any(|c| c.through.is_empty()),
                wrapper: !found.wrappers.is_empty()
                    || !found.puzzles.is_empty()
                    || found.puzzle.is_some(),
                probes: found.probes.iter().any(|(_, wrapped)| !wrapped),
            },
            puzzles: found.puzzles.into(),
            puzzle: found.puzzle,
            probes: (found.probes.into_iter())
                .map(|(probe, wrapped)| (probe.usage, self.number(&probe.name), wrapped))
                .collect(),
            written: (found.written.into_iter())
                .map(|include| (include.form, self.number(&include.name)))
                .collect(),
            condition_words: found.condition_words.into(),
            bare_words: found.bare_words.into(),
            computed: found.computed.into(),
            wrappers: found.wrappers.into(),
            definitions: found.definitions,
        }
    }

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

    fn keep(&mut self, digest: Digest, digested: Digested) {
        let bytes = digested.bytes();
        self.content_bytes += bytes;
        let slot = Slot {
            digest,
            used: self.scan,
            bytes,
            digested: Arc::new(digested),
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.contents[place] = slot;
                place
            }
            None => {
                self.contents.push(slot);
                self.contents.len() - 1
            }
        };
        self.by_digest.insert(digest, place);
        self.define(place);
    }

    /// Notes where macros are defined.
    fn define(&mut self, slot: usize) {
        let digested = self.contents[slot].digested.clone();
        for hash in digested.definitions.hashes() {
            let slots = self.definers.entry(hash).or_default();
            if slots.last() != Some(&(slot as u32)) {
                slots.push(slot as u32);
            }
        }
    }
}

impl Digested {
    fn nothing() -> Self {
        Self {
            includes: Box::default(),
            computed: Box::default(),
            wrappers: Box::default(),
            puzzles: Box::default(),
            puzzle: None,
            probes: Box::default(),
            written: Box::default(),
            condition_words: Box::default(),
            bare_words: Box::default(),
            definitions: Definitions::default(),
            flags: Flags::default(),
        }
    }

    fn bytes(&self) -> usize {
        let computed = self.computed.iter();
        size_of::<Slot>()
            + size_of::<Self>()
            + 64
            + self.includes.len() * 8
            + computed
                .map(|c| 64 + c.operand.len() + c.through.len())
                .sum::<usize>()
            + self
                .wrappers
                .iter()
                .map(|name| 24 + name.len())
                .sum::<usize>()
            + self.probes.len() * 12
            + self.written.len() * 8
            + (self.condition_words.len() + self.bare_words.len()) * 4
            // The definitions, and where they are noted.
            + self.definitions.bytes() * 2
    }
}
