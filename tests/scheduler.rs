//! Scheduler, link, discovery and status over real sockets on loopback.
//!
//! Every wait is for a condition and has a bound; the bounds are far above what is needed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ice::connection::Connection;
use ice::daemon::link::{self, LinkCommand, LinkConfig, LinkEvent};
use ice::discover::{self, Seal};
use ice::executor::block_on;
use ice::id::{Bytes, Digest, LeaseId, RequestId, Term};
use ice::key::{ClusterKey, Credentials};
use ice::message::{
    Deal, FromScheduler, Grant, Login, NodeState, Offer, Outcome, Status, Terms, ToScheduler,
    Usage, Want,
};
use ice::reactor::{Async, Timer};
use ice::scheduler::{Algorithm, Server, ServerConfig};
use ice::status;
use smol::Task;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;
use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const GCC: Digest = Digest([1; 32]);
const BOUND: Duration = Duration::from_secs(20);

struct Scheduler {
    address: SocketAddr,
    credentials: Credentials,
    stop: Sender<()>,
    task: Task<()>,
}

impl Scheduler {
    fn start() -> Self {
        Self::start_on(0, key())
    }

    fn start_on(port: u16, credentials: Credentials) -> Self {
        Self::start_beside(port, credentials, Vec::new())
    }

    /// Starts one that knows of these others.
    fn start_beside(port: u16, credentials: Credentials, others: Vec<(String, u16)>) -> Self {
        let server = Server::bind(config(port, credentials, others));
        Self::run(server.expect("a port for the scheduler"))
    }

    fn run(server: Server) -> Self {
        let address = server.address();
        let credentials = server.credentials().clone();
        let (stop, stopped) = channel::bounded::<()>(1);
        let task = in_background(async move {
            let stop = async {
                stopped.recv().await.ok();
            };
            server.run(stop).await;
        });
        Self {
            address,
            credentials,
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.send(()).await.unwrap();
        within("stop", self.task).await;
    }

    async fn status(&self) -> Status {
        within("status", status::fetch(&[self.address], &self.credentials))
            .await
            .unwrap()
    }

    /// Waits until the cluster looks so.
    async fn until(&self, what: &str, so: impl Fn(&Status) -> bool) -> Status {
        within(what, async {
            loop {
                let status = self.status().await;
                if so(&status) {
                    return status;
                }
                Timer::after(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    fn node(&self, login: Login) -> Node {
        Node::start(LinkConfig {
            schedulers: vec![self.address.to_string()],
            credentials: self.credentials.clone(),
            login,
        })
    }

    async fn connect(&self) -> Connection {
        let connection = Connection::connect(self.address, &self.credentials, BOUND);
        within("connection", connection).await.unwrap()
    }
}

struct Node {
    commands: Sender<LinkCommand>,
    events: Receiver<LinkEvent>,
    _link: Task<()>,
}

impl Node {
    fn start(config: LinkConfig) -> Self {
        let (commands, received) = channel::unbounded();
        let (tell, events) = channel::unbounded();
        Self {
            commands,
            events,
            _link: in_background(link::run(config, received, tell)),
        }
    }

    /// The next event, what jobs take left out.
    async fn event(&self) -> LinkEvent {
        loop {
            match within("event", self.events.recv()).await.unwrap() {
                LinkEvent::Offer(Offer::Size { .. }) => {}
                event => return event,
            }
        }
    }

    async fn up(&self) -> String {
        match self.event().await {
            LinkEvent::Up { name, .. } => name,
            other => panic!("{other:?}"),
        }
    }

    async fn down(&self) -> String {
        match self.event().await {
            LinkEvent::Down(why) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn grant(&self) -> Grant {
        match self.event().await {
            LinkEvent::Offer(Offer::Grant(grant)) => grant,
            other => panic!("{other:?}"),
        }
    }

    fn say(&self, command: LinkCommand) {
        self.commands.try_send(command).unwrap();
    }
}

/// Starts a task of its own, on a thread that runs the process's tasks while a test waits.
fn in_background<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    static RUNNING: std::sync::Once = std::sync::Once::new();
    RUNNING.call_once(|| {
        std::thread::spawn(|| block_on(smol::future::pending::<()>()));
    });
    ice::executor::spawn(task)
}

fn config(port: u16, credentials: Credentials, others: Vec<(String, u16)>) -> ServerConfig {
    ServerConfig {
        port,
        netname: "TEST".into(),
        credentials,
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        others,
        is_persistent: false,
        control: None,
        alone: false,
        http: None,
        icecream_monitors: false,
        algorithm: Algorithm::default(),
        memory: None,
    }
}

fn key() -> Credentials {
    Credentials::Key(Arc::new(ClusterKey::random().unwrap()))
}

fn login(name: &str, slots: u32) -> Login {
    Login {
        port: 10245,
        slots,
        toolchains: vec![GCC],
        ..Login::new(name, "TEST", "x86_64")
    }
}

fn want(request: u64) -> LinkCommand {
    LinkCommand::Deal(Deal::Want(Want {
        file: Bytes::from("a.c"),
        ..Want::new(RequestId(request), GCC, Terms::new("x86_64"))
    }))
}

fn began(request: u64, lease: LeaseId) -> LinkCommand {
    LinkCommand::Deal(Deal::Began {
        request: RequestId(request),
        lease,
    })
}

fn distinct(number: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Digest(bytes)
}

fn one_runs_and_one_waits(status: &Status) -> bool {
    let running: u32 = status.nodes.iter().map(|node| node.running).sum();
    (running, status.waiting) == (1, 1)
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(BOUND).await;
        panic!("no {what} within {BOUND:?}")
    };
    work.or(late).await
}

#[test]
fn leases_travel_from_worker_to_submitter_and_back() {
    block_on(async {
        let scheduler = Scheduler::start();
        let worker = scheduler.node(login("worker", 1));
        assert_eq!(worker.up().await, "worker");
        let submitter = scheduler.node(login("submitter", 0));
        assert_eq!(submitter.up().await, "submitter");

        submitter.say(want(1));
        let grant = submitter.grant().await;
        assert_eq!(grant.name, "worker");
        assert_eq!(grant.address.to_string(), "127.0.0.1:10245");
        submitter.say(began(1, grant.lease));
        submitter.say(want(2));
        scheduler
            .until("waiting request", one_runs_and_one_waits)
            .await;
        let text = status::status(&[scheduler.address], &scheduler.credentials, false).await;
        let text = text.unwrap();
        let summary = "workers: 1  slots: 1  running: 1  waiting: 1\n";
        assert!(text.starts_with(summary), "{text}");

        let outcome = Outcome::Done {
            usage: Usage {
                cpu_us: 1000,
                ..Usage::default()
            },
            output_bytes: 100,
        };
        let (request, lease) = (grant.request, grant.lease);
        let ended = Deal::Ended {
            request,
            lease,
            outcome,
        };
        submitter.say(LinkCommand::Deal(ended));
        submitter.say(LinkCommand::Deal(Deal::Return(lease)));
        let second = submitter.grant().await;
        assert_eq!(second.request, RequestId(2));
        assert_ne!(second.lease, lease);
        let status = scheduler.status().await;
        let worker_status = status.nodes.iter().find(|node| node.name == "worker");
        assert_eq!(worker_status.unwrap().jobs_done, 1);

        // The worker goes, and so does all hope.
        drop(worker);
        scheduler
            .until("departure", |status| status.nodes.len() == 1)
            .await;
        // The lease went with it.
        let revoke = LinkEvent::Offer(Offer::Revoke(second.lease));
        assert_eq!(submitter.event().await, revoke);
        // What it was for has not begun, and is as hopeless as what comes now.
        submitter.say(want(3));
        for expect in [2, 3] {
            match submitter.event().await {
                LinkEvent::Offer(Offer::Deny { request, .. }) => {
                    assert_eq!(request, RequestId(expect));
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_node_finds_the_scheduler_by_itself() {
    block_on(async {
        let scheduler = Scheduler::start();
        let port = scheduler.address.port();
        let config = LinkConfig {
            schedulers: vec![format!(":{port}")],
            credentials: scheduler.credentials.clone(),
            login: login("worker", 1),
        };
        assert_eq!(Node::start(config).up().await, "worker");

        let right = scheduler.credentials.datagram_key();
        let wrong = key().datagram_key();
        let short = Duration::from_millis(150);
        for (key, netname, wait, found) in [
            (right, "TEST", BOUND, true),
            (wrong, "TEST", short, false),
            (right, "OTHER", short, false),
        ] {
            let seal = Seal::new(key, netname);
            let schedulers = discover::find(&seal, port, wait).await.unwrap();
            assert_eq!(!schedulers.is_empty(), found, "{netname} {schedulers:?}");
            assert!(schedulers.iter().all(|found| found.address.port() == port));
        }
    });
}

#[test]
fn a_restarted_scheduler_gets_its_nodes_back_and_what_they_wait_for() {
    block_on(async {
        let scheduler = Scheduler::start();
        let (port, credentials) = (scheduler.address.port(), scheduler.credentials.clone());
        let worker = scheduler.node(login("worker", 1));
        worker.up().await;
        let submitter = scheduler.node(login("submitter", 0));
        submitter.up().await;
        submitter.say(want(1));
        let old = submitter.grant().await;
        submitter.say(began(1, old.lease));
        submitter.say(want(2));
        scheduler
            .until("waiting request", one_runs_and_one_waits)
            .await;
        scheduler.stop().await;

        submitter.down().await;
        let scheduler = Scheduler::start_on(port, credentials);
        scheduler
            .until("nodes", |status| status.nodes.len() == 2)
            .await;
        // Attempts that failed meanwhile may have been told.
        while !matches!(submitter.event().await, LinkEvent::Up { .. }) {}
        // A lease of the first scheduler means nothing to the second.
        submitter.say(LinkCommand::Deal(Deal::Return(old.lease)));
        assert_eq!(submitter.grant().await.request, RequestId(2));
    });
}

#[test]
fn idle_and_babbling_connections_harm_nobody() {
    block_on(async {
        let scheduler = Scheduler::start();
        let mut strangers = Vec::new();
        for number in 0..300 {
            let mut stream = TcpStream::connect(scheduler.address).unwrap();
            if number % 2 == 0 {
                // It may already have been thrown out.
                io::Write::write_all(&mut stream, &[number as u8; 500]).ok();
            }
            strangers.push(stream);
        }
        let began = Instant::now();
        let node = scheduler.node(login("worker", 1));
        node.up().await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "it had to wait until the strangers' time ran out"
        );
        assert_eq!(scheduler.status().await.nodes.len(), 1);
    });
}

#[test]
fn who_does_not_belong_is_told_why() {
    block_on(async {
        let scheduler = Scheduler::start();
        let other_key = Node::start(LinkConfig {
            schedulers: vec![scheduler.address.to_string()],
            credentials: key(),
            login: login("a", 1),
        });
        let why = other_key.down().await;
        assert!(why.contains("ice key import"), "{why}");

        let other_net = scheduler.node(Login {
            netname: "OTHER".into(),
            ..login("a", 1)
        });
        let why = other_net.down().await;
        assert!(why.contains("netname"), "{why}");

        let liar = scheduler.node(login("liar", u32::MAX));
        let why = liar.down().await;
        assert!(why.contains("slots"), "{why}");
        assert_eq!(scheduler.status().await.nodes.len(), 0);
    });
}

#[test]
fn a_node_that_falls_silent_is_dead() {
    block_on(async {
        let scheduler = Scheduler::start();
        let (mut sender, mut receiver) = scheduler.connect().await.split();
        let introduction = ToScheduler::Login(login("frozen", 4));
        within("login", sender.send(&introduction)).await.unwrap();
        let welcome = within("welcome", receiver.receive()).await.unwrap();
        assert!(matches!(welcome, Some(FromScheduler::Welcome { .. })));
        let submitter = scheduler.node(login("submitter", 0));
        submitter.up().await;
        submitter.say(want(1));
        assert_eq!(submitter.grant().await.name, "frozen");

        let status = scheduler
            .until("death", |status| status.nodes.len() == 1)
            .await;
        assert_eq!(status.nodes[0].name, "submitter");
        let end = within("end", receiver.receive::<FromScheduler>()).await;
        assert!(matches!(end, Ok(None)), "{end:?}");
    });
}

#[test]
fn a_peer_that_does_not_read_is_dropped_and_holds_up_nobody() {
    block_on(async {
        let scheduler = Scheduler::start();
        let node = scheduler.node(login("worker", 1));
        node.up().await;
        let (mut sender, _receiver) = scheduler.connect().await.split();
        within("drop", async {
            while sender.send(&ToScheduler::Status).await.is_ok() {}
        })
        .await;
        node.say(LinkCommand::State(NodeState {
            local_jobs: 1,
            ..NodeState::default()
        }));
        scheduler
            .until("report", |status| status.nodes[0].local_jobs == 1)
            .await;
    });
}

/// A person at the text port.
struct Telnet {
    stream: BufReader<Async<TcpStream>>,
}

impl Telnet {
    /// Calls; nothing is waited for.
    async fn dial(scheduler: &Scheduler) -> Self {
        let port = scheduler.address.port() + 1;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = Async::<TcpStream>::connect(address).await.unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    async fn connect(scheduler: &Scheduler) -> Self {
        let mut telnet = Self::dial(scheduler).await;
        let banner = telnet.line().await + &telnet.line().await;
        assert!(banner.starts_with("200-ICE "), "{banner}");
        assert!(banner.contains(" jobs in queue ("), "{banner}");
        telnet
    }

    /// The next line; an empty one when the scheduler has hung up.
    async fn line(&mut self) -> String {
        self.line_or_reset().await.unwrap()
    }

    async fn line_or_reset(&mut self) -> io::Result<String> {
        let mut line = String::new();
        within("line", self.stream.read_line(&mut line)).await?;
        Ok(line)
    }

    async fn say(&mut self, line: &[u8]) -> io::Result<()> {
        let mut stream = self.stream.get_ref();
        stream.write_all(line).await
    }

    /// The lines of the answer, but for the last.
    async fn ask(&mut self, command: &str) -> Vec<String> {
        let command = format!("{command}\r\n");
        self.say(command.as_bytes()).await.unwrap();
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            if line == "200 done\n" {
                return lines;
            }
            lines.push(line);
        }
    }
}

/// A scheduler with a text port: the port after its own has to be free, too.
fn with_text_port() -> Scheduler {
    loop {
        let server = Server::bind(ServerConfig {
            control: Some(Ipv4Addr::LOCALHOST.into()),
            ..config(0, key(), Vec::new())
        });
        let server = server.expect("a port for the scheduler");
        if server.has_text_port() {
            return Scheduler::run(server);
        }
    }
}

#[test]
fn a_node_that_is_blocked_at_the_text_port_gets_no_jobs() {
    block_on(async {
        let scheduler = with_text_port();
        let mut telnet = Telnet::connect(&scheduler).await;
        let worker = scheduler.node(login("worker", 2));
        worker.up().await;
        let submitter = scheduler.node(login("submitter", 0));
        submitter.up().await;
        submitter.say(want(1));
        let granted = submitter.grant().await;
        submitter.say(began(1, granted.lease));
        scheduler
            .until("running job", |status| {
                status.nodes.iter().any(|node| node.running == 1)
            })
            .await;

        let listed = telnet.ask("listcs").await;
        assert_eq!(listed.len(), 3, "{listed:?}");
        let node = " worker (127.0.0.1:10245) [x86_64] speed=";
        assert!(listed[1].starts_with(node), "{listed:?}");
        assert!(listed[1].contains(" jobs=1/2 load="), "{listed:?}");
        let job = format!("   {} COMP sub:submitter on:worker a.c\n", granted.lease);
        assert_eq!(listed[2], job);
        assert_eq!(telnet.ask("listjobs").await, [job[2..].to_owned()]);

        assert_eq!(telnet.ask("blockcs worker").await, [] as [String; 0]);
        assert_eq!(telnet.ask("listblocks").await, ["   worker\n"]);
        // What was lent of it is asked back.
        let revoke = LinkEvent::Offer(Offer::Revoke(granted.lease));
        assert_eq!(submitter.event().await, revoke);
        submitter.say(want(2));
        match submitter.event().await {
            LinkEvent::Offer(Offer::Deny { request, .. }) => assert_eq!(request, RequestId(2)),
            other => panic!("{other:?}"),
        }
        assert_eq!(telnet.ask("UNBLOCKCS worker").await, [] as [String; 0]);
        submitter.say(want(3));
        assert_eq!(submitter.grant().await.request, RequestId(3));

        assert_eq!(
            telnet.ask("removecs worker").await,
            ["removing host worker\n"]
        );
        // A report of the worker's that crosses the end makes it a reset.
        let why = worker.down().await;
        assert!(why.contains("ended") || why.contains("reset"), "{why}");
        assert_eq!(
            telnet.ask("nonsense 1").await,
            ["Invalid command 'nonsense 1'\n"]
        );
        telnet.say(b"quit\n").await.unwrap();
        assert_eq!(telnet.line().await, "200 Good Bye!\n");
        assert_eq!(telnet.line().await, "");
    });
}

#[test]
fn a_line_without_an_end_and_a_crowd_at_the_text_port_are_dropped() {
    block_on(async {
        let scheduler = with_text_port();
        let mut endless = Telnet::connect(&scheduler).await;
        // It is dropped in the middle of what it says.
        let _ = endless.say(&[b'x'; 8192]).await;
        let end = endless.line_or_reset().await;
        assert!(
            end.as_ref().is_ok_and(String::is_empty) || end.is_err(),
            "{end:?}"
        );

        let mut crowd = Vec::new();
        for _ in 0..64 {
            crowd.push(Telnet::connect(&scheduler).await);
        }
        let refused = Telnet::dial(&scheduler).await.line_or_reset().await;
        assert!(
            refused.as_ref().is_ok_and(String::is_empty) || refused.is_err(),
            "{refused:?}"
        );
        drop(crowd);
        // Whoever comes when there is room again is served.
        within("a seat", async {
            loop {
                let line = Telnet::dial(&scheduler).await.line_or_reset().await;
                if line.is_ok_and(|line| !line.is_empty()) {
                    return;
                }
                Timer::after(Duration::from_millis(10)).await;
            }
        })
        .await;
    });
}

/// Two schedulers that know of each other; the first leads.
async fn master_and_standby() -> (Scheduler, Scheduler) {
    let credentials = key();
    let first = Scheduler::start_on(0, credentials.clone());
    let others = vec![("127.0.0.1".to_owned(), first.address.port())];
    // Its own status says that it leads.
    first.until("a master", |_| true).await;
    let second = Scheduler::start_beside(0, credentials, others);
    second.until("a standby", |_| true).await;
    (first, second)
}

#[test]
fn a_standby_sends_everybody_to_the_master_and_takes_over_from_it() {
    block_on(async {
        let (first, second) = master_and_standby().await;
        // It is told of the standby only.
        let worker = second.node(login("worker", 1));
        worker.up().await;
        let submitter = second.node(login("submitter", 0));
        submitter.up().await;
        // Whoever is asked, the answer is the master's.
        for scheduler in [&first, &second] {
            let status = scheduler.status().await;
            assert_eq!(status.nodes.len(), 2);
        }
        submitter.say(want(1));
        let lease = submitter.grant().await.lease;
        submitter.say(began(1, lease));
        submitter.say(want(2));
        first.until("waiting request", one_runs_and_one_waits).await;
        let began = Instant::now();
        first.stop().await;
        worker.down().await;
        submitter.down().await;
        worker.up().await;
        submitter.up().await;
        // The worker's slot is free, as nothing runs on it; the request was made again by itself.
        assert_eq!(submitter.grant().await.request, RequestId(2));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(second.status().await.nodes.len(), 2);
    });
}

#[test]
fn nodes_know_the_standbys_where_no_broadcast_reaches_and_no_one_named_them() {
    block_on(async {
        let (first, second) = master_and_standby().await;
        let worker = first.node(login("worker", 1));
        worker.up().await;
        // The master tells all nodes at the same time.
        let (mut sender, mut receiver) = first.connect().await.split();
        let introduction = ToScheduler::Login(login("looker", 0));
        within("login", sender.send(&introduction)).await.unwrap();
        within("word of the standby", async {
            loop {
                match receiver.receive().await.unwrap().expect("it stays") {
                    FromScheduler::Standbys(standbys) if standbys == [second.address] => return,
                    _ => {}
                }
            }
        })
        .await;
        drop((sender, receiver));
        first.stop().await;
        worker.down().await;
        worker.up().await;
        assert_eq!(second.status().await.nodes.len(), 1);
    });
}

#[test]
fn a_scheduler_that_meets_a_node_from_a_later_term_begins_a_later_one() {
    block_on(async {
        let scheduler = Scheduler::start();
        let worker = scheduler.node(login("worker", 2));
        let LinkEvent::Up { term: first, .. } = worker.event().await else {
            panic!("it is accepted");
        };
        // As after a restart of the scheduler, or for one that was cut off while others held an election.
        let seen = first.next(0).next(0);
        let traveller = scheduler.node(Login {
            seen,
            ..login("traveller", 0)
        });
        let LinkEvent::Up { term: second, .. } = traveller.event().await else {
            panic!("it is accepted");
        };
        assert!(second > seen);
        worker.down().await;
        let LinkEvent::Up { term, .. } = worker.event().await else {
            panic!("it comes back");
        };
        assert_eq!(term, second);
        traveller.say(want(1));
        assert_eq!(traveller.grant().await.term, second);
        // One that lies about its past disturbs nobody.
        let liar = scheduler.node(Login {
            seen: Term(u64::MAX),
            ..login("liar", 0)
        });
        liar.down().await;
        let mut telling = Vec::new();
        while let Ok(event) = worker.events.try_recv() {
            telling.push(event);
        }
        assert_eq!(telling, []);
        assert_eq!(scheduler.status().await.nodes.len(), 2);
    });
}

#[test]
fn nonsense_is_dropped_and_harms_nobody() {
    block_on(async {
        let scheduler = Scheduler::start();
        let worker = scheduler.node(login("worker", 2));
        worker.up().await;
        // Somebody has work there all the while.
        let honest = scheduler.node(login("honest", 0));
        honest.up().await;
        honest.say(want(1));
        let held = honest.grant().await.lease;
        honest.say(began(1, held));
        let deal = |request| match want(request) {
            LinkCommand::Deal(deal) => ToScheduler::Deal(deal),
            other => panic!("{other:?}"),
        };
        let state = |load_milli| {
            ToScheduler::State(NodeState {
                load_milli,
                ..NodeState::default()
            })
        };
        let toolchains =
            |range: std::ops::Range<u64>| -> Vec<Digest> { range.map(distinct).collect() };
        let enter = || ToScheduler::Login(login("nobody", 1));
        let with = |change: fn(&mut Login)| {
            let mut login = login("nobody", 1);
            change(&mut login);
            ToScheduler::Login(login)
        };
        let ended = |request, lease, outcome| {
            let request = RequestId(request);
            ToScheduler::Deal(Deal::Ended {
                request,
                lease,
                outcome,
            })
        };
        let nice = |niceness| match want(1) {
            LinkCommand::Deal(Deal::Want(mut want)) => {
                want.terms.niceness = niceness;
                ToScheduler::Deal(Deal::Want(want))
            }
            other => panic!("{other:?}"),
        };
        // What is said on one connection, the last of which is nonsense.
        let speeches: Vec<(&str, Vec<ToScheduler>)> = vec![
            ("a request before a login", vec![deal(1)]),
            ("a state before a login", vec![state(0)]),
            ("two logins", vec![enter(), enter()]),
            ("a request made twice", vec![enter(), deal(1), deal(1)]),
            ("an impossible load", vec![enter(), state(u32::MAX)]),
            (
                "four billion slots",
                vec![
                    enter(),
                    ToScheduler::Capacity {
                        slots: u32::MAX,
                        no_remote: None,
                    },
                ],
            ),
            (
                "more toolchains than there are",
                vec![
                    enter(),
                    ToScheduler::Toolchains {
                        added: toolchains(0..100_000),
                        removed: vec![],
                    },
                ],
            ),
            (
                "more and more toolchains",
                std::iter::once(enter())
                    .chain((0..40).map(|part| ToScheduler::Toolchains {
                        added: toolchains(part * 500..(part + 1) * 500),
                        removed: vec![],
                    }))
                    .collect(),
            ),
            (
                "a login with four billion slots",
                vec![with(|login| login.slots = u32::MAX)],
            ),
            (
                "a login with an impossible load",
                vec![with(|login| login.state.load_milli = u32::MAX)],
            ),
            (
                "a login with an endless name",
                vec![with(|login| login.name = "x".repeat(100_000))],
            ),
            ("a niceness of 255", vec![enter(), nice(255)]),
            (
                "the end of another's job",
                vec![enter(), ended(1, held, Outcome::Unused)],
            ),
            (
                "the return of another's lease",
                vec![enter(), ToScheduler::Deal(Deal::Return(held))],
            ),
            (
                "the begin of a job under another's lease",
                vec![
                    enter(),
                    ToScheduler::Deal(Deal::Began {
                        request: RequestId(1),
                        lease: held,
                    }),
                ],
            ),
            (
                "a lease before a login",
                vec![ToScheduler::Deal(Deal::Return(held))],
            ),
            (
                "a looker who makes requests",
                vec![ToScheduler::Status, deal(1)],
            ),
            ("a looker who logs in", vec![ToScheduler::Status, enter()]),
            (
                "a job that took longer than the world is old",
                vec![
                    enter(),
                    ended(
                        1,
                        LeaseId(0),
                        Outcome::Done {
                            usage: Usage {
                                cpu_us: u64::MAX,
                                ..Usage::default()
                            },
                            output_bytes: u64::MAX,
                        },
                    ),
                    ToScheduler::Deal(Deal::Return(held)),
                ],
            ),
        ];
        for (what, speech) in speeches {
            let (mut sender, mut receiver) = scheduler.connect().await.split();
            for message in &speech {
                // It may have been dropped for what it said before.
                if within(what, sender.send(message)).await.is_err() {
                    break;
                }
            }
            within(what, async {
                // It is told what it has a right to, and then nothing more.
                while let Ok(Some(_)) = receiver.receive::<FromScheduler>().await {}
            })
            .await;
            let status = scheduler
                .until(what, |status| status.nodes.len() == 2)
                .await;
            assert_eq!(status.nodes[1].name, "worker", "{what}");
            assert_eq!(status.nodes[1].running, 1, "{what}");
            assert_eq!(status.waiting, 0, "{what}");
        }
        worker.say(LinkCommand::State(NodeState {
            local_jobs: 1,
            ..NodeState::default()
        }));
        scheduler
            .until("report", |status| status.nodes[1].local_jobs == 1)
            .await;
        // Its lease is still its own.
        honest.say(LinkCommand::Deal(Deal::Return(held)));
        scheduler
            .until("return", |status| status.nodes[1].running == 0)
            .await;
    });
}

#[test]
fn a_clock_that_is_an_hour_off_is_seen_in_the_status() {
    const HOUR_MS: i64 = 3_600_000;
    block_on(async {
        let scheduler = Scheduler::start();
        let punctual = scheduler.node(login("punctual", 1));
        punctual.up().await;
        let (mut sender, _receiver) = scheduler.connect().await.split();
        let state = NodeState {
            clock_ms: ice::clock::now_ms() - HOUR_MS as u64,
            ..NodeState::default()
        };
        for message in [
            ToScheduler::Login(login("slow", 1)),
            ToScheduler::State(state),
        ] {
            within("login", sender.send(&message)).await.unwrap();
        }
        let is_told = |status: &Status| {
            status.nodes.len() == 2 && status.nodes.iter().all(|node| node.skew_ms.is_some())
        };
        let status = scheduler.until("both clocks", is_told).await;
        assert!(status.clock_ms.abs_diff(ice::clock::now_ms()) < 60_000);
        for (node, expect) in status.nodes.iter().zip([0, -HOUR_MS]) {
            let skew = node.skew_ms.unwrap();
            // As much as the way of a report may take on a busy machine.
            assert!((skew - expect).abs() < 60_000, "{}: {skew}", node.name);
        }
    });
}
