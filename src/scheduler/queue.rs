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
use crate::message::{Size, Terms, Want};

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
    accounts: BTreeMap<(NodeId, u8), Account>,
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
    requests: BTreeMap<u64, Waiting>,
    appetite: u32,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The request.
    pub want: Want,
    /// What its job takes, as far as was known when it came.
    pub size: Size,
}

/// Jobs of the same appetite fit into the same nodes, roughly. Small ones fit everywhere.
fn appetite(memory_mib: u64) -> u32 {
    (memory_mib >> 10)
        .checked_ilog2()
        .map_or(0, |power| power + 1)
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
    /// Not now, and neither for anybody else.
    AllWait,
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
    /// Adds a request, for a job of this size.
    pub fn push(&mut self, submitter: NodeId, want: Want, size: Size) -> Result<(), Unqueued> {
        let key = (submitter, want.request);
        if self.waiting.contains_key(&key) {
            return Err(Unqueued::Twice);
        }
        let classes = (submitter, 0)..=(submitter, u8::MAX);
        let waiting = |(_, account): (_, &Account)| account.waiting as usize;
        if self.accounts.range(classes).map(waiting).sum::<usize>() >= WAITING_MAX {
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
        let line = group.line(&want, appetite(size.memory_mib));
        line.requests.insert(self.arrivals, Waiting { want, size });
        Ok(())
    }

    /// Removes a request: it is withdrawn, or runs.
    pub fn take(&mut self, submitter: NodeId, request: RequestId) -> Option<Waiting> {
        let (id, arrival) = self.waiting.remove(&(submitter, request))?;
        let group = self.groups.get_mut(&id)?;
        let waiting = group.take(arrival);
        self.change(id, |group, account| {
            group.waiting -= 1;
            account.waiting -= 1;
        });
        waiting
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
    pub fn serve(&mut self, mut ask: impl FnMut(GroupId, &Sort, &Waiting) -> Answer) {
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
                Answer::AllWait => {
                    parked.push(turn);
                    break;
                }
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
            let (_, first) = line.requests.first_key_value()?;
            Some((&group.sort, group.waiting - group.idle, &first.want))
        })
    }

    /// Whether no group wants more slots than it has.
    pub fn is_content(&self) -> bool {
        self.turns.is_empty()
    }

    /// All accounts, with their niceness and submitter.
    pub fn accounts(&self) -> impl Iterator<Item = ((u8, NodeId), &Account)> {
        let all = self.accounts.iter();
        all.map(|(&(submitter, niceness), account)| ((niceness, submitter), account))
    }

    /// All that wait, with their submitters.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Want)> {
        self.groups.values().flat_map(|group| {
            let requests = group.lines.iter().flat_map(|line| line.requests.values());
            requests.map(|waiting| (group.sort.submitter, &waiting.want))
        })
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn group_of(&mut self, sort: Sort) -> GroupId {
        if let Some(&id) = self.numbers.get(&sort) {
            return id;
        }
        self.groups_so_far += 1;
        let id = GroupId(self.groups_so_far);
        self.numbers.insert(sort.clone(), id);
        let account = self.accounts.entry((sort.submitter, sort.terms.niceness));
        account.or_default().groups.insert(id);
        self.groups.insert(
            id,
            Group {
                sort,
                lines: Vec::new(),
                waiting: 0,
                leases: 0,
                idle: 0,
                last_turn: 0,
                turn: None,
            },
        );
        id
    }

    /// Changes counts, and what follows from them: whose turn it is, and whether the group is still one.
    fn change(&mut self, id: GroupId, change: impl FnOnce(&mut Group, &mut Account)) {
        let group = self
            .groups
            .get_mut(&id)
            .expect("a group that is used lives");
        let key = (group.sort.submitter, group.sort.terms.niceness);
        let account = self
            .accounts
            .get_mut(&key)
            .expect("an account lives as long as its groups");
        let held_before = account.held;
        change(group, account);
        let held = account.held;
        if group.waiting == 0 && group.leases == 0 {
            if let Some(turn) = group.turn {
                self.turns.remove(&turn);
            }
            self.numbers.remove(&group.sort);
            self.groups.remove(&id);
            account.groups.remove(&id);
            if account.groups.is_empty() {
                self.accounts.remove(&key);
                return;
            }
        } else {
            group.take_turn(id, held, &mut self.turns);
        }
        if held != held_before {
            for id in self.accounts[&key].groups.iter().filter(|at| **at != id) {
                if let Some(group) = self.groups.get_mut(id) {
                    group.take_turn(*id, held, &mut self.turns);
                }
            }
        }
    }

    /// Gives a group its turn. [`Answer::Denied`] says that there were denials and nothing else.
    fn serve_one(
        &mut self,
        id: GroupId,
        ask: &mut impl FnMut(GroupId, &Sort, &Waiting) -> Answer,
    ) -> Answer {
        let group = self.groups.get_mut(&id).expect("it has a turn");
        // Who waits longest is asked for first.
        group.lines.sort_by_key(Line::arrival);
        let mut denied = Vec::new();
        let mut result = Answer::Waits;
        // Those that the idle leases will serve want no slot.
        let mut served = group.idle as usize;
        'lines: for line in group.lines.iter().take(LINES_TRIED) {
            let skipped = served.min(line.requests.len());
            served -= skipped;
            for waiting in line.requests.values().skip(skipped) {
                match ask(id, &group.sort, waiting) {
                    Answer::Denied => denied.push(waiting.want.request),
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
        if any && matches!(result, Answer::Waits | Answer::AllWait) {
            // What is left of it, if anything, may have its turn again.
            return Answer::Denied;
        }
        result
    }
}

impl Group {
    /// Stands among the turns where it belongs, now that its submitter holds so many, or not at all.
    fn take_turn(&mut self, id: GroupId, held: u32, turns: &mut BTreeSet<Turn>) {
        let turn = (self.waiting > self.idle).then_some(Turn {
            niceness: self.sort.terms.niceness,
            held,
            last_turn: self.last_turn,
            group: id,
        });
        // One that is being served has its turn still, and does not stand there.
        if let Some(old) = self.turn {
            turns.remove(&old);
        }
        turns.extend(turn);
        self.turn = turn;
    }

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

    fn take(&mut self, arrival: u64) -> Option<Waiting> {
        let mut lines = self.lines.iter_mut().enumerate();
        let (index, waiting) =
            lines.find_map(|(index, line)| Some((index, line.requests.remove(&arrival)?)))?;
        if self.lines[index].requests.is_empty() {
            self.lines.swap_remove(index);
        }
        Some(waiting)
    }
}

impl Line {
    fn arrival(&self) -> Option<u64> {
        self.requests.first_key_value().map(|(&arrival, _)| arrival)
    }

    fn is_of(&self, want: &Want) -> bool {
        self.requests.first_key_value().is_some_and(|(_, first)| {
            let first = &first.want;
            first.toolchain == want.toolchain
                && first.own == want.own
                && first.except == want.except
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Bytes, Digest};

    fn want(request: u64, niceness: u8, toolchain: u8) -> Want {
        Want {
            request: RequestId(request),
            toolchain: Digest([toolchain; 32]),
            toolchain_bytes: 0,
            terms: Terms {
                niceness,
                platform: "x86_64".into(),
                preferred: String::new(),
            },
            file: Bytes::from("a.c"),
            variant: 0,
            except: vec![],
            own: crate::message::OwnNode::Nothing,
        }
    }

    /// A queue of these submitters' jobs, each with its niceness and how many.
    fn queue(jobs: &[(u32, u8, u64)]) -> Queue {
        let mut queue = Queue::default();
        for &(submitter, niceness, count) in jobs {
            for request in 0..count {
                let want = want(request, niceness, 0);
                queue
                    .push(NodeId(submitter), want, Size::default())
                    .unwrap();
            }
        }
        queue
    }

    /// Serves with `slots` to give; whom they went to, in order.
    fn serve(queue: &mut Queue, mut slots: usize) -> Vec<u32> {
        let mut granted = Vec::new();
        queue.serve(|_, sort, _| {
            if slots == 0 {
                return Answer::Waits;
            }
            slots -= 1;
            granted.push(sort.submitter.0);
            Answer::Granted { counts: true }
        });
        granted
    }

    #[test]
    fn who_holds_the_fewest_goes_first_and_each_gets_what_he_can_use() {
        let mut queue = queue(&[(1, 0, 4), (2, 0, 3)]);
        assert_eq!(serve(&mut queue, 3), [1, 2, 1]);
        assert_eq!(serve(&mut queue, 1), [2]);
        assert_eq!(serve(&mut queue, 9), [1, 2, 1]);
        assert!(queue.is_content());
        assert_eq!(queue.len(), 7, "they wait until they run");
        assert_eq!(serve(&mut queue, 9), [0; 0]);
    }

    #[test]
    fn the_nice_give_way() {
        let mut queue = queue(&[(1, 19, 1), (2, 0, 1), (3, 5, 1)]);
        assert_eq!(serve(&mut queue, 9), [2, 3, 1]);
    }

    #[test]
    fn leases_in_use_leave_the_rest_to_wish_for() {
        let mut queue = queue(&[(1, 0, 3)]);
        assert_eq!(serve(&mut queue, 1), [1]);
        let (id, _) = queue.groups.first_key_value().unwrap();
        let id = *id;
        let unmet = |queue: &Queue| queue.unmet().map(|(_, count, _)| count).sum::<u32>();
        assert_eq!(unmet(&queue), 2);
        // A job runs under it: it wants no slot any more, and its lease serves no other.
        queue.take(NodeId(1), RequestId(0)).unwrap();
        queue.lease(id, true, Change::Used);
        assert_eq!(unmet(&queue), 2);
        queue.lease(id, true, Change::Idle);
        assert_eq!(unmet(&queue), 1);
        queue.lease(id, true, Change::IdleGone);
        assert_eq!(unmet(&queue), 2);
        let account = queue.accounts().next().unwrap().1;
        assert_eq!((account.held, account.busy, account.waiting), (0, 0, 2));
        queue.forget(NodeId(1));
        assert!(queue.groups.is_empty() && queue.accounts.is_empty() && queue.is_content());
    }

    #[test]
    fn one_that_cant_be_placed_holds_up_only_its_equals() {
        let mut queue = Queue::default();
        for (request, toolchain) in [(1, 9), (2, 9), (3, 0), (4, 9), (5, 0)] {
            let want = want(request, 0, toolchain);
            queue.push(NodeId(1), want, Size::default()).unwrap();
        }
        let mut asked = Vec::new();
        let mut left = 1;
        queue.serve(|_, _, waiting| {
            asked.push(waiting.want.request.0);
            match waiting.want.toolchain.0[0] {
                0 if left > 0 => {
                    left -= 1;
                    Answer::Granted { counts: true }
                }
                _ => Answer::Waits,
            }
        });
        assert_eq!(asked, [1, 3, 2, 3]);
    }

    #[test]
    fn large_jobs_do_not_hold_up_small_ones() {
        let mut queue = Queue::default();
        for (request, memory_mib) in [(1, 8000), (2, 100)] {
            let size = Size {
                memory_mib,
                ..Size::default()
            };
            queue.push(NodeId(1), want(request, 0, 0), size).unwrap();
        }
        let mut granted = Vec::new();
        queue.serve(|_, _, waiting| match waiting.want.request.0 {
            2 if granted.is_empty() => {
                granted.push(2);
                Answer::Granted { counts: true }
            }
            _ => Answer::Waits,
        });
        assert_eq!(granted, [2]);
    }

    #[test]
    fn the_denied_cost_no_turn() {
        let mut queue = queue(&[(1, 0, 3)]);
        let mut denied = 0;
        queue.serve(|_, _, _| {
            denied += 1;
            Answer::Denied
        });
        assert_eq!((denied, queue.len()), (3, 0));
        assert!(queue.groups.is_empty());
    }

    #[test]
    fn the_withdrawn_and_the_gone_are_not_asked_for() {
        let mut queue = queue(&[(1, 0, 3), (2, 3, 3)]);
        assert!(queue.take(NodeId(1), RequestId(1)).is_some());
        assert!(queue.take(NodeId(1), RequestId(1)).is_none());
        assert!(queue.take(NodeId(9), RequestId(1)).is_none());
        queue.forget(NodeId(2));
        assert_eq!(queue.len(), 2);
        assert_eq!(serve(&mut queue, 9), [1, 1]);
    }

    #[test]
    fn a_number_waits_once_and_a_submitter_has_a_limit() {
        let mut queue = queue(&[(1, 0, WAITING_MAX as u64)]);
        let mut push = |submitter, want| queue.push(NodeId(submitter), want, Size::default());
        assert_eq!(push(1, want(0, 0, 0)), Err(Unqueued::Twice));
        let more = want(WAITING_MAX as u64, 5, 0);
        assert_eq!(push(1, more.clone()), Err(Unqueued::Full));
        assert_eq!(push(2, more), Ok(()));
    }
}
