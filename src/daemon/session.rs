//! The node's side of its connection to the scheduler, as a state machine.
//!
//! Decides when to connect, what to say after a login, when a scheduler is silent for too long, and
//! what becomes of requests when there is none. After the end of one, requests wait a moment for the one that
//! takes over, and are made again there. Without a hope for one each is answered at once, so that the
//! work is done on this machine. Knows no socket and no clock; [`super::link`] has them.
//!
//! Leases belong to the connection on which they were granted. What is said of them later is swallowed here:
//! to another scheduler the number would mean somebody else's lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{Digest, LeaseId, NodeId, RequestId, Term, Time};
use crate::message::{
    Deal, FromScheduler, Login, NodeState, Offer, REPORT_EVERY_MS, ToScheduler, Want,
};
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
/// Requests that wait, at most; more are denied.
const PENDING_MAX: usize = 4096;
/// Toolchains that are told to the scheduler, at most.
const TOOLCHAINS_MAX: usize = 10_000;

/// The state machine.
#[derive(Debug)]
pub struct Session {
    login: Login,
    toolchains: BTreeSet<Digest>,
    state: NodeState,
    phase: Phase,
    pending: BTreeMap<RequestId, Want>,
    leases: BTreeSet<LeaseId>,
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
            pending: BTreeMap::new(),
            leases: BTreeSet::new(),
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

    fn command(&mut self, command: LinkCommand, now: Time) {
        match command {
            LinkCommand::Deal(deal) => self.deal(deal),
            LinkCommand::Toolchains { added, removed } => self.take_toolchains(added, removed),
            LinkCommand::LocalJobs(jobs) => {
                if matches!(self.phase, Phase::Up { .. }) {
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
        let is_up = matches!(self.phase, Phase::Up { .. });
        match deal {
            Deal::Want(want) if !is_up && self.patience.is_none() => {
                let why = format!("no scheduler: {}", self.why);
                self.deny(want.request, why);
            }
            Deal::Want(want) if self.pending.len() >= PENDING_MAX => {
                self.deny(want.request, "too many requests wait".into());
            }
            Deal::Want(want) => {
                self.pending.insert(want.request, want.clone());
                if is_up {
                    self.say(Deal::Want(want));
                }
            }
            Deal::Withdraw(request) => {
                if self.pending.remove(&request).is_some() && is_up {
                    self.say(Deal::Withdraw(request));
                }
            }
            Deal::Began { request, lease } => {
                // Even under a lease that is void, the job no longer waits.
                let waited = self.pending.remove(&request).is_some();
                if self.leases.contains(&lease) {
                    self.say(Deal::Began { request, lease });
                } else if waited && is_up {
                    self.say(Deal::Withdraw(request));
                }
            }
            Deal::Ended { lease, .. } | Deal::Way { lease, .. } => {
                if self.leases.contains(&lease) {
                    self.say(deal);
                }
            }
            Deal::Return(lease) => {
                if self.leases.remove(&lease) {
                    self.say(Deal::Return(lease));
                }
            }
        }
    }

    fn offer(&mut self, offer: Offer) {
        match offer {
            Offer::Grant(grant) => {
                self.leases.insert(grant.lease);
                self.tell(LinkEvent::Offer(Offer::Grant(grant)));
            }
            Offer::Revoke(lease) => {
                if self.leases.contains(&lease) {
                    self.tell(LinkEvent::Offer(Offer::Revoke(lease)));
                }
            }
            Offer::Size { request, size } => {
                if self.pending.contains_key(&request) {
                    self.tell(LinkEvent::Offer(Offer::Size { request, size }));
                }
            }
            Offer::Deny { request, why } => {
                if self.pending.remove(&request).is_some() {
                    self.deny(request, why);
                }
            }
        }
    }

    fn tell_capacity(&mut self) {
        if matches!(self.phase, Phase::Up { .. }) {
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
        if matches!(self.phase, Phase::Up { .. }) && !(added.is_empty() && removed.is_empty()) {
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
                // What the one before did not answer. The numbers of its nodes mean nothing here.
                for mut want in self.pending.values().cloned().collect::<Vec<_>>() {
                    want.except.clear();
                    self.say(Deal::Want(want));
                }
            }
            (Phase::Greeting { .. }, FromScheduler::Elsewhere(_)) if self.hops < HOPS_MAX => {
                self.hops += 1;
                self.phase = Phase::Connecting;
                self.outputs.extend([Output::Disconnect, Output::Connect]);
            }
            (_, FromScheduler::Elsewhere(at)) => {
                let is_up = matches!(self.phase, Phase::Up { .. });
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
            (Phase::Up { .. }, FromScheduler::Offer(offer)) => self.offer(offer),
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
        let was_up = matches!(self.phase, Phase::Up { .. });
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
        self.leases.clear();
        if was_up {
            self.patience = Some(now.after(PATIENCE));
        }
    }

    /// Nobody will answer these.
    fn deny_all(&mut self) {
        let why = format!("no scheduler: {}", self.why);
        for request in std::mem::take(&mut self.pending).into_keys() {
            self.deny(request, why.clone());
        }
    }

    fn deny(&mut self, request: RequestId, why: String) {
        self.tell(LinkEvent::Offer(Offer::Deny { request, why }));
    }

    fn tell(&mut self, event: LinkEvent) {
        self.outputs.push(Output::Tell(event));
    }

    fn say(&mut self, deal: Deal) {
        self.send(ToScheduler::Deal(deal));
    }

    fn send(&mut self, message: ToScheduler) {
        self.outputs.push(Output::Send(message));
    }
}

fn report_due(reported: Time, changed: bool) -> Time {
    reported.after(if changed {
        REPORT_SPACING
    } else {
        REPORT_EVERY
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Bytes;
    use crate::message::{Failure, Grant, Home, Outcome, OwnNode, Terms};

    struct Story {
        session: Session,
        now: Time,
    }

    impl Story {
        fn new() -> Self {
            let login = Login {
                port: 10245,
                slots: 4,
                ..Login::new("n", "ICE", "x86_64")
            };
            Self {
                session: Session::new(login),
                now: Time(0),
            }
        }

        /// Connected and welcome, with the outputs of that taken.
        fn up() -> Self {
            let mut story = Self::new();
            assert_eq!(story.input(Input::Tick), [Output::Connect]);
            let _login = story.input(Input::Connected);
            story.welcome();
            story
        }

        fn welcome(&mut self) -> Vec<Output> {
            self.hear(FromScheduler::Welcome {
                node: NodeId(3),
                name: "n".into(),
                term: Term(5),
            })
        }

        fn input(&mut self, input: Input) -> Vec<Output> {
            self.session.on_input(input, self.now)
        }

        fn hear(&mut self, message: FromScheduler) -> Vec<Output> {
            self.input(Input::Heard(message))
        }

        fn command(&mut self, command: LinkCommand) -> Vec<Output> {
            self.input(Input::Command(command))
        }

        fn deal(&mut self, deal: Deal) -> Vec<Output> {
            self.command(LinkCommand::Deal(deal))
        }

        fn pass_ms(&mut self, time_ms: u64) {
            self.now = self.now.after(Duration::from_millis(time_ms));
        }

        /// Goes to the next wake and ticks; the time that passed, in milliseconds, and the outputs.
        fn wake(&mut self) -> (u128, Vec<Output>) {
            let wake = self.session.next_wake().unwrap().max(self.now);
            let passed = wake.since(self.now).as_millis();
            self.now = wake;
            (passed, self.input(Input::Tick))
        }
    }

    fn want(request: u64) -> Want {
        Want {
            file: Bytes::from("a.c"),
            own: OwnNode::Locally,
            ..Want::new(RequestId(request), Digest([0; 32]), Terms::new("x86_64"))
        }
    }

    fn grant(request: u64, lease: u64) -> Offer {
        Offer::Grant(Grant {
            request: RequestId(request),
            terms: Terms::new("x86_64"),
            lease: LeaseId(lease),
            node: NodeId(9),
            name: "w".into(),
            address: "10.0.0.9:10245".parse().unwrap(),
            term: Term(5),
            home: Home::No,
            once: false,
            slowness_milli: 1000,
            memory_mib: 0,
        })
    }

    fn began(request: u64, lease: u64) -> Deal {
        Deal::Began {
            request: RequestId(request),
            lease: LeaseId(lease),
        }
    }

    fn said(deal: Deal) -> Output {
        Output::Send(ToScheduler::Deal(deal))
    }

    fn told(offer: Offer) -> Output {
        Output::Tell(LinkEvent::Offer(offer))
    }

    fn busy(local_jobs: u32) -> NodeState {
        NodeState {
            local_jobs,
            ..NodeState::default()
        }
    }

    fn denied(outputs: &[Output]) -> Vec<u64> {
        let denied = outputs.iter().filter_map(|output| match output {
            Output::Tell(LinkEvent::Offer(Offer::Deny { request, why })) => {
                assert!(why.starts_with("no scheduler"), "{why}");
                Some(request.0)
            }
            _ => None,
        });
        denied.collect()
    }

    #[test]
    fn a_node_connects_logs_in_with_its_toolchains_and_reports() {
        let mut story = Story::new();
        assert_eq!(story.input(Input::Tick), [Output::Connect]);
        let gcc = Digest([1; 32]);
        let added = vec![gcc];
        let removed = vec![];
        assert_eq!(
            story.command(LinkCommand::Toolchains { added, removed }),
            []
        );
        assert_eq!(story.command(LinkCommand::State(busy(2))), []);
        match &story.input(Input::Connected)[..] {
            [Output::Send(ToScheduler::Login(login))] => assert_eq!(login.toolchains, [gcc]),
            other => panic!("{other:?}"),
        }
        let up = LinkEvent::Up {
            node: NodeId(3),
            name: "n".into(),
            term: Term(5),
        };
        assert_eq!(
            story.welcome(),
            [Output::Tell(up), Output::Send(ToScheduler::State(busy(2)))]
        );
    }

    #[test]
    fn a_change_of_capacity_is_told_at_once_and_to_the_next_scheduler() {
        let mut story = Story::up();
        let told = |no_remote: Option<&str>| {
            let no_remote = no_remote.map(str::to_owned);
            vec![Output::Send(ToScheduler::Capacity {
                slots: 7,
                no_remote,
            })]
        };
        assert_eq!(story.command(LinkCommand::Slots(7)), told(None));
        let command = LinkCommand::NoRemote("it rests".to_owned());
        assert_eq!(story.command(command), told(Some("it rests")));
        let _ = story.input(Input::Lost("it ended".into()));
        let _ = story.wake();
        match &story.input(Input::Connected)[..] {
            [Output::Send(ToScheduler::Login(login))] => {
                assert_eq!(login.slots, 7);
                assert_eq!(login.no_remote.as_deref(), Some("it rests"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_scheduler_requests_are_denied_at_once() {
        let mut story = Story::new();
        assert_eq!(denied(&story.deal(Deal::Want(want(1)))), [1]);
        let _ = story.input(Input::Tick);
        assert_eq!(denied(&story.deal(Deal::Want(want(2)))), [2]);
        let _ = story.input(Input::Connected);
        assert_eq!(denied(&story.deal(Deal::Want(want(3)))), [3]);
        story.welcome();
        let want = Deal::Want(want(4));
        assert_eq!(story.deal(want.clone()), [said(want)]);
    }

    #[test]
    fn when_the_scheduler_goes_leases_are_void_and_requests_wait_for_the_next() {
        let mut story = Story::up();
        for request in 1..=4 {
            let _ = story.deal(Deal::Want(want(request)));
        }
        let offer = grant(1, 71);
        let expect = told(offer.clone());
        assert_eq!(story.hear(FromScheduler::Offer(offer)), [expect]);
        assert_eq!(story.deal(began(1, 71)), [said(began(1, 71))]);
        story.pass_ms(5000);
        let outputs = story.input(Input::Lost("it ended".into()));
        let down = Output::Tell(LinkEvent::Down("it ended".into()));
        assert_eq!(outputs, [down]);
        // Meanwhile one is withdrawn, one comes, and one begins under the lease that is void.
        assert_eq!(story.deal(Deal::Withdraw(RequestId(2))), []);
        assert_eq!(story.deal(Deal::Want(want(5))), []);
        assert_eq!(story.deal(began(3, 71)), []);
        assert_eq!(story.wake(), (0, vec![Output::Connect]));
        let _ = story.input(Input::Connected);
        let outputs = story.welcome();
        let again = [4, 5].map(|request| said(Deal::Want(want(request))));
        assert_eq!(outputs[2..], again);
        // This scheduler may use number 71 for another's lease.
        assert_eq!(story.deal(Deal::Return(LeaseId(71))), []);
        assert_eq!(
            story.deal(began(4, 71)),
            [said(Deal::Withdraw(RequestId(4)))]
        );
    }

    #[test]
    fn a_scheduler_of_an_earlier_term_is_not_obeyed() {
        let mut story = Story::up();
        let _ = story.command(LinkCommand::State(busy(2)));
        let _ = story.input(Input::Lost("it ended".into()));
        let _ = story.wake();
        match &story.input(Input::Connected)[..] {
            [Output::Send(ToScheduler::Login(login))] => {
                assert_eq!(login.seen, Term(5));
                assert_eq!(
                    login.state,
                    busy(2),
                    "what runs is known before anything is lent"
                );
            }
            other => panic!("{other:?}"),
        }
        let (node, name) = (NodeId(1), "n".to_owned());
        let term = Term(4);
        let outputs = story.hear(FromScheduler::Welcome { node, name, term });
        assert_eq!(outputs[0], Output::Disconnect);
        assert!(
            !outputs
                .iter()
                .any(|output| matches!(output, Output::Tell(LinkEvent::Up { .. })))
        );
    }

    #[test]
    fn who_is_sent_elsewhere_goes_there_at_once_but_not_for_ever() {
        let at = "10.0.0.2:8765".parse().unwrap();
        let mut story = Story::new();
        let _ = story.wake();
        for _ in 0..HOPS_MAX {
            let _ = story.input(Input::Connected);
            let outputs = story.hear(FromScheduler::Elsewhere(at));
            assert_eq!(outputs, [Output::Disconnect, Output::Connect]);
        }
        let _ = story.input(Input::Connected);
        let outputs = story.hear(FromScheduler::Elsewhere(at));
        assert_eq!(outputs[0], Output::Disconnect);
        assert_eq!(story.wake(), (500, vec![Output::Connect]));

        // A master that steps down.
        let mut story = Story::up();
        let _ = story.deal(Deal::Want(want(1)));
        let outputs = story.hear(FromScheduler::Elsewhere(at));
        assert_eq!(denied(&outputs), [] as [u64; 0]);
        assert_eq!(story.wake(), (0, vec![Output::Connect]));
    }

    #[test]
    fn when_no_other_scheduler_comes_in_time_requests_are_denied() {
        let mut story = Story::up();
        let _ = story.deal(Deal::Want(want(1)));
        story.pass_ms(5000);
        let _ = story.input(Input::Lost("it ended".into()));
        assert_eq!(story.wake(), (0, vec![Output::Connect]));
        let outputs = story.input(Input::Lost("refused".into()));
        assert_eq!(denied(&outputs), [0; 0]);
        let mut waited = 0;
        loop {
            let (passed, outputs) = story.wake();
            waited += passed;
            if denied(&outputs) == [1] {
                break;
            }
            if outputs.contains(&Output::Connect) {
                let _ = story.input(Input::Lost("refused".into()));
            }
        }
        assert_eq!(waited, PATIENCE.as_millis());
        assert_eq!(denied(&story.deal(Deal::Want(want(2)))), [2]);
    }

    #[test]
    fn what_is_said_of_leases_is_passed_on_as_long_as_they_are_held() {
        let mut story = Story::up();
        let _ = story.deal(Deal::Want(want(1)));
        let request = RequestId(1);
        let lease = LeaseId(71);
        let ended = Deal::Ended {
            request,
            lease,
            outcome: Outcome::Failed {
                failure: Failure::Busy,
                dead: false,
            },
        };
        let revoke = Offer::Revoke(lease);
        for unknown in [
            ended.clone(),
            Deal::Return(lease),
            Deal::Withdraw(RequestId(9)),
        ] {
            assert_eq!(story.deal(unknown), []);
        }
        assert_eq!(story.hear(FromScheduler::Offer(revoke.clone())), []);
        let offer = grant(1, 71);
        assert_eq!(
            story.hear(FromScheduler::Offer(offer.clone())),
            [told(offer)]
        );
        for known in [began(1, 71), ended] {
            assert_eq!(story.deal(known.clone()), [said(known)]);
        }
        assert_eq!(
            story.hear(FromScheduler::Offer(revoke.clone())),
            [told(revoke)]
        );
        let back = Deal::Return(lease);
        assert_eq!(story.deal(back.clone()), [said(back.clone())]);
        assert_eq!(story.deal(back), [], "once");
    }

    #[test]
    fn a_denial_is_passed_on_word_for_word() {
        let mut story = Story::up();
        let _ = story.deal(Deal::Want(want(1)));
        let request = RequestId(1);
        let why = String::from("nobody");
        let deny = Offer::Deny { request, why };
        let heard = FromScheduler::Offer(deny.clone());
        assert_eq!(story.hear(heard.clone()), [told(deny)]);
        assert_eq!(story.hear(heard), [], "it is no longer pending");
    }

    #[test]
    fn the_node_reports_every_half_second_and_notices_silence_within_two() {
        let mut story = Story::up();
        let report = vec![Output::Send(ToScheduler::State(NodeState::default()))];
        for _ in 0..4 {
            assert_eq!(story.wake(), (500, report.clone()));
            assert_eq!(story.hear(FromScheduler::Alive), []);
        }
        assert_eq!(story.wake(), (500, report.clone()));
        assert_eq!(story.wake(), (500, report));
        let (passed, outputs) = story.wake();
        assert_eq!(passed, 500);
        let why = "silent for 1500 ms".to_owned();
        assert_eq!(
            outputs,
            [Output::Disconnect, Output::Tell(LinkEvent::Down(why))]
        );
        assert_eq!(story.wake(), (0, vec![Output::Connect]));
    }

    #[test]
    fn a_process_that_was_itself_stopped_does_not_blame_the_scheduler() {
        let mut story = Story::up();
        story.pass_ms(60_000);
        let report = Output::Send(ToScheduler::State(NodeState::default()));
        assert_eq!(story.input(Input::Tick), [report]);
    }

    #[test]
    fn changes_are_reported_at_once_but_not_in_a_flood() {
        let mut story = Story::up();
        story.pass_ms(100);
        let report = |jobs| Output::Send(ToScheduler::State(busy(jobs)));
        assert_eq!(story.command(LinkCommand::State(busy(1))), [report(1)]);
        assert_eq!(story.command(LinkCommand::State(busy(2))), []);
        assert_eq!(story.command(LinkCommand::State(busy(3))), []);
        assert_eq!(story.wake(), (20, vec![report(3)]));
        assert_eq!(story.wake(), (500, vec![report(3)]));
    }

    #[test]
    fn attempts_become_rarer_and_each_reason_is_told_once() {
        let mut story = Story::new();
        let mut pauses = Vec::new();
        let mut told = 0;
        for _ in 0..8 {
            let (passed, outputs) = story.wake();
            assert_eq!(outputs, [Output::Connect]);
            pauses.push(passed);
            told += story.input(Input::Lost("refused".into())).len();
        }
        assert_eq!(pauses, [0, 500, 750, 1125, 1687, 2531, 3000, 3000]);
        assert_eq!(told, 1);
    }

    #[test]
    fn a_scheduler_that_refuses_or_drops_at_once_is_not_hammered() {
        let mut story = Story::new();
        let _ = story.wake();
        let _ = story.input(Input::Connected);
        let outputs = story.hear(FromScheduler::Refused("netname".into()));
        assert_eq!(outputs[0], Output::Disconnect);
        assert_eq!(story.wake(), (3000, vec![Output::Connect]));

        let mut story = Story::up();
        let _ = story.input(Input::Lost("dropped".into()));
        assert_eq!(story.wake(), (500, vec![Output::Connect]));
    }

    #[test]
    fn a_scheduler_that_does_not_answer_or_babbles_is_left() {
        let mut story = Story::new();
        let _ = story.wake();
        let _ = story.input(Input::Connected);
        let (passed, outputs) = story.wake();
        assert_eq!((passed, &outputs[0]), (2000, &Output::Disconnect));

        let mut story = Story::up();
        let outputs = story.welcome();
        assert_eq!(outputs[0], Output::Disconnect);
    }

    #[test]
    fn pending_requests_and_toolchains_are_bounded() {
        let mut story = Story::up();
        for request in 0..PENDING_MAX as u64 {
            let _ = story.deal(Deal::Want(want(request)));
        }
        assert!(matches!(
            &story.deal(Deal::Want(want(9999)))[..],
            [Output::Tell(LinkEvent::Offer(Offer::Deny { .. }))]
        ));
        let added = (0..20_000u32).map(|number| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            Digest(digest)
        });
        let command = LinkCommand::Toolchains {
            added: added.collect(),
            removed: vec![],
        };
        match &story.command(command)[..] {
            [Output::Send(ToScheduler::Toolchains { added, .. })] => {
                assert_eq!(added.len(), TOOLCHAINS_MAX);
            }
            other => panic!("{other:?}"),
        }
    }
}
