//! Requests and leases: the part of the core that lends slots and takes them back.
//!
//! Two functions change what is lent, `grant` and `end`, and one what runs under it, `occupy`; so no slot is
//! lent twice, and queue, nodes and leases agree. A lease serves job after job without a word from here. It ends when
//! its holder returns it, when he or the node goes, or when it lies idle for too long.
//!
//! Leases are asked back when a node needs its slots for its own jobs, and when somebody else has less than his
//! fair share; what runs is never interrupted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{LeaseId, NodeId, RequestId, Time};
use crate::message::{Deal, Failure, Grant, Home, Offer, Outcome, Size, Want};
use crate::news::Ending;
use crate::scheduler::fairness::Claimant;
use crate::scheduler::lease::{Lease, Running};
use crate::scheduler::policy::{self, Algorithm, Choice, Question};
use crate::scheduler::queue::{Answer, Change, GroupId, Queue, Unqueued, Waiting};
use crate::scheduler::speed::{Consumed, Work};
use crate::scheduler::state::Core;

/// Fair shares are computed anew so often while somebody has to wait.
const BALANCE_EVERY: Duration = Duration::from_millis(100);
/// A lease under which nothing ran for so long is asked back: its holder should have returned it. After as
/// long again it is void.
const IDLE_LONGEST: Duration = Duration::from_secs(10);
/// Leases that are looked through at a time, at most: it must not hold up those who wait.
const LOOKED_THROUGH: usize = 2048;
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
            Deal::Way { lease, way } => {
                if self.is_held(lease, submitter)?
                    && let Some(lease) = self.leases.find(lease)
                {
                    let node = lease.node;
                    self.roster.note(submitter).ways.learn(node, way);
                }
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
        let choice = self.choose(submitter, &want, size, now);
        if now >= self.settled_at
            && let Choice::Never(why) = choice
        {
            self.deny(submitter, request, why);
            return Ok(false);
        }
        // Most requests come while no slot is free: then nobody need be asked whose turn it is.
        let is_hopeless = choice == Choice::Wait(None) && !self.roster.any_free();
        let file = want.file.clone();
        match self.queue.push(submitter, want, size) {
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
        if is_hopeless {
            self.mind_shares(now);
        }
        Ok(!is_hopeless)
    }

    /// Grants whatever can be granted.
    pub(super) fn place(&mut self, now: Time) {
        let mut queue: Queue = std::mem::take(&mut self.queue);
        queue.serve(|group, sort, waiting| self.answer(group, sort.submitter, waiting, now));
        self.queue = queue;
        self.mind_shares(now);
    }

    /// Shares are looked at as long as somebody waits.
    fn mind_shares(&mut self, now: Time) {
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

    fn answer(
        &mut self,
        group: GroupId,
        submitter: NodeId,
        waiting: &Waiting,
        now: Time,
    ) -> Answer {
        let Waiting { want, size } = waiting;
        match self.choose(submitter, want, *size, now) {
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

    fn choose(&mut self, submitter: NodeId, want: &Want, size: Size, now: Time) -> Choice {
        if self.rules.algorithm == Algorithm::Random {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        policy::choose(Question {
            want,
            size,
            mean: self.speeds.mean(),
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
            node.worked = now;
            node.overlooked = false;
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
        let (work, cost_us) = match self.queue.take(submitter, request) {
            Some(Waiting { want, size }) => {
                let cost_us = match size.cost_us {
                    0 => self.speeds.mean_cost_us(),
                    known => known as f64,
                };
                (Work::from(want), cost_us)
            }
            None => {
                // It runs elsewhere, too, and is started a second time.
                let elsewhere = self.leases.held_by(submitter).find_map(|(_, other)| {
                    other.running.as_ref().filter(|job| job.request == request)
                });
                match elsewhere {
                    Some(job) => (job.work.clone(), job.cost_us),
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
        let account = lease.account();
        self.change_account(account, Change::Used);
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
                let name = &self.roster.node(node).name;
                self.speeds.learn(name, &work, consumed);
                self.roster.change(node, |node| {
                    node.suspicions.clear(submitter, work.toolchain);
                    node.jobs_done += u64::from(!kept);
                    node.worked = now;
                });
                self.note_speed(node);
            }
            Outcome::Unused => {}
            Outcome::Lagged { ran_us } => {
                let name = &self.roster.node(node).name;
                self.speeds.learn_lag(name, &work, ran_us);
                self.note_speed(node);
            }
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

    /// What was learned of a node's speed is of use from now on.
    fn note_speed(&mut self, node: NodeId) {
        let name = &self.roster.node(node).name;
        let (slowness, measured) = (self.speeds.slowness(name), self.speeds.knows(name));
        self.roster.change(node, |node| {
            node.slowness = slowness;
            node.measured = measured;
        });
    }

    /// Nothing runs under a lease from now on; what did.
    fn make_idle(&mut self, id: LeaseId, now: Time) -> Option<Running> {
        let lease = self.leases.find_mut(id)?;
        let job = lease.running.take()?;
        lease.since = now;
        let account = lease.account();
        self.change_account(account, Change::Idle);
        Some(job)
    }

    /// Tells the queue how a lease changes, as long as it counts.
    fn change_account(&mut self, account: Option<(GroupId, bool)>, change: Change) {
        if let Some((group, counts)) = account {
            self.queue.lease(group, counts, change);
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
        self.change_account(lease.account(), lease.gone());
        if may_run_on {
            // The holder may not know yet that the lease is void.
            self.offer(lease.submitter, Offer::Revoke(id));
        }
    }

    /// Asks a lease back.
    fn revoke(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.find(id).filter(|lease| !lease.revoked) else {
            return;
        };
        let (node, submitter) = (lease.node, lease.submitter);
        let (account, gone) = (lease.account(), lease.gone());
        self.leases.revoke(id);
        self.change_account(account, gone);
        self.roster.note(node).revoked += 1;
        self.offer(submitter, Offer::Revoke(id));
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
        let mut looked = self.leases.from(self.look_from);
        for (id, lease) in looked.by_ref().take(LOOKED_THROUGH) {
            let age = now.since(lease.since);
            match lease.running {
                Some(_) if age >= JOB_LONGEST => forgotten.push(id),
                None if age >= 2 * IDLE_LONGEST => forgotten.push(id),
                None if age >= IDLE_LONGEST => idle.push(id),
                _ => {}
            }
        }
        let next = looked.next().map(|(id, _)| id);
        drop(looked);
        self.look_from = next.unwrap_or(LeaseId(0));
        for id in idle {
            self.revoke(id);
        }
        for &id in &forgotten {
            self.end(id, true);
        }
        if !self.queue.is_content() {
            self.share_out(now);
        }
        let is_amid = next.is_some();
        self.balance_at = match (self.queue.is_content(), self.leases.is_empty()) {
            (true, true) => None,
            (true, false) if !is_amid => Some(now.after(IDLE_LONGEST / 2)),
            _ => Some(now.after(BALANCE_EVERY)),
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
        // What is on its way back already is for those who wait.
        let mut coming = self.leases.revoked() as u32;
        let capacity = held + coming;
        let shares = self.fairness.shares(&claimants, capacity, now);
        // By niceness and how many: the last have the most to spare.
        let mut rich: BTreeSet<(u8, u32, NodeId)> = BTreeSet::new();
        let mut deficit: BTreeMap<(u8, NodeId), u32> = BTreeMap::new();
        for (claimant, share) in claimants.iter().zip(shares) {
            let key = (claimant.niceness, claimant.node);
            match claimant.holds.checked_sub(share) {
                Some(0) => {}
                Some(over) => _ = rich.insert((claimant.niceness, over, claimant.node)),
                None => _ = deficit.insert(key, share - claimant.holds),
            }
        }
        if rich.is_empty() {
            return;
        }
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
        let mut spares = BTreeMap::new();
        for (submitter, want, lacking) in wishes {
            for lease in self.spare(submitter, &want, lacking, &mut rich, &mut spares) {
                self.revoke(lease);
            }
        }
    }

    /// Up to `lacking` leases of those who hold too many, on nodes that `submitter` could use; of the one who
    /// has the most to spare, and rather those that are idle, or will be soon. `spares` has what was found out
    /// about the rich so far.
    fn spare(
        &self,
        submitter: NodeId,
        want: &Want,
        lacking: u32,
        rich: &mut BTreeSet<(u8, u32, NodeId)>,
        spares: &mut BTreeMap<(u8, NodeId), VecDeque<LeaseId>>,
    ) -> Vec<LeaseId> {
        let called = match want.terms.preferred.is_empty() {
            true => None,
            false => Some(self.roster.called(&want.terms.preferred)),
        };
        let is_usable = |id: &LeaseId| {
            let Some(lease) = self.leases.find(*id) else {
                return false;
            };
            lease.node != submitter
                && self.roster.node(lease.node).runs(&want.terms.platform)
                && !want.except.contains(&lease.node)
                && called
                    .as_ref()
                    .is_none_or(|called| called.contains(&lease.node))
        };
        let mut found = Vec::new();
        // Who has nothing for this request, and how far the others' leases were looked through.
        let mut useless = Vec::new();
        let mut passed: BTreeMap<(u8, NodeId), usize> = BTreeMap::new();
        while found.len() < lacking as usize
            && let Some((niceness, over, holder)) = rich.pop_last()
        {
            let of = (niceness, holder);
            let leases = spares
                .entry(of)
                .or_insert_with(|| self.spares(niceness, holder));
            let passed = passed.entry(of).or_default();
            let ahead = leases.iter().skip(*passed).position(is_usable);
            match ahead.and_then(|ahead| {
                *passed += ahead;
                leases.remove(*passed)
            }) {
                Some(lease) => {
                    found.push(lease);
                    if over > 1 {
                        rich.insert((niceness, over - 1, holder));
                    }
                }
                None => useless.push((niceness, over, holder)),
            }
        }
        rich.extend(useless);
        found
    }

    /// The leases that `holder` could be asked for, in the order in which to ask.
    fn spares(&self, niceness: u8, holder: NodeId) -> VecDeque<LeaseId> {
        let of_class = |lease: &Lease| {
            let sort = self.queue.sort(lease.group);
            sort.is_some_and(|sort| sort.terms.niceness == niceness)
        };
        let mut leases: Vec<(bool, Time, LeaseId)> = self
            .leases
            .held_by(holder)
            .filter(|(_, lease)| !lease.revoked && !lease.kept && of_class(lease))
            .map(|(id, lease)| (lease.running.is_some(), lease.since, id))
            .collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, _, id)| id).collect()
    }
}

/// A number that looks like any other: the last step of splitmix64.
fn mixed(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
