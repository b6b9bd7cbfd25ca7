//! Which node a job gets.

use std::time::Duration;

use super::story::{Story, done, failed};
use crate::id::Time;
use crate::message::{
    Deal, Failure, FromScheduler, Grant, Home, Offer, Outcome, OwnNode, Want, Way,
};
use crate::scheduler::state::Event;

#[test]
fn the_first_job_stays_at_home_and_the_second_goes_out() {
    let mut story = Story::new();
    let me = story.join("me", 4);
    story.join("a", 1);
    let local = |want: &mut Want| want.own = OwnNode::Locally;
    story.want_with(me, local);
    story.want_with(me, local);
    // The third finds the others full and its own node free.
    story.want_with(me, local);
    let grants = story.grants(me);
    let names: Vec<&str> = grants.iter().map(|grant| &grant.name[..]).collect();
    assert_eq!(names, ["me", "a", "me"]);

    let homes: Vec<Home> = grants.iter().map(|grant| grant.home).collect();
    assert_eq!(homes, [Home::First, Home::No, Home::Overflow]);

    for grant in &grants {
        story.use_up(me, grant, done(1000));
    }
    story.want_with(me, local);
    let grants = story.grants(me);
    assert_eq!(grants[0].name, "me", "first again");
    story.began(me, grants[0].request, grants[0].lease);
    let status = story.status();
    let counts: Vec<_> = status
        .nodes
        .iter()
        .map(|n| (n.jobs_done, n.running))
        .collect();
    assert_eq!(
        counts,
        [(1, 0), (0, 1)],
        "what stays at home is not for others"
    );
}

#[test]
fn the_excluded_and_the_unpreferred_get_nothing() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let a = story.join("a", 1);
    story.join("b", 1);
    let a = story.ids[&a];
    story.want_with(me, |want| want.except = vec![a]);
    assert_eq!(story.granted(me), ["b"]);
    let request = story.want_with(me, |want| {
        want.except = vec![a];
        want.terms.preferred = "a".into();
    });
    assert_eq!(story.denials(me), [request]);
    story.want_with(me, |want| want.terms.preferred = "10.0.0.3".into());
    assert_eq!(
        story.granted(me),
        [""; 0],
        "b is full, and no other will do"
    );
}

#[test]
fn what_was_learned_of_a_job_is_told_with_its_next_request() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 4);
    story.want(me);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, done(70_000));
    let request = story.want(me);
    let inbox = story.inbox.remove(&me).unwrap();
    let size = inbox.iter().find_map(|message| match message {
        FromScheduler::Offer(Offer::Size { request: of, size }) if *of == request => Some(*size),
        _ => None,
    });
    assert_eq!(size.map(|size| size.cost_us), Some(70_000));
}

#[test]
fn a_faster_node_is_preferred_once_both_are_known() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("slow", 1);
    story.join("fast", 1);
    for _ in 0..20 {
        story.want(me);
        story.want(me);
        for grant in story.grants(me) {
            let cpu_us = if grant.name == "slow" {
                400_000
            } else {
                100_000
            };
            story.use_up(me, &grant, done(cpu_us));
        }
    }
    story.want(me);
    assert_eq!(story.granted(me), ["fast"]);
    let percent: Vec<u32> = story
        .status()
        .nodes
        .iter()
        .map(|n| n.speed_percent)
        .collect();
    assert!(percent[0] > 150 && percent[2] < 50, "{percent:?}");
}

#[test]
fn a_node_is_slow_when_another_start_wins_and_not_when_a_job_is_given_up() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let known = story.join("known", 1);
    for _ in 0..10 {
        story.want(me);
        let grant = story.grants(me).remove(0);
        story.use_up(me, &grant, done(100_000));
    }
    let other = story.join("other", 1);
    let id = story.ids[&known];
    let elsewhere = |want: &mut Want| want.except = vec![id];
    let percent = |story: &mut Story| {
        let nodes = story.status().nodes;
        let other = nodes.iter().find(|node| node.name == "other");
        other.unwrap().speed_percent
    };
    // Interrupted, or done at home, after however long.
    story.want_with(me, elsewhere);
    let grant = story.grants(me).remove(0);
    story.began(me, grant.request, grant.lease);
    story.pass(Duration::from_secs(60), &[me, known, other]);
    story.ended(me, grant.request, grant.lease, Outcome::Unused);
    story.give_back(me, grant.lease);
    assert_eq!(percent(&mut story), 0, "nothing is known of it");

    story.want_with(me, elsewhere);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, Outcome::Lagged { ran_us: 400_000 });
    let percent = percent(&mut story);
    assert!((1..60).contains(&percent), "{percent}");
}

#[test]
fn a_slow_node_that_nobody_has_used_for_long_is_tried_once_again() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let slow = story.join("slow", 1);
    let fast = story.join("fast", 1);
    let cost = |grant: &Grant, upgraded: bool| match grant.name == "slow" && !upgraded {
        true => 400_000,
        false => 100_000,
    };
    for _ in 0..20 {
        story.want(me);
        story.want(me);
        for grant in story.grants(me) {
            story.use_up(me, &grant, done(cost(&grant, false)));
        }
    }
    let one_after_another = |story: &mut Story, jobs: usize| -> usize {
        let mut on_slow = 0;
        for _ in 0..jobs {
            story.want(me);
            let grant = story.grants(me).remove(0);
            on_slow += usize::from(grant.name == "slow");
            story.use_up(me, &grant, done(cost(&grant, true)));
        }
        on_slow
    };
    assert_eq!(one_after_another(&mut story, 100), 0);
    story.pass(Duration::from_secs(9 * 60), &[me, slow, fast]);
    assert_eq!(one_after_another(&mut story, 10), 0);
    story.pass(Duration::from_secs(2 * 60), &[me, slow, fast]);
    assert_eq!(one_after_another(&mut story, 10), 1);
    // Nobody has worked since: there is nothing to find out.
    story.pass(Duration::from_secs(12 * 60), &[me, slow, fast]);
    assert_eq!(one_after_another(&mut story, 10), 0);
}

#[test]
fn a_submitter_tells_how_far_a_node_is_and_gets_the_near_one() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    story.join("far", 2);
    story.join("near", 2);
    for (travel_us, name) in [(400_000, "far"), (500, "near")] {
        story.want_with(me, |want| want.terms.preferred = name.into());
        let grant = story.grants(me).remove(0);
        let lease = grant.lease;
        let way = Way {
            travel_us,
            ..Way::default()
        };
        story.deal(me, Deal::Way { lease, way });
        story.use_up(me, &grant, done(100_000));
        // A word on a lease that is no more, which may have crossed its end, changes nothing.
        let way = Way {
            travel_us: 500_500 - travel_us,
            ..Way::default()
        };
        story.deal(me, Deal::Way { lease, way });
    }
    // Without the ways, the one that has waited longest would be first.
    for (peer, name) in [(me, "near"), (other, "far")] {
        story.want(peer);
        let grant = story.grants(peer).remove(0);
        assert_eq!(grant.name, name);
        story.give_back(peer, grant.lease);
    }
    // Nobody speaks for another.
    story.want(me);
    let lease = story.grants(me).remove(0).lease;
    let way = Way::default();
    story.deal(other, Deal::Way { lease, way });
    assert!(story.closed.contains_key(&other));
}

#[test]
fn a_failing_node_is_avoided_for_a_while_and_then_tried_again() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, failed(Failure::Internal, true));
    let request = story.want(me);
    assert_eq!(story.denials(me), [request]);
    story.pass(Duration::from_secs(6), &[me, worker]);
    story.want(me);
    assert_eq!(story.granted(me), ["worker"]);
}

#[test]
fn a_busy_node_is_waited_for_and_asked_again_without_anything_happening() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("worker", 1);
    story.want(me);
    let grant = story.grants(me).remove(0);
    story.use_up(me, &grant, failed(Failure::Busy, false));
    story.want(me);
    assert_eq!(story.grants(me), []);
    let wake = story.core.next_wake().unwrap();
    assert_eq!(wake, Time(100_000));
    story.now = wake;
    story.event(Event::Tick);
    assert_eq!(story.granted(me), ["worker"]);
}
