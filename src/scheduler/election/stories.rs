//! Stories of elections: schedulers on machines that die, freeze and are cut off, and a clock that the story
//! turns.

use super::acquaintances::KNOWN_MAX;
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
    assert_eq!(net.machines[0].election.known(net.now).len(), KNOWN_MAX);
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
