//! Requests and leases: the part of the core that lends slots and takes them back.
//!
//! Two functions change what is lent, `grant` and `end`, and one what runs under it, `occupy`; so no slot is
//! lent twice, and queue, nodes and leases agree. A lease serves job after job without a word from here. It ends when
//! its holder returns it, when he or the node goes, or when it lies idle for too long.
//!
//! Leases are asked back when a node needs its slots for its own jobs, and when somebody else has less than his
//! fair share; what runs is never interrupted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{LeaseId, NodeId, RequestId, Time};
use crate::message::{Deal, Failure, Grant, Home, Offer, Outcome, Size, Want};
use crate::news::Ending;
use crate::scheduler::fairness::Claimant;
use crate::scheduler::lease::{Lease, Running};
use crate::scheduler::policy::{self, Algorithm, Choice, Question};
use crate::scheduler::queue::{Answer, Change, GroupId, Queue, Unqueued};
use crate::scheduler::speed::{Consumed, Work};
use crate::scheduler::state::Core;

/// Fair shares are computed anew so often while somebody has to wait.
const BALANCE_EVERY: Duration = Duration::from_millis(100);
/// A lease under which nothing ran for so long is asked back: its holder should have returned it. After as
/// long again it is void.
const IDLE_LONGEST: Duration = Duration::from_secs(10);
/// Jobs of one lease whose results may be on their way at a time.
const LANDING_MAX: usize = 4;
/// However long a job takes, its slot is free again after this long: a submitter may lose a lease.
const JOB_LONGEST: Duration = Duration::from_secs(2 * 3600);

impl Core {
    /// A submitter speaks of slots. Tells whether a waiting request may now be answered; the error says
    /// what is wrong with who says this.
    pub(super) fn deal(
        &mut self,
        submitter: NodeId,
        deal: Deal,
        now: Time,
    ) -> Result<bool, String> {
        match deal {
            Deal::Want(want) => self.want(submitter, want, now),
            Deal::Withdraw(request) => {
                self.queue.take(submitter, request);
                self.chronicle.gone(submitter, request, Ending::Withdrawn);
                Ok(false)
            }
            Deal::Began { request, lease } => {
                match self.is_held(lease, submitter)? {
                    true => self.occupy(lease, request, now),
                    // It ran into the end of its lease, and waits no longer all the same.
                    false => _ = self.queue.take(submitter, request),
                }
                Ok(false)
            }
            Deal::Ended {
                request,
                lease,
                outcome,
            } => {
                if self.is_held(lease, submitter)? {
                    self.vacate(lease, request, outcome, now);
                }
                // Its lease is idle now, which leaves less to wish for, not more.
                Ok(false)
            }
            Deal::Return(lease) => {
                if !self.is_held(lease, submitter)? {
                    return Ok(false);
                }
                self.end(lease, false);
                Ok(true)
            }
        }
    }

    /// Whether a lease is out and held by `submitter`. One that became void meanwhile is no fault of who
    /// speaks of it; one that is another's is.
    fn is_held(&self, id: LeaseId, submitter: NodeId) -> Result<bool, String> {
        match self.leases.find(id) {
            None => Ok(false),
            Some(lease) if lease.submitter == submitter => Ok(true),
            Some(_) => Err(format!("speaks of lease {id}, which it does not hold")),
        }
    }

    fn want(&mut self, submitter: NodeId, want: Want, now: Time) -> Result<bool, String> {
        let request = want.request;
        self.roster.watch(want.toolchain);
        let size = self.speeds.size(&Work::of(&want));
        // Refusals come at once, whoever else waits: they take nothing from anybody.
        if now >= self.settled_at
            && let Choice::Never(why) = self.choose(submitter, &want, now)
        {
            self.deny(submitter, request, why);
            return Ok(false);
        }
        let file = want.file.clone();
        match self.queue.push(submitter, want, size.memory_mib) {
            Ok(()) => self.chronicle.queued(submitter, request, &file, now),
            Err(Unqueued::Full) => {
                let why = "too many requests of this node wait".into();
                self.deny(submitter, request, why);
                return Ok(false);
            }
            Err(Unqueued::Twice) => return Err(format!("makes request {request} twice")),
        }
        if size != Size::default() {
            self.offer(submitter, Offer::Size { request, size });
        }
        Ok(true)
    }

    /// Grants whatever can be granted.
    pub(super) fn place(&mut self, now: Time) {
        let mut queue: Queue = std::mem::take(&mut self.queue);
        queue.serve(|group, sort, want| self.answer(group, sort.submitter, want, now));
        self.queue = queue;
        if self.queue.is_content() {
            self.fairness.forget();
        } else if !self.leases.is_empty() {
            self.balance_at = match self.balance_at {
                // It may be waiting for an idle lease that grows old.
                Some(at) if at <= now.after(BALANCE_EVERY) => Some(at),
                _ => Some(now),
            };
        }
    }

    fn answer(&mut self, group: GroupId, submitter: NodeId, want: &Want, now: Time) -> Answer {
        match self.choose(submitter, want, now) {
            Choice::Place(node, home) => {
                self.grant(node, group, submitter, home, want, now);
                Answer::Granted {
                    counts: home == Home::No,
                }
            }
            Choice::Never(_) if now < self.settled_at => {
                let until = self.settled_at;
                self.retry_at = Some(self.retry_at.map_or(until, |at| at.min(until)));
                Answer::Waits
            }
            Choice::Never(why) => {
                self.deny(submitter, want.request, why);
                Answer::Denied
            }
            Choice::Wait(None) if !self.roster.any_free() => Answer::AllWait,
            Choice::Wait(None) => Answer::Waits,
            Choice::Wait(Some(until)) => {
                self.retry_at = Some(self.retry_at.map_or(until, |at| at.min(until)));
                Answer::Waits
            }
        }
    }

    fn choose(&mut self, submitter: NodeId, want: &Want, now: Time) -> Choice {
        if self.rules.algorithm == Algorithm::Random {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        policy::choose(Question {
            want,
            size: self.speeds.size(&Work::of(want)),
            mean_cost_us: self.speeds.mean_cost_us(),
            submitter,
            roster: &self.roster,
            algorithm: self.rules.algorithm,
            random: mixed(self.random),
            now,
        })
    }

    fn grant(
        &mut self,
        id: NodeId,
        group: GroupId,
        submitter: NodeId,
        home: Home,
        want: &Want,
        now: Time,
    ) {
        self.grants_so_far += 1;
        let grants_so_far = self.grants_so_far;
        let kept = home != Home::No;
        self.roster.note(submitter).held += 1;
        self.roster.change(id, |node| {
            assert!(node.free() > 0, "a slot is lent once");
            match kept {
                true => node.kept += 1,
                false => node.lent += 1,
            }
            node.last_grant = grants_so_far;
        });
        let (node, holder) = (self.roster.node(id), self.roster.node(submitter));
        let mut address = node.address;
        if address.ip().is_loopback() && !holder.address.ip().is_loopback() {
            // A node beside the scheduler may be connected over loopback. Others find it where they
            // find the scheduler.
            address.set_ip(holder.here);
        }
        let (name, memory_mib) = (node.name.clone(), node.state.memory_mib);
        let slowness_milli = (policy::lasting_pace(node) * 1000.0).round() as u32;
        let lease = self.leases.lend(Lease {
            node: id,
            submitter,
            group,
            kept,
            running: None,
            landing: Vec::new(),
            since: now,
            revoked: false,
        });
        let grant = Grant {
            request: want.request,
            terms: want.terms.clone(),
            lease,
            node: id,
            name,
            address,
            term: self.term,
            home,
            once: self.rules.algorithm != Algorithm::Finish,
            slowness_milli,
            memory_mib,
        };
        self.offer(submitter, Offer::Grant(grant));
        let old = now.after(IDLE_LONGEST);
        self.balance_at.get_or_insert(old);
    }

    /// The job of `request` runs under a lease.
    fn occupy(&mut self, id: LeaseId, request: RequestId, now: Time) {
        let Some(lease) = self.leases.find(id) else {
            return;
        };
        let submitter = lease.submitter;
        let work = match self.queue.take(submitter, request) {
            Some(want) => Work::of(&want),
            None => {
                // It runs elsewhere, too, and is started a second time.
                let elsewhere = self.leases.held_by(submitter).find_map(|(_, other)| {
                    other.running.as_ref().filter(|job| job.request == request)
                });
                match elsewhere {
                    Some(job) => job.work.clone(),
                    None => return,
                }
            }
        };
        // What ran before has left the slot, and its results are on their way.
        if let Some(job) = self.make_idle(id, now)
            && let Some(lease) = self.leases.find_mut(id)
        {
            lease.landing.push(job);
            let beyond = lease.landing.len().saturating_sub(LANDING_MAX);
            lease.landing.drain(..beyond);
        }
        let size = self.speeds.size(&work);
        let cost_us = match size.cost_us {
            0 => self.speeds.mean_cost_us(),
            known => known as f64,
        };
        let Some(lease) = self.leases.find_mut(id) else {
            return;
        };
        let asked = (submitter, request);
        self.chronicle
            .started(asked, id, lease.node, &work.file, now);
        lease.running = Some(Running {
            request,
            work,
            cost_us,
        });
        lease.since = now;
        let lease = lease.clone();
        self.account(&lease, Change::Used);
    }

    /// The job under a lease has ended.
    fn vacate(&mut self, id: LeaseId, request: RequestId, outcome: Outcome, now: Time) {
        let Some(lease) = self.leases.find_mut(id) else {
            return;
        };
        let (node, submitter, kept) = (lease.node, lease.submitter, lease.kept);
        let is_it = |job: &Running| job.request == request;
        let job = match lease.landing.iter().position(is_it) {
            Some(at) => Some(lease.landing.remove(at)),
            None if lease.running.as_ref().is_some_and(is_it) => self.make_idle(id, now),
            None => None,
        };
        let Some(Running { work, .. }) = job else {
            return;
        };
        self.chronicle.ended(id, request, outcome);
        match outcome {
            Outcome::Done {
                usage,
                output_bytes,
            } => {
                let consumed = Consumed {
                    cpu_us: usage.cpu_us,
                    memory_mib: usage.rss_kib >> 10,
                    output_bytes,
                };
                let name = self.roster.node(node).name.clone();
                self.speeds.learn(&name, &work, consumed);
                let slowness = self.speeds.slowness(&name);
                let measured = self.speeds.knows(&name);
                self.roster.change(node, |node| {
                    node.suspicions.clear(submitter, work.toolchain);
                    node.jobs_done += u64::from(!kept);
                    node.slowness = slowness;
                    node.measured = measured;
                });
            }
            Outcome::Unused => {}
            Outcome::Failed { failure, dead } => {
                let there = self.roster.note(node);
                there
                    .suspicions
                    .note(submitter, work.toolchain, failure, dead, now);
                if failure == Failure::Memory && there.state.memory_mib > 0 {
                    let memory_mib = there.state.memory_mib;
                    self.speeds.learn_hunger(&work, memory_mib);
                }
            }
        }
    }

    /// Nothing runs under a lease from now on; what did.
    fn make_idle(&mut self, id: LeaseId, now: Time) -> Option<Running> {
        let lease = self.leases.find_mut(id)?;
        let job = lease.running.take()?;
        lease.since = now;
        let lease = lease.clone();
        self.account(&lease, Change::Idle);
        Some(job)
    }

    /// Tells the queue how a lease changes, as long as it counts.
    fn account(&mut self, lease: &Lease, change: Change) {
        if !lease.revoked {
            self.queue.lease(lease.group, !lease.kept, change);
        }
    }

    /// Ends a lease. When its holder did not say that nothing runs under it, the slot stays taken until
    /// its node reports it free: a job may have begun since he was heard.
    pub(super) fn end(&mut self, id: LeaseId, may_run_on: bool) {
        let Some(lease) = self.leases.end(id) else {
            return;
        };
        self.chronicle.lease_ended(id, may_run_on);
        self.roster.note(lease.submitter).held -= 1;
        self.roster.change(lease.node, |node| {
            if lease.kept {
                node.kept -= 1;
            } else {
                node.lent -= 1;
                node.leftover += u32::from(may_run_on);
            }
            node.revoked -= u32::from(lease.revoked);
        });
        self.account(&lease, lease.gone());
        if may_run_on {
            // The holder may not know yet that the lease is void.
            self.offer(lease.submitter, Offer::Revoke(id));
        }
    }

    /// Asks a lease back.
    fn revoke(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.find_mut(id).filter(|lease| !lease.revoked) else {
            return;
        };
        let before = lease.clone();
        lease.revoked = true;
        self.account(&before, before.gone());
        self.roster.note(before.node).revoked += 1;
        self.offer(before.submitter, Offer::Revoke(id));
    }

    /// Asks back what a node has lent beyond its slots, now that it has jobs of its own or fewer slots; all
    /// of it when it takes no jobs any more.
    pub(super) fn reclaim(&mut self, id: NodeId) {
        let node = self.roster.node(id);
        let excess = match node.takes_jobs() {
            true => node.overdrawn(),
            false => node.lent,
        } as usize;
        if excess == 0 {
            return;
        }
        let mut lent: Vec<(bool, Time, LeaseId)> = self
            .leases
            .lent_by(id)
            .filter(|(_, lease)| !lease.revoked && !lease.kept)
            .map(|(id, lease)| (lease.running.is_some(), lease.since, id))
            .collect();
        lent.sort_unstable();
        for (_, _, lease) in lent.into_iter().take(excess) {
            self.revoke(lease);
        }
    }

    /// Looks through the leases: takes back what lies idle, and asks back what others have a right to.
    /// Tells whether a waiting request may now be answered.
    pub(super) fn balance(&mut self, now: Time) -> bool {
        let (mut idle, mut forgotten) = (Vec::new(), Vec::new());
        for (id, lease) in self.leases.iter() {
            let age = now.since(lease.since);
            match lease.running {
                Some(_) if age >= JOB_LONGEST => forgotten.push(id),
                None if age >= 2 * IDLE_LONGEST => forgotten.push(id),
                None if age >= IDLE_LONGEST => idle.push(id),
                _ => {}
            }
        }
        for id in idle {
            self.revoke(id);
        }
        for &id in &forgotten {
            self.end(id, true);
        }
        if !self.queue.is_content() {
            self.share_out(now);
        }
        self.balance_at = match (self.queue.is_content(), self.leases.is_empty()) {
            (false, _) => Some(now.after(BALANCE_EVERY)),
            (true, false) => Some(now.after(IDLE_LONGEST / 2)),
            (true, true) => None,
        };
        !forgotten.is_empty()
    }

    /// Asks back from those who hold more than their fair share what those who wait could use.
    fn share_out(&mut self, now: Time) {
        let claimants: Vec<Claimant> = self
            .queue
            .accounts()
            .map(|((niceness, node), account)| Claimant {
                node,
                niceness,
                holds: account.held,
                wants: account.busy + account.waiting,
            })
            .collect();
        let held: u32 = claimants.iter().map(|claimant| claimant.holds).sum();
        let coming = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.revoked)
            .count();
        let capacity = held + coming as u32;
        let shares = self.fairness.shares(&claimants, capacity, now);
        let mut excess: BTreeMap<(u8, NodeId), u32> = BTreeMap::new();
        let mut deficit: BTreeMap<(u8, NodeId), u32> = BTreeMap::new();
        for (claimant, share) in claimants.iter().zip(shares) {
            let key = (claimant.niceness, claimant.node);
            match claimant.holds.checked_sub(share) {
                Some(0) => {}
                Some(over) => _ = excess.insert(key, over),
                None => _ = deficit.insert(key, share - claimant.holds),
            }
        }
        if excess.is_empty() {
            return;
        }
        // What is on its way back already is for those who wait.
        let mut coming = coming as u32;
        let mut wishes = Vec::new();
        for (sort, _, want) in self.queue.unmet() {
            let key = (sort.terms.niceness, sort.submitter);
            let Some(lacking) = deficit.remove(&key) else {
                continue;
            };
            let met = coming.min(lacking);
            coming -= met;
            if lacking > met {
                wishes.push((sort.submitter, want.clone(), lacking - met));
            }
        }
        for (submitter, want, lacking) in wishes {
            for _ in 0..lacking {
                match self.spare(submitter, &want, &mut excess) {
                    Some(lease) => self.revoke(lease),
                    None => break,
                }
            }
        }
    }

    /// A lease of somebody who holds too many, on a node that `submitter` could use; of the one who has the
    /// most to spare, and rather one that is idle, or will be soon.
    fn spare(
        &self,
        submitter: NodeId,
        want: &Want,
        excess: &mut BTreeMap<(u8, NodeId), u32>,
    ) -> Option<LeaseId> {
        let mut rich: Vec<(u8, u32, NodeId)> = excess
            .iter()
            .filter(|(_, over)| **over > 0)
            .map(|(&(niceness, node), &over)| (niceness, over, node))
            .collect();
        rich.sort_unstable_by(|a, b| b.cmp(a));
        for (niceness, _, holder) in rich {
            let found = self
                .leases
                .held_by(holder)
                .filter(|(_, lease)| {
                    let of_class = self
                        .queue
                        .sort(lease.group)
                        .is_some_and(|sort| sort.terms.niceness == niceness);
                    let node = self.roster.node(lease.node);
                    !lease.revoked
                        && !lease.kept
                        && of_class
                        && lease.node != submitter
                        && node.runs(&want.terms.platform)
                        && !want.except.contains(&lease.node)
                        && (want.terms.preferred.is_empty()
                            || self
                                .roster
                                .called(&want.terms.preferred)
                                .contains(&lease.node))
                })
                .min_by_key(|(id, lease)| (lease.running.is_some(), lease.since, *id));
            if let Some((id, _)) = found {
                if let Some(over) = excess.get_mut(&(niceness, holder)) {
                    *over -= 1;
                }
                return Some(id);
            }
        }
        None
    }
}

/// A number that looks like any other: the last step of splitmix64.
fn mixed(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
