//! The jobs that wait, and whose turn it is.
//!
//! Lower niceness goes first, always. Among submitters of one niceness the one that holds the fewest slots
//! goes first, and among those the one whose last turn is longest ago: so all come to hold equally many, and
//! none waits for another's five hundred jobs.
//!
//! A lease serves job after job, so what counts is not single requests but *groups*: the jobs of one submitter
//! for which the same leases will do. A group wants as many more slots as it has jobs that wait beyond its
//! idle leases. Within it, requests stand in lines of equals: when the first of a line can't be placed,
//! none behind it can, and nobody looks.
//!
//! Knows nothing of nodes; whether a job can be placed is asked of the caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, RequestId};
use crate::message::{Terms, Want};

/// Requests of one submitter that may wait, at most. `make -j500` is ordinary.
pub const WAITING_MAX: usize = 4096;
/// Lines of one group that are looked at in one turn: retries exclude nodes and so make lines of
/// their own, and a turn must stay short.
const LINES_TRIED: usize = 32;

/// A group of jobs, numbered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId(pub u64);

/// What the jobs of a group have in common: a lease that was granted for one may serve any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sort {
    /// Whose jobs they are.
    pub submitter: NodeId,
    /// Which of the submitters on that node: leases go to one process.
    pub agent: u32,
    /// Which leases will do.
    pub terms: Terms,
}

impl Sort {
    /// The sort of a request of `submitter`.
    pub fn of(submitter: NodeId, want: &Want) -> Self {
        Self {
            submitter,
            agent: want.request.agent(),
            terms: want.terms.clone(),
        }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    groups: BTreeMap<GroupId, Group>,
    numbers: BTreeMap<Sort, GroupId>,
    /// Where each request waits.
    waiting: BTreeMap<(NodeId, RequestId), (GroupId, u64)>,
    accounts: BTreeMap<(u8, NodeId), Account>,
    /// The groups that want more slots, in the order of their turns.
    turns: BTreeSet<Turn>,
    groups_so_far: u64,
    arrivals: u64,
    turns_so_far: u64,
}

/// What a submitter has and wants in one class of niceness.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Leases that it holds, its own slots and those that were asked back not counted.
    pub held: u32,
    /// Of these, the ones that are in use.
    pub busy: u32,
    /// Its requests that wait.
    pub waiting: u32,
    groups: BTreeSet<GroupId>,
}

#[derive(Debug)]
struct Group {
    sort: Sort,
    /// Lines of requests that differ in nothing that a node could care for; none is empty.
    lines: Vec<Line>,
    waiting: u32,
    /// Leases that were granted for it, and those of them that are not in use and not asked back.
    leases: u32,
    idle: u32,
    last_turn: u64,
    /// Its place among the turns, if it has one.
    turn: Option<Turn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    niceness: u8,
    held: u32,
    last_turn: u64,
    group: GroupId,
}

#[derive(Debug)]
struct Line {
    /// By arrival.
    requests: BTreeMap<u64, Want>,
    appetite: u32,
}

/// Jobs of the same appetite fit into the same nodes, roughly. Small ones fit everywhere.
fn appetite(memory_mib: u64) -> u32 {
    (memory_mib >> 10).checked_ilog2().map_or(0, |power| power + 1)
}

/// What came of asking for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The group has one lease more. `counts` is as in [`Queue::lease`].
    Granted {
        /// Whether it is a slot that is shared with others.
        counts: bool,
    },
    /// This request will never have one.
    Denied,
    /// Not now.
    Waits,
}

/// Why a request can't wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unqueued {
    /// The submitter has too many waiting.
    Full,
    /// A request of this number waits already.
    Twice,
}

/// How a lease of a group changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is granted; nothing runs under it yet.
    Lent,
    /// It was idle and is in use.
    Used,
    /// It was in use and is idle.
    Idle,
    /// It was idle and is no more, or is asked back.
    IdleGone,
    /// It was in use and is no more, or is asked back.
    UsedGone,
}

impl Queue {
    /// Adds a request, for a job that is known to use so much memory.
    pub fn push(
        &mut self,
        submitter: NodeId,
        want: Want,
        memory_mib: u64,
    ) -> Result<(), Unqueued> {
        let key = (submitter, want.request);
        if self.waiting.contains_key(&key) {
            return Err(Unqueued::Twice);
        }
        let waiting = |(_, account): (_, &Account)| account.waiting as usize;
        if self.accounts_of(submitter).map(waiting).sum::<usize>() >= WAITING_MAX {
            return Err(Unqueued::Full);
        }
        let id = self.group_of(Sort::of(submitter, &want));
        self.arrivals += 1;
        self.waiting.insert(key, (id, self.arrivals));
        self.change(id, |group, account| {
            group.waiting += 1;
            account.waiting += 1;
        });
        let group = self.groups.get_mut(&id).expect("it was just found");
        let line = group.line(&want, appetite(memory_mib));
        line.requests.insert(self.arrivals, want);
        Ok(())
    }

    /// Removes a request: it is withdrawn, or runs.
    pub fn take(&mut self, submitter: NodeId, request: RequestId) -> Option<Want> {
        let (id, arrival) = self.waiting.remove(&(submitter, request))?;
        let group = self.groups.get_mut(&id)?;
        let want = group.take(arrival);
        self.change(id, |group, account| {
            group.waiting -= 1;
            account.waiting -= 1;
        });
        want
    }

    /// Removes all requests of a submitter. Its leases are to be ended one by one.
    pub fn forget(&mut self, submitter: NodeId) {
        let all = (submitter, RequestId(0))..=(submitter, RequestId(u64::MAX));
        let gone: Vec<RequestId> = self.waiting.range(all).map(|(&(_, id), _)| id).collect();
        for request in gone {
            self.take(submitter, request);
        }
    }

    /// A lease of a group changes. One of the submitter's own slots does not `count` when slots are shared
    /// with others.
    pub fn lease(&mut self, id: GroupId, counts: bool, change: Change) {
        let one = u32::from(counts);
        self.change(id, |group, account| match change {
            Change::Lent => {
                group.leases += 1;
                group.idle += 1;
                account.held += one;
            }
            Change::Used => {
                group.idle -= 1;
                account.busy += one;
            }
            Change::Idle => {
                group.idle += 1;
                account.busy -= one;
            }
            Change::IdleGone => {
                group.leases -= 1;
                group.idle -= 1;
                account.held -= one;
            }
            Change::UsedGone => {
                group.leases -= 1;
                account.held -= one;
                account.busy -= one;
            }
        });
    }

    /// Asks for a slot for each group in its turn, until none of those that are left can have one. `ask` must
    /// not become more willing from one call to the next.
    pub fn serve(&mut self, mut ask: impl FnMut(GroupId, &Sort, &Want) -> Answer) {
        let mut parked = Vec::new();
        while let Some(turn) = self.turns.pop_first() {
            let id = turn.group;
            match self.serve_one(id, &mut ask) {
                Answer::Granted { counts } => {
                    self.turns_so_far += 1;
                    let last_turn = self.turns_so_far;
                    let group = self.groups.get_mut(&id).expect("it has a turn");
                    group.last_turn = last_turn;
                    self.lease(id, counts, Change::Lent);
                }
                // Only denials: they cost no turn. If the group wants more, it stands among the turns.
                Answer::Denied => {}
                Answer::Waits => parked.push(turn),
            }
        }
        for turn in parked {
            // A grant to another group of the same submitter may have moved it meanwhile.
            let group = self.groups.get(&turn.group);
            if group.is_some_and(|group| group.turn == Some(turn)) {
                self.turns.insert(turn);
            }
        }
    }

    /// What `id` is a group of.
    pub fn sort(&self, id: GroupId) -> Option<&Sort> {
        self.groups.get(&id).map(|group| &group.sort)
    }

    /// The groups that want more slots, in the order of their turns, with how many more, and the
    /// request that waits longest.
    pub fn unmet(&self) -> impl Iterator<Item = (&Sort, u32, &Want)> {
        self.turns.iter().filter_map(|turn| {
            let group = self.groups.get(&turn.group)?;
            let line = group.lines.iter().min_by_key(|line| line.arrival())?;
            let (_, want) = line.requests.first_key_value()?;
            Some((&group.sort, group.waiting - group.idle, want))
        })
    }

    /// Whether no group wants more slots than it has.
    pub fn is_content(&self) -> bool {
        self.turns.is_empty()
    }

    /// All accounts, by niceness and submitter.
    pub fn accounts(&self) -> impl Iterator<Item = ((u8, NodeId), &Account)> {
        self.accounts.iter().map(|(&key, account)| (key, account))
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn accounts_of(&self, submitter: NodeId) -> impl Iterator<Item = (u8, &Account)> {
        let classes = 0..=u8::MAX;
        // A submitter is in one or two classes of twenty; the map is asked for each there is.
        classes
            .take(usize::from(crate::scheduler::admission::NICENESS_MAX) + 1)
            .filter_map(move |niceness| {
                let account = self.accounts.get(&(niceness, submitter))?;
                Some((niceness, account))
            })
    }

    fn group_of(&mut self, sort: Sort) -> GroupId {
        if let Some(&id) = self.numbers.get(&sort) {
            return id;
        }
        self.groups_so_far += 1;
        let id = GroupId(self.groups_so_far);
        self.numbers.insert(sort.clone(), id);
        let account = self.accounts.entry((sort.terms.niceness, sort.submitter));
        account.or_default().groups.insert(id);
        self.groups.insert(
            id,
            Group {
                sort,
                lines: Vec::new(),
                waiting: 0,
                leases: 0,
                idle: 0,
                last_turn: self.turns_so_far,
                turn: None,
            },
        );
        id
    }

    /// Changes counts, and what follows from them: whose turn it is, and whether the group is still one.
    fn change(&mut self, id: GroupId, change: impl FnOnce(&mut Group, &mut Account)) {
        let group = self.groups.get_mut(&id).expect("a group that is used lives");
        let key = (group.sort.terms.niceness, group.sort.submitter);
        let account = self
            .accounts
            .get_mut(&key)
            .expect("an account lives as long as its groups");
        let held = account.held;
        change(group, account);
        if group.waiting == 0 && group.leases == 0 {
            let turn = group.turn;
            self.numbers.remove(&group.sort);
            self.groups.remove(&id);
            account.groups.remove(&id);
            if let Some(turn) = turn {
                self.turns.remove(&turn);
            }
        }
        let account = &self.accounts[&key];
        let (now_held, ids) = (account.held, &account.groups);
        let affected: Vec<GroupId> = match now_held == held {
            true => vec![id],
            false => ids.iter().copied().collect(),
        };
        if ids.is_empty() {
            self.accounts.remove(&key);
        }
        for id in affected {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let turn = (group.waiting > group.idle).then_some(Turn {
                niceness: group.sort.terms.niceness,
                held: now_held,
                last_turn: group.last_turn,
                group: id,
            });
            if let Some(old) = group.turn {
                self.turns.remove(&old);
            }
            self.turns.extend(turn);
            group.turn = turn;
        }
    }

    /// Gives a group its turn. [`Answer::Denied`] says that there were denials and nothing else.
    fn serve_one(
        &mut self,
        id: GroupId,
        ask: &mut impl FnMut(GroupId, &Sort, &Want) -> Answer,
    ) -> Answer {
        let group = self.groups.get_mut(&id).expect("it has a turn");
        // Who waits longest is asked for first.
        group.lines.sort_by_key(Line::arrival);
        let mut denied = Vec::new();
        let mut result = Answer::Waits;
        'lines: for line in group.lines.iter().take(LINES_TRIED) {
            for want in line.requests.values() {
                match ask(id, &group.sort, want) {
                    Answer::Denied => denied.push(want.request),
                    Answer::Waits => continue 'lines,
                    answer => {
                        result = answer;
                        break 'lines;
                    }
                }
            }
        }
        let submitter = group.sort.submitter;
        let any = !denied.is_empty();
        for request in denied {
            self.take(submitter, request);
        }
        if any && result == Answer::Waits {
            // What is left of it, if anything, may have its turn again.
            return Answer::Denied;
        }
        result
    }
}

impl Group {
    fn line(&mut self, want: &Want, appetite: u32) -> &mut Line {
        let found = self
            .lines
            .iter()
            .position(|line| line.appetite == appetite && line.is_of(want));
        let index = found.unwrap_or_else(|| {
            self.lines.push(Line {
                requests: BTreeMap::new(),
                appetite,
            });
            self.lines.len() - 1
        });
        &mut self.lines[index]
    }

    fn take(&mut self, arrival: u64) -> Option<Want> {
        let index = self
            .lines
            .iter()
            .position(|line| line.requests.contains_key(&arrival))?;
        let want = self.lines[index].requests.remove(&arrival);
        if self.lines[index].requests.is_empty() {
            self.lines.swap_remove(index);
        }
        want
    }
}

impl Line {
    fn arrival(&self) -> Option<u64> {
        self.requests.first_key_value().map(|(&arrival, _)| arrival)
    }

    fn is_of(&self, want: &Want) -> bool {
        self.requests.first_key_value().is_some_and(|(_, first)| {
            first.toolchain == want.toolchain
                && first.own == want.own
                && first.except == want.except
        })
    }
}
