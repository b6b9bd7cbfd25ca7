//! The requests that wait, and whose turn it is.
//!
//! Lower niceness goes first, always. Among submitters of one niceness each grant sends its submitter
//! to the end of the round, so that none waits for another's five hundred jobs. A submitter's requests stand in
//! lines of equals: when the first of a line can't be placed, none behind it can, and nobody looks.
//!
//! Knows nothing of nodes; whether a request can be placed is asked of the caller.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{NodeId, RequestId};
use crate::message::Want;

/// Requests of one submitter that may wait, at most. `make -j500` is ordinary.
pub const WAITING_MAX: usize = 4096;
/// Lines of one submitter that are looked at in one turn: retries exclude nodes and so make lines of
/// their own, and a turn must stay short.
const LINES_TRIED: usize = 32;

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    classes: BTreeMap<u8, Class>,
    /// Every waiting request, with its niceness.
    waiting: BTreeMap<(NodeId, RequestId), u8>,
    arrivals: u64,
}

/// The submitters of one niceness.
#[derive(Debug, Default)]
struct Class {
    /// Whose turn it is: each submitter that has lines, once.
    round: Vec<NodeId>,
    lines: BTreeMap<NodeId, Vec<Line>>,
}

/// Requests of one submitter that differ in nothing that a node could care for; never empty.
#[derive(Debug)]
struct Line {
    requests: VecDeque<(u64, Want)>,
}

/// What came of asking for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has its slot.
    Granted,
    /// It will never have one.
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

impl Queue {
    /// Adds a request.
    pub fn push(&mut self, submitter: NodeId, want: Want) -> Result<(), Unqueued> {
        let key = (submitter, want.request);
        if self.waiting.contains_key(&key) {
            return Err(Unqueued::Twice);
        }
        let all = (submitter, RequestId(0))..=(submitter, RequestId(u64::MAX));
        if self.waiting.range(all).count() >= WAITING_MAX {
            return Err(Unqueued::Full);
        }
        self.waiting.insert(key, want.niceness);
        self.arrivals += 1;
        let class = self.classes.entry(want.niceness).or_default();
        class.push(submitter, self.arrivals, want);
        Ok(())
    }

    /// Removes a request; whether it was there.
    pub fn withdraw(&mut self, submitter: NodeId, request: RequestId) -> bool {
        let Some(niceness) = self.waiting.remove(&(submitter, request)) else {
            return false;
        };
        if let Some(class) = self.classes.get_mut(&niceness) {
            class.withdraw(submitter, request);
        }
        true
    }

    /// Removes all requests of a submitter.
    pub fn forget(&mut self, submitter: NodeId) {
        let all = (submitter, RequestId(0))..=(submitter, RequestId(u64::MAX));
        let gone: BTreeSet<RequestId> = self.waiting.range(all).map(|(&(_, id), _)| id).collect();
        for request in gone {
            self.waiting.remove(&(submitter, request));
        }
        for class in self.classes.values_mut() {
            class.forget(submitter);
        }
    }

    /// Asks for each request in its turn, until none of those that are left can be placed. `ask` must
    /// not become more willing from one call to the next.
    pub fn serve(&mut self, mut ask: impl FnMut(NodeId, &Want) -> Answer) {
        for class in self.classes.values_mut() {
            let mut turn = 0;
            while let Some(&submitter) = class.round.get(turn) {
                if class.serve_one(submitter, &mut self.waiting, &mut ask) {
                    class.round.remove(turn);
                    if class.lines.contains_key(&submitter) {
                        class.round.push(submitter);
                    }
                } else if class.lines.contains_key(&submitter) {
                    turn += 1;
                } else {
                    class.round.remove(turn);
                }
            }
        }
        self.classes.retain(|_, class| !class.round.is_empty());
    }

    /// All that wait, with their submitters.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Want)> {
        let lines = self.classes.values().flat_map(|class| &class.lines);
        lines.flat_map(|(&submitter, lines)| {
            let requests = lines.iter().flat_map(|line| &line.requests);
            requests.map(move |(_, want)| (submitter, want))
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
}

impl Class {
    fn push(&mut self, submitter: NodeId, arrival: u64, want: Want) {
        let lines = self.lines.entry(submitter).or_default();
        if lines.is_empty() {
            self.round.push(submitter);
        }
        let line = lines.iter_mut().find(|line| line.is_of(&want));
        match line {
            Some(line) => line.requests.push_back((arrival, want)),
            None => lines.push(Line {
                requests: VecDeque::from([(arrival, want)]),
            }),
        }
    }

    fn withdraw(&mut self, submitter: NodeId, request: RequestId) {
        if let Some(lines) = self.lines.get_mut(&submitter) {
            for line in lines.iter_mut() {
                line.requests.retain(|(_, want)| want.request != request);
            }
        }
        self.tidy(submitter);
        if !self.lines.contains_key(&submitter) {
            self.round.retain(|&other| other != submitter);
        }
    }

    fn forget(&mut self, submitter: NodeId) {
        self.lines.remove(&submitter);
        self.round.retain(|&other| other != submitter);
    }

    /// Gives `submitter` his turn; whether a request was granted.
    fn serve_one(
        &mut self,
        submitter: NodeId,
        waiting: &mut BTreeMap<(NodeId, RequestId), u8>,
        ask: &mut impl FnMut(NodeId, &Want) -> Answer,
    ) -> bool {
        let Some(lines) = self.lines.get_mut(&submitter) else {
            return false;
        };
        // Who waits longest is asked for first.
        lines.sort_by_key(|line| line.requests.front().map(|&(arrival, _)| arrival));
        let mut granted = false;
        'lines: for line in lines.iter_mut().take(LINES_TRIED) {
            while let Some((_, want)) = line.requests.front() {
                let answer = ask(submitter, want);
                if answer == Answer::Waits {
                    continue 'lines;
                }
                waiting.remove(&(submitter, want.request));
                line.requests.pop_front();
                if answer == Answer::Granted {
                    granted = true;
                    break 'lines;
                }
            }
        }
        self.tidy(submitter);
        granted
    }

    fn tidy(&mut self, submitter: NodeId) {
        if let Some(lines) = self.lines.get_mut(&submitter) {
            lines.retain(|line| !line.requests.is_empty());
            if lines.is_empty() {
                self.lines.remove(&submitter);
            }
        }
    }
}

impl Line {
    fn is_of(&self, want: &Want) -> bool {
        self.requests.front().is_some_and(|(_, first)| {
            first.toolchain == want.toolchain
                && first.own == want.own
                && first.platform == want.platform
                && first.preferred == want.preferred
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
            platform: "x86_64".into(),
            file: Bytes::from("a.c"),
            preferred: String::new(),
            except: vec![],
            niceness,
            own: crate::message::OwnNode::Nothing,
        }
    }

    /// Serves with `slots` to give; the grants in order, as (submitter, request).
    fn serve(queue: &mut Queue, mut slots: usize) -> Vec<(u32, u64)> {
        let mut granted = Vec::new();
        queue.serve(|submitter, want| {
            if slots == 0 {
                return Answer::Waits;
            }
            slots -= 1;
            granted.push((submitter.0, want.request.0));
            Answer::Granted
        });
        granted
    }

    #[test]
    fn submitters_take_turns_within_a_pass_and_from_pass_to_pass() {
        let mut queue = Queue::default();
        for request in 0..4 {
            queue.push(NodeId(1), want(request, 0, 0)).unwrap();
        }
        for request in 0..3 {
            queue.push(NodeId(2), want(request, 0, 0)).unwrap();
        }
        assert_eq!(serve(&mut queue, 3), [(1, 0), (2, 0), (1, 1)]);
        assert_eq!(serve(&mut queue, 1), [(2, 1)]);
        assert_eq!(serve(&mut queue, 1), [(1, 2)]);
        assert_eq!(serve(&mut queue, 9), [(2, 2), (1, 3)]);
        assert!(queue.is_empty() && queue.classes.is_empty());
    }

    #[test]
    fn the_nice_give_way() {
        let mut queue = Queue::default();
        queue.push(NodeId(1), want(1, 19, 0)).unwrap();
        queue.push(NodeId(2), want(2, 0, 0)).unwrap();
        queue.push(NodeId(3), want(3, 5, 0)).unwrap();
        assert_eq!(serve(&mut queue, 9), [(2, 2), (3, 3), (1, 1)]);
    }

    #[test]
    fn one_that_cant_be_placed_holds_up_only_its_equals() {
        let mut queue = Queue::default();
        for (request, toolchain) in [(1, 9), (2, 9), (3, 0), (4, 9), (5, 0)] {
            queue.push(NodeId(1), want(request, 0, toolchain)).unwrap();
        }
        let mut asked = Vec::new();
        queue.serve(|_, want| {
            asked.push(want.request.0);
            match want.toolchain.0[0] {
                9 => Answer::Waits,
                _ => Answer::Granted,
            }
        });
        assert_eq!(asked, [1, 3, 1, 5, 1]);
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn the_denied_cost_no_turn() {
        let mut queue = Queue::default();
        for request in 0..3 {
            queue.push(NodeId(1), want(request, 0, 0)).unwrap();
        }
        let mut denied = 0;
        queue.serve(|_, _| {
            denied += 1;
            Answer::Denied
        });
        assert_eq!((denied, queue.len()), (3, 0));
        assert!(queue.classes.is_empty());
    }

    #[test]
    fn the_withdrawn_and_the_gone_are_not_asked_for() {
        let mut queue = Queue::default();
        for request in 0..3 {
            queue.push(NodeId(1), want(request, 0, 0)).unwrap();
            queue.push(NodeId(2), want(request, 3, 0)).unwrap();
        }
        assert!(queue.withdraw(NodeId(1), RequestId(1)));
        assert!(!queue.withdraw(NodeId(1), RequestId(1)));
        assert!(!queue.withdraw(NodeId(9), RequestId(1)));
        queue.forget(NodeId(2));
        assert_eq!(queue.len(), 2);
        assert_eq!(serve(&mut queue, 9), [(1, 0), (1, 2)]);
    }

    #[test]
    fn a_number_waits_once_and_a_submitter_has_a_limit() {
        let mut queue = Queue::default();
        for request in 0..WAITING_MAX as u64 {
            queue.push(NodeId(1), want(request, 0, 0)).unwrap();
        }
        assert_eq!(queue.push(NodeId(1), want(0, 0, 0)), Err(Unqueued::Twice));
        let more = want(WAITING_MAX as u64, 0, 0);
        assert_eq!(queue.push(NodeId(1), more.clone()), Err(Unqueued::Full));
        assert_eq!(queue.push(NodeId(2), more), Ok(()));
    }
}
