//! Stories of a session: a scheduler that is played, and a clock that the story turns.

use super::dealings::PENDING_MAX;
use super::*;
use crate::id::{Bytes, LeaseId};
use crate::message::{Failure, Grant, Home, Outcome, OwnNode, Terms, Want};

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
