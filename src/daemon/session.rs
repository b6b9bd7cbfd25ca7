//! The node's side of its connection to the scheduler, as a state machine.
//!
//! Decides when to connect, what to say after a login, when a scheduler is silent for too long, and
//! what becomes of requests when there is none. After the end of one, requests wait a moment for the one that
//! takes over, and are made again there. Without a hope for one each is answered at once, so that the
//! work is done on this machine. Knows no socket and no clock; [`super::link`] has them.
//!
//! What is said of slots goes through `dealings`, which outlive a connection; the leases do not.

mod dealings;
#[cfg(test)]
mod stories;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::daemon::session::dealings::{Dealings, TooMany};
use crate::id::{Digest, NodeId, RequestId, Term, Time};
use crate::message::{Deal, FromScheduler, Login, NodeState, Offer, REPORT_EVERY_MS, ToScheduler};
use crate::news::LocalJobs;

/// What the rest of the daemon says to the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkCommand {
    /// A submitter speaks of slots. A request is answered by an offer of a lease, which need not be the only
    /// one, or by a denial, unless it is withdrawn or begun before.
    Deal(Deal),
    /// Toolchains came into the store, or went.
    Toolchains {
        /// New ones.
        added: Vec<Digest>,
        /// Evicted ones.
        removed: Vec<Digest>,
    },
    /// From now on the node has so many slots, remote and local together.
    Slots(u32),
    /// From now on it takes no remote jobs, for this reason.
    NoRemote(String),
    /// The state of this node, now.
    State(NodeState),
    /// Jobs ran here without a lease. Not kept for a scheduler that is not there.
    LocalJobs(Vec<LocalJobs>),
}

/// What the rest of the daemon hears.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// A scheduler has accepted this node.
    Up {
        /// The node's number there.
        node: NodeId,
        /// The node's name there.
        name: String,
        /// The scheduler's term.
        term: Term,
    },
    /// There is no scheduler, for this reason. Leases of the one before are void. Also said, once
    /// for each reason, while none can be found.
    Down(String),
    /// A submitter is told of slots.
    Offer(Offer),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The daemon says something.
    Command(LinkCommand),
    /// The connection that was asked for is there.
    Connected,
    /// It could not be had, or is no more.
    Lost(String),
    /// The scheduler says something.
    Heard(FromScheduler),
    /// The time of [`Session::next_wake`] has come.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Find the scheduler and connect; answer with [`Input::Connected`] or [`Input::Lost`].
    Connect,
    /// End the connection; no [`Input::Lost`] is wanted for it.
    Disconnect,
    /// Send this.
    Send(ToScheduler),
    /// Tell the daemon.
    Tell(LinkEvent),
}

/// A scheduler that has said nothing for so long, though it answers each report, is dead. With a report
/// under way at any time this is noticed within two seconds.
const SILENCE: Duration = Duration::from_millis(3 * REPORT_EVERY_MS);
const REPORT_EVERY: Duration = Duration::from_millis(REPORT_EVERY_MS);
/// Changes are reported at once, but not more often than this.
const REPORT_SPACING: Duration = Duration::from_millis(20);
/// How long a scheduler may take to answer a login.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first failure to connect, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LONGEST: Duration = Duration::from_secs(3);
/// A connection that lasted for less does not earn an immediate second.
const SHORT: Duration = Duration::from_secs(1);
/// So long requests wait for another scheduler when theirs is gone.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Schedulers that stand by may send us on in turn, at most so many times; then we pause.
const HOPS_MAX: u32 = 5;
/// A tick that comes so much too late says that this process was stopped, not the scheduler.
const LATENESS: Duration = Duration::from_millis(500);
/// Toolchains that are told to the scheduler, at most.
const TOOLCHAINS_MAX: usize = 10_000;

/// The state machine.
#[derive(Debug)]
pub struct Session {
    login: Login,
    toolchains: BTreeSet<Digest>,
    state: NodeState,
    phase: Phase,
    dealings: Dealings,
    /// Until then requests wait for a scheduler.
    patience: Option<Time>,
    /// How many schedulers have sent us on since the last welcome.
    hops: u32,
    pause: Duration,
    /// Why there is no scheduler, for whoever asks now.
    why: String,
    outputs: Vec<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Waits before it tries again.
    Resting { until: Time },
    /// [`Output::Connect`] was said.
    Connecting,
    /// The login was sent.
    Greeting { since: Time },
    /// Welcome.
    Up {
        since: Time,
        heard: Time,
        reported: Time,
        /// The state has changed since the last report.
        changed: bool,
    },
}

impl Session {
    /// A node that will log in so. It begins to connect with the first [`Input::Tick`].
    pub fn new(login: Login) -> Self {
        Self {
            toolchains: login.toolchains.iter().copied().collect(),
            login,
            state: NodeState::default(),
            phase: Phase::Resting { until: Time(0) },
            dealings: Dealings::default(),
            patience: None,
            hops: 0,
            pause: PAUSE_FIRST,
            why: "not found yet".into(),
            outputs: Vec::new(),
        }
    }

    /// Takes in what happened at `now`.
    pub fn on_input(&mut self, input: Input, now: Time) -> Vec<Output> {
        match input {
            Input::Command(command) => self.command(command, now),
            Input::Connected => self.connected(now),
            Input::Lost(why) => self.lost(why, now),
            Input::Heard(message) => self.heard(message, now),
            Input::Tick => self.tick(now),
        }
        std::mem::take(&mut self.outputs)
    }

    /// When the next [`Input::Tick`] is due, if nothing else happens.
    pub fn next_wake(&self) -> Option<Time> {
        let wake = match self.phase {
            Phase::Resting { until } => Some(until),
            Phase::Connecting => None,
            Phase::Greeting { since } => Some(since.after(WELCOME_TIMEOUT)),
            Phase::Up {
                heard,
                reported,
                changed,
                ..
            } => Some(report_due(reported, changed).min(heard.after(SILENCE))),
        };
        match (wake, self.patience) {
            (Some(wake), Some(patience)) => Some(wake.min(patience)),
            (wake, patience) => wake.or(patience),
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    fn command(&mut self, command: LinkCommand, now: Time) {
        match command {
            LinkCommand::Deal(deal) => self.deal(deal),
            LinkCommand::Toolchains { added, removed } => self.take_toolchains(added, removed),
            LinkCommand::LocalJobs(jobs) => {
                if self.is_up() {
                    self.send(ToScheduler::LocalJobs(jobs));
                }
            }
            LinkCommand::Slots(slots) => {
                self.login.slots = slots;
                self.tell_capacity();
            }
            LinkCommand::NoRemote(why) => {
                self.login.no_remote = Some(why);
                self.tell_capacity();
            }
            LinkCommand::State(state) => {
                let differs = state != self.state;
                self.state = state;
                if let Phase::Up {
                    changed, reported, ..
                } = &mut self.phase
                {
                    *changed |= differs;
                    if report_due(*reported, *changed) <= now {
                        self.report(now);
                    }
                }
            }
        }
    }

    fn deal(&mut self, deal: Deal) {
        let is_up = self.is_up();
        match deal {
            Deal::Want(want) if !is_up && self.patience.is_none() => {
                self.deny(want.request, format!("no scheduler: {}", self.why));
            }
            deal => match self.dealings.deal(deal, is_up) {
                Ok(said) => self.outputs.extend(said.map(say)),
                Err(TooMany(request)) => self.deny(request, "too many requests wait".into()),
            },
        }
    }

    fn tell_capacity(&mut self) {
        if self.is_up() {
            self.send(ToScheduler::Capacity {
                slots: self.login.slots,
                no_remote: self.login.no_remote.clone(),
            });
        }
    }

    fn take_toolchains(&mut self, mut added: Vec<Digest>, removed: Vec<Digest>) {
        for gone in &removed {
            self.toolchains.remove(gone);
        }
        // A scheduler drops a node that claims more; it can do without knowing them all.
        added.retain(|new| self.toolchains.len() < TOOLCHAINS_MAX && self.toolchains.insert(*new));
        if self.is_up() && !(added.is_empty() && removed.is_empty()) {
            self.send(ToScheduler::Toolchains { added, removed });
        }
    }

    fn connected(&mut self, now: Time) {
        if self.phase != Phase::Connecting {
            self.outputs.push(Output::Disconnect);
            return;
        }
        self.phase = Phase::Greeting { since: now };
        let toolchains = self.toolchains.iter().copied().take(TOOLCHAINS_MAX);
        self.send(ToScheduler::Login(Login {
            toolchains: toolchains.collect(),
            state: self.state.clone(),
            ..self.login.clone()
        }));
    }

    fn heard(&mut self, message: FromScheduler, now: Time) {
        if let Phase::Up { heard, .. } = &mut self.phase {
            *heard = now;
        }
        match (self.phase, message) {
            (Phase::Greeting { .. }, FromScheduler::Welcome { term, .. })
                if term < self.login.seen =>
            {
                self.give_up("it is no longer the master".into(), now);
            }
            (Phase::Greeting { .. }, FromScheduler::Welcome { node, name, term }) => {
                self.login.seen = term;
                self.phase = Phase::Up {
                    since: now,
                    heard: now,
                    reported: now,
                    changed: false,
                };
                self.patience = None;
                self.hops = 0;
                self.tell(LinkEvent::Up { node, name, term });
                self.report(now);
                // What the one before did not answer.
                self.outputs.extend(self.dealings.again().map(say));
            }
            (Phase::Greeting { .. }, FromScheduler::Elsewhere(_)) if self.hops < HOPS_MAX => {
                self.hops += 1;
                self.phase = Phase::Connecting;
                self.outputs.extend([Output::Disconnect, Output::Connect]);
            }
            (_, FromScheduler::Elsewhere(at)) => {
                let is_up = self.is_up();
                self.give_up(format!("it stands by for the one at {at}"), now);
                if is_up {
                    // However short it was, there is another one to connect to.
                    self.phase = Phase::Resting { until: now };
                }
            }
            (Phase::Greeting { .. }, FromScheduler::Refused(why)) => {
                self.pause = PAUSE_LONGEST;
                self.give_up(format!("the scheduler refuses this node: {why}"), now);
            }
            (Phase::Up { .. }, FromScheduler::Offer(offer)) => {
                if let Some(offer) = self.dealings.offer(offer) {
                    self.tell(LinkEvent::Offer(offer));
                }
            }
            (
                Phase::Up { .. },
                FromScheduler::Alive
                | FromScheduler::Status(_)
                | FromScheduler::Snapshot(_)
                | FromScheduler::News { .. },
            ) => {}
            (_, message) => {
                log::debug!("out of order from the scheduler: {message:?}");
                self.give_up("the scheduler makes no sense".into(), now);
            }
        }
    }

    fn tick(&mut self, now: Time) {
        if self.patience.is_some_and(|until| until <= now) {
            self.patience = None;
            self.deny_all();
        }
        match self.phase {
            Phase::Resting { until } if until <= now => {
                self.phase = Phase::Connecting;
                self.outputs.push(Output::Connect);
            }
            Phase::Greeting { since } if now.since(since) >= WELCOME_TIMEOUT => {
                self.give_up("the scheduler does not answer the login".into(), now);
            }
            Phase::Up {
                heard,
                reported,
                changed,
                ..
            } => {
                let due = report_due(reported, changed);
                let was_stopped = now.since(due.min(heard.after(SILENCE))) > LATENESS;
                if was_stopped {
                    // What the scheduler said meanwhile is still to be read.
                    if let Phase::Up { heard, .. } = &mut self.phase {
                        *heard = now;
                    }
                } else if now.since(heard) >= SILENCE {
                    let silent_ms = now.since(heard).as_millis();
                    self.give_up(format!("silent for {silent_ms} ms"), now);
                    return;
                }
                if due <= now {
                    self.report(now);
                }
            }
            Phase::Resting { .. } | Phase::Connecting | Phase::Greeting { .. } => {}
        }
    }

    fn report(&mut self, now: Time) {
        if let Phase::Up {
            reported, changed, ..
        } = &mut self.phase
        {
            *reported = now;
            *changed = false;
            self.send(ToScheduler::State(self.state.clone()));
        }
    }

    fn give_up(&mut self, why: String, now: Time) {
        self.outputs.push(Output::Disconnect);
        self.lost(why, now);
    }

    /// There is no connection now. After one that was good the next is tried at once, since a
    /// scheduler that is restarted, or another one, is there at once.
    fn lost(&mut self, why: String, now: Time) {
        let was_good = match self.phase {
            Phase::Up { since, .. } => now.since(since) >= SHORT,
            _ => false,
        };
        let was_up = self.is_up();
        let until = match was_good {
            true => {
                self.pause = PAUSE_FIRST;
                now
            }
            false => {
                let until = now.after(self.pause);
                self.pause = (self.pause * 3 / 2).min(PAUSE_LONGEST);
                until
            }
        };
        self.phase = Phase::Resting { until };
        if was_up || self.why != why {
            self.tell(LinkEvent::Down(why.clone()));
        }
        self.why = why;
        self.dealings.void_leases();
        if was_up {
            self.patience = Some(now.after(PATIENCE));
        }
    }

    /// Nobody will answer these.
    fn deny_all(&mut self) {
        let why = format!("no scheduler: {}", self.why);
        for request in self.dealings.abandon() {
            self.deny(request, why.clone());
        }
    }

    fn deny(&mut self, request: RequestId, why: String) {
        self.tell(LinkEvent::Offer(Offer::Deny { request, why }));
    }

    fn tell(&mut self, event: LinkEvent) {
        self.outputs.push(Output::Tell(event));
    }

    fn send(&mut self, message: ToScheduler) {
        self.outputs.push(Output::Send(message));
    }
}

fn say(deal: Deal) -> Output {
    Output::Send(ToScheduler::Deal(deal))
}

fn report_due(reported: Time, changed: bool) -> Time {
    reported.after(if changed {
        REPORT_SPACING
    } else {
        REPORT_EVERY
    })
}
