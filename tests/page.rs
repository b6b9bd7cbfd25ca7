//! The scheduler's page, its events and metrics, and the monitors of icecream, over real sockets.
//!
//! Every wait is for a condition and has a bound far above what is needed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ice::connection::{Connection, Receiver, Sender};
use ice::key::Credentials;
use ice::message::{NodeState, ToScheduler};
use ice::news::LocalJobs;
use ice::reactor::Timer;
use ice::scheduler::http::HttpConfig;
use ice::scheduler::{Server, ServerConfig};
use smol::future::FutureExt;
use smol::{Task, channel};

#[path = "support/peer.rs"]
mod peer;

const BOUND: Duration = Duration::from_secs(30);

struct Scheduler {
    address: SocketAddr,
    http: SocketAddr,
    _task: Task<()>,
}

impl Scheduler {
    fn start(icecream_monitors: bool) -> Self {
        let server = Server::bind(ServerConfig {
            port: 0,
            netname: "TEST".into(),
            credentials: Credentials::Open,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            others: vec![],
            is_persistent: true,
            control: None,
            alone: true,
            http: Some(HttpConfig {
                address: (Ipv4Addr::LOCALHOST, 0).into(),
                names: vec!["build.example.org".into()],
            }),
            icecream_monitors,
            algorithm: ice::scheduler::Algorithm::default(),
            memory: None,
        })
        .expect("ports for the scheduler");
        static RUNNING: std::sync::Once = std::sync::Once::new();
        RUNNING.call_once(|| {
            std::thread::spawn(|| ice::executor::block_on(smol::future::pending::<()>()));
        });
        Self {
            address: server.address(),
            http: server.http_address().expect("a page"),
            _task: ice::executor::spawn(server.run(smol::future::pending())),
        }
    }

    /// A node that logged in, and gives signs of life as long as it is held.
    fn join(&self, name: &str) -> Node {
        ice::executor::block_on(async {
            let connection = Connection::connect(self.address, &Credentials::Open, BOUND);
            let (sender, receiver) = peer::log_in(connection.await.unwrap(), name, "TEST").await;
            let (say, words) = channel::bounded(64);
            let life = ice::executor::spawn(live(sender, receiver, words));
            Node { say, _life: life }
        })
    }

    fn connect(&self, at: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(at).expect("a connection");
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream
    }

    /// The whole answer to a request: status, head and body.
    fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect(self.http);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        (
            status.expect(head),
            head.to_ascii_lowercase(),
            body.to_owned(),
        )
    }

    fn fetch(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn events(&self) -> Events {
        let mut stream = self.connect(self.http);
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            .unwrap();
        Events(BufReader::new(stream))
    }
}

struct Node {
    say: channel::Sender<ToScheduler>,
    _life: Task<()>,
}

impl Node {
    fn say(&self, message: ToScheduler) {
        self.say.send_blocking(message).expect("the node lives");
    }
}

async fn live(mut sender: Sender, _receiver: Receiver, words: channel::Receiver<ToScheduler>) {
    loop {
        let word = async { words.recv().await.ok() };
        let sign = async {
            Timer::after(Duration::from_millis(200)).await;
            Some(ToScheduler::State(NodeState::default()))
        };
        let Some(message) = word.or(sign).await else {
            return;
        };
        if sender.send(&message).await.is_err() {
            return;
        }
    }
}

struct Events(BufReader<TcpStream>);

impl Events {
    /// The next object that is an event of this kind.
    fn next(&mut self, kind: &str) -> serde_json::Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("a line"), 0, "no {kind}");
            if let Some(object) = line.strip_prefix("data: ") {
                let object: serde_json::Value = serde_json::from_str(object).expect(&line);
                if object["event"] == kind {
                    return object;
                }
            }
        }
    }
}

#[test]
fn the_page_comes_with_a_policy_that_allows_only_itself() {
    let scheduler = Scheduler::start(false);
    let (status, head, body) = scheduler.fetch("/");
    assert_eq!(status, 200);
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    let (_, nonce) = head.split_once("script-src 'nonce-").expect(&head);
    let (nonce, _) = nonce.split_once('\'').unwrap();
    assert_eq!(nonce.len(), 32);
    assert_eq!(body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    let (_, again, _) = scheduler.fetch("/");
    assert!(!again.contains(nonce), "the same word twice");
}

#[test]
fn a_request_is_answered_as_it_deserves() {
    let scheduler = Scheduler::start(false);
    for (request, expect) in [
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8767\r\n\r\n", 200),
        (
            "GET /healthz HTTP/1.1\r\nHost: build.example.org\r\n\r\n",
            200,
        ),
        ("HEAD /metrics HTTP/1.1\r\nHost: [::1]\r\n\r\n", 200),
        ("HEAD /events HTTP/1.1\r\nHost: [::1]\r\n\r\n", 200),
        (
            "GET /healthz HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
            421,
        ),
        (
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n",
            400,
        ),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
            405,
        ),
        (
            "GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
        ),
        ("no request\r\n\r\n", 400),
    ] {
        let (status, _, body) = scheduler.ask(request);
        let head = &request[..request.len().min(60)];
        assert_eq!(status, expect, "{head:?}: {body}");
        assert!(!request.starts_with("HEAD") || body.is_empty(), "{body}");
    }
}

#[test]
fn a_head_without_an_end_is_cut_off() {
    let scheduler = Scheduler::start(false);
    let mut stream = scheduler.connect(scheduler.http);
    let start = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ";
    stream.write_all(start.as_bytes()).unwrap();
    // The other end may hang up before all is said, and its kernel may then drop its answer.
    let said = stream.write_all("x".repeat(8 << 20).as_bytes());
    let mut answer = Vec::new();
    let heard = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert!(
        said.is_err() || heard.is_err() || !answer.is_empty(),
        "all of it was taken in and nothing came of it"
    );
}

#[test]
fn events_begin_with_a_snapshot_and_go_on_with_the_news() {
    let scheduler = Scheduler::start(false);
    let _anvil = scheduler.join("anvil");
    let mut early = scheduler.events();
    let snapshot = early.next("snapshot");
    assert_eq!(snapshot["netname"], "TEST");
    assert_eq!(snapshot["nodes"][0]["name"], "anvil");
    let basalt = scheduler.join("basalt");
    assert_eq!(early.next("node")["name"], "basalt");
    let mut late = scheduler.events();
    assert_eq!(late.next("snapshot")["nodes"].as_array().unwrap().len(), 2);
    // What a file is called is nobody's markup and no line of the stream.
    let file = "</script>\n\ndata: {\"event\":\"left\"}\n\n";
    let jobs = vec![LocalJobs {
        reason: "link".into(),
        jobs: 3,
        file: file.into(),
    }];
    basalt.say(ToScheduler::LocalJobs(jobs));
    for events in [&mut early, &mut late] {
        let local = events.next("local");
        assert_eq!(
            (&local["submitter"], &local["jobs"]),
            (&"basalt".into(), &3.into())
        );
        assert_eq!(local["file"], file);
    }
    let (status, head, metrics) = scheduler.fetch("/metrics");
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for line in [
        "ice_local_jobs_total{reason=\"link\"} 3",
        "ice_nodes{state=\"open\"} 2",
        "ice_slots 8",
        "ice_node_slots{node=\"anvil\"} 4",
        "ice_scheduler_role{role=\"master\"} 1",
        "ice_watchers{by=\"events\"} 2",
    ] {
        assert!(metrics.lines().any(|of| of == line), "{line}: {metrics}");
    }
}

#[test]
fn a_silent_connection_and_an_unread_one_hold_nobody_up() {
    let scheduler = Scheduler::start(false);
    let _silent: Vec<TcpStream> = (0..100)
        .map(|_| scheduler.connect(scheduler.http))
        .collect();
    let mut unread = scheduler.events();
    unread.next("snapshot");
    let anvil = scheduler.join("anvil");
    // More than the kernel and the reader's channel hold together.
    let file = "x".repeat(200);
    for _ in 0..60_000 {
        anvil.say(ToScheduler::LocalJobs(vec![LocalJobs {
            reason: "link".into(),
            jobs: 1,
            file: file[..].into(),
        }]));
    }
    // What was too much at once for those who look on is counted all the same.
    let value = |text: &str, series: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().expect("a count"))
    };
    let mut told = String::new();
    let started = std::time::Instant::now();
    while started.elapsed() < BOUND {
        told = scheduler.fetch("/metrics").2;
        let counted = value(&told, "ice_local_jobs_total{reason=\"link\"}");
        let readers = value(&told, "ice_watchers{by=\"events\"}");
        assert!(counted <= 60_000, "{told}");
        if counted == 60_000 && readers == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{told}");
}

#[test]
fn a_monitor_of_icecream_hears_of_nodes_and_a_daemon_of_it_hears_nothing() {
    let scheduler = Scheduler::start(true);
    let _anvil = scheduler.join("anvil");
    let greet = |login: &[u8]| {
        let mut stream = scheduler.connect(scheduler.address);
        stream.write_all(&[44, 0, 0, 0]).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [43, 0, 0, 0]);
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [43, 0, 0, 0]);
        stream.write_all(&bytes).unwrap();
        stream.write_all(login).unwrap();
        stream
    };
    let hear = |stream: &mut TcpStream| {
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a message");
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut message).expect("a message");
        message
    };
    let mut monitor = greet(&[0, 0, 0, 4, 0, 0, 0, 82]);
    let stats = hear(&mut monitor);
    assert_eq!(stats[..4], [0, 0, 0, 87]);
    let text = String::from_utf8_lossy(&stats[12..]).into_owned();
    assert!(
        text.starts_with("Name:anvil\nIP:127.0.0.1\nMaxJobs:4\n"),
        "{text}"
    );
    // Between these, the load of nodes may be told anew.
    let basalt = scheduler.join("basalt");
    let number = loop {
        let message = hear(&mut monitor);
        if String::from_utf8_lossy(&message).contains("Name:basalt\n") {
            break message[4..8].to_vec();
        }
    };
    drop(basalt);
    loop {
        let message = hear(&mut monitor);
        if message.ends_with(b"State:Offline\n\0") && message[4..8] == number {
            break;
        }
    }
    // A daemon of icecream logs in: the beginning of its message is enough.
    let mut daemon = greet(&[0, 0, 0, 60, 0, 0, 0, 80]);
    let mut rest = Vec::new();
    // The connection is reset or ended, as the kernel has it.
    let _ = daemon.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn without_the_option_icecreams_monitors_hear_nothing_of_their_own() {
    let scheduler = Scheduler::start(false);
    let mut stream = scheduler.connect(scheduler.address);
    stream
        .write_all(&[43, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0])
        .unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    assert!(!heard.starts_with(&[43]), "{heard:?}");
}
