//! The include graph in memory, shared by all jobs of a submitter, and the walk over it.
//!
//! A node is a file together with the directory in which it was found, since `"name"` is looked for
//! there first; a file reached through a symlink is two nodes, as compilers differ about which
//! directory counts. What a node includes depends on nothing else but the search list: `#include_next`
//! takes every match on the list instead of those after the present one, a superset that keeps the
//! position out of the node. Conditions are not evaluated.
//!
//! It knows disks only as a [`Disk`], and has no notion of jobs, workers or wires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{AbsPath, Bytes, Digest};
use crate::include::computed::{self, MacroTable, Target};
use crate::include::directives::{self, Definitions, Directives, Form, Use};
use crate::include::places::{Disk, Found, PlaceId, Places, ROOT, What};
use crate::include::search::SearchList;
use crate::message::Entry;

/// Files of one scan, at most: beyond, a compile is not worth distributing this way.
pub const SCAN_FILES_MAX: usize = 20_000;
/// Search lists whose edges are kept.
const CONFIGURATIONS_MAX: usize = 64;
/// Names that are learned from failures, at most.
const LEARNED_MAX: usize = 1024;
/// How often a scan begins anew because files change under it.
const ATTEMPTS: usize = 8;
/// Results that are kept for the same compile again, in entries.
const REMEMBERED_ENTRIES_MAX: usize = 1 << 18;

/// What a scan needs to know of a compile.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest<'a> {
    /// The working directory as the kernel names it.
    pub cwd: &'a AbsPath,
    /// The main file as it is spelled on the command line.
    pub main: &'a [u8],
    /// The compiler's search list for these flags.
    pub search: &'a SearchList,
    /// Every directory named on the command line (`-I` and its family, `$PWD`): each must exist on
    /// the worker exactly if it exists here.
    pub named_dirs: &'a [Bytes],
    /// Files included before the main file.
    pub forced: &'a [(Forced, Bytes)],
    /// The values of `-D`: `NAME`, `NAME=VALUE`, `NAME(x)=VALUE`.
    pub defines: &'a [Bytes],
    /// Other input files, relative to `cwd`. What does not exist is left out.
    pub extra: &'a [Bytes],
    /// Whose rules apply.
    pub family: Family,
    /// The main file's language.
    pub language: Language,
}

/// How a file is included from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forced {
    /// `-include`.
    Include,
    /// `-imacros`.
    Macros,
}

/// A family of compilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// GCC.
    Gcc,
    /// Clang.
    Clang,
}

/// A source language, as far as it matters to a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// C or Objective-C.
    C,
    /// C++ or Objective-C++.
    Cxx,
    /// Assembler that is preprocessed.
    Assembler,
}

/// A number for an entry, unique as long as the scanner lives: a new content, time or target gets
/// a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryNumber(pub u64);

/// An entry of a scan.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its number; cheaper to compare than the entry.
    pub number: EntryNumber,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// The result of a scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Main file, headers, symlinks on the way to them, search directories and working directory,
    /// sorted by path. Directories that hold an entry are not listed for that.
    pub entries: Arc<[Listed]>,
    /// Some file mentions `__DATE__`, `__TIME__` or `__TIMESTAMP__`.
    pub uses_time: bool,
    /// The canonical path of the main file.
    pub main: AbsPath,
}

/// Why a compile can't be scanned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Decline {
    /// The main file does not exist.
    #[error("main file {0} does not exist")]
    NoMain(String),
    /// Permission denied, a symlink loop, or an error of the disk.
    #[error("{0} can't be read")]
    Unreadable(String),
    /// A device, pipe, socket, or a file in `/proc`.
    #[error("{0} is no regular file")]
    Special(String),
    /// A precompiled header may be used instead of a header.
    #[error("{0} is a precompiled header")]
    Precompiled(String),
    /// An `#include` whose file could not be told.
    #[error("{file}:{line}: include of {operand} {why}")]
    Computed {
        /// The including file.
        file: String,
        /// The line, more or less.
        line: u32,
        /// The expression.
        operand: String,
        /// What is not known.
        why: String,
    },
    /// Assembler reads files where the preprocessor does not see it.
    #[error("{0} has .incbin or .include")]
    Assembler(String),
    /// C++20 modules.
    #[error("{0} has a module declaration or import")]
    Module(String),
    /// A pragma that replaces files.
    #[error("{0} has #pragma {1}")]
    Pragma(String, &'static str),
    /// A directory of the search list came or went since the compiler was asked: ask again.
    #[error("search list is stale: {0}")]
    Stale(String),
    /// Files changed while they were read, again and again.
    #[error("{0} keeps changing")]
    Changing(String),
    /// More than [`SCAN_FILES_MAX`] files.
    #[error("more than {SCAN_FILES_MAX} files")]
    Budget,
}

impl Decline {
    /// One stable word for the job log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoMain(_) => "no-main-file",
            Self::Unreadable(_) => "unreadable-file",
            Self::Special(_) => "special-file",
            Self::Precompiled(_) => "precompiled-header",
            Self::Computed { .. } => "computed-include",
            Self::Assembler(_) => "assembler-include",
            Self::Module(_) => "module",
            Self::Pragma(..) => "pragma",
            Self::Stale(_) => "stale-search-list",
            Self::Changing(_) => "changing-file",
            Self::Budget => "too-many-files",
        }
    }
}

/// The graph.
#[derive(Debug)]
pub struct Graph {
    places: Places,
    contents: Vec<Slot>,
    free: Vec<usize>,
    by_digest: BTreeMap<Digest, usize>,
    content_bytes: usize,
    content_bytes_max: usize,
    places_max: usize,
    names: BTreeMap<Arc<[u8]>, u32>,
    /// Hashes of the names of all macros that were ever defined in a file: most names never are.
    defined: BTreeSet<u32>,
    spelled: Vec<Arc<[u8]>>,
    nodes: Vec<Node>,
    node_of: BTreeMap<Found, NodeId>,
    configurations: BTreeMap<Configuration, Table>,
    learned: BTreeMap<AbsPath, BTreeSet<Bytes>>,
    learned_count: usize,
    remembered: BTreeMap<Remember, (u64, Scan)>,
    remembered_entries: usize,
    scan: u64,
    marked: Vec<u64>,
    visited: Vec<u64>,
    ranks: Vec<u32>,
    by_rank: Vec<PlaceId>,
}

/// A file's directives, shared by all files with the same content.
#[derive(Debug)]
struct Slot {
    digest: Digest,
    used: u64,
    bytes: usize,
    digested: Arc<Digested>,
}

/// [`Directives`] with interned names.
#[derive(Debug)]
struct Digested {
    includes: Box<[(Use, Form, u32)]>,
    computed: Box<[directives::Computed]>,
    wrappers: Box<[Vec<u8>]>,
    definitions: Definitions,
    flags: Flags,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    uses_time: bool,
    assembler_string: bool,
    assembler_text: bool,
    module: bool,
    pragma: Option<&'static str>,
    /// It includes by macro.
    computed: bool,
    /// Conditions call macros that might wrap `__has_include`.
    conditions: bool,
    /// It defines such a wrapper.
    wrapper: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeId(u32);

#[derive(Clone, Copy, Debug)]
struct Node {
    found: Found,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration {
    cwd: AbsPath,
    search: SearchList,
    named: Vec<Bytes>,
}

/// What is known under one search list.
#[derive(Debug, Default)]
struct Table {
    used: u64,
    epoch: u64,
    cwd: Option<PlaceId>,
    quote: Vec<PlaceId>,
    angle: Vec<PlaceId>,
    embed: Vec<PlaceId>,
    /// Places that belong to every scan.
    base: Vec<PlaceId>,
    /// First matches on the list, by name: for `"name"` and `<name>`.
    matches: [Vec<Option<Arc<Match>>>; 2],
    edges: Vec<Option<Edges>>,
}

/// Where a look-up leads.
#[derive(Debug, Default)]
struct Match {
    found: Option<Found>,
    passed: Vec<PlaceId>,
}

/// What a node leads to.
#[derive(Debug)]
struct Edges {
    version: u32,
    enter: Box<[NodeId]>,
    mark: Box<[PlaceId]>,
    flags: Flags,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Remember {
    main: Found,
    configuration: Configuration,
    forced: Vec<(Forced, Bytes)>,
    defines: Vec<Bytes>,
    extra: Vec<Bytes>,
    family: Family,
    language: Language,
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
            defined: BTreeSet::new(),
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

    fn node(&mut self, found: Found) -> NodeId {
        let next = NodeId(self.nodes.len() as u32);
        let nodes = &mut self.nodes;
        *self.node_of.entry(found).or_insert_with(|| {
            nodes.push(Node { found });
            next
        })
    }

    /// The directives of a file, read again if they were let go of.
    fn digested(
        &mut self,
        disk: &mut dyn Disk,
        file: PlaceId,
        bytes: Option<Vec<u8>>,
    ) -> Result<Arc<Digested>, Decline> {
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
                return Ok(self.contents[*slot].digested.clone());
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

    fn intern(&mut self, found: Directives) -> Digested {
        self.defined.extend(found.definitions.hashes());
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
                conditions: found.computed.iter().any(|c| !c.through.is_empty()),
                wrapper: !found.wrappers.is_empty(),
            },
            computed: found.computed.into(),
            wrappers: found.wrappers.into(),
            definitions: found.definitions,
        }
    }

    fn number(&mut self, name: &[u8]) -> u32 {
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
    }
}

impl Digested {
    fn nothing() -> Self {
        Self {
            includes: Box::default(),
            computed: Box::default(),
            wrappers: Box::default(),
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
            + self.definitions.bytes()
    }
}

/// One scan.
struct Walk<'a, 'r> {
    graph: &'a mut Graph,
    disk: &'a mut dyn Disk,
    table: &'a mut Table,
    request: &'a ScanRequest<'r>,
    key: &'a Configuration,
    stack: Vec<NodeId>,
    visited: Vec<NodeId>,
    uses_time: bool,
    /// Every file of the scan is watched, so that its result can be remembered.
    trusted: bool,
}

impl Walk<'_, '_> {
    fn run(mut self) -> Result<Scan, Decline> {
        let request = self.request;
        self.prepare()?;
        let cwd = self.cwd();
        let mut passed = Vec::new();
        let words = || String::from_utf8_lossy(request.main).into_owned();
        let main = self
            .lookup(cwd, request.main, &mut passed)?
            .ok_or_else(|| Decline::NoMain(words()))?;
        let memory = self.memory(main);
        if let Some((changes, scan)) = self.graph.remembered.get(&memory)
            && *changes == self.graph.places.changes
        {
            return Ok(scan.clone());
        }
        for base in self.table.base.clone() {
            self.mark(base)?;
        }
        self.mark_all(&passed)?;
        self.enter(main);
        self.enter_implicit()?;
        for extra in request.extra {
            self.take_extra(extra)?;
        }
        self.drain()?;
        self.compute()?;
        let scan = Scan {
            entries: self.entries(),
            uses_time: self.uses_time,
            main: self.graph.places.get(main.place).path.clone(),
        };
        if self.trusted {
            self.remember(memory, &scan);
        }
        Ok(scan)
    }

    /// Finds the directories of the search list, once per epoch.
    fn prepare(&mut self) -> Result<(), Decline> {
        if self.table.epoch == self.graph.places.epoch {
            return Ok(());
        }
        let search = &self.key.search;
        let mut base = Vec::new();
        let cwd = self.directory(ROOT, self.key.cwd.as_bytes(), &mut base)?;
        let Some(cwd) = cwd else {
            return Err(Decline::Unreadable(self.key.cwd.to_string()));
        };
        let mut lists: [Vec<PlaceId>; 3] = Default::default();
        for (list, names) in lists
            .iter_mut()
            .zip([&search.quote, &search.angle, &search.embed])
        {
            for name in names {
                match self.directory(cwd, name, &mut base)? {
                    Some(directory) => list.push(directory),
                    None => return Err(Decline::Stale(format!("{name} is gone"))),
                }
            }
        }
        for name in &search.absent {
            if self.directory(cwd, name, &mut Vec::new())?.is_some() {
                return Err(Decline::Stale(format!("{name} has appeared")));
            }
        }
        let [quote, angle, embed] = lists;
        for name in &search.duplicate {
            match self.directory(cwd, name, &mut base)? {
                Some(directory) if quote.contains(&directory) || angle.contains(&directory) => {}
                _ => return Err(Decline::Stale(format!("{name} is no duplicate"))),
            }
        }
        for name in &self.key.named {
            let mut passed = Vec::new();
            if let Some(found) = self.walk(cwd, name, &mut passed)? {
                base.push(found.place);
                base.extend(passed);
            }
        }
        base.sort_unstable();
        base.dedup();
        *self.table = Table {
            used: self.table.used,
            epoch: self.graph.places.epoch,
            cwd: Some(cwd),
            quote,
            angle,
            embed,
            base,
            ..Table::default()
        };
        Ok(())
    }

    fn cwd(&self) -> PlaceId {
        self.table.cwd.unwrap_or(ROOT)
    }

    fn directory(
        &mut self,
        from: PlaceId,
        name: &[u8],
        base: &mut Vec<PlaceId>,
    ) -> Result<Option<PlaceId>, Decline> {
        let found = self.walk(from, name, base)?;
        let directory = found
            .map(|found| found.place)
            .filter(|&place| matches!(self.graph.places.get(place).what, What::Directory(_)));
        base.extend(directory);
        Ok(directory)
    }

    fn walk(
        &mut self,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
    ) -> Result<Option<Found>, Decline> {
        self.graph.places.walk(self.disk, from, path, passed)
    }

    /// A file by its path; directories don't count, as for a compiler.
    fn lookup(
        &mut self,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
    ) -> Result<Option<Found>, Decline> {
        let start = passed.len();
        if self.graph.places.precompiled {
            for suffix in [&b".gch"[..], b".pch"] {
                let name = [path, suffix].concat();
                if let Some(found) = self.walk(from, &name, &mut Vec::new())? {
                    let path = &self.graph.places.get(found.place).path;
                    return Err(Decline::Precompiled(path.to_string()));
                }
            }
        }
        let found = self
            .walk(from, path, passed)?
            .filter(|found| matches!(self.graph.places.get(found.place).what, What::File(_)));
        if found.is_none() {
            passed.truncate(start);
        }
        Ok(found)
    }

    /// What every compile includes without being told, and what the command line includes.
    fn enter_implicit(&mut self) -> Result<(), Decline> {
        // glibc's compilers include it first; where it does not exist nothing happens.
        self.take_target(self.cwd(), Use::Include, Form::Angle, b"stdc-predef.h")?;
        for (_, name) in self.request.forced {
            self.take_target(self.cwd(), Use::Include, Form::Quote, name)?;
        }
        Ok(())
    }

    fn take_extra(&mut self, name: &[u8]) -> Result<(), Decline> {
        let mut passed = Vec::new();
        if let Some(found) = self.walk(self.cwd(), name, &mut passed)? {
            self.mark_all(&passed)?;
            self.mark(found.place)?;
        }
        Ok(())
    }

    /// Adds what one name leads to, included from a file in `beside`.
    fn take_target(
        &mut self,
        beside: PlaceId,
        usage: Use,
        form: Form,
        name: &[u8],
    ) -> Result<(), Decline> {
        let mut enter = Vec::new();
        let mut mark = Vec::new();
        let number = Some(self.graph.number(name));
        self.resolve(beside, usage, form, name, number, &mut enter, &mut mark)?;
        self.mark_all(&mark)?;
        self.stack.extend(enter);
        Ok(())
    }

    /// Finds the files that a directive could mean. `number` is the name's, if it is interned.
    #[expect(clippy::too_many_arguments, reason = "the parts of one directive")]
    fn resolve(
        &mut self,
        beside: PlaceId,
        usage: Use,
        form: Form,
        name: &[u8],
        number: Option<u32>,
        enter: &mut Vec<NodeId>,
        mark: &mut Vec<PlaceId>,
    ) -> Result<(), Decline> {
        let mut founds: Vec<Found> = Vec::new();
        let all = matches!(usage, Use::Next | Use::ProbeNext | Use::Embed);
        if name.first() == Some(&b'/') {
            founds.extend(self.lookup(ROOT, name, mark)?);
        } else if usage == Use::Line {
            founds.extend(self.lookup(self.cwd(), name, mark)?);
        } else {
            if form == Form::Quote || all {
                founds.extend(self.lookup(beside, name, mark)?);
            }
            if all {
                let table = &self.table;
                let lists = [&table.quote, &table.angle, &table.embed];
                let directories: Vec<PlaceId> = lists.into_iter().flatten().copied().collect();
                for directory in directories {
                    founds.extend(self.lookup(directory, name, mark)?);
                }
            } else if founds.is_empty() {
                let first = self.first_match(form, name, number)?;
                mark.extend_from_slice(&first.passed);
                founds.extend(first.found);
                if founds.is_empty() && form == Form::Angle {
                    // It is an error; clang then takes a file beside the includer, and says so.
                    founds.extend(self.lookup(beside, name, mark)?);
                }
            }
        }
        for found in founds {
            match usage {
                Use::Include | Use::Next => {
                    enter.push(self.graph.node(found));
                    let parent = self.graph.places.get(found.place).parent;
                    if parent != found.beside {
                        let behind = Found {
                            beside: parent,
                            ..found
                        };
                        enter.push(self.graph.node(behind));
                    }
                }
                _ => mark.push(found.place),
            }
        }
        Ok(())
    }

    /// The first match on the search list.
    fn first_match(
        &mut self,
        form: Form,
        name: &[u8],
        number: Option<u32>,
    ) -> Result<Arc<Match>, Decline> {
        let which = usize::from(form == Form::Angle);
        let at = number.map(|number| number as usize);
        if let Some(at) = at
            && let Some(Some(known)) = self.table.matches[which].get(at)
        {
            return Ok(known.clone());
        }
        let mut first = Match::default();
        let quote = if form == Form::Quote {
            self.table.quote.len()
        } else {
            0
        };
        for place in 0..quote + self.table.angle.len() {
            let directory = match place.checked_sub(quote) {
                None => self.table.quote[place],
                Some(place) => self.table.angle[place],
            };
            first.found = self.lookup(directory, name, &mut first.passed)?;
            if first.found.is_some() {
                break;
            }
        }
        let first = Arc::new(first);
        if let Some(at) = at {
            let matches = &mut self.table.matches[which];
            if matches.len() <= at {
                matches.resize(self.graph.spelled.len().max(at + 1), None);
            }
            matches[at] = Some(first.clone());
        }
        Ok(first)
    }

    fn enter(&mut self, found: Found) {
        let node = self.graph.node(found);
        self.stack.push(node);
        let parent = self.graph.places.get(found.place).parent;
        if parent != found.beside {
            let behind = Found {
                beside: parent,
                ..found
            };
            let node = self.graph.node(behind);
            self.stack.push(node);
        }
    }

    /// Walks until nothing new is reached.
    fn drain(&mut self) -> Result<(), Decline> {
        while let Some(node) = self.stack.pop() {
            let at = node.0 as usize;
            if self.graph.visited.len() <= at {
                self.graph.visited.resize(self.graph.nodes.len(), 0);
            }
            if self.graph.visited[at] == self.graph.scan {
                continue;
            }
            self.graph.visited[at] = self.graph.scan;
            self.visited.push(node);
            if self.visited.len() > SCAN_FILES_MAX {
                return Err(Decline::Budget);
            }
            self.visit(node)?;
        }
        Ok(())
    }

    fn visit(&mut self, node: NodeId) -> Result<(), Decline> {
        let found = self.graph.nodes[node.0 as usize].found;
        let bytes = self.mark(found.place)?;
        let What::File(file) = &self.graph.places.get(found.place).what else {
            return Ok(());
        };
        let version = file.version;
        let at = node.0 as usize;
        let known = self.table.edges.get(at).and_then(Option::as_ref);
        if known.is_none_or(|edges| edges.version != version) {
            let edges = self.make_edges(found, version, bytes)?;
            if self.table.edges.len() <= at {
                let length = self.graph.nodes.len().max(at + 1);
                self.table.edges.resize_with(length, || None);
            }
            self.table.edges[at] = Some(edges);
        }
        let Some(edges) = self.table.edges[at].take() else {
            return Ok(());
        };
        self.stack.extend_from_slice(&edges.enter);
        let marked = edges
            .mark
            .iter()
            .try_for_each(|&place| self.mark(place).map(drop));
        let flags = edges.flags;
        self.table.edges[at] = Some(edges);
        marked?;
        self.judge(found, flags)
    }

    /// Declines what a file's text says can't be followed.
    fn judge(&mut self, found: Found, flags: Flags) -> Result<(), Decline> {
        self.uses_time |= flags.uses_time;
        let path = || self.graph.places.get(found.place).path.to_string();
        let language = self.request.language;
        if flags.assembler_string || (flags.assembler_text && language == Language::Assembler) {
            return Err(Decline::Assembler(path()));
        }
        if flags.module && language == Language::Cxx {
            return Err(Decline::Module(path()));
        }
        match flags.pragma {
            Some(pragma) if pragma.starts_with("GCC") || self.request.family == Family::Clang => {
                Err(Decline::Pragma(path(), pragma))
            }
            _ => Ok(()),
        }
    }

    fn make_edges(
        &mut self,
        found: Found,
        version: u32,
        bytes: Option<Vec<u8>>,
    ) -> Result<Edges, Decline> {
        let digested = self.graph.digested(self.disk, found.place, bytes)?;
        let mut enter = Vec::new();
        let mut mark = Vec::new();
        let beside = found.beside;
        for &(usage, form, number) in &digested.includes {
            let name = self.graph.spelled[number as usize].clone();
            self.resolve(
                beside,
                usage,
                form,
                &name,
                Some(number),
                &mut enter,
                &mut mark,
            )?;
        }
        let path = &self.graph.places.get(found.place).path;
        for name in self.graph.learned.get(path).cloned().unwrap_or_default() {
            for form in [Form::Quote, Form::Angle] {
                self.resolve(
                    beside,
                    Use::Include,
                    form,
                    &name,
                    None,
                    &mut enter,
                    &mut mark,
                )?;
            }
        }
        enter.sort_unstable();
        enter.dedup();
        mark.sort_unstable();
        mark.dedup();
        Ok(Edges {
            version,
            enter: enter.into(),
            mark: mark.into(),
            flags: digested.flags,
        })
    }

    fn mark_all(&mut self, places: &[PlaceId]) -> Result<(), Decline> {
        places
            .iter()
            .try_for_each(|&place| self.mark(place).map(drop))
    }

    /// Makes a place part of the result. A file is brought up to date; its bytes are returned if it
    /// was read for that.
    fn mark(&mut self, place: PlaceId) -> Result<Option<Vec<u8>>, Decline> {
        let at = place.0 as usize;
        if self.graph.marked.len() <= at {
            self.graph.marked.resize(self.graph.places.len(), 0);
        }
        if self.graph.marked[at] == self.graph.scan {
            return Ok(None);
        }
        self.graph.marked[at] = self.graph.scan;
        if !matches!(self.graph.places.get(place).what, What::File(_)) {
            return Ok(None);
        }
        let bytes = self
            .graph
            .places
            .current(self.disk, place, self.graph.scan)?;
        if let What::File(file) = &self.graph.places.get(place).what {
            self.trusted &= file.known.is_some_and(|known| known.watched);
        }
        Ok(bytes)
    }

    /// The marked places as entries, by path.
    fn entries(&mut self) -> Arc<[Listed]> {
        let graph = &mut *self.graph;
        if graph.by_rank.len() != graph.places.len() {
            graph.by_rank = graph.places.in_order().collect();
            graph.ranks = vec![0; graph.places.len()];
            for (rank, place) in graph.by_rank.iter().enumerate() {
                graph.ranks[place.0 as usize] = rank as u32;
            }
        }
        let mut present = vec![0_u64; graph.by_rank.len().div_ceil(64)];
        for (place, _) in (graph.marked.iter().enumerate()).filter(|(_, scan)| **scan == graph.scan)
        {
            let rank = graph.ranks[place] as usize;
            present[rank / 64] |= 1 << (rank % 64);
        }
        let mut entries = Vec::with_capacity(present.iter().map(|w| w.count_ones() as usize).sum());
        for (word, mut bits) in present.into_iter().enumerate() {
            while bits != 0 {
                let rank = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                entries.extend(graph.places.entry(graph.by_rank[rank]));
            }
        }
        entries.into()
    }

    fn memory(&self, main: Found) -> Remember {
        Remember {
            main,
            configuration: self.key.clone(),
            forced: self.request.forced.to_vec(),
            defines: self.request.defines.to_vec(),
            extra: self.request.extra.to_vec(),
            family: self.request.family,
            language: self.request.language,
        }
    }

    fn remember(&mut self, memory: Remember, scan: &Scan) {
        let graph = &mut *self.graph;
        if graph.remembered_entries + scan.entries.len() > REMEMBERED_ENTRIES_MAX {
            graph.remembered.clear();
            graph.remembered_entries = 0;
        }
        let changes = graph.places.changes;
        let old = graph.remembered.insert(memory, (changes, scan.clone()));
        graph.remembered_entries += scan.entries.len();
        graph.remembered_entries -= old.map_or(0, |(_, old)| old.entries.len());
    }

    /// Follows computed includes until neither files nor definitions come to light.
    fn compute(&mut self) -> Result<(), Decline> {
        let mut macros = Macros::new(self.request.defines);
        let mut done: BTreeMap<Vec<u8>, Evaluated> = BTreeMap::new();
        loop {
            let known = self.visited.len();
            let flags = |node: &NodeId| match &self.table.edges[node.0 as usize] {
                Some(edges) => edges.flags,
                None => Flags::default(),
            };
            let wrapped = self.visited.iter().any(|node| flags(node).wrapper);
            let pending: Vec<NodeId> = self
                .visited
                .iter()
                .copied()
                .filter(|node| {
                    let flags = flags(node);
                    flags.computed || (wrapped && flags.conditions)
                })
                .collect();
            if pending.is_empty() {
                return Ok(());
            }
            self.read_macros(&mut macros)?;
            for node in pending {
                let file = self.graph.nodes[node.0 as usize].found.place;
                let digested = self.graph.digested(self.disk, file, None)?;
                for computed in &digested.computed {
                    self.take_computed(node, computed, &mut macros, &mut done)?;
                }
            }
            self.drain()?;
            if self.visited.len() == known {
                return Ok(());
            }
        }
    }

    /// Takes in the definitions of the files that were reached since the last time.
    fn read_macros(&mut self, macros: &mut Macros) -> Result<(), Decline> {
        for at in macros.contents.len()..self.visited.len() {
            let node = self.visited[at];
            let file = self.graph.nodes[node.0 as usize].found.place;
            let digested = self.graph.digested(self.disk, file, None)?;
            macros.wrappers.extend(digested.wrappers.iter().cloned());
            macros.contents.push(digested);
        }
        Ok(())
    }

    fn take_computed(
        &mut self,
        node: NodeId,
        computed: &directives::Computed,
        macros: &mut Macros,
        done: &mut BTreeMap<Vec<u8>, Evaluated>,
    ) -> Result<(), Decline> {
        if !computed.through.is_empty() && !macros.wrappers.contains(&computed.through) {
            return Ok(());
        }
        let fresh = match done.get(&computed.operand) {
            Some(Evaluated {
                contents: Some(contents),
                ..
            }) => *contents == macros.contents.len(),
            Some(evaluated) => evaluated
                .names
                .iter()
                .all(|(name, count)| macros.count(name, &self.graph.defined) == *count),
            None => false,
        };
        if !fresh {
            let evaluated = evaluate(&computed.operand, macros, &self.graph.defined);
            done.insert(computed.operand.clone(), evaluated);
        }
        let targets = match &done[&computed.operand].result {
            Ok(targets) => targets.clone(),
            Err(why) => {
                let file = self.graph.nodes[node.0 as usize].found.place;
                return Err(Decline::Computed {
                    file: self.graph.places.get(file).path.to_string(),
                    line: computed.line,
                    operand: String::from_utf8_lossy(&computed.operand).into_owned(),
                    why: why.to_string(),
                });
            }
        };
        let beside = self.graph.nodes[node.0 as usize].found.beside;
        for (form, name) in targets.iter() {
            self.take_target(beside, computed.usage, *form, name)?;
        }
        Ok(())
    }
}

/// The definitions in reach of a scan.
struct Macros {
    line: Definitions,
    contents: Vec<Arc<Digested>>,
    wrappers: BTreeSet<Vec<u8>>,
    /// Definitions by name, and how many contents they were looked for in.
    found: BTreeMap<Vec<u8>, (BTreeSet<Vec<u8>>, usize)>,
    /// The names of all macros in the first [`Self::sorted`] contents; made when it is needed.
    names: BTreeSet<Vec<u8>>,
    sorted: usize,
}

/// An evaluated operand.
struct Evaluated {
    result: Result<Arc<BTreeSet<Target>>, computed::Unknown>,
    /// How many definitions each name had that was looked at.
    names: Vec<(Vec<u8>, usize)>,
    /// How many files had been read, if it depends on all of them.
    contents: Option<usize>,
}

/// [`Macros`] during one evaluation.
struct Asked<'a> {
    macros: &'a mut Macros,
    defined: &'a BTreeSet<u32>,
    names: BTreeMap<Vec<u8>, usize>,
    all: bool,
}

impl MacroTable for Asked<'_> {
    fn definitions(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let count = self.macros.count(name, self.defined);
        self.names.insert(name.to_vec(), count);
        match self.macros.found.get(name) {
            Some((texts, _)) => texts.iter().cloned().collect(),
            None => Vec::new(),
        }
    }

    fn longer(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        self.all = true;
        let macros = &mut *self.macros;
        for content in &macros.contents[macros.sorted..] {
            let names = content.definitions.all().map(directives::identifier);
            macros.names.extend(names.map(<[u8]>::to_vec));
        }
        macros.sorted = macros.contents.len();
        let names = macros.names.range(name.to_vec()..);
        let longer = names.take_while(|other| other.starts_with(name));
        longer
            .filter(|other| other.len() > name.len())
            .cloned()
            .collect()
    }
}

impl Macros {
    fn new(defines: &[Bytes]) -> Self {
        let mut line = Definitions::default();
        for define in defines {
            let text = match memchr::memchr(b'=', define) {
                Some(equals) => [&define[..equals], b" ", &define[equals + 1..]].concat(),
                None => [&define[..], b" 1"].concat(),
            };
            line.add(&text);
        }
        line.finish();
        Self {
            line,
            contents: Vec::new(),
            wrappers: BTreeSet::new(),
            found: BTreeMap::new(),
            names: BTreeSet::new(),
            sorted: 0,
        }
    }

    /// How many different definitions a name has in the files read so far; [`Self::found`] has them.
    fn count(&mut self, name: &[u8], defined: &BTreeSet<u32>) -> usize {
        let somewhere = defined.contains(&directives::name_hash(name));
        let (texts, seen) = match self.found.get_mut(name) {
            Some(found) => found,
            None => {
                let line: BTreeSet<Vec<u8>> = self.line.of(name).map(<[u8]>::to_vec).collect();
                if line.is_empty() && !somewhere {
                    return 0;
                }
                self.found.entry(name.to_vec()).or_insert((line, 0))
            }
        };
        if somewhere {
            for content in &self.contents[*seen..] {
                for text in content.definitions.of(name) {
                    if !texts.contains(text) {
                        texts.insert(text.to_vec());
                    }
                }
            }
            *seen = self.contents.len();
        }
        texts.len()
    }
}

fn evaluate(operand: &[u8], macros: &mut Macros, defined: &BTreeSet<u32>) -> Evaluated {
    let mut asked = Asked {
        macros,
        defined,
        names: BTreeMap::new(),
        all: false,
    };
    let result = computed::targets(operand, &mut asked);
    let (names, all) = (asked.names, asked.all);
    Evaluated {
        result: result.map(Arc::new),
        names: names.into_iter().collect(),
        contents: all.then_some(macros.contents.len()),
    }
}
