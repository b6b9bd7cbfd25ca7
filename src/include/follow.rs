//! Where macros lead in one scan: computed includes, and macros that ask whether files exist.
//!
//! It goes on until nothing new is reached, since every file that is reached may define more. Only
//! files with something to follow are looked at; which these are is noted with each content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{Bytes, Digest};
use crate::include::asking::{Asking, Text};
use crate::include::computed::{Target, Unknown};
use crate::include::directives::{Computed, Form, Use};
use crate::include::graph::{Leads, NodeId};
use crate::include::places::PlaceId;
use crate::include::reach::{Names, Reach};
use crate::include::request::Decline;
use crate::include::walk::Walk;
use crate::include::words;

/// Sets of macros that ask which are kept.
const ASKING_MAX: usize = 8;

/// Lists of directories with coarse includes for which shadows are kept, of each search list.
const SHADOWS_MAX: usize = 4;

/// What is in reach, as far as it has to do with macros.
#[derive(Default)]
struct Reached {
    nodes: Vec<(NodeId, u32)>,
    slots: Vec<u32>,
    /// How many visited nodes are among `nodes`.
    visited: usize,
    /// How many of `nodes` and `slots` were sorted into the lists below.
    sorted: (usize, usize),
    /// The suspicions with which they were sorted.
    suspicions: u32,
    /// Files with computed includes, or conditions that may ask in a way to be followed.
    judged: Vec<(NodeId, u32)>,
    /// Contents that have to do with macros that ask.
    askers: Vec<u32>,
    /// Some of them has an operator that asks.
    asks: bool,
    /// Hashes of words of which names of such macros may be pasted together.
    pieces: Vec<u32>,
    /// Contents whose macro bodies ask, from wherever they are used.
    roamers: Vec<u32>,
    /// Contents that have names of files written out in macros.
    writers: Vec<u32>,
    /// Directories that hold a visited file, each with such a file.
    directories: Vec<(PlaceId, NodeId)>,
}

/// What one scan has taken in so far because of macros.
#[derive(Default)]
struct Taken {
    reach: Option<Reach>,
    operands: BTreeMap<(PlaceId, Use, u32), Arc<BTreeSet<Target>>>,
    /// Directories with includes that have too many possible names.
    coarse: BTreeSet<PlaceId>,
    written: BTreeSet<(PlaceId, u32)>,
    /// How many files were looked at for what shadows them, and for how many such directories.
    shadowed: (usize, usize),
}

impl Walk<'_, '_> {
    /// Follows computed includes, and macros that ask for files, until nothing new is reached.
    pub(super) fn follow_macros(&mut self) -> Result<(), Decline> {
        let mut reached = Reached::default();
        let mut taken = Taken::default();
        self.reach_command_line(&mut reached)?;
        loop {
            let known = self.visited.len();
            self.reach(&mut reached)?;
            if reached.judged.is_empty() && reached.roamers.is_empty() && !reached.asks {
                return Ok(());
            }
            let result = self.follow(&reached, &mut taken);
            self.graph.reaches.extend(taken.reach.take());
            result?;
            self.drain()?;
            if self.visited.len() == known {
                return Ok(());
            }
        }
    }

    /// Reads the command line's macros as if a file defined them.
    fn reach_command_line(&mut self, reached: &mut Reached) -> Result<(), Decline> {
        if self.request.defines.is_empty() {
            return Ok(());
        }
        let text = defining(self.request.defines);
        let digest = Digest(*blake3::hash(&text).as_bytes());
        let scan = self.graph.scan;
        let slot = match self.graph.contents.find(&digest, scan) {
            Some((slot, _)) => slot,
            None => self.graph.contents.keep(digest, &text, scan),
        };
        self.graph.contents.reach(slot, scan);
        reached.slots.push(slot);
        let line = self.graph.contents.get(slot).clone();
        for &(usage, form, number) in &line.includes {
            let name = self.graph.contents.spelled(number).clone();
            let leads = self.leads(self.cwd(), [(usage, form, &name[..])].into_iter())?;
            self.take_leads(&leads)?;
        }
        self.drain()
    }

    /// Puts everything in reach that was visited since the last time.
    fn reach(&mut self, reached: &mut Reached) -> Result<(), Decline> {
        let scan = self.graph.scan;
        for at in reached.visited..self.visited.len() {
            let node = self.visited[at];
            let Some(edges) = self.table.edges.get(node.0 as usize) else {
                continue;
            };
            let Some(edges) = edges else { continue };
            let found = self.graph.nodes[node.0 as usize].found;
            let slot = match edges.slot {
                Some(slot) => slot,
                None => {
                    let (slot, _) = self.graph.digested(self.disk, found.place, None)?;
                    if let Some(edges) = &mut self.table.edges[node.0 as usize] {
                        edges.slot = Some(slot);
                    }
                    slot
                }
            };
            reached.nodes.push((node, slot));
            if self.graph.contents.reach(slot, scan) {
                reached.slots.push(slot);
            }
            let beside = found.beside.0 as usize;
            if self.graph.beside.len() <= beside {
                self.graph.beside.resize(self.graph.places.len(), 0);
            }
            if std::mem::replace(&mut self.graph.beside[beside], scan) != scan {
                reached.directories.push((found.beside, node));
            }
        }
        reached.visited = self.visited.len();
        let contents = &mut self.graph.contents;
        if reached.suspicions != contents.suspicions() {
            reached.suspicions = contents.suspicions();
            reached.sorted = (0, 0);
            for list in [
                &mut reached.askers,
                &mut reached.pieces,
                &mut reached.roamers,
                &mut reached.writers,
            ] {
                list.clear();
            }
            reached.judged.clear();
        }
        for &slot in &reached.slots[reached.sorted.1..] {
            let notes = contents.notes(slot).clone();
            let digested = contents.get(slot);
            let asks = !digested.wrappers.is_empty() || !digested.puzzles.is_empty();
            reached.asks |= asks;
            if asks || !notes.mentions.is_empty() {
                reached.askers.push(slot);
            }
            reached.pieces.extend_from_slice(&notes.pieces);
            if digested.flags.roams {
                reached.roamers.push(slot);
            }
            if !digested.written.is_empty() {
                reached.writers.push(slot);
            }
        }
        for &(node, slot) in &reached.nodes[reached.sorted.0..] {
            let asked = contents.notes(slot).asked;
            let digested = contents.get(slot);
            if asked || digested.flags.computed || digested.puzzle.is_some() {
                reached.judged.push((node, slot));
            }
        }
        reached.sorted = (reached.nodes.len(), reached.slots.len());
        reached.askers.sort_unstable();
        reached.pieces.sort_unstable();
        reached.pieces.dedup();
        Ok(())
    }

    fn follow(&mut self, reached: &Reached, taken: &mut Taken) -> Result<(), Decline> {
        let asking = self.asking(reached);
        if let (Some(name), Some(&(node, _))) = (&asking.pasted, reached.nodes.first()) {
            return Err(self.puzzling(node, 0, name));
        }
        for &(node, slot) in &reached.judged {
            let digested = self.graph.contents.get(slot).clone();
            if let Some((line, text)) = &digested.puzzle {
                return Err(self.puzzling(node, *line, text));
            }
            let uses = |words: &[u32], name: &Vec<u8>| {
                words.binary_search(&words::name_hash(name)).is_ok()
            };
            let (all, bare) = (&digested.condition_words, &digested.bare_words);
            let mut used = (asking.puzzles.iter().filter(|name| uses(all, name)))
                .chain(asking.wrappers.iter().filter(|name| uses(bare, name)));
            if let Some(name) = used.next() {
                let line = self.line_that_asks(node, name);
                return Err(self.puzzling(node, line, name));
            }
            for (computed, number) in &digested.computed {
                let known = |name| asking.wrappers.contains(name);
                if (computed.through.is_empty() || known(&computed.through)) && !computed.roams {
                    self.take_computed(node, computed, *number, reached, taken)?;
                }
            }
        }
        self.take_roaming(&asking, reached, taken)?;
        self.take_coarse(reached, taken)
    }

    /// Which macros ask.
    fn asking(&mut self, reached: &Reached) -> Arc<Asking> {
        if !reached.asks {
            return Arc::default();
        }
        let key = (&reached.askers, &reached.pieces);
        let kept = &mut self.graph.asking;
        if let Some(at) = (kept.iter()).position(|((askers, pieces), _)| (askers, pieces) == key) {
            // The last one stays for longest.
            kept[at..].rotate_left(1);
            return kept[kept.len() - 1].1.clone();
        }
        let contents = &mut self.graph.contents;
        let askers = reached.askers.iter();
        let askers: Vec<_> = askers
            .map(|&slot| (contents.notes(slot).clone(), contents.get(slot).clone()))
            .collect();
        let mut texts: Vec<Text<'_>> = askers
            .iter()
            .map(|(notes, digested)| Text {
                mentions: &notes.mentions,
                wrappers: &digested.wrappers,
                puzzles: &digested.puzzles,
                pieces: &[],
            })
            .collect();
        texts.push(Text {
            mentions: &[],
            wrappers: &[],
            puzzles: &[],
            pieces: &reached.pieces,
        });
        let asking = Arc::new(Asking::of(&texts));
        if kept.len() >= ASKING_MAX {
            kept.remove(0);
        }
        let key = (reached.askers.clone(), reached.pieces.clone());
        kept.push((key, asking.clone()));
        asking
    }

    /// What macro bodies ask for is asked from wherever they are used.
    fn take_roaming(
        &mut self,
        asking: &Asking,
        reached: &Reached,
        taken: &mut Taken,
    ) -> Result<(), Decline> {
        let mut roaming: Vec<(Computed, u32)> = Vec::new();
        let mut probes: BTreeSet<(Use, u32)> = BTreeSet::new();
        for operand in &asking.operands {
            let computed = Computed {
                usage: Use::Probe,
                operand: operand.clone(),
                line: 0,
                through: Vec::new(),
                roams: true,
            };
            roaming.push((computed, self.graph.contents.number(operand)));
        }
        let names = asking.wrappers.iter().chain(&asking.puzzles);
        let hashes: BTreeSet<u32> = names.map(|name| words::name_hash(name)).collect();
        for &slot in &reached.roamers {
            let digested = self.graph.contents.get(slot);
            let computed = digested.computed.iter();
            roaming.extend(computed.filter(|(computed, _)| computed.roams).cloned());
            for &(usage, number, through) in &digested.probes {
                if through.is_none_or(|hash| hashes.contains(&hash)) {
                    probes.insert((usage, number));
                }
            }
        }
        for (computed, number) in &roaming {
            for &(_, node) in &reached.directories {
                self.take_computed(node, computed, *number, reached, taken)?;
            }
        }
        if probes.is_empty() {
            return Ok(());
        }
        let probes: Vec<(Use, u32)> = probes.into_iter().collect();
        for &(directory, _) in &reached.directories {
            let leads = match self.table.macros.probes.get(&directory) {
                Some((known, leads)) if *known == probes => leads.clone(),
                _ => {
                    let spelled = |number: u32| self.graph.contents.spelled(number).clone();
                    let names: Vec<_> = (probes.iter())
                        .map(|&(usage, number)| (usage, spelled(number)))
                        .collect();
                    let names = names.iter();
                    let names = names.map(|(usage, name)| (*usage, Form::Quote, &name[..]));
                    let leads = self.leads(directory, names)?;
                    let known = (probes.clone(), leads.clone());
                    self.table.macros.probes.insert(directory, known);
                    leads
                }
            };
            self.take_leads(&leads)?;
        }
        Ok(())
    }

    /// Declines a file whose conditions ask for files in a way that can't be followed.
    fn puzzling(&self, node: NodeId, line: u32, operand: &[u8]) -> Decline {
        let why = "asks for files in a way that is not followed";
        self.computed_decline(node, line, operand, why)
    }

    /// The line of the condition that mentions a name; 1 when it is spread over lines.
    fn line_that_asks(&mut self, node: NodeId, name: &[u8]) -> u32 {
        let place = self.graph.nodes[node.0 as usize].found.place;
        let path = self.graph.places.get(place).path.clone();
        let text = self.disk.read(&path).map_or(Vec::new(), |read| read.bytes);
        let asks = |line: &[u8]| {
            let mut words = words::words(line);
            let is_condition = matches!(words.next(), Some(b"if" | b"elif"));
            is_condition && words.any(|word| word == name)
        };
        let line = text.split(|&b| b == b'\n').position(asks);
        line.map_or(1, |line| line as u32 + 1)
    }

    fn computed_decline(&self, node: NodeId, line: u32, operand: &[u8], why: &str) -> Decline {
        let file = self.graph.nodes[node.0 as usize].found.place;
        Decline::Computed {
            file: self.graph.places.get(file).path.to_string(),
            line,
            operand: String::from_utf8_lossy(operand).into_owned(),
            why: why.to_owned(),
        }
    }

    fn take_computed(
        &mut self,
        node: NodeId,
        computed: &Computed,
        number: u32,
        reached: &Reached,
        taken: &mut Taken,
    ) -> Result<(), Decline> {
        let beside = self.graph.nodes[node.0 as usize].found.beside;
        let names = match self.names(number, reached, taken) {
            Ok(names) => names,
            // An error of the compiler will tell when the name is none that stands written out.
            Err(Unknown::Budget) if matches!(computed.usage, Use::Include | Use::Next) => {
                taken.coarse.insert(beside);
                return Ok(());
            }
            Err(why) => {
                let (line, why) = (computed.line, why.to_string());
                return Err(self.computed_decline(node, line, &computed.operand, &why));
            }
        };
        let key = (beside, computed.usage, number);
        let old = taken.operands.insert(key, names.clone());
        if old.is_some_and(|old| Arc::ptr_eq(&old, &names)) {
            return Ok(());
        }
        let leads = match self.table.macros.computed.get(&key) {
            Some((old, leads)) if Arc::ptr_eq(old, &names) || *old == names => leads.clone(),
            _ => {
                let targets = names.iter();
                let targets = targets.map(|(form, name)| (computed.usage, *form, &name[..]));
                let leads = self.leads(beside, targets)?;
                let known = (names.clone(), leads.clone());
                self.table.macros.computed.insert(key, known);
                leads
            }
        };
        self.take_leads(&leads)
    }

    /// What an operand expands to with all definitions in reach.
    fn names(&mut self, number: u32, reached: &Reached, taken: &mut Taken) -> Names {
        let graph = &mut *self.graph;
        let (contents, scan) = (&graph.contents, graph.scan);
        let reach = taken.reach.get_or_insert_with(|| {
            Reach::of(&mut graph.reaches, reached.slots.clone(), contents, scan)
        });
        reach.names(number, contents, scan)
    }

    /// For includes with too many possible names: all names that stand written out in macros. A name
    /// that is none of these must be an error of the compiler and not another file, so whatever it
    /// could find in the place of one that it should is made complete: of each file in reach, what
    /// shadows it.
    fn take_coarse(&mut self, reached: &Reached, taken: &mut Taken) -> Result<(), Decline> {
        if taken.coarse.is_empty() {
            return Ok(());
        }
        let coarse: Vec<PlaceId> = taken.coarse.iter().copied().collect();
        for &beside in &coarse {
            for &slot in &reached.writers {
                if !taken.written.insert((beside, slot)) {
                    continue;
                }
                let key = (beside, slot);
                let leads = match self.table.macros.written.get(&key) {
                    Some(leads) => leads.clone(),
                    None => {
                        let written = self.graph.contents.get(slot).clone();
                        let spelled = |number: u32| self.graph.contents.spelled(number).clone();
                        let names: Vec<_> = (written.written.iter())
                            .map(|&(form, number)| (form, spelled(number)))
                            .collect();
                        let names = names.iter();
                        let names = names.map(|(form, name)| (Use::Include, *form, &name[..]));
                        let leads = self.leads(beside, names)?;
                        self.table.macros.written.insert(key, leads.clone());
                        leads
                    }
                };
                self.take_leads(&leads)?;
            }
        }
        self.drain()?;
        if taken.shadowed.1 != coarse.len() {
            taken.shadowed = (0, coarse.len());
        }
        let shadows = &mut self.table.macros.shadows;
        if shadows.len() > SHADOWS_MAX {
            shadows.clear();
        }
        let mut shadows = shadows.remove(&coarse).unwrap_or_default();
        let mut empty = BTreeMap::new();
        for at in taken.shadowed.0..self.visited.len() {
            let node = self.visited[at];
            if shadows.len() <= node.0 as usize {
                shadows.resize(self.graph.nodes.len(), None);
            }
            let leads = match &shadows[node.0 as usize] {
                Some(leads) => leads.clone(),
                None => {
                    let leads = self.shadows_of(node, &coarse, &mut empty)?;
                    shadows[node.0 as usize] = Some(leads.clone());
                    leads
                }
            };
            self.take_leads(&leads)?;
        }
        taken.shadowed.0 = self.visited.len();
        self.table.macros.shadows.insert(coarse, shadows);
        Ok(())
    }

    /// What a name of this file finds in `coarse`, and in directories of the search list that come
    /// before the one through which it is this file. `empty` remembers where nothing can be found.
    fn shadows_of(
        &mut self,
        node: NodeId,
        coarse: &[PlaceId],
        empty: &mut BTreeMap<(PlaceId, Vec<u8>), bool>,
    ) -> Result<Leads, Decline> {
        let (mut enter, mut mark) = (Vec::new(), Vec::new());
        let lists = [&self.table.quote, &self.table.angle];
        let search: Vec<PlaceId> = lists.into_iter().flatten().copied().collect();
        let place = self.graph.nodes[node.0 as usize].found.place;
        let path = self.graph.places.get(place).path.clone();
        for (at, &directory) in search.iter().enumerate() {
            let top = &self.graph.places.get(directory).path;
            let top = top.as_bytes().strip_suffix(b"/").unwrap_or(top.as_bytes());
            let Some(name) =
                (path.as_bytes().strip_prefix(top)).and_then(|rest| rest.strip_prefix(b"/"))
            else {
                continue;
            };
            let first = name.split(|&b| b == b'/').next().unwrap_or_default();
            for &shadow in coarse.iter().chain(&search[..at]) {
                let key = (shadow, first.to_vec());
                let is_empty = match empty.get(&key) {
                    Some(is_empty) => *is_empty,
                    None => {
                        let found = self.walk(shadow, first, &mut Vec::new())?.is_none();
                        empty.insert(key, found);
                        found
                    }
                };
                if !is_empty && let Some(found) = self.lookup(shadow, name, &mut mark)? {
                    self.nodes(found, &mut enter);
                }
            }
        }
        Ok(Leads::new(enter, mark))
    }
}

/// The text that defines what the command line defines.
fn defining(defines: &[Bytes]) -> Vec<u8> {
    let mut text = Vec::new();
    for define in defines {
        text.extend_from_slice(b"#define ");
        match memchr::memchr(b'=', define) {
            Some(equals) => {
                text.extend_from_slice(&define[..equals]);
                text.push(b' ');
                text.extend_from_slice(&define[equals + 1..]);
            }
            None => {
                text.extend_from_slice(define);
                text.extend_from_slice(b" 1");
            }
        }
        text.push(b'\n');
    }
    text
}
