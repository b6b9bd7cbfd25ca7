//! What a placement costs the scheduler, by the number of nodes: `cargo bench --bench scheduler`, with numbers behind
//! `--` for other clusters than those of 10 to 10,000 nodes.
//!
//! All slots are lent and 100,000 jobs wait. Then, again and again, a job ends, its lease is returned and lent to
//! whose turn it is, a job begins under it, and another comes to wait in its place: four messages, and all of them
//! count as the placement's cost. In practice most jobs cost less, since a lease serves many of them.
//! Meanwhile time goes on as it would at 100,000 placements a second, so that nodes report their state,
//! shares are balanced, and leases are asked back; that counts, too.
//!
//! Two runs over the same cluster: the first is measured as a whole, the second event by event, because
//! reading a clock costs a tenth of a placement. Each size once with nodes that are all as far away as is not known,
//! and once with submitters who have told their ways to the nodes whose leases they have, as far as that is remembered,
//! and now and then tell one anew. All times are the thread's processor time.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use ice::id::{Bytes, Digest, LeaseId, RequestId, Time};
use ice::message::{
    Deal, FromScheduler, Login, NodeState, Offer, Outcome, REPORT_EVERY_MS, Terms, ToScheduler,
    Usage, Want, Way,
};
use ice::scheduler::policy::Algorithm;
use ice::scheduler::speed::Speeds;
use ice::scheduler::{Action, Core, Event, PeerId, Rules};
use nix::time::{ClockId, clock_gettime};

const WAITING: u64 = 100_000;
const SLOTS: u32 = 8;
/// Submitters; some nodes are that, too.
const SUBMITTERS: u64 = 100;
/// Different files, of which the scheduler remembers what they cost.
const FILES: u64 = 5_000;
const PLACEMENTS: usize = 200_000;
/// Between two placements.
const PACE: Duration = Duration::from_micros(10);
/// One of so many placements lets its submitter tell a way anew.
const WAY_EVERY: u64 = 20;
const TOOLCHAINS: [Digest; 2] = [Digest([1; 32]), Digest([2; 32])];

fn main() {
    println!(
        "| nodes | leases out | ways | waiting | placements/s | mean us | p50 us | p99 us | p99.9 us | longest event us |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let asked: Vec<u64> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let sizes = match asked.is_empty() {
        true => vec![10, 100, 1000, 10_000],
        false => asked,
    };
    let rows = sizes
        .iter()
        .flat_map(|&nodes| [(nodes, false), (nodes, true)]);
    for (nodes, ways_known) in rows {
        let mut cluster = Cluster::new(nodes, ways_known);
        let ways = match ways_known {
            true => "known",
            false => "not known",
        };
        let (out, waiting) = (cluster.running.len(), cluster.waiting());
        let began = processor_time();
        for _ in 0..PLACEMENTS {
            cluster.replace_one();
        }
        let mean = micros(processor_time() - began) / PLACEMENTS as f64;
        cluster.is_timed = true;
        let mut placements = Vec::with_capacity(PLACEMENTS);
        for _ in 0..PLACEMENTS {
            cluster.spent = Duration::ZERO;
            cluster.replace_one();
            placements.push(cluster.spent);
        }
        placements.sort_unstable();
        let at = |share: f64| micros(placements[((PLACEMENTS - 1) as f64 * share) as usize]);
        println!(
            "| {nodes} | {out} | {ways} | {waiting} | {:.0} | {mean:.2} | {:.2} | {:.1} | {:.1} | {:.0} |",
            1e6 / mean,
            at(0.5),
            at(0.99),
            at(0.999),
            micros(cluster.longest)
        );
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// A scheduler with all slots lent, and what its peers know.
struct Cluster {
    core: Core,
    now: Time,
    nodes: u64,
    requests: u64,
    reports: u64,
    /// What each submitter waits for.
    waiting: BTreeMap<PeerId, VecDeque<RequestId>>,
    /// Leases that were just granted.
    granted: Vec<(PeerId, LeaseId)>,
    running: VecDeque<(PeerId, RequestId, LeaseId)>,
    random: u64,
    ways_known: bool,
    placed: u64,
    is_timed: bool,
    /// In the events of this placement.
    spent: Duration,
    /// The longest event of all.
    longest: Duration,
}

impl Cluster {
    fn new(nodes: u64, ways_known: bool) -> Self {
        let rules = Rules {
            netname: "BENCH".into(),
            algorithm: Algorithm::Finish,
            first_lease: 1,
            seed: 1,
        };
        let mut cluster = Self {
            core: Core::new(rules, Speeds::default()),
            now: Time(0),
            nodes: nodes.max(SUBMITTERS),
            requests: 0,
            reports: 0,
            waiting: BTreeMap::new(),
            granted: Vec::new(),
            running: VecDeque::new(),
            random: 1,
            ways_known,
            placed: 0,
            is_timed: false,
            spent: Duration::ZERO,
            longest: Duration::ZERO,
        };
        for node in 1..=cluster.nodes {
            let login = Login {
                port: 10245,
                slots: if node <= nodes { SLOTS } else { 0 },
                toolchains: TOOLCHAINS.to_vec(),
                ..Login::new(format!("n{node}"), "BENCH", "x86_64")
            };
            let address = u32::from_be_bytes([10, 0, 0, 0]) + node as u32;
            cluster.event(Event::Joined {
                peer: PeerId(node),
                login,
                from: IpAddr::from(address.to_be_bytes()),
                here: IpAddr::from([10, 255, 0, 1]),
            });
        }
        for _ in 0..WAITING + nodes * u64::from(SLOTS) {
            cluster.want();
            cluster.begin();
        }
        assert_eq!(cluster.running.len() as u64, nodes * u64::from(SLOTS));
        cluster
    }

    fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// A job ends, its slot goes to another, and a new job waits.
    fn replace_one(&mut self) {
        self.pass_time();
        // Not always the oldest.
        let place = self.random(8) as usize;
        let Some((peer, request, lease)) = self.running.remove(place) else {
            return;
        };
        let outcome = Outcome::Done {
            usage: Usage {
                cpu_us: 100_000 + self.random(1_000_000),
                rss_kib: 100_000,
                ..Usage::default()
            },
            output_bytes: 50_000,
        };
        self.deal(
            peer,
            Deal::Ended {
                request,
                lease,
                outcome,
            },
        );
        // That a lease is asked back changes nothing: all go back when their jobs end.
        self.deal(peer, Deal::Return(lease));
        assert!(!self.granted.is_empty(), "somebody got the slot");
        self.begin();
        self.want();
    }

    /// Nodes report, and what is due is done.
    fn pass_time(&mut self) {
        self.now = self.now.after(PACE);
        while self.reports * REPORT_EVERY_MS * 1000 < self.now.0 * self.nodes {
            self.reports += 1;
            let node = PeerId(1 + self.reports % self.nodes);
            let state = NodeState {
                remote_jobs: SLOTS,
                load_milli: 1000 * SLOTS,
                memory_mib: 16_000,
                ..NodeState::default()
            };
            self.event(Event::Message(node, ToScheduler::State(state)));
        }
        if self.core.next_wake().is_some_and(|wake| wake <= self.now) {
            self.event(Event::Tick);
        }
    }

    /// Jobs begin under the leases that were granted, whoever has them.
    fn begin(&mut self) {
        while let Some((peer, lease)) = self.granted.pop() {
            let request = self.waiting.get_mut(&peer).and_then(VecDeque::pop_front);
            let request = request.expect("who has no jobs gets no lease");
            self.running.push_back((peer, request, lease));
            self.deal(peer, Deal::Began { request, lease });
            self.placed += 1;
            let is_first = self.placed <= self.nodes * u64::from(SLOTS);
            if self.ways_known && (is_first || self.placed.is_multiple_of(WAY_EVERY)) {
                let way = Way {
                    travel_us: 100 + self.random(20_000),
                    up: 10_000_000 + self.random(100_000_000),
                    down: 10_000_000 + self.random(100_000_000),
                };
                self.deal(peer, Deal::Way { lease, way });
            }
        }
    }

    fn want(&mut self) {
        self.requests += 1;
        let peer = PeerId(1 + self.random(SUBMITTERS));
        let request = RequestId(self.requests);
        self.waiting.entry(peer).or_default().push_back(request);
        let file = self.random(FILES);
        let terms = Terms {
            niceness: (peer.0 % 2) as u8 * 5,
            ..Terms::new("x86_64")
        };
        let toolchain = TOOLCHAINS[file as usize % TOOLCHAINS.len()];
        let want = Want {
            file: Bytes::from(&format!("src/module/file{file}.cpp")[..]),
            variant: file,
            ..Want::new(request, toolchain, terms)
        };
        self.deal(peer, Deal::Want(want));
    }

    fn deal(&mut self, peer: PeerId, deal: Deal) {
        self.event(Event::Message(peer, ToScheduler::Deal(deal)));
    }

    fn event(&mut self, event: Event) {
        let began = self.is_timed.then(processor_time);
        let actions = black_box(self.core.on_event(event, self.now));
        if let Some(began) = began {
            let took = processor_time() - began;
            self.spent += took;
            self.longest = self.longest.max(took);
        }
        for action in actions {
            match action {
                Action::Send(peer, FromScheduler::Offer(Offer::Grant(grant))) => {
                    self.granted.push((peer, grant.lease));
                }
                Action::Send(peer, FromScheduler::Offer(Offer::Deny { why, .. })) => {
                    panic!("{peer} is denied: {why}")
                }
                Action::Close(peer, why) => panic!("{peer} is closed: {why}"),
                Action::Send(..) => {}
            }
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

/// What this thread has used of the processor: others may share it.
fn processor_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has it"))
}
