//! Who of a cluster's schedulers is the master: events in, actions out.
//!
//! A scheduler may run on every machine. One places the jobs; the others stand by, ask it five times a
//! second whether it is there, and send whoever comes to them on to it. When it is gone they ask around for
//! a moment, and the oldest that answers takes over, in a new [`Term`]. So no two lend the same slot: a grant
//! carries its term, and a worker that has heard of a later one refuses it.
//!
//! Of two masters that meet, as after a partition, the one of the later term stays. A scheduler that comes
//! new has seen no election and so never unseats one that had to win some. There is no majority to be asked: each
//! part of a network that falls apart goes on working, which is worth more here than one truth, since all
//! state is soft.
//!
//! Every claim that changes anything here is the fresh answer to a question of our own. A question's claim may
//! have been recorded and repeated by anybody, so it is only a reason to ask. Knows no socket and no clock.

mod acquaintances;
#[cfg(test)]
mod stories;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{SchedulerId, Term, Time};
use crate::message::{Claim, Office};
use crate::scheduler::election::acquaintances::{Acquaintances, is_better, rank};

/// How long a scheduler that starts asks for others before it leads.
const LOOK: Duration = Duration::from_millis(300);
/// How long it asks when it has just lost the master: those who answer at all answer at once.
const TAKEOVER: Duration = Duration::from_millis(150);
/// How long the one that should lead may take to say that it does, before the next one does.
const COURTESY: Duration = Duration::from_millis(300);
/// Between two questions to all while looking: a datagram may be lost.
const LOOK_EVERY: Duration = Duration::from_millis(70);
/// Between two questions to the master.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// A master that has not answered for so long is gone. Five questions, so that a lost datagram is none.
const SILENCE: Duration = Duration::from_millis(1000);
/// Between two questions of a master to all: for other masters, and to know who stands by.
const SURVEY_EVERY: Duration = Duration::from_millis(1000);
/// A tick that comes so much too late says that this process was stopped.
const LATENESS: Duration = Duration::from_millis(500);
/// Questions that others provoke are this far apart.
const ASK_SPACING: Duration = Duration::from_millis(20);
/// Standbys that nodes are told of, at most.
pub const STANDBYS_MAX: usize = 8;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A scheduler has answered our question.
    Answered {
        /// What it says.
        claim: Claim,
        /// Where it takes TCP connections, as seen from here.
        at: SocketAddr,
    },
    /// A scheduler asks us; the shell answers with [`Election::claim`].
    Asked {
        /// What it says, or what somebody repeats.
        claim: Claim,
        /// Where it takes TCP connections.
        at: SocketAddr,
    },
    /// The machine there says that nobody listens for questions.
    Unreachable(SocketAddr),
    /// A node or a looker wants the master.
    Needed,
    /// A node that wants to log in has known this term.
    Seen(Term),
    /// The time of [`Election::next_wake`] has come.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Ask the network, the schedulers that were named at the start, and those in [`Election::known`].
    AskAll,
    /// Ask this one.
    Ask(SocketAddr),
    /// Be this from now on. Also said when a master begins a new term, in which nothing is lent.
    Become(Role),
}

/// What a scheduler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing yet: who comes has to wait.
    Undecided,
    /// The master.
    Master(Term),
    /// One that sends everybody there.
    Standby(SocketAddr),
}

/// The state machine.
#[derive(Debug)]
pub struct Election {
    id: SchedulerId,
    started_ms: u64,
    port: u16,
    /// Whether it is the master of whoever comes, whatever other schedulers say.
    is_persistent: bool,
    /// The latest term that was ever heard of.
    term: Term,
    phase: Phase,
    known: Acquaintances,
    /// When the next question is due.
    ask_at: Time,
    asked: Option<Time>,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum Phase {
    Looking {
        since: Time,
        until: Time,
        /// They should have led and did not.
        passed: BTreeSet<SchedulerId>,
        /// Who is being waited for.
        awaited: Option<SchedulerId>,
    },
    Standby {
        master: SchedulerId,
        at: SocketAddr,
        heard: Time,
    },
    Master {
        term: Term,
    },
}

impl Election {
    /// A scheduler that starts now, at `started_ms` since 1970, and takes TCP connections on `port`. One that
    /// is persistent leads at once and for ever; the nodes that come to it know why.
    pub fn new(
        id: SchedulerId,
        started_ms: u64,
        port: u16,
        is_persistent: bool,
        now: Time,
    ) -> Self {
        let time = match is_persistent {
            true => Duration::ZERO,
            false => LOOK,
        };
        Self {
            id,
            started_ms,
            port,
            is_persistent,
            term: Term::default(),
            phase: looking(now, time),
            known: Acquaintances::default(),
            ask_at: now,
            asked: None,
            actions: Vec::new(),
        }
    }

    /// What is to be said of this scheduler now.
    pub fn claim(&self) -> Claim {
        Claim {
            id: self.id,
            started_ms: self.started_ms,
            term: self.own_term(),
            office: match self.phase {
                Phase::Looking { .. } => Office::Looking,
                Phase::Standby { .. } => Office::Standby,
                Phase::Master { .. } => Office::Master,
            },
            port: self.port,
        }
    }

    /// The others that have answered lately, those first that would lead first.
    pub fn known(&self, now: Time) -> Vec<SocketAddr> {
        self.known.lately(now)
    }

    /// The term in which it is the master, or else the latest that it knows.
    fn own_term(&self) -> Term {
        match self.phase {
            Phase::Master { term } => term,
            Phase::Looking { .. } | Phase::Standby { .. } => self.term,
        }
    }

    /// When the next [`Event::Tick`] is due; it may change with every event.
    pub fn next_wake(&self) -> Time {
        match self.phase {
            Phase::Looking { until, .. } => until.min(self.ask_at),
            Phase::Standby { heard, .. } => heard.after(SILENCE).min(self.ask_at),
            Phase::Master { .. } => self.ask_at,
        }
    }

    /// Takes in what happened at `now`, which never goes back.
    pub fn on_event(&mut self, event: Event, now: Time) -> Vec<Action> {
        match event {
            Event::Answered { claim, at } if claim.id != self.id => self.answered(claim, at, now),
            Event::Asked { claim, at } if claim.id != self.id => self.asked(claim, at, now),
            Event::Answered { .. } | Event::Asked { .. } => {}
            Event::Unreachable(at) => self.unreachable(at, now),
            Event::Needed => self.watch(now),
            Event::Seen(term) => self.seen(term, now),
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    fn answered(&mut self, claim: Claim, at: SocketAddr, now: Time) {
        let latest = claim.term >= self.own_term();
        let is_equal = claim.term == self.own_term();
        self.term = self.term.max(claim.term);
        self.known.remember(claim, at, now);
        let leads = claim.office == Office::Master;
        match &mut self.phase {
            // A master of an earlier term does not know yet what has happened.
            Phase::Looking { .. } if leads && latest => self.follow(&claim, at, now),
            Phase::Standby {
                master,
                heard,
                at: known_at,
            } if *master == claim.id => match leads {
                true if *known_at == at => *heard = now,
                // It answers from another of its addresses, too. All are told the one that is watched, so
                // it does not change, unless to one that others can use.
                true if is_better(at, *known_at) => self.follow(&claim, at, now),
                true => {}
                false => self.look(TAKEOVER, now),
            },
            Phase::Standby { .. } if leads && latest && !is_equal => self.follow(&claim, at, now),
            Phase::Master { .. } if leads => {
                if self.is_persistent {
                    // Nobody has to agree.
                } else if is_equal {
                    // They started in the same millisecond and were elected apart. One starts anew.
                    match claim.id < self.id {
                        true => self.follow(&claim, at, now),
                        false => self.lead(now),
                    }
                } else if latest {
                    self.follow(&claim, at, now);
                } else {
                    // So that it hears of us, and asks.
                    self.ask(at, now);
                }
            }
            Phase::Looking { .. } | Phase::Standby { .. } | Phase::Master { .. } => {}
        }
    }

    fn asked(&mut self, claim: Claim, at: SocketAddr, now: Time) {
        if self.known.is_news(&claim, now) {
            self.ask(at, now);
        }
        if claim.office == Office::Looking {
            // It may have noticed before us that the master is gone.
            self.watch(now);
        }
    }

    fn unreachable(&mut self, gone: SocketAddr, now: Time) {
        self.known.forget_those_at(gone);
        if let Phase::Standby { at, .. } = self.phase
            && at == gone
        {
            self.look(TAKEOVER, now);
        }
    }

    fn seen(&mut self, term: Term, now: Time) {
        if let Phase::Master { term: own } = self.phase
            && term > own
        {
            // There is a master of that term, or there was one. Whoever it is, it is not this one.
            self.term = self.term.max(term);
            match self.is_persistent {
                true => self.lead(now),
                false => self.look(LOOK, now),
            }
        }
    }

    fn tick(&mut self, now: Time) {
        let was_stopped = now.since(self.next_wake()) > LATENESS;
        if was_stopped {
            // The answers that came meanwhile are still to be read.
            match &mut self.phase {
                Phase::Standby { heard, .. } => *heard = now,
                Phase::Looking { since, until, .. } => {
                    *since = now;
                    *until = now.after(LOOK);
                }
                Phase::Master { .. } => {}
            }
        }
        match self.phase {
            Phase::Looking { until, .. } if until <= now => self.decide(now),
            Phase::Standby { heard, master, .. } if now.since(heard) >= SILENCE => {
                self.known.forget(master);
                self.look(TAKEOVER, now);
            }
            _ => {}
        }
        if self.ask_at > now {
            return;
        }
        match self.phase {
            Phase::Looking { .. } => self.ask_all(LOOK_EVERY, now),
            Phase::Standby { at, .. } => {
                self.ask_at = now.after(WATCH_EVERY);
                self.actions.push(Action::Ask(at));
            }
            Phase::Master { .. } => self.ask_all(SURVEY_EVERY, now),
        }
    }

    /// The time to look is over, and no master was found.
    fn decide(&mut self, now: Time) {
        let Phase::Looking {
            since,
            until,
            passed,
            awaited,
        } = &mut self.phase
        else {
            return;
        };
        passed.extend(*awaited);
        let may_lead =
            |claim: &Claim| !passed.contains(&claim.id) && claim.office != Office::Master;
        match self.known.first(*since, may_lead) {
            Some(first) if rank(&first) < (self.started_ms, self.id) => {
                *awaited = Some(first.id);
                *until = now.after(COURTESY);
            }
            _ => self.lead(now),
        }
    }

    fn lead(&mut self, now: Time) {
        self.term = self.term.next(self.started_ms);
        self.phase = Phase::Master { term: self.term };
        self.actions.push(Action::Become(Role::Master(self.term)));
        // All shall hear of it, and not only when they ask.
        self.ask_all(SURVEY_EVERY, now);
    }

    fn follow(&mut self, claim: &Claim, at: SocketAddr, now: Time) {
        self.phase = Phase::Standby {
            master: claim.id,
            at,
            heard: now,
        };
        // So that the master knows that we stand by.
        self.ask_at = now;
        self.actions.push(Action::Become(Role::Standby(at)));
    }

    fn look(&mut self, time: Duration, now: Time) {
        self.phase = looking(now, time);
        self.actions.push(Action::Become(Role::Undecided));
        self.ask_all(LOOK_EVERY, now);
    }

    /// Asks the master, if it is another, before its turn.
    fn watch(&mut self, now: Time) {
        if let Phase::Standby { at, .. } = self.phase {
            self.ask(at, now);
        }
    }

    fn ask(&mut self, at: SocketAddr, now: Time) {
        if self
            .asked
            .is_none_or(|asked| now.since(asked) >= ASK_SPACING)
        {
            self.asked = Some(now);
            self.actions.push(Action::Ask(at));
        }
    }

    fn ask_all(&mut self, again: Duration, now: Time) {
        self.ask_at = now.after(again);
        self.actions.push(Action::AskAll);
    }
}

fn looking(now: Time, time: Duration) -> Phase {
    Phase::Looking {
        since: now,
        until: now.after(time),
        passed: BTreeSet::new(),
        awaited: None,
    }
}
