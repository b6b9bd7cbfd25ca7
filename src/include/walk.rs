//! One scan: the walk from the main file over the include graph to everything in reach.
//!
//! Conditions are not evaluated. `#include_next` takes every match on the search list instead of those
//! after the present one, a superset that keeps the position out of the graph's nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::include::contents::Flags;
use crate::include::directives::{Form, Use};
use crate::include::disk::Disk;
use crate::include::graph::{Configuration, Edges, Graph, Leads, Match, NodeId, Remember, Table};
use crate::include::places::{Found, PlaceId, ROOT, What};
use crate::include::request::{
    Decline, Family, Language, Listed, SCAN_FILES_MAX, Scan, ScanRequest,
};

/// Results that are kept for the same compile again, in entries.
const REMEMBERED_ENTRIES_MAX: usize = 1 << 18;

/// One scan.
pub(super) struct Walk<'a, 'r> {
    pub(super) graph: &'a mut Graph,
    pub(super) disk: &'a mut dyn Disk,
    pub(super) table: &'a mut Table,
    pub(super) request: &'a ScanRequest<'r>,
    pub(super) key: &'a Configuration,
    pub(super) stack: Vec<NodeId>,
    pub(super) visited: Vec<NodeId>,
    pub(super) uses_time: bool,
    /// Some file has `#import`.
    pub(super) imports: bool,
    /// Every file of the scan is watched, so that its result can be remembered.
    pub(super) trusted: bool,
}

impl Walk<'_, '_> {
    /// Walks it.
    pub(super) fn run(mut self) -> Result<Scan, Decline> {
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
        self.follow_macros()?;
        if request.family == Family::Clang {
            self.judge_links()?;
        }
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

    pub(super) fn cwd(&self) -> PlaceId {
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

    pub(super) fn walk(
        &mut self,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
    ) -> Result<Option<Found>, Decline> {
        self.graph.places.walk(self.disk, from, path, passed)
    }

    /// A file by its path; directories don't count, as for a compiler. Precompiled headers that may
    /// be read in its place are among what was `passed`, whether or not it is there itself.
    pub(super) fn lookup(
        &mut self,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
    ) -> Result<Option<Found>, Decline> {
        let start = passed.len();
        let found = self
            .walk(from, path, passed)?
            .filter(|found| matches!(self.graph.places.get(found.place).what, What::File(_)));
        if found.is_none() {
            passed.truncate(start);
        }
        // Only now the directory is known.
        if self.graph.places.precompiled {
            for suffix in [&b".gch"[..], b".pch"] {
                self.take_precompiled(from, &[path, suffix].concat(), passed)?;
            }
        }
        Ok(found)
    }

    /// A precompiled header: a file, or a directory with a file, or with several of which the
    /// compiler takes one.
    fn take_precompiled(
        &mut self,
        from: PlaceId,
        path: &[u8],
        passed: &mut Vec<PlaceId>,
    ) -> Result<(), Decline> {
        let start = passed.len();
        let Some(found) = self.walk(from, path, passed)? else {
            passed.truncate(start);
            return Ok(());
        };
        passed.push(found.place);
        let variants = self.graph.places.names_in(self.disk, found.place);
        if variants.len() > 1 {
            let path = &self.graph.places.get(found.place).path;
            return Err(Decline::Precompiled(path.to_string()));
        }
        for variant in variants {
            let variant = self.walk(found.place, &variant, passed)?;
            passed.extend(variant.map(|variant| variant.place));
        }
        Ok(())
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
        let leads = self.leads(beside, [(usage, form, name)].into_iter())?;
        self.take_leads(&leads)
    }

    /// What names lead to that are included from a file in `beside`.
    pub(super) fn leads<'n>(
        &mut self,
        beside: PlaceId,
        names: impl Iterator<Item = (Use, Form, &'n [u8])>,
    ) -> Result<Leads, Decline> {
        let mut enter = Vec::new();
        let mut mark = Vec::new();
        for (usage, form, name) in names {
            let number = Some(self.graph.contents.number(name));
            self.resolve(beside, usage, form, name, number, &mut enter, &mut mark)?;
        }
        Ok(Leads::new(enter, mark))
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
        let by_assembler = matches!(usage, Use::Incbin | Use::Assembly);
        let all = by_assembler || matches!(usage, Use::Next | Use::ProbeNext | Use::Embed);
        if name.first() == Some(&b'/') {
            founds.extend(self.lookup(ROOT, name, mark)?);
        } else if usage == Use::Line {
            founds.extend(self.lookup(self.cwd(), name, mark)?);
        } else {
            if form == Form::Quote || all {
                founds.extend(self.lookup(beside, name, mark)?);
            }
            if by_assembler {
                founds.extend(self.lookup(self.cwd(), name, mark)?);
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
                    // It is an error; clang then looks as if the name were quoted, and says so.
                    founds.extend(self.lookup(beside, name, mark)?);
                    if founds.is_empty() {
                        let quoted = self.first_match(Form::Quote, name, number)?;
                        mark.extend_from_slice(&quoted.passed);
                        founds.extend(quoted.found);
                    }
                }
            }
        }
        let meant = alphanumeric(name);
        if matches!(usage, Use::Include | Use::Next)
            && (founds.is_empty() || usage == Use::Next)
            && !meant.is_empty()
            && meant.len() < name.len()
        {
            // clang guesses that this was meant, and after the error goes on with it.
            founds.extend(self.lookup(beside, meant, mark)?);
            for form in [Form::Quote, Form::Angle] {
                let first = self.first_match(form, meant, None)?;
                mark.extend_from_slice(&first.passed);
                founds.extend(first.found);
            }
        }
        for found in founds {
            match usage {
                Use::Include | Use::Next | Use::Assembly => self.nodes(found, enter),
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
                matches.resize(self.graph.contents.names().max(at + 1), None);
            }
            matches[at] = Some(first.clone());
        }
        Ok(first)
    }

    fn enter(&mut self, found: Found) {
        let mut nodes = Vec::new();
        self.nodes(found, &mut nodes);
        self.stack.extend(nodes);
    }

    /// The nodes of what was found: one more when a symlink leads there.
    pub(super) fn nodes(&mut self, found: Found, nodes: &mut Vec<NodeId>) {
        nodes.push(self.graph.node(found));
        let parent = self.graph.places.get(found.place).parent;
        if parent != found.beside {
            let behind = Found {
                beside: parent,
                ..found
            };
            nodes.push(self.graph.node(behind));
        }
    }

    /// Walks until nothing new is reached.
    pub(super) fn drain(&mut self) -> Result<(), Decline> {
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
        let Some(edges) = &self.table.edges[at] else {
            return Ok(());
        };
        let (leads, flags) = (edges.leads.clone(), edges.flags);
        self.take_leads(&leads)?;
        self.judge(found, flags)
    }

    /// Goes where something was found to lead.
    pub(super) fn take_leads(&mut self, leads: &Leads) -> Result<(), Decline> {
        self.stack.extend_from_slice(&leads.enter);
        self.mark_all(&leads.mark)
    }

    /// Declines what a file's text says can't be followed.
    fn judge(&mut self, found: Found, flags: Flags) -> Result<(), Decline> {
        self.uses_time |= flags.uses_time;
        let path = || self.graph.places.get(found.place).path.to_string();
        let language = self.request.language;
        self.imports |= flags.imports;
        let text = flags.assembler_text;
        let text = text.filter(|_| language == Language::Assembler);
        if let Some(line) = flags.assembler_string.or(text) {
            return Err(Decline::Assembler(path(), line));
        }
        match flags.pragma {
            Some((line, pragma))
                if pragma.starts_with("GCC") || self.request.family == Family::Clang =>
            {
                Err(Decline::Pragma(path(), line, pragma))
            }
            _ => Ok(()),
        }
    }

    /// Declines names of one inode that is included once: clang tells such files by their inode, of
    /// which they have two in a worker's tree.
    fn judge_links(&self) -> Result<(), Decline> {
        let mut inodes: BTreeMap<(u64, u64), PlaceId> = BTreeMap::new();
        for node in &self.visited {
            let place = self.graph.nodes[node.0 as usize].found.place;
            let What::File(file) = &self.graph.places.get(place).what else {
                continue;
            };
            let Some(stamp) = file.known.map(|known| known.stamp) else {
                continue;
            };
            let edges = self.table.edges.get(node.0 as usize);
            let once = edges
                .and_then(Option::as_ref)
                .is_some_and(|edges| edges.flags.once);
            if stamp.links == 1 || !(once || self.imports) {
                continue;
            }
            let other = inodes.entry((stamp.device, stamp.inode)).or_insert(place);
            if *other != place {
                let path = |place| self.graph.places.get(place).path.to_string();
                return Err(Decline::Linked(path(*other), path(place)));
            }
        }
        Ok(())
    }

    fn make_edges(
        &mut self,
        found: Found,
        version: u32,
        bytes: Option<Vec<u8>>,
    ) -> Result<Edges, Decline> {
        let (slot, digested) = self.graph.digested(self.disk, found.place, bytes)?;
        let mut enter = Vec::new();
        let mut mark = Vec::new();
        let beside = found.beside;
        for &(usage, form, number) in &digested.includes {
            let name = self.graph.contents.spelled(number).clone();
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
            // As a directive of either form, as data, and from the working directory, where an
            // assembler looks.
            for (usage, form) in [
                (Use::Include, Form::Quote),
                (Use::Include, Form::Angle),
                (Use::Embed, Form::Quote),
                (Use::Line, Form::Quote),
            ] {
                self.resolve(beside, usage, form, &name, None, &mut enter, &mut mark)?;
            }
        }
        Ok(Edges {
            version,
            slot: Some(slot),
            leads: Leads::new(enter, mark),
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
            spelled: self.request.main.into(),
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
}

/// A name without what is neither a letter nor a digit at its ends.
fn alphanumeric(name: &[u8]) -> &[u8] {
    let start = name.iter().position(u8::is_ascii_alphanumeric);
    let end = name.iter().rposition(u8::is_ascii_alphanumeric);
    match (start, end) {
        (Some(start), Some(end)) => &name[start..=end],
        _ => b"",
    }
}
