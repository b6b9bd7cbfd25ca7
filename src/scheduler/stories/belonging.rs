//! Who may take part, under which name, and what becomes of him who talks nonsense.

use super::story::Story;
use crate::id::{Digest, LeaseId, RequestId};
use crate::message::{Deal, FromScheduler, Login, NodeState, ToScheduler};
use crate::scheduler::state::{Event, PeerId};

#[test]
fn names_are_unique_and_a_node_that_comes_again_replaces_itself() {
    let mut story = Story::new();
    let names = |story: &mut Story| -> Vec<String> {
        story.status().nodes.into_iter().map(|n| n.name).collect()
    };
    let first = story.join("a", 1);
    story.join("a", 1);
    assert_eq!(names(&mut story), ["a", "a-2"]);
    let again = story.join_as(Story::login("a", 1), [10, 0, 0, 1]);
    assert_eq!(names(&mut story), ["a", "a-2"]);
    assert_eq!(story.closed.keys().collect::<Vec<_>>(), [&first]);
    assert!(story.ids.contains_key(&again));

    let submits_only = || Login {
        port: 0,
        ..Story::login("s", 0)
    };
    story.join_as(submits_only(), [10, 0, 0, 9]);
    story.join_as(submits_only(), [10, 0, 0, 9]);
    story.join_as(Story::login("", 1), [10, 0, 0, 10]);
    assert_eq!(names(&mut story), ["10.0.0.10", "a", "a-2", "s", "s-2"]);
}

#[test]
fn a_node_beside_the_scheduler_is_found_where_the_scheduler_is() {
    let mut story = Story::new();
    let far = story.join("far", 0);
    let near = story.join_as(Story::login("near", 0), [127, 0, 0, 1]);
    story.join_as(
        Login {
            port: 7,
            ..Story::login("worker", 2)
        },
        [127, 0, 0, 1],
    );
    for (peer, expect) in [(far, "10.0.0.200:7"), (near, "127.0.0.1:7")] {
        story.want(peer);
        assert_eq!(story.grants(peer)[0].address.to_string(), expect);
    }
}

#[test]
fn who_does_not_belong_here_is_refused_with_a_reason() {
    let mut story = Story::new();
    for (login, expect) in [
        (
            Login {
                netname: "OTHER".into(),
                ..Story::login("a", 1)
            },
            "netname",
        ),
        (Story::login("a", u32::MAX), "4294967295"),
    ] {
        let peer = story.join_as(login, [10, 0, 0, 1]);
        assert!(story.closed[&peer].contains(expect));
        let inbox = &story.inbox[&peer];
        assert!(matches!(&inbox[..], [FromScheduler::Refused(why)] if why.contains(expect)));
    }
    assert_eq!(story.status().nodes, []);
}

#[test]
fn who_talks_nonsense_is_dropped_and_nobody_else_is_harmed() {
    type Nonsense = fn(&mut Story, PeerId, LeaseId);
    let cases: &[(&str, Nonsense)] = &[
        ("logs in twice", |story, peer, _| {
            story.say(peer, ToScheduler::Login(Story::login("a", 1)));
        }),
        ("does not hold", |story, peer, lease| {
            story.deal(peer, Deal::Return(lease));
        }),
        ("twice", |story, peer, _| {
            for _ in 0..2 {
                story.want_with(peer, |want| want.request = RequestId(7));
            }
        }),
        ("niceness", |story, peer, _| {
            story.want_with(peer, |want| want.terms.niceness = 200);
        }),
        ("local jobs", |story, peer, _| {
            let local_jobs = u32::MAX;
            let state = NodeState {
                local_jobs,
                ..NodeState::default()
            };
            story.say(peer, ToScheduler::State(state));
        }),
        ("too many toolchains", |story, peer, _| {
            for part in 0..2u8 {
                let added = (0..6000u16).map(|n| {
                    let mut digest = [part; 32];
                    digest[..2].copy_from_slice(&n.to_le_bytes());
                    Digest(digest)
                });
                let added = added.collect();
                let removed = vec![];
                story.say(peer, ToScheduler::Toolchains { added, removed });
            }
        }),
    ];
    for (expect, speak) in cases {
        let mut story = Story::new();
        let me = story.join("me", 0);
        story.join("worker", 1);
        story.want(me);
        let lease = story.grants(me)[0].lease;
        let liar = story.join("liar", 0);
        speak(&mut story, liar, lease);
        assert!(story.closed[&liar].contains(expect), "{:?}", story.closed);
        assert_eq!(story.closed.len(), 1);
        story.give_back(me, lease);
        assert_eq!(story.granted(me), ["worker"], "{expect}");
    }
}

#[test]
fn a_stranger_may_look_and_not_touch() {
    let mut story = Story::new();
    story.join("worker", 1);
    assert_eq!(story.status().nodes.len(), 1);
    let stranger = PeerId(77);
    story.deal(stranger, Deal::Withdraw(RequestId(1)));
    assert!(story.closed[&stranger].contains("login"));
    // The shell reports the end of a connection that was never a node.
    story.event(Event::Left(stranger));
}
