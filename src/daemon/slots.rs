//! Who may compile on this machine now: local jobs and remote jobs share its slots.
//!
//! Pure. Local jobs go first, since somebody sits at this machine; a remote job waits in a short
//! queue, so that a slot that becomes free is not idle for a round trip, and is refused beyond it,
//! so that it is compiled elsewhere instead of growing old here. A node without slots
//! (`-m 0`) still runs one local job at a time, as icecream does: links have to happen somewhere.

use std::collections::{BTreeSet, VecDeque};

/// A claim on a slot; the caller chooses its number, unique among all claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim(pub u64);

/// What came of a remote claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// There is room for it; once it is ready, [`Slots::granted`] will name it.
    Accepted,
    /// The queue is full.
    Busy,
}

/// The slots of a node.
#[derive(Debug)]
pub struct Slots {
    total: u32,
    local: BTreeSet<Claim>,
    remote: BTreeSet<Claim>,
    local_queue: VecDeque<Claim>,
    remote_queue: VecDeque<Claim>,
    /// Remote claims whose files are still on their way.
    arriving: BTreeSet<Claim>,
}

impl Slots {
    /// `total` slots, local and remote together.
    pub fn new(total: u32) -> Self {
        Self {
            total,
            local: BTreeSet::new(),
            remote: BTreeSet::new(),
            local_queue: VecDeque::new(),
            remote_queue: VecDeque::new(),
            arriving: BTreeSet::new(),
        }
    }

    /// So many slots from now on. What holds one keeps it.
    pub fn resize(&mut self, total: u32) {
        self.total = total;
    }

    /// A local job wants a slot. Its queue has no bound of its own: each waiting job is a
    /// compiler call that somebody on this machine has already started.
    pub fn claim_local(&mut self, claim: Claim) {
        self.local_queue.push_back(claim);
    }

    /// A remote job will want a slot once it is [ready](Self::ready): its files may still have to
    /// be fetched, and a slot is not to be idle meanwhile.
    pub fn claim_remote(&mut self, claim: Claim) -> Admission {
        // One job may wait behind each slot.
        let jobs = self.remote.len() + self.remote_queue.len() + self.arriving.len();
        if jobs >= 2 * self.total as usize {
            return Admission::Busy;
        }
        self.arriving.insert(claim);
        Admission::Accepted
    }

    /// A remote job has all that it needs, and waits for its slot from now on.
    pub fn ready(&mut self, claim: Claim) {
        if self.arriving.remove(&claim) {
            self.remote_queue.push_back(claim);
        }
    }

    /// A claim ends, whether it holds a slot or still waits for one.
    pub fn release(&mut self, claim: Claim) {
        let was_known =
            self.local.remove(&claim) || self.remote.remove(&claim) || self.arriving.remove(&claim);
        if !was_known {
            self.local_queue.retain(|waiting| *waiting != claim);
            self.remote_queue.retain(|waiting| *waiting != claim);
        }
    }

    /// The claims that have a slot from now on, each named once. To be called after every change.
    #[must_use]
    pub fn granted(&mut self) -> Vec<Claim> {
        let mut granted = Vec::new();
        while self.running() < self.total.max(1) {
            let Some(claim) = self.local_queue.pop_front() else {
                break;
            };
            self.local.insert(claim);
            granted.push(claim);
        }
        while self.running() < self.total {
            let Some(claim) = self.remote_queue.pop_front() else {
                break;
            };
            self.remote.insert(claim);
            granted.push(claim);
        }
        granted
    }

    /// Local jobs that hold a slot.
    pub fn local_jobs(&self) -> u32 {
        self.local.len() as u32
    }

    /// Remote jobs that hold a slot.
    pub fn remote_jobs(&self) -> u32 {
        self.remote.len() as u32
    }

    fn running(&self) -> u32 {
        self.local_jobs() + self.remote_jobs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(numbers: &[u64]) -> Vec<Claim> {
        numbers.iter().copied().map(Claim).collect()
    }

    #[test]
    fn local_jobs_go_first() {
        let mut slots = Slots::new(2);
        for claim in [1, 2, 3] {
            assert_eq!(slots.claim_remote(Claim(claim)), Admission::Accepted);
            slots.ready(Claim(claim));
        }
        assert_eq!(slots.granted(), claims(&[1, 2]));
        slots.claim_local(Claim(4));
        assert_eq!(slots.granted(), []);
        slots.release(Claim(1));
        assert_eq!(slots.granted(), claims(&[4]));
        slots.release(Claim(4));
        assert_eq!(slots.granted(), claims(&[3]));
        assert_eq!((slots.local_jobs(), slots.remote_jobs()), (0, 2));
    }

    #[test]
    fn a_remote_job_beyond_the_queue_is_refused() {
        let mut slots = Slots::new(1);
        assert_eq!(slots.claim_remote(Claim(1)), Admission::Accepted);
        slots.ready(Claim(1));
        assert_eq!(slots.granted(), claims(&[1]));
        assert_eq!(slots.claim_remote(Claim(2)), Admission::Accepted);
        assert_eq!(slots.claim_remote(Claim(3)), Admission::Busy);
        slots.release(Claim(2));
        assert_eq!(slots.claim_remote(Claim(3)), Admission::Accepted);
    }

    #[test]
    fn who_is_ready_first_runs_first() {
        let mut slots = Slots::new(1);
        assert_eq!(slots.claim_remote(Claim(1)), Admission::Accepted);
        assert_eq!(slots.claim_remote(Claim(2)), Admission::Accepted);
        assert_eq!(slots.granted(), [], "their files are on their way");
        assert_eq!(slots.claim_remote(Claim(3)), Admission::Busy);
        slots.ready(Claim(2));
        assert_eq!(slots.granted(), claims(&[2]));
        slots.ready(Claim(1));
        assert_eq!(slots.granted(), []);
        slots.release(Claim(2));
        assert_eq!(slots.granted(), claims(&[1]));
        assert_eq!(slots.claim_remote(Claim(3)), Admission::Accepted);
        slots.release(Claim(3));
        slots.ready(Claim(3));
        slots.release(Claim(1));
        assert_eq!(slots.granted(), [], "one that went away");
    }

    #[test]
    fn without_slots_one_local_job_runs_at_a_time_and_no_remote_one() {
        let mut slots = Slots::new(0);
        assert_eq!(slots.claim_remote(Claim(9)), Admission::Busy);
        slots.claim_local(Claim(1));
        slots.claim_local(Claim(2));
        assert_eq!(slots.granted(), claims(&[1]));
        slots.release(Claim(1));
        assert_eq!(slots.granted(), claims(&[2]));
    }

    #[test]
    fn with_fewer_slots_nothing_new_begins_until_enough_have_ended() {
        let mut slots = Slots::new(3);
        for claim in [1, 2, 3] {
            slots.claim_local(Claim(claim));
        }
        assert_eq!(slots.granted(), claims(&[1, 2, 3]));
        slots.resize(1);
        slots.claim_local(Claim(4));
        for ended in [1, 2] {
            slots.release(Claim(ended));
            assert_eq!(slots.granted(), []);
        }
        slots.release(Claim(3));
        assert_eq!(slots.granted(), claims(&[4]));
        slots.resize(2);
        slots.claim_local(Claim(5));
        assert_eq!(slots.granted(), claims(&[5]));
    }

    #[test]
    fn a_waiting_claim_can_be_withdrawn() {
        let mut slots = Slots::new(1);
        for claim in [1, 2, 3] {
            slots.claim_local(Claim(claim));
        }
        assert_eq!(slots.granted(), claims(&[1]));
        slots.release(Claim(2));
        slots.release(Claim(1));
        assert_eq!(slots.granted(), claims(&[3]));
    }
}
