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
use crate::include::asking::Asking;
use crate::include::computed::Target;
use crate::include::contents::{Contents, Digested, Flags};
use crate::include::directives::Use;
use crate::include::places::{Disk, Found, PlaceId, Places, What};
use crate::include::reach::Reach;
use crate::include::request::{Decline, Family, Forced, Language, Scan, ScanRequest};
use crate::include::search::SearchList;
use crate::include::walk::Walk;

/// Search lists whose edges are kept.
const CONFIGURATIONS_MAX: usize = 64;
/// Places to which macros lead that are kept for one search list.
const LEADS_MAX: usize = 1 << 16;
/// Names that are learned from failures, at most.
const LEARNED_MAX: usize = 1024;
/// How often a scan begins anew because files change under it.
const ATTEMPTS: usize = 8;

/// Slots of contents that ask, and pieces of names.
pub(super) type AskingKey = (Vec<u32>, Vec<u32>);

/// The graph.
#[derive(Debug)]
pub struct Graph {
    pub(super) places: Places,
    pub(super) contents: Contents,
    /// What computed includes came to in compiles so far.
    pub(super) reaches: Vec<Reach>,
    /// Which macros ask for files, by what they were found from.
    pub(super) asking: Vec<(AskingKey, Arc<Asking>)>,
    pub(super) places_max: usize,
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
    /// When a directory last held a visited file, by place.
    pub(super) beside: Vec<u64>,
    pub(super) ranks: Vec<u32>,
    pub(super) by_rank: Vec<PlaceId>,
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
    pub(super) macros: MacroLeads,
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
    /// The file's content; none when it was let go of.
    pub(super) slot: Option<u32>,
    pub(super) leads: Leads,
    pub(super) flags: Flags,
}

/// Where names lead: files to go on from, and places that must exist.
#[derive(Clone, Debug)]
pub(super) struct Leads {
    pub(super) enter: Arc<[NodeId]>,
    pub(super) mark: Arc<[PlaceId]>,
}

impl Leads {
    /// Puts them in order, each once.
    pub(super) fn new(mut enter: Vec<NodeId>, mut mark: Vec<PlaceId>) -> Self {
        enter.sort_unstable();
        enter.dedup();
        mark.sort_unstable();
        mark.dedup();
        Self {
            enter: enter.into(),
            mark: mark.into(),
        }
    }
}

/// The names to which an operand has expanded.
pub(super) type Expanded = Arc<BTreeSet<Target>>;

/// Where macros lead under one search list.
#[derive(Debug, Default)]
pub(super) struct MacroLeads {
    /// Computed names, by the directory beside which they are looked for, their use and the number of
    /// their operand; with the names to which that expanded.
    pub(super) computed: BTreeMap<(PlaceId, Use, u32), (Expanded, Leads)>,
    /// Names that macro bodies ask for, by directory.
    pub(super) probes: BTreeMap<PlaceId, (Vec<(Use, u32)>, Leads)>,
    /// Names that stand written out in a content, by directory and slot.
    pub(super) written: BTreeMap<(PlaceId, u32), Leads>,
    /// What shadows a file, by node, for a list of directories with coarse includes.
    pub(super) shadows: BTreeMap<Vec<PlaceId>, Vec<Option<Leads>>>,
}

impl MacroLeads {
    /// How many leads there are.
    fn len(&self) -> usize {
        let shadows = self.shadows.values().map(Vec::len).sum::<usize>();
        self.computed.len() + self.probes.len() + self.written.len() + shadows
    }
}

impl Table {
    /// Slots have got other contents.
    fn forget_slots(&mut self) {
        self.macros.written.clear();
        for edges in self.edges.iter_mut().flatten() {
            edges.slot = None;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Remember {
    pub(super) main: Found,
    /// How it is spelled: directories on the way are part of the scan.
    pub(super) spelled: Bytes,
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
            contents: Contents::new(content_bytes_max),
            reaches: Vec::new(),
            asking: Vec::new(),
            places_max,
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
            beside: Vec::new(),
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
        if table.macros.len() > LEADS_MAX {
            table.macros = MacroLeads::default();
        }
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
                imports: false,
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
        self.contents.bytes()
    }

    /// How many places are remembered.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Lets go of what was not used for longest. Directives go one by one: the edges made from them
    /// stay. Places only go all together, since everything refers to them.
    fn bound(&mut self, disk: &mut dyn Disk) {
        if self.contents.shrink() {
            // They name slots that may hold something else now.
            self.reaches.clear();
            self.asking.clear();
            for table in self.configurations.values_mut() {
                table.forget_slots();
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
        if self.places.len() + self.nodes.len() + self.contents.names() > self.places_max {
            self.places.release(disk);
            let mut fresh = Self::new(self.contents.bytes_max(), self.places_max);
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

    /// The directives of a file, read again if they were let go of, and their slot.
    pub(super) fn digested(
        &mut self,
        disk: &mut dyn Disk,
        file: PlaceId,
        bytes: Option<Vec<u8>>,
    ) -> Result<(u32, Arc<Digested>), Decline> {
        let digest = |places: &Places| match &places.get(file).what {
            What::File(file) => file.known.map(|known| known.digest),
            _ => None,
        };
        let changing = |places: &Places| Decline::Changing(places.get(file).path.to_string());
        let mut bytes = bytes;
        loop {
            let before = digest(&self.places);
            if let Some(found) = before.and_then(|digest| self.contents.find(&digest, self.scan)) {
                return Ok(found);
            }
            let text = match bytes.take() {
                Some(bytes) => bytes,
                None => self.places.read(disk, file)?,
            };
            let after = digest(&self.places).ok_or_else(|| changing(&self.places))?;
            if before.is_some_and(|before| before != after) {
                // It changed since this scan began: begin again.
                return Err(changing(&self.places));
            }
            self.contents.keep(after, &text, self.scan);
        }
    }
}
