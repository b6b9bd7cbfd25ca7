//! The leases that are out, and no others.
//!
//! Knows who holds which slot of whom, and what runs there. It doesn't decide anything, and it keeps no
//! counts: [`super::node::Node`] and [`super::queue::Queue`] have them, and [`super::state::Core`] changes
//! all of them together.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{LeaseId, NodeId, RequestId, Time};
use crate::scheduler::queue::{Change, GroupId};
use crate::scheduler::speed::Work;

/// One slot of one node, lent for job after job.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Whose slot.
    pub node: NodeId,
    /// Who holds it.
    pub submitter: NodeId,
    /// For which of his jobs.
    pub group: GroupId,
    /// Whether it is for local compiles on the submitter's own machine.
    pub kept: bool,
    /// What runs under it, as far as its holder has told.
    pub running: Option<Running>,
    /// What has run under it and is done, as long as nobody has told what came of it.
    pub landing: Vec<Running>,
    /// Since when it runs, or does not.
    pub since: Time,
    /// Whether it was asked back.
    pub revoked: bool,
}

impl Lease {
    /// To whose account it counts, and whether as a slot that is shared with others; to nobody's once it
    /// was asked back.
    pub fn account(&self) -> Option<(GroupId, bool)> {
        (!self.revoked).then_some((self.group, !self.kept))
    }

    /// What its end means to the queue.
    pub fn gone(&self) -> Change {
        match self.running {
            Some(_) => Change::UsedGone,
            None => Change::IdleGone,
        }
    }
}

/// A job under a lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// Its number at its submitter.
    pub request: RequestId,
    /// What it is.
    pub work: Work,
    /// What it was expected to cost on the reference node, in microseconds.
    pub cost_us: f64,
}

/// The leases that are out. A number is given once.
#[derive(Debug)]
pub struct Leases {
    next: u64,
    out: BTreeMap<LeaseId, Lease>,
    /// By the node that lent it, and by the one that holds it.
    lent: BTreeSet<(NodeId, LeaseId)>,
    held: BTreeSet<(NodeId, LeaseId)>,
    /// How many of them were asked back.
    revoked: usize,
}

impl Leases {
    /// No leases; the first will have the number `first`.
    pub fn starting_at(first: u64) -> Self {
        Self {
            next: first,
            out: BTreeMap::new(),
            lent: BTreeSet::new(),
            held: BTreeSet::new(),
            revoked: 0,
        }
    }

    /// Lends.
    pub fn lend(&mut self, lease: Lease) -> LeaseId {
        let id = LeaseId(self.next);
        self.next += 1;
        self.lent.insert((lease.node, id));
        self.held.insert((lease.submitter, id));
        self.out.insert(id, lease);
        id
    }

    /// The lease of this number, if it is out.
    pub fn find(&self, id: LeaseId) -> Option<&Lease> {
        self.out.get(&id)
    }

    /// The same, to be changed; not its node, its holder, or whether it was asked back.
    pub fn find_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.out.get_mut(&id)
    }

    /// Ends a lease.
    pub fn end(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.out.remove(&id)?;
        self.revoked -= usize::from(lease.revoked);
        self.lent.remove(&(lease.node, id));
        self.held.remove(&(lease.submitter, id));
        Some(lease)
    }

    /// Notes that a lease is asked back.
    pub fn revoke(&mut self, id: LeaseId) {
        if let Some(lease) = self.out.get_mut(&id).filter(|lease| !lease.revoked) {
            lease.revoked = true;
            self.revoked += 1;
        }
    }

    /// How many were asked back and are still out.
    pub fn revoked(&self) -> usize {
        self.revoked
    }

    /// Those from `first` on, the oldest first.
    pub fn from(&self, first: LeaseId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.out.range(first..).map(|(&id, lease)| (id, lease))
    }

    /// What `node` has lent.
    pub fn lent_by(&self, node: NodeId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.of(&self.lent, node)
    }

    /// What `submitter` holds.
    pub fn held_by(&self, submitter: NodeId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.of(&self.held, submitter)
    }

    /// The numbers of the leases that `node` has lent or holds.
    pub fn touching(&self, node: NodeId) -> BTreeSet<LeaseId> {
        let all = self.lent_by(node).chain(self.held_by(node));
        all.map(|(id, _)| id).collect()
    }

    /// All that are out, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.out.iter().map(|(&id, lease)| (id, lease))
    }

    /// How many are out.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether none is out.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn of<'a>(
        &'a self,
        index: &'a BTreeSet<(NodeId, LeaseId)>,
        node: NodeId,
    ) -> impl Iterator<Item = (LeaseId, &'a Lease)> {
        let all = (node, LeaseId(0))..=(node, LeaseId(u64::MAX));
        index.range(all).map(|&(_, id)| (id, &self.out[&id]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(node: u32, submitter: u32) -> Lease {
        Lease {
            node: NodeId(node),
            submitter: NodeId(submitter),
            group: GroupId(1),
            kept: false,
            running: None,
            landing: Vec::new(),
            since: Time(0),
            revoked: false,
        }
    }

    #[test]
    fn a_number_is_given_once_and_a_lease_ends_once() {
        let mut leases = Leases::starting_at(7);
        let first = leases.lend(lease(1, 2));
        assert_eq!(first, LeaseId(7));
        assert!(leases.end(first).is_some());
        assert!(leases.end(first).is_none());
        assert_eq!(leases.lend(lease(1, 2)), LeaseId(8));
    }

    #[test]
    fn a_node_is_touched_as_lender_and_as_holder() {
        let mut leases = Leases::starting_at(0);
        let lent = leases.lend(lease(1, 2));
        let held = leases.lend(lease(3, 1));
        let other = leases.lend(lease(3, 2));
        assert_eq!(leases.touching(NodeId(1)), [lent, held].into());
        assert_eq!(leases.touching(NodeId(2)), [lent, other].into());
        let ids = |node| leases.lent_by(NodeId(node)).map(|(id, _)| id).collect();
        let by_three: Vec<LeaseId> = ids(3);
        assert_eq!(by_three, [held, other]);
        leases.end(held);
        assert_eq!(leases.touching(NodeId(1)), [lent].into());
        assert_eq!(leases.len(), 2);
    }
}
