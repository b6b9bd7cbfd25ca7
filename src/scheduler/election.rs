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

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{SchedulerId, Term, Time};
use crate::message::{Claim, Office};

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
/// Who has not answered for so long does not stand by any more.
const FORGET: Duration = Duration::from_millis(3500);
/// A tick that comes so much too late says that this process was stopped.
const LATENESS: Duration = Duration::from_millis(500);
/// Questions that others provoke are this far apart.
const ASK_SPACING: Duration = Duration::from_millis(20);
/// Schedulers that are remembered, at most.
const KNOWN_MAX: usize = 256;
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
    known: BTreeMap<SchedulerId, Known>,
    /// When the next question is due.
    ask_at: Time,
    asked: Option<Time>,
    actions: Vec<Action>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    claim: Claim,
    at: SocketAddr,
    heard: Time,
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
            known: BTreeMap::new(),
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
        let lately = |known: &&Known| now.since(known.heard) < FORGET;
        let mut known: Vec<&Known> = self.known.values().filter(lately).collect();
        known.sort_by_key(|known| rank(&known.claim));
        known.into_iter().map(|known| known.at).collect()
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
        self.remember(claim, at, now);
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
        let is_news = match self.known.get(&claim.id) {
            None => self.known.len() < KNOWN_MAX,
            Some(known) => known.claim != claim || now.since(known.heard) >= SURVEY_EVERY,
        };
        if is_news {
            self.ask(at, now);
        }
        if claim.office == Office::Looking {
            // It may have noticed before us that the master is gone.
            self.watch(now);
        }
    }

    fn unreachable(&mut self, gone: SocketAddr, now: Time) {
        self.known.retain(|_, known| known.at != gone);
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
                self.known.remove(&master);
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
        let others = self.known.values().filter(|known| {
            known.heard >= *since
                && !passed.contains(&known.claim.id)
                && known.claim.office != Office::Master
        });
        let first = others.map(|known| rank(&known.claim)).min();
        match first {
            Some(first) if first < (self.started_ms, self.id) => {
                *awaited = Some(first.1);
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

    fn remember(&mut self, claim: Claim, at: SocketAddr, now: Time) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&claim.id) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.heard);
            if let Some((&oldest, _)) = oldest {
                self.known.remove(&oldest);
            }
        }
        let heard = now;
        let at = match self.known.get(&claim.id) {
            Some(known) if is_better(known.at, at) && now.since(known.heard) < FORGET => known.at,
            _ => at,
        };
        self.known.insert(claim.id, Known { claim, at, heard });
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

/// Whether a scheduler is rather to be found at one address than at the other: an address of the link
/// means nothing without the interface, whose number is every machine's own.
fn is_better(one: SocketAddr, other: SocketAddr) -> bool {
    let is_of_link = |at: SocketAddr| match at {
        SocketAddr::V6(at) => at.ip().is_unicast_link_local(),
        SocketAddr::V4(_) => false,
    };
    !is_of_link(one) && is_of_link(other)
}

/// Who leads before whom, when there is no master: the one that started first.
fn rank(claim: &Claim) -> (u64, SchedulerId) {
    (claim.started_ms, claim.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Schedulers on machines `10.0.0.1` and on, and a network that takes a millisecond.
    struct Net {
        now: Time,
        machines: Vec<Machine>,
        /// Pairs that can't hear each other.
        cut: BTreeSet<(usize, usize)>,
        under_way: Vec<(Time, usize, usize, Datagram)>,
    }

    struct Machine {
        election: Election,
        is_alive: bool,
        is_frozen: bool,
        role: Role,
        /// When it became what it is.
        since: Time,
        terms: Vec<Term>,
    }

    #[derive(Clone, Copy)]
    enum Datagram {
        Question(Claim),
        Answer(Claim),
        Unreachable,
    }

    fn address(machine: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, machine as u8 + 1], 8765))
    }

    impl Net {
        /// Machines that start at these times, in milliseconds.
        fn of(starts: &[u64]) -> Self {
            let mut net = Self {
                now: Time(0),
                machines: Vec::new(),
                cut: BTreeSet::new(),
                under_way: Vec::new(),
            };
            for &start in starts {
                net.add(start);
            }
            net
        }

        fn add(&mut self, started_ms: u64) {
            let id = SchedulerId(100 - self.machines.len() as u64);
            self.machines.push(Machine {
                election: Election::new(id, started_ms, 8765, false, self.now),
                is_alive: true,
                is_frozen: false,
                role: Role::Undecided,
                since: self.now,
                terms: Vec::new(),
            });
        }

        fn kill(&mut self, machine: usize) {
            self.machines[machine].is_alive = false;
        }

        fn freeze(&mut self, machine: usize, is_frozen: bool) {
            self.machines[machine].is_frozen = is_frozen;
        }

        fn cut(&mut self, side: &[usize]) {
            for a in 0..self.machines.len() {
                for b in 0..self.machines.len() {
                    if side.contains(&a) != side.contains(&b) {
                        self.cut.insert((a, b));
                    }
                }
            }
        }

        fn event(&mut self, machine: usize, event: Event) {
            let now = self.now;
            let actions = self.machines[machine].election.on_event(event, now);
            for action in actions {
                let claim = self.machines[machine].election.claim();
                match action {
                    Action::AskAll => {
                        for other in 0..self.machines.len() {
                            self.send(machine, other, Datagram::Question(claim));
                        }
                    }
                    Action::Ask(at) => {
                        let other = (0..self.machines.len()).find(|&m| address(m) == at);
                        self.send(machine, other.unwrap(), Datagram::Question(claim));
                    }
                    Action::Become(role) => {
                        let machine = &mut self.machines[machine];
                        machine.role = role;
                        machine.since = now;
                        if let Role::Master(term) = role {
                            machine.terms.push(term);
                        }
                    }
                }
            }
        }

        fn send(&mut self, from: usize, to: usize, datagram: Datagram) {
            if !self.cut.contains(&(from, to)) {
                let at = self.now.after(Duration::from_millis(1));
                self.under_way.push((at, from, to, datagram));
            }
        }

        fn deliver(&mut self, from: usize, to: usize, datagram: Datagram) {
            let at = address(from);
            match datagram {
                _ if !self.machines[to].is_alive => {
                    if let Datagram::Question(_) = datagram {
                        self.send(to, from, Datagram::Unreachable);
                    }
                }
                Datagram::Question(claim) => {
                    let answer = self.machines[to].election.claim();
                    self.send(to, from, Datagram::Answer(answer));
                    self.event(to, Event::Asked { claim, at });
                }
                Datagram::Answer(claim) => self.event(to, Event::Answered { claim, at }),
                Datagram::Unreachable => self.event(to, Event::Unreachable(at)),
            }
        }

        fn pass_ms(&mut self, time_ms: u64) {
            for _ in 0..time_ms {
                self.now = self.now.after(Duration::from_millis(1));
                let (due, later) = std::mem::take(&mut self.under_way)
                    .into_iter()
                    .partition(|(at, _, to, _)| *at <= self.now && !self.machines[*to].is_frozen);
                self.under_way = later;
                for (_, from, to, datagram) in due {
                    self.deliver(from, to, datagram);
                }
                for machine in 0..self.machines.len() {
                    let m = &self.machines[machine];
                    if m.is_alive && !m.is_frozen && m.election.next_wake() <= self.now {
                        self.event(machine, Event::Tick);
                    }
                }
            }
        }

        fn masters(&self) -> Vec<usize> {
            (0..self.machines.len())
                .filter(|&m| self.machines[m].is_alive && !self.machines[m].is_frozen)
                .filter(|&m| matches!(self.machines[m].role, Role::Master(_)))
                .collect()
        }

        /// That `master` leads and all others that live stand by for it.
        #[track_caller]
        fn assert_led_by(&self, master: usize) {
            assert_eq!(self.masters(), [master]);
            for (number, machine) in self.machines.iter().enumerate() {
                if number != master && machine.is_alive && !machine.is_frozen {
                    assert_eq!(machine.role, Role::Standby(address(master)), "{number}");
                }
            }
        }

        fn term(&self, machine: usize) -> Term {
            *self.machines[machine].terms.last().expect("it has led")
        }
    }

    #[test]
    fn a_master_with_several_addresses_is_named_by_one_that_all_can_use() {
        let [v4, other_v4, link]: [SocketAddr; 3] =
            ["10.0.0.1:8765", "10.9.0.1:8765", "[fe80::1%3]:8765"].map(|at| at.parse().unwrap());
        let claim = Claim {
            id: SchedulerId(1),
            started_ms: 1000,
            term: Term::default().next(1000),
            office: Office::Master,
            port: 8765,
        };
        // Where the answers come from, in order, and what it stands by for after each.
        for (answers, named) in [
            (vec![v4, link, other_v4, v4], [v4, v4, v4, v4]),
            (vec![link, v4, link, other_v4], [link, v4, v4, v4]),
        ] {
            let mut election = Election::new(SchedulerId(2), 2000, 8765, false, Time(0));
            let mut role = Role::Undecided;
            for (at, named) in answers.into_iter().zip(named) {
                for action in election.on_event(Event::Answered { claim, at }, Time(1)) {
                    if let Action::Become(now) = action {
                        role = now;
                    }
                }
                assert_eq!(role, Role::Standby(named));
                let known = election.known(Time(2));
                assert_eq!(known[0].is_ipv4(), named.is_ipv4());
                // The next question goes to whom everybody is sent.
                let asked = election.on_event(Event::Tick, Time(1));
                assert!(asked.iter().all(|action| *action == Action::Ask(named)));
                let later = Time(1).after(ASK_SPACING);
                let asked = election.on_event(Event::Needed, later);
                assert_eq!(asked.last(), Some(&Action::Ask(named)));
                election.asked = None;
            }
        }
    }

    #[test]
    fn a_scheduler_that_is_alone_leads_after_a_moment() {
        let mut net = Net::of(&[1000]);
        net.pass_ms(250);
        assert_eq!(net.masters(), [] as [usize; 0]);
        net.pass_ms(100);
        net.assert_led_by(0);
    }

    #[test]
    fn of_many_that_start_together_the_oldest_leads_and_the_number_decides_a_tie() {
        for (starts, master) in [
            (&[3, 2, 1, 4][..], 2),
            (&[1, 2, 3, 4], 0),
            // Later machines have lower numbers.
            (&[5, 5, 5, 5], 3),
        ] {
            let mut net = Net::of(starts);
            net.pass_ms(1000);
            net.assert_led_by(master);
            let elections: usize = net.machines.iter().map(|m| m.terms.len()).sum();
            assert_eq!(elections, 1, "{starts:?}");
        }
    }

    #[test]
    fn who_comes_later_stands_by_even_with_an_older_clock() {
        let mut net = Net::of(&[1000]);
        net.pass_ms(1000);
        net.add(1);
        net.pass_ms(1500);
        net.assert_led_by(0);
        assert_eq!(net.machines[0].terms.len(), 1);
        assert_eq!(net.machines[0].election.known(net.now), [address(1)]);
    }

    #[test]
    fn when_the_master_dies_the_next_leads_in_a_later_term_within_half_a_second() {
        for count in [2, 3, 20] {
            let mut net = Net::of(&(0..count).collect::<Vec<u64>>());
            net.pass_ms(2345);
            net.assert_led_by(0);
            net.kill(0);
            let died = net.now;
            net.pass_ms(2000);
            net.assert_led_by(1);
            let took = net.machines[1].since.since(died);
            assert!(took <= Duration::from_millis(500), "{took:?}");
            assert!(net.term(1) > net.term(0));
            let elections: usize = net.machines.iter().map(|m| m.terms.len()).sum();
            assert_eq!(elections, 2);
        }
    }

    #[test]
    fn a_standby_that_is_asked_for_the_master_finds_its_death_at_once() {
        let mut net = Net::of(&[1, 2]);
        net.pass_ms(2000);
        // Its last question is fresh, so the next one is far.
        while net.machines[1].election.ask_at.since(net.now) < Duration::from_millis(190) {
            net.pass_ms(1);
        }
        net.pass_ms(25);
        net.kill(0);
        net.event(1, Event::Needed);
        net.pass_ms(160);
        net.assert_led_by(1);
    }

    #[test]
    fn a_master_that_hangs_is_replaced_within_a_second_and_a_half_and_obeys_when_it_wakes() {
        let mut net = Net::of(&[1, 2, 3]);
        net.pass_ms(2000);
        net.freeze(0, true);
        let hung = net.now;
        net.pass_ms(5000);
        net.assert_led_by(1);
        let took = net.machines[1].since.since(hung);
        assert!(took <= Duration::from_millis(1400), "{took:?}");
        net.freeze(0, false);
        net.pass_ms(50);
        net.assert_led_by(1);
        assert_eq!(net.machines[1].terms.len(), 1);
        assert_eq!(net.machines[0].terms.len(), 1);
    }

    #[test]
    fn a_standby_that_hangs_does_not_blame_the_master() {
        let mut net = Net::of(&[1, 2]);
        net.pass_ms(2000);
        net.freeze(1, true);
        net.pass_ms(5000);
        net.freeze(1, false);
        net.pass_ms(1000);
        net.assert_led_by(0);
        assert_eq!(net.machines[0].terms.len(), 1);
    }

    #[test]
    fn both_sides_of_a_partition_go_on_and_one_master_stays_when_it_heals() {
        // The other side has had an election, so its term is the later one.
        let mut net = Net::of(&[1, 2, 3, 4]);
        net.pass_ms(2000);
        net.cut(&[0, 1]);
        net.pass_ms(3000);
        assert_eq!(net.masters(), [0, 2]);
        net.cut.clear();
        net.pass_ms(1300);
        net.assert_led_by(2);
        assert_eq!(net.machines[2].terms.len(), 1, "who stays is not disturbed");
    }

    #[test]
    fn two_that_were_elected_apart_become_one() {
        for (starts, master, terms) in [
            (&[1, 2][..], 0, 1),
            (&[2, 1], 1, 1),
            // Their terms are equal: the lower number stays, in a new term.
            (&[7, 7], 1, 2),
        ] {
            let mut net = Net::of(starts);
            net.cut(&[0]);
            net.pass_ms(1000);
            assert_eq!(net.masters(), [0, 1]);
            net.cut.clear();
            net.pass_ms(1500);
            net.assert_led_by(master);
            assert_eq!(net.machines[master].terms.len(), terms, "{starts:?}");
            let other = 1 - master;
            assert!(net.term(master) > net.term(other));
        }
    }

    #[test]
    fn a_master_that_meets_a_node_from_a_later_term_starts_a_later_one() {
        let mut net = Net::of(&[1]);
        net.pass_ms(1000);
        let seen = Term::default().next(9).next(9).next(9);
        net.event(0, Event::Seen(seen));
        assert_eq!(net.machines[0].role, Role::Undecided);
        net.pass_ms(500);
        net.assert_led_by(0);
        assert!(net.term(0) > seen);
        // The same is no news any more.
        net.event(0, Event::Seen(seen));
        net.assert_led_by(0);
    }

    #[test]
    fn one_that_is_persistent_leads_at_once_and_beside_others() {
        let mut net = Net::of(&[1]);
        net.pass_ms(2000);
        net.add(2);
        let id = SchedulerId(7);
        net.machines[1].election = Election::new(id, 2, 8765, true, net.now);
        net.pass_ms(2);
        assert_eq!(net.masters(), [0, 1]);
        net.pass_ms(5000);
        assert_eq!(net.masters(), [0, 1]);
        let seen = net.term(0);
        net.event(1, Event::Seen(seen));
        assert!(net.term(1) > seen);
        // Now it is the later one, and the other obeys.
        net.pass_ms(1500);
        net.assert_led_by(1);
    }

    #[test]
    fn repeated_questions_of_the_dead_change_nothing() {
        let mut net = Net::of(&[1, 2]);
        net.pass_ms(2000);
        let recorded = net.machines[0].election.claim();
        let later = Claim {
            term: recorded.term.next(0),
            ..recorded
        };
        net.kill(0);
        net.pass_ms(1000);
        net.assert_led_by(1);
        for claim in [recorded, later] {
            for _ in 0..100 {
                net.event(
                    1,
                    Event::Asked {
                        claim,
                        at: address(0),
                    },
                );
                net.pass_ms(10);
            }
        }
        net.assert_led_by(1);
        assert_eq!(net.machines[1].terms.len(), 1);
        assert_eq!(net.machines[1].election.known(net.now), []);
    }

    #[test]
    fn one_that_should_lead_and_does_not_is_passed_over() {
        let mut net = Net::of(&[1, 2, 3]);
        net.pass_ms(2000);
        net.kill(0);
        // It answers as a standby for ever.
        let stubborn = net.machines[1].election.claim();
        net.kill(1);
        for _ in 0..200 {
            net.pass_ms(10);
            let at = address(1);
            net.event(
                2,
                Event::Answered {
                    claim: stubborn,
                    at,
                },
            );
        }
        net.assert_led_by(2);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut net = Net::of(&[1]);
        net.pass_ms(1000);
        let mut claim = net.machines[0].election.claim();
        claim.office = Office::Standby;
        for number in 0..1000 {
            claim.id = SchedulerId(number + 1000);
            let at = address(0);
            let _ = net.machines[0]
                .election
                .on_event(Event::Answered { claim, at }, net.now);
        }
        assert_eq!(net.machines[0].election.known.len(), KNOWN_MAX);
    }

    #[test]
    fn lost_datagrams_unseat_nobody() {
        // A third of them, by a fixed pattern.
        let mut net = Net::of(&[1, 2, 3]);
        net.pass_ms(2000);
        for _ in 0..2000 {
            let mut number = 0;
            net.under_way.retain(|(_, from, to, _)| {
                number += 1;
                !(net.now.0 / 1000 + *from as u64 * 3 + *to as u64 + number).is_multiple_of(3)
            });
            net.pass_ms(2);
        }
        net.assert_led_by(0);
        assert_eq!(net.machines[0].terms.len(), 1);
    }
}
