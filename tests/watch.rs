//! The scheduler's news over real sockets: who watches, what he hears, and what becomes of one who
//! does not listen.
//!
//! Every wait is for a condition and has a bound far above what is needed.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ice::connection::{Connection, Receiver, Sender};
use ice::key::{ClusterKey, Credentials};
use ice::message::{FromScheduler, NodeState, ToScheduler};
use ice::monitor::model::Event;
use ice::monitor::watch::{self, Find};
use ice::news::{LocalJobs, News, NodePicture, Snapshot};
use ice::reactor::Timer;
use ice::scheduler::{Server, ServerConfig};
use smol::channel;
use smol::future::FutureExt;
use smol::{Task, block_on};

#[path = "support/peer.rs"]
mod peer;

const BOUND: Duration = Duration::from_secs(30);

struct Scheduler {
    address: SocketAddr,
    credentials: Credentials,
    task: Task<()>,
}

impl Scheduler {
    fn start(credentials: &Credentials) -> Self {
        let server = Server::bind(ServerConfig {
            port: 0,
            netname: "TEST".into(),
            credentials: credentials.clone(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            others: vec![],
            is_persistent: true,
            control: None,
            alone: true,
            http: None,
            icecream_monitors: false,
            algorithm: ice::scheduler::Algorithm::default(),
            memory: None,
        })
        .expect("a port for the scheduler");
        Self {
            address: server.address(),
            credentials: credentials.clone(),
            task: in_background(server.run(smol::future::pending())),
        }
    }

    async fn connect(&self) -> Connection {
        let connection = Connection::connect(self.address, &self.credentials, BOUND);
        within("connection", connection).await.unwrap()
    }

    async fn join(&self, name: &str) -> (Sender, Receiver) {
        peer::log_in(self.connect().await, name, "TEST").await
    }

    async fn watch(&self) -> (Sender, Ears, Snapshot) {
        let (mut sender, mut receiver) = self.connect().await.split();
        sender.send(&ToScheduler::Watch).await.unwrap();
        match hear(&mut receiver).await {
            FromScheduler::Snapshot(snapshot) => {
                let heard = VecDeque::new();
                (sender, Ears { receiver, heard }, snapshot)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn key() -> Credentials {
    Credentials::Key(Arc::new(ClusterKey::random().unwrap()))
}

fn in_background<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    static RUNNING: std::sync::Once = std::sync::Once::new();
    RUNNING.call_once(|| {
        std::thread::spawn(|| ice::executor::block_on(smol::future::pending::<()>()));
    });
    ice::executor::spawn(task)
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(BOUND).await;
        panic!("no {what} within {BOUND:?}")
    };
    work.or(late).await
}

async fn hear(receiver: &mut Receiver) -> FromScheduler {
    let message = within("message", receiver.receive()).await.unwrap();
    message.expect("the connection lasts")
}

/// A watcher's end, and the news that came and were not asked for yet.
struct Ears {
    receiver: Receiver,
    heard: VecDeque<News>,
}

/// The next of the news for which `pick` has something; those before it are over.
async fn news<T>(ears: &mut Ears, pick: impl Fn(&News) -> Option<T>) -> T {
    within("news", async {
        loop {
            while let Some(news) = ears.heard.pop_front() {
                if let Some(picked) = pick(&news) {
                    return picked;
                }
            }
            if let FromScheduler::News { news, .. } = hear(&mut ears.receiver).await {
                ears.heard.extend(news);
            }
        }
    })
    .await
}

fn node(name: &'static str) -> impl Fn(&News) -> Option<NodePicture> {
    move |news| match news {
        News::Node(picture) if picture.name == name => Some(picture.clone()),
        _ => None,
    }
}

#[test]
fn everybody_who_watches_hears_of_nodes_and_of_local_jobs() {
    block_on(async {
        let scheduler = Scheduler::start(&key());
        let (_early, mut first, snapshot) = scheduler.watch().await;
        assert_eq!((&*snapshot.netname, snapshot.nodes.len()), ("TEST", 0));
        let (mut anvil, _inbox) = scheduler.join("anvil").await;
        let came = news(&mut first, node("anvil")).await;
        let (_late, mut second, snapshot) = scheduler.watch().await;
        assert_eq!(snapshot.nodes, std::slice::from_ref(&came));
        let jobs = LocalJobs {
            reason: "link".into(),
            jobs: 3,
            file: "a.out".into(),
        };
        let report = ToScheduler::LocalJobs(vec![jobs]);
        anvil.send(&report).await.unwrap();
        drop(anvil);
        drop(_inbox);
        for receiver in [&mut first, &mut second] {
            let local = news(receiver, |news| match news {
                News::Local { node, jobs, .. } => Some((*node, *jobs)),
                _ => None,
            });
            assert_eq!(local.await, (came.node, 3));
            let left = news(receiver, |news| match news {
                News::Left { node } => Some(*node),
                _ => None,
            });
            assert_eq!(left.await, came.node);
        }
        let (_, _, snapshot) = scheduler.watch().await;
        assert_eq!(snapshot.totals.local, [("link".to_owned(), 3)]);
    });
}

#[test]
fn a_node_is_blocked_and_unblocked_by_who_watches() {
    block_on(async {
        let scheduler = Scheduler::start(&key());
        let (mut watcher, mut receiver, _) = scheduler.watch().await;
        let _anvil = scheduler.join("anvil").await;
        assert!(!news(&mut receiver, node("anvil")).await.is_blocked);
        for is_blocked in [true, false] {
            let node_name = "anvil".to_owned();
            let request = ToScheduler::Block {
                node: node_name,
                is_blocked,
            };
            watcher.send(&request).await.unwrap();
            let told = news(&mut receiver, node("anvil")).await;
            assert_eq!(told.is_blocked, is_blocked);
        }
    });
}

#[test]
fn who_does_not_read_misses_news_is_told_how_many_and_gets_a_new_snapshot() {
    block_on(async {
        let scheduler = Scheduler::start(&key());
        let (mut anvil, mut inbox) = scheduler.join("anvil").await;
        let (mut watcher, mut ears, _) = scheduler.watch().await;
        // More than the buffers between here and there can hold, while nobody reads.
        let jobs: Vec<LocalJobs> = (0..ice::news::REASONS_MAX)
            .map(|number| LocalJobs {
                reason: format!("reason-{number}"),
                jobs: 1,
                file: vec![b'x'; 200].into(),
            })
            .collect();
        let messages = 2000;
        within("reading of all reports", async {
            for _ in 0..messages {
                let report = ToScheduler::LocalJobs(jobs.clone());
                anvil.send(&report).await.unwrap();
            }
            // Answered in turn.
            let state = ToScheduler::State(NodeState::default());
            anvil.send(&state).await.unwrap();
            while hear(&mut inbox).await != FromScheduler::Alive {}
        })
        .await;
        let (mut heard, mut missed) = (0, 0);
        within("a gap", async {
            while missed == 0 {
                if let FromScheduler::News { skipped, news } = hear(&mut ears.receiver).await {
                    heard += news.len();
                    missed += skipped;
                }
            }
        })
        .await;
        let told = messages * ice::news::REASONS_MAX;
        assert!(heard < told, "{heard} of {told}");
        watcher.send(&ToScheduler::Watch).await.unwrap();
        let snapshot = within("snapshot", async {
            loop {
                if let FromScheduler::Snapshot(snapshot) = hear(&mut ears.receiver).await {
                    return snapshot;
                }
            }
        })
        .await;
        let counted: u64 = snapshot.totals.local.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, told as u64, "the snapshot knows what was missed");
    });
}

#[test]
fn a_watcher_outlives_its_scheduler_and_finds_the_next() {
    block_on(async {
        let credentials = key();
        let scheduler = Scheduler::start(&credentials);
        let here = Arc::new(Mutex::new(scheduler.address));
        let known = here.clone();
        let find: Find = Box::new(move || {
            let address = *known.lock().unwrap();
            Box::pin(async move { Ok(vec![address]) })
        });
        let (heard, events) = channel::bounded(4);
        let (_requests, said) = channel::bounded(1);
        let _watch = in_background(watch::watch(find, credentials.clone(), heard, said));
        let event = async || within("event", events.recv()).await.unwrap();
        let first = scheduler.address.to_string();
        assert!(matches!(event().await, Event::Found(address) if address == first));
        assert!(matches!(event().await, Event::Snapshot(_)));
        let next = Scheduler::start(&credentials);
        *here.lock().unwrap() = next.address;
        within("end", scheduler.task.cancel()).await;
        let until = async |what: &str, is: &dyn Fn(&Event) -> bool| {
            within(what, async { while !is(&event().await) {} }).await;
        };
        until("loss", &|event| matches!(event, Event::Lost(_))).await;
        let second = next.address.to_string();
        let is_next = |event: &Event| matches!(event, Event::Found(address) if *address == second);
        until("next scheduler", &is_next).await;
        assert!(matches!(event().await, Event::Snapshot(_)));
    });
}

#[test]
fn a_stranger_hears_nothing() {
    block_on(async {
        let scheduler = Scheduler::start(&key());
        let another = key();
        let addresses = [scheduler.address];
        let stranger = watch::snapshot(&addresses, &another);
        let error = within("refusal", stranger).await.unwrap_err();
        assert!(error.to_string().contains("cluster key"), "{error}");
    });
}
