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
use crate::include::disk::Disk;
use crate::include::places::{Found, PlaceId, Places, What};
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

    /// Whether every directory that was looked into reports its changes, so that what is known needs no look at a file.
    pub fn is_watched(&self) -> bool {
        self.places.are_watched()
    }

    /// The memory that directives hold, in bytes.
    pub fn content_bytes(&self) -> usize {
        self.contents.bytes()
    }

    /// How many places are remembered.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Lets go of what was not used for longest. Of directives, the edges made from them stay.
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
            self.shed(disk);
        }
    }

    /// Lets go of the places that no scan has listed for longest. All that names places or nodes by
    /// their numbers is made again when it is needed, without reading any file that stays.
    fn shed(&mut self, disk: &mut dyn Disk) {
        let mut marked = std::mem::take(&mut self.marked);
        marked.resize(self.places.len(), 0);
        let mut ages = marked.clone();
        ages.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = ages.get(self.places_max / 4).copied().unwrap_or(0);
        let kept: Vec<bool> = marked.iter().map(|&scan| scan > oldest).collect();
        let new = self.places.retain(disk, &kept);
        self.marked = vec![0; self.places.len()];
        for (new, scan) in new.into_iter().zip(marked) {
            if let Some(new) = new {
                self.marked[new.0 as usize] = scan;
            }
        }
        self.nodes.clear();
        self.node_of.clear();
        self.configurations.clear();
        self.remembered.clear();
        self.remembered_entries = 0;
        self.reaches.clear();
        self.asking.clear();
        for stamps in [&mut self.visited, &mut self.beside] {
            stamps.clear();
        }
        self.ranks.clear();
        self.by_rank.clear();
        self.contents.shrink_names(self.places_max / 2);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include::disk::{Changes, Content, Kind, Stamp, WatchNumber};
    use crate::message::Mtime;

    /// A disk whose files are all in `/p`, and which counts how often each is read.
    #[derive(Default)]
    struct Paper {
        files: BTreeMap<Vec<u8>, String>,
        reads: BTreeMap<Vec<u8>, usize>,
        watches: BTreeMap<AbsPath, WatchNumber>,
    }

    impl Paper {
        fn write(&mut self, name: &str, text: &str) {
            self.files
                .insert(format!("/p/{name}").into(), text.to_owned());
        }
    }

    impl Disk for Paper {
        fn changes(&mut self) -> Changes {
            Changes::default()
        }

        fn watch(&mut self, directory: &AbsPath, _: bool) -> Option<WatchNumber> {
            let next = WatchNumber(self.watches.len() as u64 + 1);
            Some(*self.watches.entry(directory.clone()).or_insert(next))
        }

        fn unwatch(&mut self, watch: WatchNumber) {
            self.watches.retain(|_, known| *known != watch);
        }

        fn kind(&mut self, path: &AbsPath) -> Kind {
            match path.as_bytes() {
                b"/" | b"/p" => Kind::Directory,
                path if self.files.contains_key(path) => Kind::File,
                _ => Kind::Absent,
            }
        }

        fn names(&mut self, directory: &AbsPath) -> Option<Vec<Bytes>> {
            let within = [directory.as_bytes(), b"/"].concat();
            let names = self.files.keys().filter_map(|path| {
                let name = path.strip_prefix(&within[..])?;
                Some(Bytes::from(name))
            });
            match directory.as_bytes() {
                b"/" => Some(vec![Bytes::from("p")]),
                _ => Some(names.collect()),
            }
        }

        fn stamp(&mut self, path: &AbsPath) -> Option<(Stamp, bool)> {
            let size = self.files.get(path.as_bytes()).map_or(0, String::len) as u64;
            let stamp = Stamp {
                device: 1,
                inode: 1,
                size,
                mode: 0o644,
                links: 1,
                mtime: Mtime::default(),
                ctime: Mtime::default(),
            };
            Some((stamp, true))
        }

        fn read(&mut self, path: &AbsPath) -> Result<Content, Kind> {
            let text = self.files.get(path.as_bytes()).ok_or(Kind::Absent)?.clone();
            *self.reads.entry(path.as_bytes().to_vec()).or_default() += 1;
            let (stamp, settled) = self.stamp(path).ok_or(Kind::Absent)?;
            Ok(Content {
                stamp,
                settled,
                digest: Digest(*blake3::hash(text.as_bytes()).as_bytes()),
                bytes: text.into_bytes(),
            })
        }
    }

    /// Units of one project share half their headers, and have the others for themselves.
    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut paper = Paper::default();
        let mut shared = String::new();
        for at in 0..40 {
            shared += &format!("#include \"s{at}.h\"\n");
            paper.write(
                &format!("s{at}.h"),
                &format!("#define M{at} \"t{at}.h\"\n#include M{at}\n"),
            );
            paper.write(&format!("t{at}.h"), &format!("int t{at};\n"));
        }
        for unit in 0..50 {
            let mut text = shared.clone();
            for at in 0..20 {
                text += &format!("#include \"u{unit}_{at}.h\"\n");
                paper.write(&format!("u{unit}_{at}.h"), &format!("int u{unit}_{at};\n"));
            }
            paper.write(&format!("{unit}.c"), &text);
        }
        let cwd = AbsPath::parse("/p").unwrap();
        let search = SearchList::default();
        let mut graph = Graph::new(1 << 20, 1000);
        let mut most = 0;
        for unit in 0..50 {
            let main = format!("{unit}.c");
            let request = ScanRequest {
                cwd: &cwd,
                main: main.as_bytes(),
                search: &search,
                named_dirs: &[],
                forced: &[],
                defines: &[],
                extra: &[],
                family: Family::Gcc,
                language: Language::C,
            };
            let scan = graph.scan(&mut paper, &request).unwrap();
            let files = scan.entries.iter();
            let files = files.filter(|one| paper.files.contains_key(one.entry.path.as_bytes()));
            assert_eq!(files.count(), 101, "{main}");
            most = most.max(graph.places.len() + graph.nodes.len() + graph.contents.names());
        }
        // One scan may go beyond the limit by what it needs itself.
        assert!(most < 1500, "{most}");
        let reads = |name: &str| paper.reads[format!("/p/{name}").as_bytes()];
        for at in 0..40 {
            assert_eq!(reads(&format!("s{at}.h")), 1, "a header of every unit");
        }
        assert_eq!(paper.watches.len(), 2, "each directory is watched once");
        assert!(graph.places.len() < 1000);
    }
}
