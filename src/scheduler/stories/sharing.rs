//! Who gives way to whom: builds to each other, and everybody to whose machine it is.

use std::time::Duration;

use super::story::{Story, busy, done};
use crate::scheduler::state::PeerId;

#[test]
fn a_newcomer_gets_his_share_from_those_who_have_more() {
    let mut story = Story::new();
    let workers: Vec<PeerId> = (0..2).map(|_| story.join("w", 4)).collect();
    let first = story.join("first", 0);
    for _ in 0..20 {
        story.want(first);
    }
    let grants = story.grants(first);
    assert_eq!(grants.len(), 8);
    for grant in &grants {
        story.began(first, grant.request, grant.lease);
    }
    let second = story.join("second", 0);
    for _ in 0..20 {
        story.want(second);
    }
    let alive = [workers[0], workers[1], first, second];
    story.pass(Duration::from_millis(300), &alive);
    assert_eq!(story.revoked.len(), 4, "half, and asked for once");
    for lease in story.revoked.clone() {
        story.give_back(first, lease);
    }
    assert_eq!(story.granted(second).len(), 4);
    story.pass(Duration::from_secs(3), &alive);
    assert_eq!(story.revoked.len(), 4, "and that is that");
}

#[test]
fn a_nice_build_gives_back_all_that_another_wants() {
    let mut story = Story::new();
    let worker = story.join("w", 4);
    let nice = story.join("nice", 0);
    for _ in 0..20 {
        story.want_with(nice, |want| want.terms.niceness = 10);
    }
    assert_eq!(story.grants(nice).len(), 4);
    let busy = story.join("busy", 0);
    for _ in 0..3 {
        story.want(busy);
    }
    story.pass(Duration::from_millis(300), &[worker, nice, busy]);
    assert_eq!(story.revoked.len(), 3);
}

#[test]
fn two_builds_share_the_cluster_and_a_nice_one_gives_way() {
    let mut story = Story::new();
    let big = story.join("big", 0);
    let small = story.join("small", 0);
    let nice = story.join("nice", 0);
    story.join("worker", 1);
    for _ in 0..100 {
        story.want(big);
    }
    for _ in 0..3 {
        story.want_with(nice, |want| want.terms.niceness = 5);
        story.want(small);
    }
    let mut order = Vec::new();
    for _ in 0..7 {
        let (&lease, &(_, holder)) = story.out.first_key_value().unwrap();
        order.push(holder);
        let grant = story.grants(holder).remove(0);
        assert_eq!(grant.lease, lease);
        story.use_up(holder, &grant, done(1));
    }
    assert_eq!(order, [big, small, big, small, big, small, big]);
    assert_eq!(story.granted(nice), [""; 0]);
}

#[test]
fn a_node_gets_its_slots_back_for_its_own_jobs() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 4);
    for _ in 0..4 {
        story.want(me);
    }
    let grants = story.grants(me);
    story.began(me, grants[0].request, grants[0].lease);
    story.say(worker, busy(3));
    assert_eq!(story.revoked.len(), 3);
    assert!(
        !story.revoked.contains(&grants[0].lease),
        "those that lie idle first"
    );
    story.say(worker, busy(3));
    assert_eq!(story.revoked.len(), 3);
}

#[test]
fn local_jobs_take_slots_away() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 4);
    story.say(worker, busy(3));
    story.want(me);
    story.want(me);
    assert_eq!(story.granted(me).len(), 1);
    story.say(worker, busy(2));
    assert_eq!(story.granted(me).len(), 1);
}
