//! A node as the scheduler knows it: what it said of itself, and what was lent of it.
//!
//! Counts slots. It compares no nodes with each other; that is [`super::policy`]'s.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::id::{Digest, Time};
use crate::message::{Login, NodeState};
use crate::scheduler::state::PeerId;
use crate::scheduler::suspicion::Suspicions;
use crate::scheduler::ways::Ways;

/// A node that is logged in.
#[derive(Debug)]
pub struct Node {
    /// Its connection.
    pub peer: PeerId,
    /// Its name, unique here.
    pub name: String,
    /// Where it takes jobs, as the scheduler sees it; port 0 when it takes none.
    pub address: SocketAddr,
    /// The scheduler's own address on the connection to it.
    pub here: IpAddr,
    /// `uname -m`.
    pub platform: String,
    /// Slots for jobs, remote and local together.
    pub slots: u32,
    /// Why it takes no remote jobs, if so.
    pub no_remote: Option<String>,
    /// Whether somebody has blocked it: it may submit, and gets no jobs.
    pub blocked: bool,
    /// The toolchains in its store.
    pub toolchains: BTreeSet<Digest>,
    /// Its last report.
    pub state: NodeState,
    /// When it last said anything.
    pub heard: Time,
    /// Leases of its slots that others hold.
    pub lent: u32,
    /// Leases of its slots that it holds itself.
    pub kept: u32,
    /// Leases that it holds, of whichever node.
    pub held: u32,
    /// Jobs for others that run on it without a lease: their lease became void, or another scheduler
    /// granted it. They hold slots until a report shows that they are gone.
    pub leftover: u32,
    /// Leases of its slots that were asked back and not yet returned.
    pub revoked: u32,
    /// Jobs that it compiled for others since it came.
    pub jobs_done: u64,
    /// How many times slower than the reference node it is, as far as is known.
    pub slowness: f64,
    /// Whether anything is known of its speed.
    pub measured: bool,
    /// When it last got or ended a job, or came.
    pub worked: Time,
    /// Whether it was without a job for so long while others worked that it should be given one: its speed
    /// may have changed.
    pub overlooked: bool,
    /// The number of the last grant on it, among all grants; 0 for none.
    pub last_grant: u64,
    /// Who has reason to avoid it.
    pub suspicions: Suspicions,
    /// How far the others are from it, as it measured that.
    pub ways: Ways,
    reported: bool,
}

impl Node {
    /// A node that logs in under `name`, connected from `from` to the scheduler's address `here`.
    pub fn new(
        peer: PeerId,
        name: String,
        login: Login,
        from: IpAddr,
        here: IpAddr,
        now: Time,
    ) -> Self {
        let mut node = Self {
            peer,
            name,
            address: SocketAddr::new(from, login.port),
            here,
            platform: login.platform,
            slots: login.slots,
            no_remote: login.no_remote,
            blocked: false,
            toolchains: login.toolchains.into_iter().collect(),
            state: NodeState::default(),
            heard: now,
            lent: 0,
            kept: 0,
            held: 0,
            leftover: 0,
            revoked: 0,
            jobs_done: 0,
            slowness: 1.0,
            measured: false,
            worked: now,
            overlooked: false,
            last_grant: 0,
            suspicions: Suspicions::default(),
            ways: Ways::default(),
            reported: false,
        };
        node.report(login.state);
        // Jobs of an earlier scheduler may have begun since that was said.
        node.reported = false;
        node
    }

    /// Takes in a report.
    pub fn report(&mut self, state: NodeState) {
        let beyond_leases = state.remote_jobs.saturating_sub(self.lent);
        // The first report tells of jobs that a scheduler before this one placed.
        self.leftover = match self.reported {
            false => beyond_leases,
            true => self.leftover.min(beyond_leases),
        };
        self.reported = true;
        self.state = state;
    }

    /// Whether it compiles for others at all.
    pub fn takes_jobs(&self) -> bool {
        self.slots > 0 && self.address.port() != 0 && self.no_remote.is_none() && !self.blocked
    }

    /// Slots in use. A job that the node compiles for itself under a lease is also among the local jobs
    /// that it reports, so these two are not added.
    pub fn used(&self) -> u32 {
        self.lent
            .saturating_add(self.leftover)
            .saturating_add(self.kept.max(self.state.local_jobs))
    }

    /// How many slots too many are lent, those that were asked back not counted: local jobs go first.
    pub fn overdrawn(&self) -> u32 {
        let coming = self.slots.saturating_add(self.revoked);
        self.used().saturating_sub(coming).min(self.lent)
    }

    /// Free slots.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.used())
    }

    /// Whether nothing of its own runs, here or elsewhere.
    pub fn is_idle_submitter(&self) -> bool {
        self.held == 0 && self.state.local_jobs == 0
    }

    /// Whether a program for `platform` runs on it.
    pub fn runs(&self, platform: &str) -> bool {
        runs(&self.platform, platform)
    }
}

/// Whether a program for `platform` runs on a `machine`.
pub fn runs(machine: &str, platform: &str) -> bool {
    let i386_up_to = |newest: usize| ["i386", "i486", "i586", "i686"][..newest].contains(&platform);
    machine == platform
        || match machine {
            "i486" => i386_up_to(1),
            "i586" => i386_up_to(2),
            "i686" => i386_up_to(3),
            "x86_64" => i386_up_to(4),
            "ppc64" => platform == "ppc",
            "s390x" => platform == "s390",
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(platform: &str, slots: u32) -> Node {
        let login = Login {
            port: 10245,
            slots,
            ..Login::new("a", "ICE", platform)
        };
        let here = IpAddr::from([10, 0, 0, 1]);
        Node::new(
            PeerId(1),
            "a".into(),
            login,
            [10, 0, 0, 7].into(),
            here,
            Time(0),
        )
    }

    fn remote_jobs(remote_jobs: u32) -> NodeState {
        NodeState {
            remote_jobs,
            ..NodeState::default()
        }
    }

    #[test]
    fn older_machines_programs_run_on_newer_ones() {
        for (machine, program, runs) in [
            ("x86_64", "x86_64", true),
            ("x86_64", "i686", true),
            ("x86_64", "i386", true),
            ("i686", "i586", true),
            ("i586", "i686", false),
            ("i386", "i486", false),
            ("i686", "x86_64", false),
            ("aarch64", "x86_64", false),
            ("ppc64", "ppc", true),
            ("s390x", "s390", true),
        ] {
            assert_eq!(
                node(machine, 1).runs(program),
                runs,
                "{program} on {machine}"
            );
        }
    }

    #[test]
    fn local_jobs_and_own_leases_are_one_and_the_same_load() {
        let mut node = node("x86_64", 4);
        node.kept = 1;
        node.lent = 1;
        assert_eq!(node.free(), 2);
        node.state.local_jobs = 1;
        assert_eq!(node.free(), 2);
        node.state.local_jobs = 3;
        assert_eq!(node.free(), 0);
        node.state.local_jobs = u32::MAX;
        assert_eq!(node.free(), 0);
    }

    #[test]
    fn what_is_lent_beyond_the_slots_is_to_come_back_and_no_more() {
        let mut node = node("x86_64", 4);
        node.lent = 4;
        assert_eq!(node.overdrawn(), 0);
        node.state.local_jobs = 2;
        assert_eq!(node.overdrawn(), 2);
        node.revoked = 2;
        assert_eq!(node.overdrawn(), 0);
        node.state.local_jobs = 99;
        assert_eq!(node.overdrawn(), 4);
    }

    #[test]
    fn jobs_of_an_earlier_scheduler_hold_their_slots_until_they_end() {
        let mut node = node("x86_64", 4);
        node.report(remote_jobs(3));
        assert_eq!(node.free(), 1);
        node.lent = 1;
        node.report(remote_jobs(3));
        assert_eq!((node.leftover, node.free()), (2, 1));
        node.report(remote_jobs(1));
        assert_eq!((node.leftover, node.free()), (0, 3));
        // Jobs that the reports know before the leases do are not leftovers.
        node.report(remote_jobs(4));
        assert_eq!(node.leftover, 0);
    }
}
