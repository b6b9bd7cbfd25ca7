//! A scheduler under the load of a company, as a process of its own: `cargo bench --bench load`.
//!
//! 200 real daemons are connected to it, as are workers and submitters that speak the real protocol from this
//! process; 2000 more connections ask for its status once and then say nothing. The submitters want 1000 slots a
//! second, whether or not those before were granted, and their jobs take a tenth of a second, or pretend to:
//! nothing is compiled, since no one machine could.
//!
//! Fails when a node is lost, when a job waits that need not, or when the scheduler needs more memory than
//! [`MEMORY_MAX_MIB`]. `cargo test` runs the same with less of everything.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ice::connection::Connection;
use ice::daemon::link::{self, LinkCommand, LinkConfig, LinkEvent};
use ice::executor;
use ice::id::{Bytes, Digest, LeaseId, RequestId};
use ice::key::Credentials;
use ice::message::{
    Deal, FromScheduler, Login, Offer, Outcome, Status, Terms, ToScheduler, Usage, Want,
};
use ice::reactor::Timer;
use ice::status;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

const MEMORY_MAX_MIB: f64 = 100.0;
const WORKERS: usize = 40;
const SLOTS: u32 = 8;
const SUBMITTERS: usize = 20;
const JOB: Duration = Duration::from_millis(100);
/// Between two looks of a submitter at its jobs.
const STEP: Duration = Duration::from_millis(5);
/// What may not take longer, however busy the machine.
const BOUND: Duration = Duration::from_secs(120);
const GCC: Digest = Digest([1; 32]);

/// How much of everything.
struct Load {
    daemons: usize,
    idle: usize,
    jobs_a_second: u32,
    time: Duration,
}

fn main() {
    // cargo says so when it measures; otherwise this is a test.
    let load = match std::env::args().any(|word| word == "--bench") {
        true => Load {
            daemons: 200,
            idle: 2000,
            jobs_a_second: 1000,
            time: Duration::from_secs(15),
        },
        false => Load {
            daemons: 8,
            idle: 200,
            jobs_a_second: 200,
            time: Duration::from_secs(3),
        },
    };
    let directory = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let scheduler = Role::start(
        directory.path(),
        "scheduler",
        &["--memory", "-", "--port", &port.to_string()],
    );
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let daemons: Vec<Role> = (0..load.daemons)
        .map(|number| {
            let name = format!("daemon-{number}");
            let own = free_port().to_string();
            let words = ["-m", "0", "-s", &at.to_string(), "-N", &name, "-p", &own];
            Role::start(directory.path(), &name, &words)
        })
        .collect();
    executor::block_on(run(&load, at, &scheduler));
    drop(daemons);
}

async fn run(load: &Load, at: SocketAddr, scheduler: &Role) {
    let workers: Vec<Speaker> = (0..WORKERS)
        .map(|number| Speaker::start(at, &format!("worker-{number}"), SLOTS))
        .collect();
    let submitters: Vec<Speaker> = (0..SUBMITTERS)
        .map(|number| Speaker::start(at, &format!("submitter-{number}"), 0))
        .collect();
    let nodes = load.daemons + WORKERS + SUBMITTERS;
    until(at, "all nodes are there", |status| {
        status.nodes.len() == nodes
    })
    .await;
    let began = Instant::now();
    let mut idle = Vec::new();
    while idle.len() < load.idle {
        idle.push(looker(at).await);
    }
    println!(
        "{} daemons, {} other nodes and {} idle connections, which took {:.1} s; {:.1} MiB",
        load.daemons,
        WORKERS + SUBMITTERS,
        idle.len(),
        began.elapsed().as_secs_f64(),
        scheduler.memory_mib("VmRSS"),
    );
    let (cpu, began) = (scheduler.cpu(), Instant::now());
    let tasks: Vec<_> = submitters
        .into_iter()
        .enumerate()
        .map(|(number, speaker)| {
            let rate = f64::from(load.jobs_a_second) / SUBMITTERS as f64;
            executor::spawn(submit(speaker, number as u64, rate, load.time))
        })
        .collect();
    let (mut waits, mut speakers) = (Vec::new(), Vec::new());
    for task in tasks {
        let (speaker, of_one) = task.await;
        speakers.push(speaker);
        waits.extend(of_one);
    }
    let took = began.elapsed();
    let cpu = scheduler.cpu() - cpu;
    waits.sort_unstable();
    let ms = |share: f64| {
        let at = ((waits.len() - 1) as f64 * share) as usize;
        waits[at].as_secs_f64() * 1000.0
    };
    let memory = scheduler.memory_mib("VmHWM");
    println!(
        "{} jobs, {:.0} a second; from request to start {:.1} ms at the median, {:.1} ms at 99 %; \
         the scheduler used {:.0} us of a processor per job, {:.0} % of one, and at most {memory:.1} MiB",
        waits.len(),
        waits.len() as f64 / took.as_secs_f64(),
        ms(0.5),
        ms(0.99),
        cpu.as_micros() as f64 / waits.len() as f64,
        100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
    );
    let wanted = f64::from(load.jobs_a_second) * load.time.as_secs_f64();
    assert!(waits.len() as f64 > 0.98 * wanted, "{wanted} were wanted");
    until(at, "nobody was lost", |status| status.nodes.len() == nodes).await;
    assert!(memory < MEMORY_MAX_MIB, "{memory} MiB");
    for connection in &mut idle {
        // One that was dropped would have said so.
        let silent = async {
            Timer::after(Duration::ZERO).await;
            true
        };
        let ended = async { matches!(connection.1.receive::<FromScheduler>().await, Ok(Some(_))) };
        assert!(ended.or(silent).await, "an idle connection was dropped");
    }
    drop((workers, speakers));
}

/// One process of ice, which ends with this.
struct Role(Child);

impl Role {
    fn start(directory: &Path, name: &str, words: &[&str]) -> Self {
        let own = directory.join(name);
        fs::create_dir_all(&own).expect("make a directory");
        let log = fs::File::create(own.join("log")).expect("make a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ice"));
        match name {
            "scheduler" => command.arg("scheduler"),
            _ => command
                .arg("daemon")
                .args(["--socket".as_ref(), own.join("sock").as_os_str()])
                .args(["--cache-dir".as_ref(), own.join("cache").as_os_str()]),
        };
        let child = command
            .args(words)
            .args(["--open", "--interface", "lo", "-n", "LOAD"])
            .env("HOME", &own)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn();
        Self(child.expect("start ice"))
    }

    /// Processor time so far.
    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.0.id()));
        let text = text.expect("it runs");
        let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
        Duration::from_nanos(nanoseconds.expect("a number"))
    }

    fn memory_mib(&self, of: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(of));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.expect("a number") / 1024.0
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // They have nothing to say any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node in this process.
struct Speaker {
    commands: Sender<LinkCommand>,
    events: Receiver<LinkEvent>,
    _link: smol::Task<()>,
}

impl Speaker {
    fn start(at: SocketAddr, name: &str, slots: u32) -> Self {
        let (commands, received) = channel::unbounded();
        let (tell, events) = channel::unbounded();
        let config = LinkConfig {
            schedulers: vec![at.to_string()],
            credentials: Credentials::Open,
            login: Login {
                port: if slots > 0 { 10245 } else { 0 },
                slots,
                toolchains: vec![GCC],
                ..Login::new(name, "LOAD", "x86_64")
            },
        };
        Self {
            commands,
            events,
            _link: executor::spawn(link::run(config, received, tell)),
        }
    }

    fn say(&self, deal: Deal) {
        let said = self.commands.try_send(LinkCommand::Deal(deal));
        said.expect("the link lives as long as this");
    }
}

/// Wants so many slots a second for some time, and uses them; how long each job waited for one.
async fn submit(
    speaker: Speaker,
    number: u64,
    rate: f64,
    time: Duration,
) -> (Speaker, Vec<Duration>) {
    let start = Instant::now();
    let total = (rate * time.as_secs_f64()) as u64;
    let mut wanted = 0;
    let mut waiting: VecDeque<(RequestId, Instant)> = VecDeque::new();
    let mut running: VecDeque<(Instant, RequestId, LeaseId)> = VecDeque::new();
    let mut revoked: BTreeSet<LeaseId> = BTreeSet::new();
    let mut waits = Vec::new();
    let mut use_lease = |lease, waiting: &mut VecDeque<(RequestId, Instant)>| {
        let (request, since) = waiting.pop_front()?;
        waits.push(since.elapsed());
        speaker.say(Deal::Began { request, lease });
        Some((Instant::now() + JOB, request, lease))
    };
    loop {
        let due = ((rate * start.elapsed().as_secs_f64()) as u64).min(total);
        while wanted < due {
            wanted += 1;
            waiting.push_back((RequestId(wanted), Instant::now()));
            speaker.say(Deal::Want(want(number, wanted)));
        }
        while let Some(&(end, request, lease)) = running.front()
            && end <= Instant::now()
        {
            running.pop_front();
            let outcome = Outcome::Done {
                usage: Usage {
                    cpu_us: 90_000,
                    wall_us: 100_000,
                    ..Usage::default()
                },
                output_bytes: 50_000,
            };
            speaker.say(Deal::Ended {
                request,
                lease,
                outcome,
            });
            match revoked.contains(&lease) {
                false => match use_lease(lease, &mut waiting) {
                    Some(next) => running.push_back(next),
                    None => speaker.say(Deal::Return(lease)),
                },
                true => {
                    revoked.remove(&lease);
                    speaker.say(Deal::Return(lease));
                }
            }
        }
        if wanted == total && waiting.is_empty() && running.is_empty() {
            return (speaker, waits);
        }
        assert!(
            start.elapsed() < time + BOUND,
            "{} wait for ever",
            waiting.len()
        );
        let event = async { speaker.events.recv().await.ok() };
        let step = async {
            Timer::after(STEP).await;
            None
        };
        match event.or(step).await {
            Some(LinkEvent::Offer(Offer::Grant(grant))) => {
                match use_lease(grant.lease, &mut waiting) {
                    Some(next) => running.push_back(next),
                    None => speaker.say(Deal::Return(grant.lease)),
                }
            }
            Some(LinkEvent::Offer(Offer::Revoke(lease))) => {
                if running.iter().any(|(_, _, of)| *of == lease) {
                    revoked.insert(lease);
                }
            }
            Some(LinkEvent::Offer(Offer::Deny { why, .. })) => panic!("denied: {why}"),
            Some(LinkEvent::Down(why)) => panic!("the scheduler is gone: {why}"),
            Some(LinkEvent::Offer(_) | LinkEvent::Up { .. }) | None => {}
        }
    }
}

fn want(submitter: u64, request: u64) -> Want {
    Want {
        file: Bytes::from(&format!("src/module{submitter}/file{}.cpp", request % 500)[..]),
        variant: submitter,
        ..Want::new(RequestId(request), GCC, Terms::new("x86_64"))
    }
}

/// A connection that has asked once and says nothing more.
async fn looker(at: SocketAddr) -> (ice::connection::Sender, ice::connection::Receiver) {
    let connection = Connection::connect(at, &Credentials::Open, BOUND).await;
    let (mut sender, mut receiver) = connection.expect("a connection").split();
    sender.send(&ToScheduler::Status).await.expect("a question");
    let answer = receiver.receive::<FromScheduler>().await;
    assert!(matches!(answer, Ok(Some(FromScheduler::Status(_)))));
    (sender, receiver)
}

/// Waits until the cluster looks so.
async fn until(at: SocketAddr, what: &str, so: impl Fn(&Status) -> bool) {
    let began = Instant::now();
    loop {
        let last = status::fetch(&[at], &Credentials::Open).await;
        if last.as_ref().is_ok_and(&so) {
            return;
        }
        if began.elapsed() > BOUND {
            panic!("{what}: {:?}", last.map(|status| status.nodes.len()));
        }
        Timer::after(Duration::from_millis(50)).await;
    }
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}
