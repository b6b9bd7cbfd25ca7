//! What a submitter does with leases and jobs, told as stories. Tests only.

use std::time::Duration;

use super::state::{Action, Event, HOLD, Holdings};
use crate::id::{Bytes, Digest, LeaseId, NodeId, RequestId, Time};
use crate::message::{
    Deal, Failure, Grant, Home, Offer, Outcome, OwnNode, Size, Terms, Usage, Want,
};
use crate::submitter::ways::Measured;

const MS: u64 = 1000;

struct Story {
    holdings: Holdings,
    now: Time,
    leases: u64,
}

impl Story {
    fn new() -> Self {
        Self {
            holdings: Holdings::default(),
            now: Time(0),
            leases: 0,
        }
    }

    fn terms() -> Terms {
        Terms {
            niceness: 0,
            platform: "x86_64".into(),
            preferred: String::new(),
        }
    }

    fn want_with(&mut self, change: impl FnOnce(&mut Want)) -> (RequestId, Vec<Action>) {
        let mut want = Want {
            request: RequestId(0),
            toolchain: Digest([1; 32]),
            toolchain_bytes: 0,
            terms: Self::terms(),
            file: Bytes::from("a.c"),
            variant: 0,
            except: vec![],
            own: OwnNode::Locally,
        };
        change(&mut want);
        self.holdings.want(want, self.now)
    }

    fn want(&mut self) -> (RequestId, Vec<Action>) {
        self.want_with(|_| {})
    }

    fn grant_with(&mut self, node: u32, change: impl FnOnce(&mut Grant)) -> (LeaseId, Vec<Action>) {
        self.leases += 1;
        let mut grant = Grant {
            request: RequestId(u64::MAX),
            terms: Self::terms(),
            lease: LeaseId(self.leases),
            node: NodeId(node),
            name: format!("n{node}"),
            address: "10.0.0.1:1".parse().unwrap(),
            term: crate::id::Term::default(),
            home: Home::No,
            once: false,
            slowness_milli: 1000,
            memory_mib: 0,
        };
        change(&mut grant);
        let lease = grant.lease;
        (lease, self.event(Event::Offer(Offer::Grant(grant))))
    }

    fn grant(&mut self, node: u32) -> (LeaseId, Vec<Action>) {
        self.grant_with(node, |_| {})
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.holdings.on_event(event, self.now)
    }

    fn end(&mut self, request: RequestId, lease: LeaseId, outcome: Outcome) -> Vec<Action> {
        self.event(Event::Ended {
            request,
            lease,
            outcome,
        })
    }

    fn pass(&mut self, time_ms: u64) -> Vec<Action> {
        self.now = self.now.after(Duration::from_millis(time_ms));
        self.event(Event::Tick)
    }

    fn far(&mut self, node: u32) {
        let _ = self.event(Event::Way(
            NodeId(node),
            Measured::Travel(Duration::from_millis(50)),
        ));
    }

    fn revoke(&mut self, lease: LeaseId) -> Vec<Action> {
        self.event(Event::Offer(Offer::Revoke(lease)))
    }

    /// Nothing is left over.
    fn assert_empty(&self) {
        let holdings = &self.holdings;
        assert_eq!(holdings.jobs.len(), 0, "{:?}", holdings.jobs);
        assert_eq!(holdings.held(), 0, "{:?}", holdings.leases);
        assert_eq!(holdings.waiting(), 0);
    }
}

fn done(wall_ms: u64) -> Outcome {
    Outcome::Done {
        usage: Usage {
            wall_us: wall_ms * MS,
            ..Usage::default()
        },
        output_bytes: 1,
    }
}

fn dead() -> Outcome {
    Outcome::Failed {
        failure: Failure::Internal,
        dead: true,
    }
}

/// The starts among the actions, as job and lease.
fn starts(actions: &[Action]) -> Vec<(RequestId, LeaseId)> {
    let starts = actions.iter().filter_map(|action| match action {
        Action::Start(request, grant) => Some((*request, grant.lease)),
        _ => None,
    });
    starts.collect()
}

fn recalls(actions: &[Action]) -> Vec<(RequestId, LeaseId)> {
    let recalls = actions.iter().filter_map(|action| match action {
        Action::Recall(request, lease) => Some((*request, *lease)),
        _ => None,
    });
    recalls.collect()
}

fn told(actions: &[Action]) -> Vec<Deal> {
    let told = actions.iter().filter_map(|action| match action {
        Action::Tell(deal) => Some(deal.clone()),
        _ => None,
    });
    told.collect()
}

fn returned(actions: &[Action]) -> Vec<LeaseId> {
    let told = told(actions).into_iter();
    told.filter_map(|deal| match deal {
        Deal::Return(lease) => Some(lease),
        _ => None,
    })
    .collect()
}

#[test]
fn a_lease_serves_job_after_job_and_goes_back_after_a_gap() {
    let mut story = Story::new();
    let (first, actions) = story.want();
    assert!(matches!(&told(&actions)[..], [Deal::Want(_)]));
    let (second, _) = story.want();
    let (lease, actions) = story.grant(1);
    assert_eq!(starts(&actions), [(first, lease)]);
    let request = first;
    assert_eq!(told(&actions), [Deal::Began { request, lease }]);
    // The next starts in the same breath as the first ends.
    let outcome = done(100);
    let actions = story.end(first, lease, outcome);
    assert_eq!(starts(&actions), [(second, lease)]);
    let ended = Deal::Ended {
        request,
        lease,
        outcome,
    };
    let request = second;
    assert_eq!(told(&actions), [ended, Deal::Began { request, lease }]);
    let _ = story.end(second, lease, done(100));
    // A late third need not ask either.
    let _ = story.pass(250);
    let (third, actions) = story.want();
    assert_eq!(starts(&actions), [(third, lease)]);
    let _ = story.end(third, lease, done(100));
    assert_eq!(
        story.holdings.next_wake(story.now),
        Some(story.now.after(HOLD))
    );
    assert_eq!(returned(&story.pass(299)), []);
    assert_eq!(returned(&story.pass(1)), [lease]);
    story.assert_empty();
    assert_eq!(story.holdings.next_wake(story.now), None);
}

#[test]
fn where_the_way_is_long_the_next_job_waits_at_its_worker() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (lease, _) = story.grant(1);
    let (second, actions) = story.want();
    assert_eq!(starts(&actions), [], "the way is short as far as is known");
    story.far(1);
    let (third, _) = story.want();
    let actions = story.pass(0);
    assert_eq!(
        starts(&actions),
        [],
        "{second} has been sent already, and one is enough"
    );
    // To the scheduler it waits until it runs.
    let actions = story.event(Event::Started {
        request: second,
        lease,
    });
    let request = second;
    assert_eq!(told(&actions)[0], Deal::Began { request, lease });
    assert_eq!(
        starts(&actions),
        [(third, lease)],
        "one place is free again"
    );
    let _ = story.end(first, lease, done(100));
    let actions = story.end(second, lease, done(100));
    let request = third;
    assert!(told(&actions).contains(&Deal::Began { request, lease }));
    let _ = story.end(third, lease, done(100));
    assert_eq!(returned(&story.pass(300)), [lease]);
    story.assert_empty();
}

#[test]
fn what_waits_at_a_worker_is_called_back_when_another_lease_is_free_first() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (one, _) = story.grant(1);
    story.far(1);
    story.far(2);
    let (second, actions) = story.want();
    assert_eq!(starts(&actions), [(second, one)]);
    let (two, actions) = story.grant(2);
    assert_eq!(recalls(&actions), [(second, one)]);
    let actions = story.end(second, one, Outcome::Unused);
    assert_eq!(starts(&actions), [(second, two)]);
    let _ = story.end(first, one, done(100));
    let _ = story.end(second, two, done(100));
    assert_eq!(returned(&story.pass(300)), [one, two]);
    story.assert_empty();
}

#[test]
fn a_revoked_lease_goes_back_at_once_or_when_what_runs_has_ended() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (lease, _) = story.grant(1);
    story.far(1);
    let (second, actions) = story.want();
    assert_eq!(starts(&actions), [(second, lease)]);
    let actions = story.revoke(lease);
    assert_eq!(recalls(&actions), [(second, lease)]);
    assert_eq!(starts(&story.end(second, lease, Outcome::Unused)), []);
    assert_eq!(returned(&story.end(first, lease, done(1))), [lease]);
    let (idle, actions) = story.grant(2);
    assert_eq!(starts(&actions), [(second, idle)], "it waits still");
    let _ = story.end(second, idle, done(1));
    assert_eq!(returned(&story.revoke(idle)), [idle]);
    story.assert_empty();
}

#[test]
fn a_job_that_started_before_it_could_be_called_back_stays_where_it_is() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (lease, _) = story.grant(1);
    story.far(1);
    let (second, _) = story.want();
    assert_eq!(recalls(&story.revoke(lease)), [(second, lease)]);
    let request = second;
    let _ = story.event(Event::Started { request, lease });
    let _ = story.end(first, lease, done(1));
    assert_eq!(returned(&story.end(second, lease, done(1))), [lease]);
    story.assert_empty();
}

#[test]
fn when_the_scheduler_goes_what_runs_goes_on_and_nothing_new_begins() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (void, _) = story.grant(1);
    let (_idle, _) = story.grant(2);
    let (second, _) = story.want();
    assert_eq!(story.holdings.held(), 2);
    let _ = story.end(second, LeaseId(2), done(1));
    let _ = story.event(Event::Void);
    assert_eq!(story.holdings.held(), 1);
    let (third, actions) = story.want();
    assert_eq!(starts(&actions), []);
    let actions = story.end(first, void, done(1));
    assert_eq!((starts(&actions), told(&actions)), (vec![], vec![]));
    let (lease, actions) = story.grant(1);
    assert_eq!(starts(&actions), [(third, lease)]);
}

#[test]
fn a_dead_nodes_leases_go_back_and_its_job_asks_anew() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (one, _) = story.grant(1);
    let (other, _) = story.want();
    let (two, _) = story.grant(1);
    let _ = story.end(other, two, done(1));
    assert_eq!(returned(&story.end(first, one, dead())), [one, two]);
    let (again, actions) = story.want_with(|want| want.except = vec![NodeId(1)]);
    assert_eq!(starts(&actions), []);
    // A lease that it may not use is not kept from others.
    let (useless, actions) = story.grant(1);
    assert_eq!(
        (starts(&actions), returned(&actions)),
        (vec![], vec![useless])
    );
    let (useful, actions) = story.grant(2);
    assert_eq!(starts(&actions), [(again, useful)]);
}

#[test]
fn the_own_machine_is_for_the_first_job_or_for_what_is_too_much_for_the_others() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (home, actions) = story.grant_with(0, |grant| grant.home = Home::First);
    assert_eq!(starts(&actions), [(first, home)]);
    let (second, _) = story.want();
    let (third, _) = story.want();
    let (out, actions) = story.grant(1);
    assert_eq!(starts(&actions), [(second, out)]);
    let actions = story.end(first, home, Outcome::Unused);
    assert_eq!((starts(&actions), returned(&actions)), (vec![], vec![home]));
    let (overflow, actions) = story.grant_with(0, |grant| grant.home = Home::Overflow);
    assert_eq!(starts(&actions), [(third, overflow)]);
    let _ = story.end(third, overflow, Outcome::Unused);
    let _ = story.end(second, out, done(1));
    // One after another is always the first.
    let (fourth, actions) = story.want();
    assert_eq!(starts(&actions), [(fourth, out)], "what is held is used");
}

#[test]
fn a_job_too_large_for_a_node_does_not_go_there() {
    let mut story = Story::new();
    let (large, _) = story.want();
    let size = Size {
        cost_us: 5_000_000,
        memory_mib: 8000,
        ..Size::default()
    };
    let request = large;
    let _ = story.event(Event::Offer(Offer::Size { request, size }));
    let (small, _) = story.want();
    let (lease, actions) = story.grant_with(1, |grant| grant.memory_mib = 4000);
    assert_eq!(starts(&actions), [(small, lease)]);
}

#[test]
fn the_longest_of_those_that_came_together_goes_first() {
    let mut story = Story::new();
    let (short, _) = story.want();
    let (long, _) = story.want();
    let size = Size {
        cost_us: 5_000_000,
        ..Size::default()
    };
    let request = long;
    let _ = story.event(Event::Offer(Offer::Size { request, size }));
    let (lease, actions) = story.grant(1);
    assert_eq!(starts(&actions), [(long, lease)]);
    let actions = story.end(long, lease, done(5000));
    assert_eq!(starts(&actions), [(short, lease)]);
}

#[test]
fn a_build_that_begins_waits_a_moment_for_what_may_be_the_longest() {
    let size_of = |story: &mut Story, request, cost_us| {
        let size = Size {
            cost_us,
            ..Size::default()
        };
        story.event(Event::Offer(Offer::Size { request, size }))
    };
    let mut story = Story::new();
    let jobs: Vec<RequestId> = (0..3).map(|_| story.want().0).collect();
    let (lease, actions) = story.grant_with(1, |grant| grant.request = jobs[0]);
    assert_eq!(starts(&actions), []);
    assert_eq!(starts(&size_of(&mut story, jobs[1], 1_000_000)), []);
    // All is told.
    let actions = size_of(&mut story, jobs[2], 9_000_000);
    assert_eq!(starts(&actions), [(jobs[2], lease)]);

    // A scheduler that is far, or knows nothing of the jobs, is not waited for.
    let mut story = Story::new();
    let jobs: Vec<RequestId> = (0..3).map(|_| story.want().0).collect();
    let (lease, actions) = story.grant_with(1, |grant| grant.request = jobs[0]);
    assert_eq!(starts(&actions), []);
    let wake = story.holdings.next_wake(story.now).unwrap();
    story.now = wake;
    assert_eq!(starts(&story.event(Event::Tick)), [(jobs[0], lease)]);
}

#[test]
fn a_slow_lease_gets_the_longest_job_that_ends_before_the_rest() {
    let mut story = Story::new();
    let mut jobs = Vec::new();
    for cost_ms in [900, 500, 4000, 100, 4000, 4000, 4000] {
        let (request, _) = story.want();
        let size = Size {
            cost_us: cost_ms * MS,
            ..Size::default()
        };
        let _ = story.event(Event::Offer(Offer::Size { request, size }));
        jobs.push(request);
    }
    let (fast, actions) = story.grant(1);
    assert_eq!(starts(&actions), [(jobs[2], fast)]);
    // The rest takes some 17 s on both. It would take 16 s with a long job alone, which is too near.
    let slow = |grant: &mut Grant| grant.slowness_milli = 4000;
    let (lease, actions) = story.grant_with(2, slow);
    assert_eq!(starts(&actions), [(jobs[0], lease)]);
    let (lease, actions) = story.grant_with(3, slow);
    assert_eq!(starts(&actions), [(jobs[1], lease)]);
}

#[test]
fn a_lease_for_one_job_goes_back_after_it() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (_second, _) = story.want();
    let (lease, _) = story.grant_with(1, |grant| grant.once = true);
    let actions = story.end(first, lease, done(1));
    assert_eq!(
        (starts(&actions), returned(&actions)),
        (vec![], vec![lease])
    );
}

#[test]
fn at_the_end_a_job_on_a_slow_node_is_started_again_on_a_fast_one() {
    let mut story = Story::new();
    let (lagging, _) = story.want();
    let (other, _) = story.want();
    let (slow, _) = story.grant_with(1, |grant| grant.slowness_milli = 10_000);
    let (fast, actions) = story.grant(2);
    let (first, second) = match starts(&actions)[..] {
        [(request, _)] if request == lagging => (lagging, other),
        _ => (other, lagging),
    };
    let _ = (first, second);
    let _ = story.pass(100);
    // Whichever of the two went to the fast node: its end leaves the other to lag.
    let under = |lease| story.holdings.leases.find(lease).unwrap().running.unwrap();
    let (on_fast, on_slow) = (under(fast), under(slow));
    let actions = story.end(on_fast, fast, done(100));
    assert_eq!(starts(&actions), [(on_slow, fast)]);
    let deals = told(&actions);
    assert!(
        matches!(&deals[1..], [Deal::Want(_), Deal::Began { .. }]),
        "{deals:?}"
    );
    // No third.
    assert_eq!(starts(&story.pass(300)), []);
    // The second start has the result first; the first is ended by who runs it.
    let _ = story.end(on_slow, fast, done(100));
    let _ = story.event(Event::Gone(on_slow));
    let _ = story.end(on_slow, slow, Outcome::Unused);
    assert_eq!(returned(&story.pass(300)), [slow, fast]);
    story.assert_empty();
}

#[test]
fn a_lost_job_asks_for_a_second_lease_elsewhere() {
    let mut story = Story::new();
    let (lost, _) = story.want();
    let (frozen, _) = story.grant(1);
    assert_eq!(told(&story.pass(2400)), []);
    let deals = told(&story.pass(200));
    let [Deal::Want(want)] = &deals[..] else {
        panic!("{deals:?}")
    };
    assert_eq!(want.except, [NodeId(1)]);
    assert_eq!(want.own, OwnNode::Nothing);
    let (lease, actions) = story.grant(2);
    assert_eq!(starts(&actions), [(lost, lease)]);
    // Should that fail, the first goes on, and is the only one that does.
    let _ = story.end(lost, lease, dead());
    assert!(story.holdings.jobs.find(lost).is_some());
    let _ = story.end(lost, frozen, done(9000));
    let _ = story.pass(300);
    story.assert_empty();
}

#[test]
fn a_denied_second_start_is_not_asked_for_again() {
    let mut story = Story::new();
    let (lost, _) = story.want();
    let (_lease, _) = story.grant(1);
    let deals = told(&story.pass(5000));
    let [Deal::Want(want)] = &deals[..] else {
        panic!("{deals:?}")
    };
    let request = want.request;
    let why = "nobody".to_owned();
    let actions = story.event(Event::Offer(Offer::Deny { request, why }));
    assert_eq!(actions, [], "{lost} runs on");
    assert_eq!(story.pass(5000), []);
}

#[test]
fn a_denial_reaches_who_waits_and_nobody_else() {
    let mut story = Story::new();
    let (runs, _) = story.want();
    let _ = story.grant(1);
    let (waits, _) = story.want();
    let mut deny = |request| {
        let why = "no".to_owned();
        story.event(Event::Offer(Offer::Deny { request, why }))
    };
    assert_eq!(deny(runs), []);
    assert_eq!(deny(waits), [Action::Deny(waits, "no".into())]);
    assert_eq!(deny(waits), []);
}

#[test]
fn a_job_that_nobody_wants_is_withdrawn() {
    let mut story = Story::new();
    let (waits, _) = story.want();
    let deals = told(&story.event(Event::Gone(waits)));
    assert_eq!(deals, [Deal::Withdraw(waits)]);
    let (runs, _) = story.want();
    let (lease, _) = story.grant(1);
    assert_eq!(story.event(Event::Gone(runs)), []);
    let _ = story.end(runs, lease, Outcome::Unused);
    assert_eq!(returned(&story.pass(300)), [lease]);
    story.assert_empty();
}

#[test]
fn what_is_lent_for_a_job_is_used_by_it_whatever_its_submitter_thinks_of_the_node() {
    let mut story = Story::new();
    // The number is one of the last scheduler's: it was learned before that went, and is told after.
    let _ = story.event(Event::Void);
    let (again, _) = story.want_with(|want| want.except = vec![NodeId(1)]);
    let (lease, actions) = story.grant_with(1, |grant| grant.request = again);
    assert_eq!(starts(&actions), [(again, lease)]);
    let _ = story.end(again, lease, done(1));
    // No node is large enough, and the scheduler lends the largest.
    let (large, _) = story.want_with(|want| want.except = vec![NodeId(1)]);
    let request = large;
    let size = Size {
        cost_us: 1,
        memory_mib: 8000,
        ..Size::default()
    };
    let _ = story.event(Event::Offer(Offer::Size { request, size }));
    let (lease, actions) = story.grant_with(2, |grant| {
        grant.request = large;
        grant.memory_mib = 4000;
    });
    assert_eq!(starts(&actions), [(large, lease)]);
}

#[test]
fn a_first_slot_at_home_is_used_while_something_runs_of_which_the_scheduler_does_not_know() {
    let mut story = Story::new();
    let (old, _) = story.want();
    let (void, _) = story.grant(1);
    let _ = story.event(Event::Void);
    let (first, _) = story.want();
    let (home, actions) = story.grant_with(0, |grant| {
        grant.request = first;
        grant.home = Home::First;
    });
    assert_eq!(starts(&actions), [(first, home)], "{old} runs under {void}");
}

#[test]
fn a_slot_lent_for_a_job_that_was_sent_ahead_meanwhile_is_not_given_back_at_once() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (one, _) = story.grant(1);
    story.far(1);
    let (ahead, actions) = story.want();
    assert_eq!(starts(&actions), [(ahead, one)]);
    let (_other, _) = story.want_with(|want| want.except = vec![NodeId(2), NodeId(1)]);
    // Of no use to the one that waits, and slower for the other than to wait where it is.
    let (slow, actions) = story.grant_with(2, |grant| {
        grant.request = ahead;
        grant.slowness_milli = 100_000;
    });
    assert_eq!((recalls(&actions), returned(&actions)), (vec![], vec![]));
    assert_eq!(
        story.holdings.next_wake(story.now),
        Some(story.now.after(super::placing::TOLD_WITHIN))
    );
    assert_eq!(returned(&story.pass(100)), []);
    assert_eq!(
        story.holdings.next_wake(story.now),
        Some(story.now.after(Duration::from_millis(200)))
    );
    assert_eq!(returned(&story.pass(200)), [slow]);
    let _ = story.end(first, one, done(1));
}

#[test]
fn a_result_that_arrives_after_its_lease_went_back_ends_its_job() {
    let mut story = Story::new();
    let (first, _) = story.want();
    let (lease, _) = story.grant(1);
    story.far(1);
    let (second, _) = story.want();
    let request = second;
    let _ = story.event(Event::Started { request, lease });
    let _ = story.revoke(lease);
    assert_eq!(returned(&story.end(second, lease, done(1))), [lease]);
    assert_eq!(story.end(first, lease, done(1)), []);
    story.assert_empty();
}

#[test]
fn a_dead_node_of_the_last_scheduler_costs_no_lease_of_the_next() {
    let mut story = Story::new();
    let (old, _) = story.want();
    let (void, _) = story.grant(1);
    let _ = story.event(Event::Void);
    let (next, _) = story.want();
    let (lease, actions) = story.grant(1);
    assert_eq!(starts(&actions), [(next, lease)]);
    assert_eq!(returned(&story.end(old, void, dead())), []);
    let _ = story.end(next, lease, done(1));
    let (third, actions) = story.want();
    assert_eq!(starts(&actions), [(third, lease)]);
}

#[test]
fn the_lists_agree_with_the_leases_after_each_change() {
    let mut story = Story::new();
    let leases: Vec<LeaseId> = (0..40).map(|node| story.grant(node % 7).0).collect();
    let jobs: Vec<RequestId> = (0..60).map(|_| story.want().0).collect();
    for (number, &lease) in leases.iter().enumerate() {
        match number % 3 {
            0 => _ = story.revoke(lease),
            1 => _ = story.end(jobs[number], lease, dead()),
            _ => _ = story.pass(10),
        }
        story.holdings.leases.assert_listed();
    }
}
