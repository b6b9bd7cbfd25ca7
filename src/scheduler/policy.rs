//! Which node lends the next slot: the one where a job is expected to be finished first.
//!
//! Looks at one request and at the nodes as they are; changes nothing. The rules, in order:
//! 1. A request that no node could ever serve is refused, so that its submitter compiles at once.
//! 2. A submitter with nothing else running compiles itself, if he is free and has at least 70 % of the
//!    speed of the fastest node that is available: one job is not worth the way. The second goes out.
//! 3. The node with a free slot and the earliest expected end, or what another [`Algorithm`] says.
//! 4. When all others are full, the submitter's own free slots: idle processors help nobody.
//!
//! A node that lacks the toolchain is as good as any other once the time to send it is counted, and so is
//! one that is just being sent it.

use crate::id::{NodeId, Time};
use crate::message::{Home, OwnNode, Size, Want};
use crate::scheduler::node::Node;
use crate::scheduler::roster::Roster;
use crate::scheduler::suspicion::Standing;
use crate::scheduler::ways::{Freight, Ways};

/// The share of the fastest node's speed that is enough for a submitter's own node.
const OWN_SPEED_ENOUGH: f64 = 0.7;
/// A full node is so much slower per job than an empty one: caches, memory and twin threads are shared.
const CROWDING: f64 = 0.5;
/// The same for work that is not ours, by the load average, which lags.
const FOREIGN_LOAD: f64 = 0.25;
/// The same where something always waits for a processor.
const PROCESSOR_STALL: f64 = 0.5;
/// The same where something always waits for memory: the machine thrashes.
const MEMORY_STALL: f64 = 8.0;
/// A node whose speed is unknown is taken for a little faster than the mean, so that it gets known.
const CURIOSITY: f64 = 0.8;
/// A node that was overlooked for long stands before all others, for one job, unless that is a large one.
const OVERLOOKED: f64 = 0.01;
/// A node with less memory available than this per job, in MiB, swaps soon.
const MEMORY_MIB_PER_JOB: u64 = 256;
/// What swapping costs, as a factor.
const SWAPPING: f64 = 4.0;
/// Nodes of each order whose expected end is computed. The orders leave out what differs from request to
/// request, which is little.
const LOOKED_AT: usize = 8;
/// Nodes that are near the submitter which are looked for among those, at most; many may be full.
const NEAR_LOOKED_FOR: usize = 2 * LOOKED_AT;

/// How a node is chosen among those with a free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By the expected end of the job; leases are held over many jobs.
    #[default]
    Finish,
    /// The fastest by learned speed, load and jobs; a node that has the toolchain before any other. As
    /// the three that follow it chooses anew for each job, as icecream does.
    Fastest,
    /// The one whose last job is longest ago.
    RoundRobin,
    /// The one with the fewest jobs for its slots.
    LeastBusy,
    /// Any.
    Random,
}

impl Algorithm {
    const ALL: [Self; 5] = [
        Self::Finish,
        Self::Fastest,
        Self::RoundRobin,
        Self::LeastBusy,
        Self::Random,
    ];

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Fastest => "fastest",
            Self::RoundRobin => "round_robin",
            Self::LeastBusy => "least_busy",
            Self::Random => "random",
        }
    }

    /// The algorithm of a name, whatever its case.
    ///
    /// # Errors
    /// A sentence that tells which there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name);
                format!("one of {} is expected", names.join(", "))
            })
    }
}

/// A request, and the world in which it is made.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The request.
    pub want: &'a Want,
    /// What the job takes, as far as is known.
    pub size: Size,
    /// What a job takes on average.
    pub mean: Size,
    /// Who makes it.
    pub submitter: NodeId,
    /// All nodes, the submitter among them.
    pub roster: &'a Roster,
    /// How to choose.
    pub algorithm: Algorithm,
    /// Any number, for [`Algorithm::Random`].
    pub random: u64,
    /// When.
    pub now: Time,
}

/// Where a slot is lent.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// On this node, which has one free.
    Place(NodeId, Home),
    /// Nowhere now. When a node only pauses, it is worth asking again then.
    Wait(Option<Time>),
    /// Nowhere, for this reason.
    Never(String),
}

/// Applies the rules.
pub fn choose(question: Question<'_>) -> Choice {
    let own = question.own_if_free();
    if let Some(own) = own
        && own.is_idle_submitter()
        && question.is_fast_enough(own)
    {
        return Choice::Place(question.submitter, Home::First);
    }
    if let Some(node) = question.pick() {
        return Choice::Place(node, Home::No);
    }
    match (question.prospect(), own) {
        (Choice::Wait(_), Some(_)) => Choice::Place(question.submitter, Home::Overflow),
        (prospect, _) => prospect,
    }
}

/// How many times longer than on an idle reference node a job takes on this node as it is now. By this, nodes
/// are compared when a slot is lent.
pub fn pace(node: &Node) -> f64 {
    match node.overlooked {
        true => OVERLOOKED * known_pace(node),
        false => known_pace(node),
    }
}

/// The same by what is known, in doubt or not.
fn known_pace(node: &Node) -> f64 {
    let mut pace = lasting_pace(node);
    if !node.measured {
        pace *= CURIOSITY;
    }
    let slots = f64::from(node.slots.max(1));
    pace * (1.0 + CROWDING * f64::from(node.used()) / slots)
}

/// The same for all the jobs of a lease to come. How full of our jobs the node is now is left out: it is
/// full most of the time, and then its speed was learned.
pub fn lasting_pace(node: &Node) -> f64 {
    let mut pace = node.slowness;
    let slots = f64::from(node.slots.max(1));
    let used = f64::from(node.used());
    let state = &node.state;
    let foreign = (f64::from(state.load_milli) / 1000.0 - used).max(0.0);
    pace *= 1.0 + FOREIGN_LOAD * (foreign / slots).min(1.0);
    pace *= 1.0 + PROCESSOR_STALL * f64::from(state.processor_stall_milli) / 1000.0;
    pace *= 1.0 + MEMORY_STALL * f64::from(state.memory_stall_milli) / 1000.0;
    // Zero says that the node does not know its memory.
    if state.memory_mib > 0 && state.memory_mib < MEMORY_MIB_PER_JOB {
        pace *= SWAPPING;
    }
    pace
}

impl<'a> Question<'a> {
    /// From now until the result is back, in microseconds.
    fn expected_us(&self, ways: Option<&Ways>, (id, node): (NodeId, &Node)) -> f64 {
        let (cost_us, output_bytes) = match self.size {
            Size { cost_us: 0, .. } => (self.mean.cost_us, self.mean.output_bytes),
            known => (known.cost_us, known.output_bytes),
        };
        let is_there = node.toolchains.contains(&self.want.toolchain);
        let freight = Freight {
            toolchain_bytes: (!is_there).then_some(self.want.toolchain_bytes),
            output_bytes: output_bytes as f64,
        };
        let way_us = match ways {
            Some(ways) => ways.cost_us(id, freight),
            None => Ways::default().cost_us(id, freight),
        };
        let pace = match cost_us <= self.mean.cost_us {
            true => pace(node),
            // It may still be as slow as it was, and a large job would hold up its build.
            false => known_pace(node),
        };
        way_us + cost_us as f64 * pace
    }

    /// The node that is to lend a slot, the submitter's own left out.
    fn pick(&self) -> Option<NodeId> {
        if !self.roster.any_open() {
            return None;
        }
        let called: Vec<(NodeId, &Node)>;
        let open: Box<dyn Iterator<Item = (NodeId, &Node)>>;
        if self.want.terms.preferred.is_empty() {
            open = Box::new(self.roster.open(&self.want.terms.platform));
        } else {
            called = self.called().filter(|(_, node)| node.free() > 0).collect();
            open = Box::new(called.iter().copied());
        }
        if self.algorithm != Algorithm::Finish {
            return self.pick_otherwise(open.filter(|&at| self.is_welcome(at)).collect());
        }
        let mut fitting: Vec<(NodeId, &Node)> = Vec::with_capacity(LOOKED_AT);
        fitting.extend(open.filter(|&at| self.is_welcome(at)).take(LOOKED_AT));
        let ways = self.roster.find(self.submitter).map(|own| &own.ways);
        if fitting.len() == LOOKED_AT {
            // There may be better ones that this order does not show. Mostly few are open.
            self.look_further(ways, &mut fitting);
        }
        let best = fitting
            .into_iter()
            .map(|(id, node)| (self.expected_us(ways, (id, node)), node.last_grant, id))
            .min_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))))
            .map(|(_, _, id)| id);
        best.or_else(|| self.largest())
    }

    /// Adds nodes that differ from the others in what their pace does not tell: that they have the toolchain, or are
    /// near.
    fn look_further(&self, ways: Option<&'a Ways>, fitting: &mut Vec<(NodeId, &'a Node)>) {
        let equipped = self
            .roster
            .equipped(self.want.toolchain)
            .filter(|&at| self.is_called(at) && self.is_welcome(at))
            .take(LOOKED_AT);
        // What differs most from request to request is how far the submitter is from a node.
        let near = ways
            .into_iter()
            .flat_map(|ways| ways.nearest().take(NEAR_LOOKED_FOR))
            .filter_map(|id| Some((id, self.roster.find(id)?)))
            .filter(|(_, node)| node.takes_jobs() && node.free() > 0)
            .filter(|&at| self.is_called(at) && self.is_welcome(at))
            .take(LOOKED_AT);
        fitting.extend(equipped.chain(near));
    }

    /// icecream's algorithms, as it describes them.
    fn pick_otherwise(&self, open: Vec<(NodeId, &Node)>) -> Option<NodeId> {
        let any = |of: &[(NodeId, &Node)]| {
            let count = of.len() as u64;
            (count > 0).then(|| of[(self.random % count) as usize].0)
        };
        let equipped =
            |&(_, node): &(NodeId, &Node)| node.toolchains.contains(&self.want.toolchain);
        match self.algorithm {
            Algorithm::Random | Algorithm::Finish => any(&open),
            Algorithm::RoundRobin => open
                .into_iter()
                .min_by_key(|&(id, node)| (node.last_grant, id))
                .map(|(id, _)| id),
            Algorithm::LeastBusy => open
                .into_iter()
                .min_by(|&(a_id, a), &(b_id, b)| {
                    let share = |node: &Node| f64::from(node.used()) / f64::from(node.slots);
                    let order = share(a).total_cmp(&share(b));
                    order.then((a.last_grant, a_id).cmp(&(b.last_grant, b_id)))
                })
                .map(|(id, _)| id),
            Algorithm::Fastest => {
                if !self.roster.iter().any(|(_, node)| node.measured) {
                    return any(&open);
                }
                let mut untried: Vec<_> = open
                    .iter()
                    .filter(|(_, node)| !node.measured && node.used() == 0)
                    .collect();
                untried.sort_by_key(|at| !equipped(at));
                if let Some(&&(id, _)) = untried.first() {
                    return Some(id);
                }
                let speed = |node: &Node| {
                    let load = f64::from(node.state.load_milli) / 1000.0 / f64::from(node.slots);
                    let jobs = f64::from(node.used()) / f64::from(node.slots);
                    (1.0 - load.min(1.0)) * (1.0 - 0.5 * jobs) / node.slowness
                };
                open.iter()
                    .max_by(|a, b| {
                        let order = equipped(a).cmp(&equipped(b));
                        let order = order.then(speed(a.1).total_cmp(&speed(b.1)));
                        order.then(b.0.cmp(&a.0))
                    })
                    .map(|&(id, _)| id)
            }
        }
    }

    /// For a job that is too large for every node that there is: the largest. Where one would do that has no
    /// slot free, it is waited for.
    fn largest(&self) -> Option<NodeId> {
        if self.size.memory_mib == 0 {
            return None;
        }
        let all = || {
            self.roster
                .takers(&self.want.terms.platform)
                .filter(|&at| self.is_called(at) && self.is_allowed(at) && self.is_good(at))
        };
        if all().any(|(_, node)| self.fits(node)) {
            return None;
        }
        let largest = all().max_by_key(|(_, node)| node.state.memory_mib);
        largest
            .filter(|(_, node)| node.free() > 0)
            .map(|(id, _)| id)
    }

    /// Whether to wait, when no node has a slot free.
    fn prospect(&self) -> Choice {
        let mut retry: Option<Time> = None;
        for at in self.roster.takers(&self.want.terms.platform) {
            if !self.is_called(at) || !self.is_allowed(at) {
                continue;
            }
            match self.standing(at.1) {
                Standing::Good => return Choice::Wait(retry),
                Standing::Pausing(until) => {
                    retry = Some(retry.map_or(until, |earlier| earlier.min(until)));
                }
                Standing::Avoided(_) => {}
            }
        }
        match retry {
            Some(_) => Choice::Wait(retry),
            None => Choice::Never(self.why_never()),
        }
    }

    /// Whether the node may have the job now, if it has a slot free.
    fn is_welcome(&self, at: (NodeId, &Node)) -> bool {
        self.is_allowed(at) && self.fits(at.1) && self.is_good(at)
    }

    /// Whether the request allows the node.
    fn is_allowed(&self, (id, node): (NodeId, &Node)) -> bool {
        (id != self.submitter || self.want.own == OwnNode::AsWorker)
            && node.runs(&self.want.terms.platform)
            && !self.want.except.contains(&id)
    }

    /// Whether the request means the node, should it mean a certain one.
    fn is_called(&self, (id, _): (NodeId, &Node)) -> bool {
        self.want.terms.preferred.is_empty() || self.called().any(|(called, _)| called == id)
    }

    /// The nodes that the request means.
    fn called(&self) -> impl Iterator<Item = (NodeId, &'a Node)> {
        let roster = self.roster;
        let called = roster.called(&self.want.terms.preferred);
        called
            .into_iter()
            .map(|id| (id, roster.node(id)))
            .filter(|(_, node)| node.takes_jobs())
    }

    /// Whether the node has memory enough, as far as both are known.
    fn fits(&self, node: &Node) -> bool {
        let available = node.state.memory_mib;
        available == 0 || available >= self.size.memory_mib
    }

    fn is_good(&self, at: (NodeId, &Node)) -> bool {
        self.standing(at.1) == Standing::Good
    }

    fn standing(&self, node: &Node) -> Standing {
        node.suspicions
            .standing(self.submitter, self.want.toolchain, self.now)
    }

    fn own_if_free(&self) -> Option<&'a Node> {
        let own = self.roster.find(self.submitter)?;
        let want = self.want;
        let may = want.own == OwnNode::Locally
            && own.free() > 0
            && own.runs(&want.terms.platform)
            && !want.except.contains(&self.submitter);
        let meant = || {
            want.terms.preferred.is_empty()
                || self
                    .roster
                    .called(&want.terms.preferred)
                    .contains(&self.submitter)
        };
        (may && meant()).then_some(own)
    }

    fn is_fast_enough(&self, own: &Node) -> bool {
        let fastest = match self.want.terms.preferred.is_empty() {
            true => self
                .roster
                .swift(&self.want.terms.platform)
                .find(|&at| self.is_welcome(at)),
            false => self
                .called()
                .find(|&at| at.1.free() > 0 && self.is_welcome(at)),
        };
        fastest.is_some_and(|(_, fastest)| fastest.slowness >= OWN_SPEED_ENOUGH * own.slowness)
    }

    fn why_never(&self) -> String {
        let want = self.want;
        if !want.terms.preferred.is_empty() {
            return format!(
                "the preferred host {} takes no such job",
                want.terms.preferred
            );
        }
        let others = || {
            self.roster
                .iter()
                .filter(|&(id, node)| id != self.submitter && node.takes_jobs())
        };
        if others().next().is_none() {
            return "no other node takes jobs".into();
        }
        if !others().any(|(_, node)| node.runs(&want.terms.platform)) {
            return format!("no other node runs programs for {}", want.terms.platform);
        }
        "every node that could take the job failed lately".into()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::id::{Bytes, Digest, RequestId};
    use crate::message::{Failure, Login, Terms, Way};
    use crate::scheduler::state::PeerId;

    const GCC: Digest = Digest([1; 32]);
    const ME: NodeId = NodeId(0);

    /// A submitter with four slots, and workers `1..` with four slots each that have the toolchain.
    struct World {
        roster: Roster,
        want: Want,
        size: Size,
        mean: Size,
    }

    impl World {
        fn new(workers: u32) -> Self {
            let mut roster = Roster::default();
            for number in 0..=workers {
                let login = Login {
                    name: format!("n{number}"),
                    netname: "ICE".into(),
                    platform: "x86_64".into(),
                    port: 10245,
                    slots: 4,
                    no_remote: None,
                    toolchains: vec![GCC],
                    state: crate::message::NodeState::default(),
                    seen: crate::id::Term::default(),
                };
                let from = IpAddr::from([10, 0, 0, number as u8]);
                let here = IpAddr::from([10, 0, 0, 200]);
                let name = login.name.clone();
                let peer = PeerId(number.into());
                let mut node = Node::new(peer, name, login, from, here, Time(0));
                node.measured = true;
                roster.insert(NodeId(number), node);
            }
            roster.watch(GCC);
            Self {
                roster,
                size: Size::default(),
                mean: Size {
                    cost_us: 1_000_000,
                    ..Size::default()
                },
                want: Want {
                    request: RequestId(1),
                    toolchain: GCC,
                    toolchain_bytes: 0,
                    terms: Terms {
                        niceness: 0,
                        platform: "x86_64".into(),
                        preferred: String::new(),
                    },
                    file: Bytes::from("a.c"),
                    variant: 0,
                    except: vec![],
                    own: OwnNode::Nothing,
                },
            }
        }

        fn node(&mut self, number: u32, change: impl FnOnce(&mut Node)) {
            self.roster.change(NodeId(number), change);
        }

        fn slowness(&mut self, known: &[(u32, f64)]) {
            for &(number, slowness) in known {
                self.node(number, |node| node.slowness = slowness);
            }
        }

        fn way(&mut self, number: u32, travel_us: u64, up: u64, down: u64) {
            let way = Way {
                travel_us,
                up,
                down,
            };
            self.roster.note(ME).ways.learn(NodeId(number), way);
        }

        fn choose(&self) -> Choice {
            self.choose_by(Algorithm::Finish, 0)
        }

        fn choose_by(&self, algorithm: Algorithm, random: u64) -> Choice {
            choose(Question {
                want: &self.want,
                size: self.size,
                mean: self.mean,
                submitter: ME,
                roster: &self.roster,
                algorithm,
                random,
                now: Time(0),
            })
        }
    }

    fn place(number: u32) -> Choice {
        Choice::Place(NodeId(number), Home::No)
    }

    fn home(how: Home) -> Choice {
        Choice::Place(ME, how)
    }

    #[test]
    fn the_faster_node_gets_the_job_and_among_equals_the_emptier() {
        let mut world = World::new(3);
        world.slowness(&[(1, 2.0), (2, 1.0), (3, 1.0)]);
        for (node, lent, choice) in [
            (2, 1, place(3)),
            (3, 4, place(2)),
            (2, 4, place(1)),
            (1, 4, Choice::Wait(None)),
        ] {
            world.node(node, |node| node.lent = lent);
            assert_eq!(world.choose(), choice);
        }
    }

    #[test]
    fn a_toolchain_is_sent_only_when_those_who_have_it_are_full() {
        let mut world = World::new(2);
        world.node(1, |node| node.toolchains.clear());
        for lent in 0..4 {
            world.node(2, |node| node.lent = lent);
            assert_eq!(world.choose(), place(2), "{lent}");
        }
        world.node(2, |node| node.lent = 4);
        assert_eq!(world.choose(), place(1));
    }

    #[test]
    fn a_much_faster_node_is_worth_a_toolchain_for_a_large_job_only() {
        let mut world = World::new(2);
        world.slowness(&[(1, 1.0), (2, 4.0)]);
        world.node(1, |node| node.toolchains.clear());
        for (cost_us, choice) in [(100_000, place(2)), (10_000_000, place(1))] {
            world.size.cost_us = cost_us;
            assert_eq!(world.choose(), choice);
        }
    }

    #[test]
    fn a_near_node_is_better_for_small_jobs_and_a_fast_one_far_away_for_large_ones() {
        let mut world = World::new(2);
        world.slowness(&[(1, 1.0), (2, 1.5)]);
        world.way(1, 100_000, 0, 0);
        world.way(2, 500, 0, 0);
        for (cost_us, choice) in [(20_000, place(2)), (2_000_000, place(1))] {
            world.size.cost_us = cost_us;
            assert_eq!(world.choose(), choice, "{cost_us}");
        }
    }

    #[test]
    fn large_outputs_do_not_go_over_slow_lines() {
        let mut world = World::new(2);
        world.slowness(&[(1, 1.0), (2, 1.5)]);
        world.way(1, 2000, 0, 1_000_000);
        world.size.cost_us = 1_000_000;
        for (output_bytes, choice) in [(20_000, place(1)), (5_000_000, place(2))] {
            world.size.output_bytes = output_bytes;
            assert_eq!(world.choose(), choice, "{output_bytes}");
        }
        // Of a new file the mean is expected.
        world.size = Size::default();
        assert_eq!(world.choose(), place(1));
        world.mean.output_bytes = 5_000_000;
        assert_eq!(world.choose(), place(2));
    }

    #[test]
    fn a_toolchain_is_sent_over_a_fast_line_and_not_over_a_slow_one() {
        for (up, choice) in [
            (0, place(2)),
            (1_000_000, place(2)),
            (1_000_000_000, place(1)),
        ] {
            let mut world = World::new(2);
            world.slowness(&[(1, 1.0), (2, 1.5)]);
            world.node(1, |node| node.toolchains.clear());
            world.want.toolchain_bytes = 100_000_000;
            world.size.cost_us = 1_000_000;
            world.way(1, 1000, up, 0);
            assert_eq!(world.choose(), choice, "{up}");
        }
    }

    #[test]
    fn a_near_node_is_found_behind_any_number_of_faster_ones_far_away() {
        let mut world = World::new(60);
        for number in 1..=60 {
            world.slowness(&[(number, 1.0)]);
            world.way(number, 100_000, 0, 0);
        }
        world.slowness(&[(60, 1.2)]);
        world.way(60, 500, 0, 0);
        world.size.cost_us = 50_000;
        assert_eq!(world.choose(), place(60));
        world.node(60, |node| node.lent = 4);
        assert_ne!(world.choose(), place(60));
    }

    #[test]
    fn an_overlooked_node_gets_a_small_job_and_no_large_one() {
        let mut world = World::new(2);
        world.slowness(&[(1, 4.0), (2, 1.0)]);
        world.node(1, |node| node.overlooked = true);
        for (cost_us, choice) in [(500_000, place(1)), (5_000_000, place(2))] {
            world.size.cost_us = cost_us;
            assert_eq!(world.choose(), choice);
        }
    }

    #[test]
    fn a_loaded_node_and_a_node_without_memory_come_last() {
        type Spoil = fn(&mut Node);
        let spoils: &[Spoil] = &[
            |node| node.state.load_milli = 4000,
            |node| node.state.processor_stall_milli = 900,
            |node| node.state.memory_stall_milli = 100,
            |node| node.state.memory_mib = 100,
        ];
        for spoil in spoils {
            let mut world = World::new(2);
            world.node(1, spoil);
            assert_eq!(world.choose(), place(2));
        }
        let mut world = World::new(2);
        world.node(1, |node| node.state.load_milli = 4000);
        world.node(2, |node| node.state.memory_mib = 100);
        assert_eq!(world.choose(), place(1));
    }

    #[test]
    fn a_large_job_goes_where_it_fits_and_waits_for_that() {
        let mut world = World::new(2);
        world.size.memory_mib = 8000;
        world.node(1, |node| node.state.memory_mib = 4000);
        world.node(2, |node| node.state.memory_mib = 9000);
        assert_eq!(world.choose(), place(2));
        world.node(2, |node| node.lent = 4);
        assert_eq!(world.choose(), Choice::Wait(None));
        // When it fits nowhere, the largest has to do.
        world.node(2, |node| {
            node.lent = 0;
            node.state.memory_mib = 7000;
        });
        assert_eq!(world.choose(), place(2));
    }

    #[test]
    fn the_first_job_stays_at_home_when_home_is_fast_enough() {
        for (slowness, choice) in [
            (1.0, home(Home::First)),
            (1.3, home(Home::First)),
            (2.0, place(1)),
        ] {
            let mut world = World::new(1);
            world.want.own = OwnNode::Locally;
            world.slowness(&[(0, slowness)]);
            assert_eq!(world.choose(), choice, "{slowness}");
        }
    }

    #[test]
    fn home_is_not_chosen_for_a_second_job_or_against_the_submitters_will() {
        let mut world = World::new(1);
        assert_eq!(world.choose(), place(1), "not allowed");
        world.want.own = OwnNode::Locally;
        assert_eq!(world.choose(), home(Home::First), "allowed");
        world.node(0, |node| node.held = 1);
        assert_eq!(world.choose(), place(1), "holds a lease");
        world.node(0, |node| {
            node.held = 0;
            node.state.local_jobs = 1;
        });
        assert_eq!(world.choose(), place(1), "has a local job");
        world.node(0, |node| {
            node.state.local_jobs = 0;
            node.slots = 0;
        });
        assert_eq!(world.choose(), place(1), "has no slots");
    }

    #[test]
    fn home_helps_when_all_others_are_full() {
        let mut world = World::new(1);
        world.want.own = OwnNode::Locally;
        world.node(0, |node| node.held = 4);
        world.node(1, |node| node.lent = 4);
        assert_eq!(world.choose(), home(Home::Overflow));
        world.node(0, |node| node.kept = 4);
        assert_eq!(world.choose(), Choice::Wait(None));
    }

    #[test]
    fn a_preferred_host_is_the_only_one() {
        let mut world = World::new(2);
        for (preferred, choice) in [("n2", place(2)), ("10.0.0.2", place(2)), ("n1", place(1))] {
            world.want.terms.preferred = preferred.into();
            assert_eq!(world.choose(), choice);
        }
        world.node(1, |node| node.lent = 4);
        assert_eq!(world.choose(), Choice::Wait(None));
        for nobody in ["n9", "n0"] {
            world.want.terms.preferred = nobody.into();
            assert!(matches!(world.choose(), Choice::Never(_)));
        }
    }

    #[test]
    fn what_nobody_can_ever_do_is_refused() {
        type Spoil = fn(&mut World);
        let cases: &[(&str, Spoil)] = &[
            ("no other node", |w| {
                w.node(1, |node| node.no_remote = Some("why".into()))
            }),
            ("no other node", |w| w.node(1, |node| node.slots = 0)),
            ("no other node", |w| {
                w.node(1, |node| node.address.set_port(0))
            }),
            ("programs for sparc", |w| {
                w.want.terms.platform = "sparc".into()
            }),
            ("failed lately", |w| w.want.except = vec![NodeId(1)]),
            ("failed lately", |w| {
                w.node(1, |node| {
                    node.suspicions
                        .note(ME, GCC, Failure::Internal, true, Time(0));
                })
            }),
        ];
        for (expect, spoil) in cases {
            let mut world = World::new(1);
            world.want.own = OwnNode::Locally;
            spoil(&mut world);
            match world.choose() {
                Choice::Never(why) => assert!(why.contains(expect), "{why}"),
                other => panic!("{expect}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_busy_node_is_waited_for() {
        let mut world = World::new(1);
        world.node(1, |node| {
            node.suspicions.note(ME, GCC, Failure::Busy, false, Time(0));
        });
        assert_eq!(world.choose(), Choice::Wait(Some(Time(100_000))));
    }

    #[test]
    fn icecreams_algorithms_choose_as_they_say() {
        let mut world = World::new(3);
        world.slowness(&[(1, 4.0), (2, 1.0), (3, 2.0)]);
        world.node(1, |node| node.last_grant = 1);
        world.node(2, |node| {
            node.last_grant = 3;
            node.lent = 1;
        });
        world.node(3, |node| node.last_grant = 2);
        for (algorithm, random, choice) in [
            (Algorithm::Fastest, 0, place(2)),
            (Algorithm::RoundRobin, 0, place(1)),
            (Algorithm::LeastBusy, 0, place(1)),
            (Algorithm::Random, 7, place(3)),
        ] {
            assert_eq!(world.choose_by(algorithm, random), choice, "{algorithm:?}");
        }
        // Fastest tries what is new, and prefers who has the toolchain.
        world.node(3, |node| node.measured = false);
        assert_eq!(world.choose_by(Algorithm::Fastest, 0), place(3));
        world.node(3, |node| node.measured = true);
        world.node(2, |node| node.toolchains.clear());
        assert_eq!(world.choose_by(Algorithm::Fastest, 0), place(3));
    }
}
