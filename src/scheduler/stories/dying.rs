//! Nodes, submitters and the scheduler itself stop, or only seem to.

use std::time::Duration;

use super::story::{Story, done};
use crate::message::{NodeState, ToScheduler};
use crate::scheduler::state::Event;

#[test]
fn a_silent_node_is_dead_within_two_seconds_and_its_requests_and_leases_with_it() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    story.want(me);
    story.want(other);
    assert_eq!(story.granted(me), ["worker"]);
    story.pass(Duration::from_millis(1900), &[worker, other]);
    assert!(story.closed.is_empty());
    story.pass(Duration::from_millis(700), &[worker, other]);
    assert!(story.closed[&me].contains("silent"), "{:?}", story.closed);
    let grant = story.grants(other).remove(0);
    story.run(other, &grant, done(1));
    assert_eq!(story.status().waiting, 0);
}

#[test]
fn the_death_of_the_last_worker_denies_whoever_waits_for_it() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.want(me);
    let second = story.want(me);
    let grant = story.grants(me).remove(0);
    let (request, lease) = (grant.request, grant.lease);
    story.began(me, request, lease);
    story.leave(worker);
    assert_eq!(story.revoked, [lease]);
    assert_eq!(story.denials(me), [second]);
    let third = story.want(me);
    assert_eq!(story.denials(me), [third]);
}

#[test]
fn a_slot_of_a_dead_submitter_is_lent_again_when_its_node_says_that_it_is_free() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let other = story.join("other", 0);
    let worker = story.join("worker", 1);
    story.want(other);
    let grant = story.grants(other).remove(0);
    story.began(other, grant.request, grant.lease);
    story.want(me);
    let running = NodeState {
        remote_jobs: 1,
        ..NodeState::default()
    };
    story.say(worker, ToScheduler::State(running.clone()));
    story.leave(other);
    assert_eq!(story.granted(me), [""; 0], "the job may still run");
    story.say(worker, ToScheduler::State(running));
    assert_eq!(story.granted(me), [""; 0], "it does");
    story.say(worker, ToScheduler::State(NodeState::default()));
    assert_eq!(story.granted(me), ["worker"]);
}

#[test]
fn a_scheduler_that_was_itself_stopped_does_not_blame_the_nodes() {
    let mut story = Story::new();
    let me = story.join("me", 0);
    let worker = story.join("worker", 1);
    story.now = story.now.after(Duration::from_secs(60));
    story.event(Event::Tick);
    assert!(story.closed.is_empty());
    story.pass(Duration::from_secs(3), &[me]);
    assert_eq!(story.closed.keys().collect::<Vec<_>>(), [&worker]);
}
