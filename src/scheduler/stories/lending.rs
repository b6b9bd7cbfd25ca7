//! Leases: how they are granted, used, given back and taken back.

use std::time::Duration;

use super::story::{Story, done};
use crate::id::RequestId;
use crate::message::Deal;

#[test]
fn jobs_spread_over_the_cluster_and_the_rest_wait_for_returned_leases() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 2);
    story.join("b", 2);
    for _ in 0..6 {
        story.want(me);
    }
    let grants = story.grants(me);
    let names: Vec<&str> = grants.iter().map(|grant| &grant.name[..]).collect();
    assert_eq!(names, ["a", "b", "a", "b"]);
    assert_eq!(grants[0].address.to_string(), "10.0.0.2:10245");
    for grant in &grants {
        story.began(me, grant.request, grant.lease);
    }
    let status = story.status();
    assert_eq!(status.waiting, 2);
    let running: Vec<u32> = status.nodes.iter().map(|node| node.running).collect();
    assert_eq!(running, [2, 2, 0]);

    story.give_back(me, grants[1].lease);
    assert_eq!(story.granted(me), ["b"]);
    story.give_back(me, grants[0].lease);
    assert_eq!(story.granted(me), ["a"]);
    // A second return of the same lease frees nothing.
    story.want(me);
    story.give_back(me, grants[0].lease);
    assert_eq!(story.granted(me), [""; 0]);
    assert!(story.closed.is_empty());
}

#[test]
fn a_lease_serves_job_after_job_without_a_word_from_the_scheduler() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    let requests: Vec<RequestId> = (0..5).map(|_| story.want(me)).collect();
    let grant = story.grants(me).remove(0);
    let lease = grant.lease;
    for request in requests {
        story.began(me, request, lease);
        story.ended(me, request, lease, done(1000));
    }
    assert_eq!(story.inbox.remove(&me), None);
    let status = story.status();
    assert_eq!(status.waiting, 0);
    assert_eq!(status.nodes[0].jobs_done, 5);
    // What it can use at once it need not be lent again.
    story.want(me);
    assert_eq!(story.granted(me), [""; 0]);
    story.want(me);
    assert_eq!(story.status().waiting, 2);
}

#[test]
fn the_next_job_may_begin_before_the_results_of_the_last_are_there() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    let (first, second) = (story.want(me), story.want(me));
    let lease = story.grants(me)[0].lease;
    for request in [first, second] {
        story.began(me, request, lease);
    }
    for request in [second, first] {
        story.ended(me, request, lease, done(1000));
    }
    let status = story.status();
    assert_eq!((status.nodes[0].jobs_done, status.nodes[0].running), (2, 0));
}

#[test]
fn an_unused_lease_is_taken_back_after_a_while() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    let lease = story.grants(me)[0].lease;
    story.pass(Duration::from_secs(9), &[me, other, worker]);
    assert_eq!(story.revoked, []);
    story.pass(Duration::from_secs(7), &[me, other, worker]);
    assert_eq!(story.revoked, [lease]);
    story.want(other);
    assert_eq!(
        story.granted(other),
        [""; 0],
        "it was asked for, and not returned"
    );
    story.out.remove(&lease);
    story.pass(Duration::from_secs(10), &[me, other, worker]);
    assert_eq!(story.granted(other), ["worker"]);
}

#[test]
fn a_job_that_never_ends_loses_its_lease_after_hours() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    story.want(me);
    let grant = story.grants(me).remove(0);
    let (request, lost) = (grant.request, grant.lease);
    story.began(me, request, lost);
    story.pass(Duration::from_secs(2 * 3600 - 5), &[me, worker]);
    assert_eq!(story.granted(me), [""; 0]);
    story.out.remove(&lost);
    story.pass(Duration::from_secs(10), &[me, worker]);
    assert_eq!(story.granted(me), ["worker"]);
}

#[test]
fn the_withdrawn_get_nothing() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    story.want(me);
    let waiting = story.want(me);
    story.deal(me, Deal::Withdraw(waiting));
    let lease = story.grants(me)[0].lease;
    story.give_back(me, lease);
    // The first one still waits, and gets it again.
    assert_eq!(story.granted(me).len(), 1);
    // A withdrawal that crosses the grant is harmless; the lease comes back by itself.
    story.deal(me, Deal::Withdraw(waiting));
    assert!(story.closed.is_empty());
}

#[test]
fn five_hundred_requests_at_once_are_ordinary_and_too_many_are_denied() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    story.join("a", 1);
    for _ in 0..4096 {
        story.want(me);
    }
    assert_eq!(story.status().waiting, 4096);
    let over = story.want(me);
    assert_eq!(story.denials(me), [over]);
    assert!(story.closed.is_empty());
}
