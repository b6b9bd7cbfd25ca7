//! Scheduler, link, discovery and status over real sockets on loopback.
//!
//! Every wait is for a condition and has a bound; the bounds are far above what is needed.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ice::connection::Connection;
use ice::daemon::link::{self, LinkCommand, LinkConfig, LinkEvent};
use ice::discover;
use ice::id::{Bytes, Digest, LeaseId, RequestId};
use ice::key::{ClusterKey, Credentials};
use ice::message::{
    Deal, FromScheduler, Grant, Login, NodeState, Offer, Outcome, Status, Terms, ToScheduler,
    Usage, Want,
};
use ice::scheduler::{Server, ServerConfig};
use ice::status;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;
use smol::{Task, Timer, block_on};

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
        let server = Server::bind(ServerConfig {
            port,
            netname: "TEST".into(),
            credentials: credentials.clone(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        })
        .expect("a port for the scheduler");
        let address = server.address();
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
        within("status", status::fetch(self.address, &self.credentials))
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
            scheduler: Some(self.address.to_string()),
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

    async fn event(&self) -> LinkEvent {
        within("event", self.events.recv()).await.unwrap()
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
        std::thread::spawn(|| ice::executor::block_on(smol::future::pending::<()>()));
    });
    ice::executor::spawn(task)
}

fn key() -> Credentials {
    Credentials::Key(Arc::new(ClusterKey::random().unwrap()))
}

fn login(name: &str, slots: u32) -> Login {
    Login {
        name: name.into(),
        netname: "TEST".into(),
        platform: "x86_64".into(),
        port: 10245,
        slots,
        no_remote: None,
        toolchains: vec![GCC],
    }
}

fn want(request: u64) -> LinkCommand {
    LinkCommand::Deal(Deal::Want(Want {
        request: RequestId(request),
        toolchain: GCC,
        terms: Terms {
            niceness: 0,
            platform: "x86_64".into(),
            preferred: String::new(),
        },
        file: Bytes::from("a.c"),
        variant: 0,
        except: vec![],
        own: ice::message::OwnNode::Nothing,
    }))
}

fn began(request: u64, lease: LeaseId) -> LinkCommand {
    LinkCommand::Deal(Deal::Began {
        request: RequestId(request),
        lease,
    })
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
            .until("waiting request", |status| status.waiting == 1)
            .await;
        let text = status::status(scheduler.address, &scheduler.credentials, false).await;
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
        submitter.say(want(3));
        match submitter.event().await {
            LinkEvent::Offer(Offer::Deny { request, .. }) => assert_eq!(request, RequestId(3)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_node_finds_the_scheduler_by_itself() {
    block_on(async {
        let scheduler = Scheduler::start();
        let port = scheduler.address.port();
        let config = LinkConfig {
            scheduler: Some(format!(":{port}")),
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
            let addresses = discover::find(&key, netname, port, wait).await.unwrap();
            assert_eq!(!addresses.is_empty(), found, "{netname} {addresses:?}");
            assert!(addresses.iter().all(|address| address.port() == port));
        }
    });
}

#[test]
fn a_restarted_scheduler_gets_its_nodes_back_and_pending_requests_go_home() {
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
            .until("waiting request", |status| status.waiting == 1)
            .await;
        scheduler.stop().await;

        submitter.down().await;
        match submitter.event().await {
            LinkEvent::Offer(Offer::Deny { request, why }) => {
                assert_eq!(request, RequestId(2));
                assert!(why.contains("no scheduler"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        let scheduler = Scheduler::start_on(port, credentials);
        scheduler
            .until("nodes", |status| status.nodes.len() == 2)
            .await;
        // Attempts that failed meanwhile may have been told.
        while !matches!(submitter.event().await, LinkEvent::Up { .. }) {}
        // A lease of the first scheduler means nothing to the second.
        submitter.say(LinkCommand::Deal(Deal::Return(old.lease)));
        submitter.say(want(3));
        assert_eq!(submitter.grant().await.request, RequestId(3));
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
                stream.write_all(&[number as u8; 500]).ok();
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
            scheduler: Some(scheduler.address.to_string()),
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
