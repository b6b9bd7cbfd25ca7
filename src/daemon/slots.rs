//! Who may compile on this machine now: local jobs and remote jobs share its slots.
//!
//! Pure. Local jobs go first, since somebody sits at this machine. A remote job comes under a lease, which
//! is one slot: the next job of a lease waits here until the one before has ended, so that the slot is not
//! idle for a round trip. One may wait for each lease, and as many as there are slots for all together. Those
//! beyond that wait at the door, since a job that its submitter has given up holds its place until that is
//! noticed here, and the next one may be faster. How long they wait there is not known here; then they are
//! refused, to be compiled elsewhere instead of growing old. A node without slots (`-m 0`) still runs one local
//! job at a time, as icecream does: links have to happen somewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::LeaseId;

/// A claim on a slot; the caller chooses its number, unique among all claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim(pub u64);

/// What came of a remote claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// There is room for it; once it is ready, [`Slots::granted`] will name it.
    Accepted,
    /// The queue is full, or one waits for this lease already: once there is room, [`Slots::admitted`]
    /// will name it.
    AtTheDoor,
    /// There is no room even at the door.
    Busy,
}

/// The slots of a node.
#[derive(Debug)]
pub struct Slots {
    total: u32,
    local: BTreeSet<Claim>,
    remote: BTreeMap<Claim, LeaseId>,
    local_queue: VecDeque<Claim>,
    remote_queue: VecDeque<(Claim, LeaseId)>,
    /// Remote claims whose files are still on their way.
    arriving: BTreeMap<Claim, LeaseId>,
    /// Remote claims that there is no room for yet.
    door: VecDeque<(Claim, LeaseId)>,
}

impl Slots {
    /// `total` slots, local and remote together.
    pub fn new(total: u32) -> Self {
        Self {
            total,
            local: BTreeSet::new(),
            remote: BTreeMap::new(),
            local_queue: VecDeque::new(),
            remote_queue: VecDeque::new(),
            arriving: BTreeMap::new(),
            door: VecDeque::new(),
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

    /// A remote job will want a slot under this lease once it is [ready](Self::ready): its files may
    /// still have to be fetched, and a slot is not to be idle meanwhile.
    pub fn claim_remote(&mut self, claim: Claim, lease: LeaseId) -> Admission {
        if self.has_room(lease) {
            self.arriving.insert(claim, lease);
            return Admission::Accepted;
        }
        if self.door.len() >= 2 * self.total as usize {
            return Admission::Busy;
        }
        self.door.push_back((claim, lease));
        Admission::AtTheDoor
    }

    /// The claims at the door that there is room for now, each named once. To be called after every
    /// change.
    #[must_use]
    pub fn admitted(&mut self) -> Vec<Claim> {
        let mut admitted = Vec::new();
        for (claim, lease) in std::mem::take(&mut self.door) {
            if self.has_room(lease) {
                self.arriving.insert(claim, lease);
                admitted.push(claim);
            } else {
                self.door.push_back((claim, lease));
            }
        }
        admitted
    }

    /// Whether a claim is still at the door.
    pub fn is_at_the_door(&self, claim: Claim) -> bool {
        self.door.iter().any(|(waiting, _)| *waiting == claim)
    }

    /// One job may wait behind each slot, and behind each lease.
    fn has_room(&self, lease: LeaseId) -> bool {
        let waiting = self.remote_queue.iter().map(|(_, of)| of);
        let all = waiting
            .chain(self.remote.values())
            .chain(self.arriving.values());
        let (jobs, of_lease) = all.fold((0, 0), |(jobs, same), of| {
            (jobs + 1, same + usize::from(*of == lease))
        });
        jobs < 2 * self.total as usize && of_lease < 2
    }

    /// A remote job has all that it needs, and waits for its slot from now on.
    pub fn ready(&mut self, claim: Claim) {
        if let Some(lease) = self.arriving.remove(&claim) {
            self.remote_queue.push_back((claim, lease));
        }
    }

    /// A claim ends, whether it holds a slot or still waits for one.
    pub fn release(&mut self, claim: Claim) {
        let was_known = self.local.remove(&claim)
            || self.remote.remove(&claim).is_some()
            || self.arriving.remove(&claim).is_some();
        if !was_known {
            self.local_queue.retain(|waiting| *waiting != claim);
            self.remote_queue.retain(|(waiting, _)| *waiting != claim);
            self.door.retain(|(waiting, _)| *waiting != claim);
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
            let in_use: BTreeSet<LeaseId> = self.remote.values().copied().collect();
            let mut waiting = self.remote_queue.iter();
            let Some(first) = waiting.position(|(_, lease)| !in_use.contains(lease)) else {
                break;
            };
            let Some((claim, lease)) = self.remote_queue.remove(first) else {
                break;
            };
            self.remote.insert(claim, lease);
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

    /// A remote claim under a lease of its own.
    fn claim(slots: &mut Slots, number: u64) -> Admission {
        claim_under(slots, number, number)
    }

    /// A remote claim that is ready at once.
    fn claim_under(slots: &mut Slots, number: u64, lease: u64) -> Admission {
        let admission = slots.claim_remote(Claim(number), LeaseId(lease));
        slots.ready(Claim(number));
        admission
    }

    #[test]
    fn local_jobs_go_first() {
        let mut slots = Slots::new(2);
        for number in 1..=3 {
            assert_eq!(claim(&mut slots, number), Admission::Accepted);
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
    fn a_remote_job_beyond_the_queue_waits_at_the_door_and_one_beyond_that_is_refused() {
        let mut slots = Slots::new(1);
        assert_eq!(claim(&mut slots, 1), Admission::Accepted);
        assert_eq!(slots.granted(), claims(&[1]));
        assert_eq!(claim(&mut slots, 2), Admission::Accepted);
        for number in [3, 4] {
            assert_eq!(claim(&mut slots, number), Admission::AtTheDoor);
        }
        assert_eq!(claim(&mut slots, 5), Admission::Busy);
        assert_eq!(slots.admitted(), []);
        slots.release(Claim(2));
        assert_eq!(slots.admitted(), claims(&[3]));
        assert!(slots.is_at_the_door(Claim(4)) && !slots.is_at_the_door(Claim(3)));
        // It has waited for long enough.
        slots.release(Claim(4));
        slots.release(Claim(1));
        assert_eq!(slots.admitted(), []);
        slots.ready(Claim(3));
        assert_eq!(slots.granted(), claims(&[3]));
    }

    #[test]
    fn a_job_under_the_lease_of_one_that_was_given_up_waits_until_that_is_noticed() {
        let mut slots = Slots::new(2);
        for number in [1, 2] {
            assert_eq!(claim_under(&mut slots, number, 9), Admission::Accepted);
        }
        assert_eq!(slots.granted(), claims(&[1]));
        assert_eq!(claim_under(&mut slots, 3, 9), Admission::AtTheDoor);
        // Another lease has room meanwhile.
        assert_eq!(claim(&mut slots, 4), Admission::Accepted);
        slots.release(Claim(1));
        assert_eq!(slots.admitted(), claims(&[3]));
    }

    #[test]
    fn a_lease_is_one_slot_and_one_job_that_waits_for_it() {
        let mut slots = Slots::new(3);
        assert_eq!(claim_under(&mut slots, 1, 9), Admission::Accepted);
        assert_eq!(slots.granted(), claims(&[1]));
        assert_eq!(claim_under(&mut slots, 2, 9), Admission::Accepted);
        assert_eq!(claim_under(&mut slots, 3, 9), Admission::AtTheDoor);
        assert_eq!(slots.granted(), [], "its lease is in use");
        assert_eq!(claim(&mut slots, 4), Admission::Accepted);
        assert_eq!(slots.granted(), claims(&[4]), "another's is not");
        slots.release(Claim(1));
        assert_eq!(slots.granted(), claims(&[2]));
    }

    #[test]
    fn who_is_ready_first_runs_first() {
        let mut slots = Slots::new(1);
        assert_eq!(
            slots.claim_remote(Claim(1), LeaseId(1)),
            Admission::Accepted
        );
        assert_eq!(
            slots.claim_remote(Claim(2), LeaseId(2)),
            Admission::Accepted
        );
        assert_eq!(slots.granted(), [], "their files are on their way");
        assert_eq!(
            slots.claim_remote(Claim(3), LeaseId(3)),
            Admission::AtTheDoor
        );
        slots.release(Claim(3));
        slots.ready(Claim(2));
        assert_eq!(slots.granted(), claims(&[2]));
        slots.ready(Claim(1));
        assert_eq!(slots.granted(), []);
        slots.release(Claim(2));
        assert_eq!(slots.granted(), claims(&[1]));
        assert_eq!(
            slots.claim_remote(Claim(3), LeaseId(3)),
            Admission::Accepted
        );
        slots.release(Claim(3));
        slots.ready(Claim(3));
        slots.release(Claim(1));
        assert_eq!(slots.granted(), [], "one that went away");
    }

    #[test]
    fn without_slots_one_local_job_runs_at_a_time_and_no_remote_one() {
        let mut slots = Slots::new(0);
        assert_eq!(claim(&mut slots, 9), Admission::Busy);
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
