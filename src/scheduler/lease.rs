//! The leases that are out, and no others.
//!
//! Knows who holds which slot of whom and since when. It doesn't decide anything, and it keeps no
//! counts: [`super::node::Node`] has them, and [`super::state::Core`] changes both together.

use std::collections::BTreeMap;

use crate::id::{LeaseId, NodeId, Time};
use crate::scheduler::speed::Work;

/// One slot of one node, lent for one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose slot.
    pub node: NodeId,
    /// Who holds it.
    pub submitter: NodeId,
    /// Whether it is for a local compile on the submitter's own machine.
    pub kept: bool,
    /// What it was lent for.
    pub work: Work,
    /// Since when.
    pub since: Time,
}

/// The leases that are out. A number is given once.
#[derive(Debug)]
pub struct Leases {
    next: u64,
    out: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    /// No leases; the first will have the number `first`.
    pub fn starting_at(first: u64) -> Self {
        Self {
            next: first,
            out: BTreeMap::new(),
        }
    }

    /// Lends.
    pub fn lend(&mut self, lease: Lease) -> LeaseId {
        let id = LeaseId(self.next);
        self.next += 1;
        self.out.insert(id, lease);
        id
    }

    /// The lease of this number, if it is out.
    pub fn find(&self, id: LeaseId) -> Option<&Lease> {
        self.out.get(&id)
    }

    /// Ends a lease.
    pub fn end(&mut self, id: LeaseId) -> Option<Lease> {
        self.out.remove(&id)
    }

    /// The numbers of the leases that `node` has lent or holds.
    pub fn touching(&self, node: NodeId) -> Vec<LeaseId> {
        self.out
            .iter()
            .filter(|(_, lease)| lease.node == node || lease.submitter == node)
            .map(|(&id, _)| id)
            .collect()
    }

    /// The oldest lease: numbers ascend with time.
    pub fn oldest(&self) -> Option<(LeaseId, &Lease)> {
        self.out.iter().next().map(|(&id, lease)| (id, lease))
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Bytes, Digest};

    fn lease(node: u32, submitter: u32) -> Lease {
        Lease {
            kept: false,
            node: NodeId(node),
            submitter: NodeId(submitter),
            work: Work {
                toolchain: Digest([0; 32]),
                file: Bytes::from("a.c"),
            },
            since: Time(0),
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
        assert_eq!(leases.touching(NodeId(1)), [lent, held]);
        assert_eq!(leases.touching(NodeId(2)), [lent, other]);
        assert_eq!(leases.oldest().unwrap().0, lent);
    }
}
