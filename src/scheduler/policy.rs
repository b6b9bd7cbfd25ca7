//! Which node gets a job: the one where it is expected to be finished first.
//!
//! Looks at one request and at the nodes as they are; changes nothing. The rules, in order:
//! 1. A request that no node could ever serve is refused, so that its submitter compiles at once.
//! 2. A submitter with nothing else running compiles itself, if he is free and has at least 70 % of the
//!    speed of the fastest node that is available: one job is not worth the way. The second goes out.
//! 3. The node with a free slot and the earliest expected end.
//! 4. When all others are full, the submitter's own free slots: idle processors help nobody.

use std::collections::BTreeMap;

use crate::id::{NodeId, Time};
use crate::message::{OwnNode, Want};
use crate::scheduler::node::Node;
use crate::scheduler::speed::{Speeds, Work};
use crate::scheduler::suspicion::Standing;

/// The share of the fastest node's speed that is enough for a submitter's own node.
const OWN_SPEED_ENOUGH: f64 = 0.7;
/// The way to a node and back, in microseconds.
const TRAVEL_US: f64 = 2_000.0;
/// Sending a toolchain to a node that lacks it, in microseconds.
const TOOLCHAIN_US: f64 = 1_000_000.0;
/// A full node is so much slower per job than an empty one: caches, memory and twin threads are shared.
const CROWDING: f64 = 0.5;
/// The same for work that is not ours, by the load average, which lags.
const FOREIGN_LOAD: f64 = 0.25;
/// A node whose speed is unknown is taken for a little faster than the mean, so that it gets known.
const CURIOSITY: f64 = 0.8;
/// A node with less memory available than this per job, in MiB, swaps soon.
const MEMORY_MIB_PER_JOB: u64 = 256;
/// What swapping costs, as a factor.
const SWAPPING: f64 = 4.0;

/// A request, and the world in which it is made.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The request.
    pub want: &'a Want,
    /// Who makes it.
    pub submitter: NodeId,
    /// All nodes, the submitter among them.
    pub nodes: &'a BTreeMap<NodeId, Node>,
    /// What is known of speeds and sizes.
    pub speeds: &'a Speeds,
    /// When.
    pub now: Time,
}

/// Where a job goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// To this node, which has a free slot.
    Place(NodeId),
    /// Nowhere now. When a node only pauses, it is worth asking again then.
    Wait(Option<Time>),
    /// Nowhere, for this reason.
    Never(String),
}

/// Applies the rules.
pub fn choose(question: Question<'_>) -> Choice {
    let mut capable = 0;
    let mut retry: Option<Time> = None;
    let mut available: Vec<(NodeId, &Node)> = Vec::new();
    for (&id, node) in question.nodes {
        if !question.could_go_to(id, node) {
            continue;
        }
        match node
            .suspicions
            .standing(question.submitter, question.want.toolchain, question.now)
        {
            Standing::Avoided(_) => continue,
            Standing::Pausing(until) => {
                capable += 1;
                retry = Some(retry.map_or(until, |earlier| earlier.min(until)));
            }
            Standing::Good => {
                capable += 1;
                if node.free() > 0 {
                    available.push((id, node));
                }
            }
        }
    }
    if capable == 0 {
        return Choice::Never(question.why_never());
    }
    let own = question.own_if_free();
    if let Some(own) = own
        && own.is_idle_submitter()
        && !available.is_empty()
        && question.is_fast_enough(own, &available)
    {
        return Choice::Place(question.submitter);
    }
    if let Some(first) = question.first_to_finish(&available) {
        return Choice::Place(first);
    }
    match own {
        Some(_) => Choice::Place(question.submitter),
        None => Choice::Wait(retry),
    }
}

impl<'a> Question<'a> {
    /// Whether the job could ever run there.
    fn could_go_to(&self, id: NodeId, node: &Node) -> bool {
        (id != self.submitter || self.want.own == OwnNode::AsWorker)
            && node.takes_jobs()
            && self.is_for(id, node)
    }

    /// Whether the request allows the node.
    fn is_for(&self, id: NodeId, node: &Node) -> bool {
        node.runs(&self.want.platform)
            && (self.want.preferred.is_empty() || node.is_called(&self.want.preferred))
            && !self.want.except.contains(&id)
    }

    fn own_if_free(&self) -> Option<&'a Node> {
        let own = self.nodes.get(&self.submitter)?;
        (self.want.own == OwnNode::Locally && own.free() > 0 && self.is_for(self.submitter, own))
            .then_some(own)
    }

    fn is_fast_enough(&self, own: &Node, available: &[(NodeId, &Node)]) -> bool {
        let fastest = available
            .iter()
            .map(|(_, node)| 1.0 / self.speeds.slowness(&node.name))
            .fold(0.0, f64::max);
        1.0 / self.speeds.slowness(&own.name) >= OWN_SPEED_ENOUGH * fastest
    }

    fn first_to_finish(&self, available: &[(NodeId, &Node)]) -> Option<NodeId> {
        let cost_us = self.speeds.cost_us(&Work {
            toolchain: self.want.toolchain,
            file: self.want.file.clone(),
        });
        available
            .iter()
            .map(|&(id, node)| (self.expected_us(node, cost_us), node.last_grant, id))
            // Among equals the one that has waited longest for a job.
            .min_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))))
            .map(|(_, _, id)| id)
    }

    /// From now until the result is back, for a job that costs `cost_us` on the reference node.
    fn expected_us(&self, node: &Node, cost_us: f64) -> f64 {
        let mut slowness = self.speeds.slowness(&node.name);
        if !self.speeds.knows(&node.name) {
            slowness *= CURIOSITY;
        }
        let slots = f64::from(node.slots);
        let used = f64::from(node.used());
        let foreign = (f64::from(node.state.load_milli) / 1000.0 - used).max(0.0);
        slowness *= 1.0 + CROWDING * used / slots;
        slowness *= 1.0 + FOREIGN_LOAD * (foreign / slots).min(1.0);
        // Zero says that the node does not know its memory.
        if node.state.memory_mib > 0 && node.state.memory_mib < MEMORY_MIB_PER_JOB {
            slowness *= SWAPPING;
        }
        let missing = match node.toolchains.contains(&self.want.toolchain) {
            true => 0.0,
            false => TOOLCHAIN_US,
        };
        TRAVEL_US + missing + cost_us * slowness
    }

    fn why_never(&self) -> String {
        let want = self.want;
        if !want.preferred.is_empty() {
            return format!("the preferred host {} takes no such job", want.preferred);
        }
        let others = || {
            self.nodes
                .iter()
                .filter(|&(&id, node)| id != self.submitter && node.takes_jobs())
        };
        if others().next().is_none() {
            return "no other node takes jobs".into();
        }
        if !others().any(|(_, node)| node.runs(&want.platform)) {
            return format!("no other node runs programs for {}", want.platform);
        }
        "every node that could take the job failed lately".into()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::id::{Bytes, Digest, RequestId};
    use crate::message::{Failure, Login};
    use crate::scheduler::state::PeerId;

    const GCC: Digest = Digest([1; 32]);
    const ME: NodeId = NodeId(0);

    /// A submitter with four slots, and workers `1..` with four slots each that have the toolchain.
    struct World {
        nodes: BTreeMap<NodeId, Node>,
        speeds: Speeds,
        want: Want,
    }

    impl World {
        fn new(workers: u32) -> Self {
            let nodes = (0..=workers).map(|number| {
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
                let node = Node::new(peer, name, login, from, here, Time(0));
                (NodeId(number), node)
            });
            Self {
                nodes: nodes.collect(),
                speeds: Speeds::default(),
                want: Want {
                    request: RequestId(1),
                    toolchain: GCC,
                    platform: "x86_64".into(),
                    file: Bytes::from("a.c"),
                    preferred: String::new(),
                    except: vec![],
                    niceness: 0,
                    own: OwnNode::Nothing,
                },
            }
        }

        fn node(&mut self, number: u32) -> &mut Node {
            self.nodes.get_mut(&NodeId(number)).unwrap()
        }

        /// Lets nodes be known by what they take for one and the same file, in microseconds.
        fn measure(&mut self, times: &[(u32, u64)]) {
            let work = Work {
                toolchain: GCC,
                file: Bytes::from("bench.c"),
            };
            for _ in 0..50 {
                for (number, cpu_us) in times {
                    let name = format!("n{number}");
                    self.speeds.learn(&name, &work, *cpu_us, 1000);
                }
            }
        }

        fn choose(&self) -> Choice {
            choose(Question {
                want: &self.want,
                submitter: ME,
                nodes: &self.nodes,
                speeds: &self.speeds,
                now: Time(0),
            })
        }
    }

    fn place(number: u32) -> Choice {
        Choice::Place(NodeId(number))
    }

    #[test]
    fn the_faster_node_gets_the_job_and_among_equals_the_emptier() {
        let mut world = World::new(3);
        world.measure(&[(1, 200_000), (2, 100_000), (3, 100_000)]);
        world.node(2).lent = 1;
        assert_eq!(world.choose(), place(3));
        world.node(3).lent = 4;
        assert_eq!(world.choose(), place(2));
        world.node(2).lent = 4;
        assert_eq!(world.choose(), place(1));
        world.node(1).lent = 4;
        assert_eq!(world.choose(), Choice::Wait(None));
    }

    #[test]
    fn a_toolchain_is_sent_only_when_those_who_have_it_are_full() {
        let mut world = World::new(2);
        world.node(1).toolchains.clear();
        for lent in 0..4 {
            world.node(2).lent = lent;
            assert_eq!(world.choose(), place(2), "{lent}");
        }
        world.node(2).lent = 4;
        assert_eq!(world.choose(), place(1));
    }

    #[test]
    fn a_loaded_node_and_a_node_without_memory_come_last() {
        let mut world = World::new(2);
        world.node(1).state.load_milli = 4000;
        assert_eq!(world.choose(), place(2));
        world.node(2).state.memory_mib = 100;
        assert_eq!(world.choose(), place(1));
    }

    #[test]
    fn the_first_job_stays_at_home_when_home_is_fast_enough() {
        for (own_us, home) in [(100_000, true), (130_000, true), (200_000, false)] {
            let mut world = World::new(1);
            world.want.own = OwnNode::Locally;
            world.measure(&[(0, own_us), (1, 100_000)]);
            assert_eq!(world.choose(), place(u32::from(!home)), "{own_us}");
        }
    }

    #[test]
    fn home_is_not_chosen_for_a_second_job_or_against_the_submitters_will() {
        let mut world = World::new(1);
        assert_eq!(world.choose(), place(1), "not allowed");
        world.want.own = OwnNode::Locally;
        assert_eq!(world.choose(), place(0), "allowed");
        world.node(0).held = 1;
        assert_eq!(world.choose(), place(1), "holds a lease");
        world.node(0).held = 0;
        world.node(0).state.local_jobs = 1;
        assert_eq!(world.choose(), place(1), "has a local job");
        world.node(0).state.local_jobs = 0;
        world.node(0).slots = 0;
        assert_eq!(world.choose(), place(1), "has no slots");
    }

    #[test]
    fn home_helps_when_all_others_are_full() {
        let mut world = World::new(1);
        world.want.own = OwnNode::Locally;
        world.node(0).held = 4;
        world.node(1).lent = 4;
        assert_eq!(world.choose(), place(0));
        world.node(0).kept = 4;
        assert_eq!(world.choose(), Choice::Wait(None));
    }

    #[test]
    fn a_preferred_host_is_the_only_one() {
        let mut world = World::new(2);
        for (preferred, choice) in [("n2", place(2)), ("10.0.0.2", place(2)), ("n1", place(1))] {
            world.want.preferred = preferred.into();
            assert_eq!(world.choose(), choice);
        }
        world.node(1).lent = 4;
        assert_eq!(world.choose(), Choice::Wait(None));
        for nobody in ["n9", "n0"] {
            world.want.preferred = nobody.into();
            assert!(matches!(world.choose(), Choice::Never(_)));
        }
    }

    #[test]
    fn what_nobody_can_ever_do_is_refused() {
        type Spoil = fn(&mut World);
        let cases: &[(&str, Spoil)] = &[
            ("no other node", |w| {
                w.node(1).no_remote = Some("why".into())
            }),
            ("no other node", |w| w.node(1).slots = 0),
            ("no other node", |w| w.node(1).address.set_port(0)),
            ("programs for sparc", |w| w.want.platform = "sparc".into()),
            ("failed lately", |w| w.want.except = vec![NodeId(1)]),
            ("failed lately", |w| {
                w.node(1)
                    .suspicions
                    .note(ME, GCC, Failure::Internal, true, Time(0));
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
        let busy = &mut world.node(1).suspicions;
        busy.note(ME, GCC, Failure::Busy, false, Time(0));
        assert_eq!(world.choose(), Choice::Wait(Some(Time(100_000))));
    }
}
