//! What a placement costs the scheduler, by the number of nodes: `cargo bench --bench scheduler`.
//!
//! All slots are lent and 100,000 jobs wait. Then, again and again, a job begins and ends under some lease, the
//! lease is returned and lent to whose turn it is, and another job comes to wait in place of the one that is
//! done. The table shows the processor time of all that per placement, and the slowest of a hundred single
//! events: none may hold up the others for long. In practice most jobs cost less than this, since a lease serves
//! many of them.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use ice::id::{Bytes, Digest, LeaseId, RequestId, Time};
use ice::message::{
    Deal, FromScheduler, Login, Offer, Outcome, OwnNode, Terms, ToScheduler, Usage, Want,
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
const TOOLCHAINS: [Digest; 2] = [Digest([1; 32]), Digest([2; 32])];

fn main() {
    println!(
        "| nodes | leases out | waiting | us per placement | placements/s | event p50 us | p99 us | p99.9 us | max us |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for nodes in [10, 100, 1000, 10_000] {
        let mut cluster = Cluster::new(nodes);
        let out = cluster.out.len();
        let waiting = cluster.waiting;
        let mut events = Vec::with_capacity(PLACEMENTS * 4);
        let began = processor_time();
        for _ in 0..PLACEMENTS {
            cluster.replace_one(&mut events);
        }
        let spent = processor_time() - began;
        events.sort_unstable();
        let at = |share: f64| micros(events[((events.len() - 1) as f64 * share) as usize]);
        let each = micros(spent) / PLACEMENTS as f64;
        println!(
            "| {nodes} | {out} | {waiting} | {each:.2} | {:.0} | {:.2} | {:.1} | {:.1} | {:.0} |",
            1e6 / each,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
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
    requests: u64,
    waiting: u64,
    out: VecDeque<(PeerId, RequestId, LeaseId)>,
    random: u64,
}

impl Cluster {
    fn new(nodes: u64) -> Self {
        let mut cluster = Self {
            core: Core::new(
                Rules {
                    netname: "BENCH".into(),
                    algorithm: Algorithm::Finish,
                    first_lease: 1,
                    seed: 1,
                },
                Speeds::default(),
            ),
            now: Time(0),
            requests: 0,
            waiting: 0,
            out: VecDeque::new(),
            random: 1,
        };
        for node in 1..=nodes.max(SUBMITTERS) {
            let login = Login {
                seen: Default::default(),
                state: Default::default(),
                name: format!("n{node}"),
                netname: "BENCH".into(),
                platform: "x86_64".into(),
                port: 10245,
                slots: if node <= nodes { SLOTS } else { 0 },
                no_remote: None,
                toolchains: TOOLCHAINS.to_vec(),
            };
            let address = u32::from_be_bytes([10, 0, 0, 0]) + node as u32;
            cluster.event(Event::Joined {
                peer: PeerId(node),
                login,
                from: IpAddr::from(address.to_be_bytes()),
                here: IpAddr::from([10, 255, 0, 1]),
            });
        }
        let slots = nodes * u64::from(SLOTS);
        while cluster.waiting < WAITING + slots {
            cluster.want();
        }
        for (peer, request, lease) in cluster.out.clone() {
            cluster.deal(peer, Deal::Began { request, lease });
            cluster.waiting -= 1;
        }
        cluster
    }

    /// A job ends, its slot goes to another, and a new job waits.
    fn replace_one(&mut self, events: &mut Vec<Duration>) {
        self.now = self.now.after(Duration::from_micros(10));
        // Not always the oldest.
        for _ in 0..self.random(8) {
            self.out.rotate_left(1);
        }
        let Some((peer, request, lease)) = self.out.pop_front() else {
            return;
        };
        let before = self.out.len();
        let outcome = Outcome::Done {
            usage: Usage {
                cpu_us: 100_000 + self.random(1_000_000),
                rss_kib: 100_000,
                ..Usage::default()
            },
            output_bytes: 50_000,
        };
        let ended = Deal::Ended {
            request,
            lease,
            outcome,
        };
        for deal in [ended, Deal::Return(lease)] {
            events.push(timed(|| self.deal(peer, deal)));
        }
        assert_eq!(self.out.len(), before + 1, "somebody got the slot");
        let (peer, request, lease) = self.out[before];
        events.push(timed(|| self.deal(peer, Deal::Began { request, lease })));
        self.waiting -= 1;
        events.push(timed(|| self.want()));
    }

    fn want(&mut self) {
        self.requests += 1;
        self.waiting += 1;
        let peer = PeerId(1 + self.random(SUBMITTERS));
        let file = self.random(FILES);
        let want = Want {
            request: RequestId(self.requests),
            toolchain: TOOLCHAINS[file as usize % TOOLCHAINS.len()],
            terms: Terms {
                niceness: (peer.0 % 2) as u8 * 5,
                platform: "x86_64".into(),
                preferred: String::new(),
            },
            file: Bytes::from(&format!("src/module/file{file}.cpp")[..]),
            variant: file,
            except: vec![],
            own: OwnNode::Nothing,
        };
        self.deal(peer, Deal::Want(want));
    }

    fn deal(&mut self, peer: PeerId, deal: Deal) {
        self.event(Event::Message(peer, ToScheduler::Deal(deal)));
    }

    fn event(&mut self, event: Event) {
        for action in black_box(self.core.on_event(event, self.now)) {
            match action {
                Action::Send(peer, FromScheduler::Offer(Offer::Grant(grant))) => {
                    self.out.push_back((peer, grant.request, grant.lease));
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

fn timed(work: impl FnOnce()) -> Duration {
    let began = processor_time();
    work();
    processor_time() - began
}

/// What this thread has used of the processor: others may share it.
fn processor_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has it"))
}
