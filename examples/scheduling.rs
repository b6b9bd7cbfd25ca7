//! How near each way of placing jobs comes to the best that is possible:
//! `cargo run --release --example scheduling [NODES...] [CLUSTER...]`.
//!
//! Builds whose jobs take what those of real projects took (`tests/simulation/traces`) are run on made-up clusters
//! with the real scheduler and the real submitters, on a virtual clock: the world is the one in which the
//! simulator's stories happen. For each algorithm a table shows the time that the builds took over the time that
//! no way of placing could beat, which is [`bound::bound_us`]'s: an oracle may need longer, too. A run that beat
//! it would end this program, since that would be a mistake of the bound. Each figure is a mean over several seeds,
//! and behind it stands the worst of them.
//!
//! What is alike in all of it: nodes have four slots; whoever submits has none, and all of his jobs wait from the
//! beginning; a message takes 0.1 to 0.15 ms. Two builds go before the one that is
//! measured, so that nodes and files are known, as on any day but the first; each job takes up to 5 % more or
//! less than the trace says, each time anew. Where a cluster is `cold`, none goes before.
//!
//! A second table has Jain's index of how evenly twenty submitters are served while all of them want more
//! than there is.

#[path = "../tests/simulation/bound.rs"]
mod bound;
#[path = "../tests/simulation/random.rs"]
#[allow(dead_code, reason = "the tests draw in more ways than are used here")]
mod random;
#[path = "../tests/simulation/world.rs"]
#[allow(dead_code, reason = "the tests ask for more than is shown here")]
mod world;

use std::time::{Duration, Instant};

use ice::id::Time;
use ice::scheduler::Algorithm;
use ice::scheduler::speed::Speeds;

use bound::{Capacity, Load, bound_us};
use random::Random;
use world::{Build, Fault, Setup, Shape, World};

/// Nodes, if nothing else is asked for. A thousand take some minutes.
const SIZES: [usize; 2] = [5, 100];
/// The ways to place, ours first.
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::Finish,
    Algorithm::Fastest,
    Algorithm::RoundRobin,
    Algorithm::LeastBusy,
    Algorithm::Random,
];
/// Slots of each node.
const SLOTS: u32 = 4;
/// `make -j`: a submitter may have as many requests at the scheduler.
const PARALLEL: usize = 4096;
/// The way of a message, in microseconds, and by how much it may be longer.
const DELAY_US: (u64, u64) = (100, 50);
/// A job takes so much more or less than the trace says, as a share.
const SPREAD: f64 = 0.05;
/// When builds begin: all nodes are known.
const BEGIN: Time = Time(3_000_000);
/// Who want more than there is, in the second table; for how long it is counted, and from when on.
const SUBMITTERS: usize = 20;
const SHARED: Duration = Duration::from_secs(30);
const SETTLING: Duration = Duration::from_secs(3);
/// A node that goes is away for so long.
const AWAY: Duration = Duration::from_secs(2);
/// One node in so many goes.
const GOING_SHARE: usize = 10;

/// What jobs of real projects took, in milliseconds of processor time.
const TRACES: [(&str, &str); 3] = [
    (
        "redis",
        include_str!("../tests/simulation/traces/redis.txt"),
    ),
    (
        "leveldb",
        include_str!("../tests/simulation/traces/leveldb.txt"),
    ),
    ("json", include_str!("../tests/simulation/traces/json.txt")),
];

/// A cluster: what its nodes are like, how many users build at once, and what befalls it.
struct Scene {
    name: &'static str,
    slowness: fn(usize) -> f64,
    users: usize,
    churns: bool,
    cold: bool,
}

const SCENES: [Scene; 6] = [
    Scene {
        name: "homogeneous",
        slowness: |_| 1.0,
        users: 1,
        churns: false,
        cold: false,
    },
    Scene {
        name: "1:4",
        slowness: |node| if node % 2 == 0 { 1.0 } else { 4.0 },
        users: 1,
        churns: false,
        cold: false,
    },
    Scene {
        name: "one slow",
        slowness: |node| if node == 0 { 4.0 } else { 1.0 },
        users: 1,
        churns: false,
        cold: false,
    },
    Scene {
        name: "churning",
        slowness: |_| 1.0,
        users: 1,
        churns: true,
        cold: false,
    },
    Scene {
        name: "two users",
        slowness: |_| 1.0,
        users: 2,
        churns: false,
        cold: false,
    },
    Scene {
        name: "1:4, cold",
        slowness: |node| if node % 2 == 0 { 1.0 } else { 4.0 },
        users: 1,
        churns: false,
        cold: true,
    },
];

fn main() {
    let (sizes, words): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.parse::<usize>().is_ok());
    let sizes: Vec<usize> = match sizes.is_empty() {
        true => SIZES.to_vec(),
        false => sizes.iter().filter_map(|size| size.parse().ok()).collect(),
    };
    let is_meant = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let began = Instant::now();
    let names = || ALGORITHMS.map(|algorithm| format!(" {} |", algorithm.name()));
    println!("| nodes | cluster | jobs | bound, s |{}", names().concat());
    println!("| ---: | --- | --- | ---: |{}", " ---: |".repeat(5));
    for &nodes in &sizes {
        for scene in SCENES.iter().filter(|scene| is_meant(scene.name)) {
            for (trace, text) in TRACES {
                compare(nodes, scene, trace, text);
            }
        }
    }
    println!("\n| nodes | submitters |{}", names().concat());
    println!("| ---: | ---: |{}", " ---: |".repeat(5));
    for &nodes in &sizes {
        if nodes <= 100 {
            share_out(nodes);
        }
    }
    eprintln!("{:.0} s", began.elapsed().as_secs_f64());
}

/// How many jobs there are for each slot: fewer where there are many, for the sake of who waits for the table.
fn jobs_per_slot(nodes: usize) -> usize {
    match nodes {
        0..=9 => 6,
        10..=100 => 3,
        _ => 1,
    }
}

/// How often each row is measured, with other times of jobs, ways of messages and fates of machines.
fn seeds(nodes: usize) -> u64 {
    match nodes {
        0..=100 => 5,
        _ => 1,
    }
}

/// Prints a row of the first table: of each algorithm the mean over all seeds, and the worst.
fn compare(nodes: usize, scene: &Scene, trace: &str, text: &str) {
    let jobs = nodes * SLOTS as usize * jobs_per_slot(nodes) / scene.users;
    let seeds = seeds(nodes);
    let mut cells = String::new();
    let mut bound = 0.0;
    for algorithm in ALGORITHMS {
        let ended: Vec<(f64, f64)> = std::thread::scope(|scope| {
            let one = |seed| move || measure(nodes, scene, algorithm, (text, jobs), seed);
            let runs: Vec<_> = (0..seeds).map(|seed| scope.spawn(one(seed))).collect();
            let joined = runs.into_iter().map(|run| run.join());
            joined.map(|ended| ended.expect("it ran")).collect()
        });
        let mean = |of: fn(&(f64, f64)) -> f64| ended.iter().map(of).sum::<f64>() / seeds as f64;
        bound = mean(|(bound, _)| *bound);
        let worst = ended.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max);
        cells += &format!(" {:.3} {worst:.3} |", mean(|(_, ratio)| *ratio));
    }
    println!(
        "| {nodes} | {} | {} × {trace} | {bound:.1} |{cells}",
        scene.name,
        jobs * scene.users
    );
}

/// Builds on a cluster of which all but what a seed decides is given: the bound of the last, in seconds, and
/// the time that it took over that.
fn measure(
    nodes: usize,
    scene: &Scene,
    algorithm: Algorithm,
    (text, jobs): (&str, usize),
    seed: u64,
) -> (f64, f64) {
    let mut speeds = Speeds::default();
    let mut ended = (0.0, 0.0);
    let rounds = if scene.cold { 1 } else { 3 };
    for round in 0..rounds {
        let last = round + 1 == rounds;
        let costs_us: Vec<Vec<u64>> = (0..scene.users)
            .map(|user| {
                let of_user = seed * 1000 + (round * 10 + user) as u64;
                costs_us(text, jobs, of_user)
            })
            .collect();
        let goings = match scene.churns && last {
            true => goings(nodes, seed),
            false => Vec::new(),
        };
        let bound_s = bound_of(nodes, scene, &costs_us, &goings);
        let (took_s, learned) = run(nodes, scene, algorithm, costs_us, &goings, speeds, seed);
        let ratio = took_s / bound_s;
        assert!(
            ratio >= 1.0,
            "{} took {took_s} s of {bound_s}",
            algorithm.name()
        );
        ended = (bound_s, ratio);
        speeds = learned;
    }
    ended
}

/// So many jobs whose times are those of the trace, again and again, each a little different each time.
fn costs_us(text: &str, jobs: usize, seed: u64) -> Vec<u64> {
    let known: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect();
    assert!(!known.is_empty(), "a trace has a number on each line");
    let mut random = Random::new(seed);
    (0..jobs)
        .map(|number| {
            let cost_us = 1000.0 * known[number % known.len()];
            (cost_us * (1.0 - SPREAD + 2.0 * SPREAD * random.share())) as u64
        })
        .collect()
}

/// Which nodes go, and when, after the builds have begun.
fn goings(nodes: usize, seed: u64) -> Vec<(usize, Duration)> {
    let mut random = Random::new(5 + seed);
    (0..nodes.div_ceil(GOING_SHARE))
        .map(|number| {
            let node = number * GOING_SHARE % nodes;
            (node, Duration::from_millis(500 + random.below(4_000)))
        })
        .collect()
}

/// The bound, in seconds.
fn bound_of(
    nodes: usize,
    scene: &Scene,
    costs_us: &[Vec<u64>],
    goings: &[(usize, Duration)],
) -> f64 {
    let machines: Vec<Capacity> = (0..nodes)
        .map(|node| Capacity {
            slots: SLOTS,
            slowness: (scene.slowness)(node),
            away_us: goings
                .iter()
                .filter(|(gone, _)| *gone == node)
                .map(|(_, when)| (when.as_micros() as u64, (*when + AWAY).as_micros() as u64))
                .collect(),
        })
        .collect();
    let loads: Vec<Load<'_>> = costs_us
        .iter()
        .map(|costs_us| Load {
            costs_us,
            parallel: PARALLEL,
        })
        .collect();
    bound_us(&machines, &loads, DELAY_US.0) / 1e6
}

/// Builds on a cluster: how long they took, in seconds, and what was learned.
fn run(
    nodes: usize,
    scene: &Scene,
    algorithm: Algorithm,
    costs_us: Vec<Vec<u64>>,
    goings: &[(usize, Duration)],
    speeds: Speeds,
    seed: u64,
) -> (f64, Speeds) {
    let users = costs_us.len();
    let mut setup = setup(nodes, scene.slowness, algorithm, costs_us, speeds);
    setup.seed += seed;
    let mut world = World::new(setup);
    world.is_checked = false;
    for &(node, when) in goings {
        let leaves = BEGIN.after(when);
        world.plan(leaves, Fault::Die(users + node));
        world.plan(leaves.after(AWAY), Fault::Revive(users + node));
    }
    while !world.is_done() {
        assert!(world.step(), "nothing happens any more");
    }
    let took_s = world.now.since(BEGIN).as_secs_f64();
    // The scheduler has yet to hear of the last jobs.
    let heard = world.now.after(Duration::from_secs(1));
    while world.now < heard && world.step() {}
    (took_s, world.speeds())
}

fn setup(
    nodes: usize,
    slowness: fn(usize) -> f64,
    algorithm: Algorithm,
    costs_us: Vec<Vec<u64>>,
    speeds: Speeds,
) -> Setup {
    let submitter = Shape {
        slots: 0,
        slowness: 1.0,
        equipped: true,
    };
    let mut machines = vec![submitter; costs_us.len()];
    machines.extend((0..nodes).map(|node| Shape {
        slots: SLOTS,
        slowness: slowness(node),
        equipped: true,
    }));
    let builds = costs_us.into_iter().enumerate();
    let builds = builds.map(|(user, costs_us)| Build {
        machine: user,
        begins: BEGIN,
        parallel: PARALLEL,
        niceness: 0,
        costs_us,
        project: format!("p{user}"),
    });
    Setup {
        builds: builds.collect(),
        machines,
        schedulers: 1,
        algorithm,
        delay_us: DELAY_US,
        noise: 0.0,
        speeds,
        seed: 11,
    }
}

/// Prints a row of the second table: twenty submitters, each with more jobs than he can have done.
fn share_out(nodes: usize) {
    let slots = nodes * SLOTS as usize;
    let seconds = SHARED.as_secs() as usize;
    let mut cells = String::new();
    for algorithm in ALGORITHMS {
        let builds = (0..SUBMITTERS).map(|user| {
            let (_, text) = TRACES[user % 2];
            // As many as all slots could do in the time, were they his alone, of a job's mean time.
            let one = costs_us(text, 100, user as u64);
            let mean_us = one.iter().sum::<u64>() as usize / one.len();
            let jobs = 3 * slots * seconds * 1_000_000 / mean_us / SUBMITTERS;
            costs_us(text, jobs, user as u64)
        });
        let mut setup = setup(
            nodes,
            |_| 1.0,
            algorithm,
            builds.collect(),
            Speeds::default(),
        );
        for build in &mut setup.builds {
            build.parallel = 2 * slots / SUBMITTERS + 20;
        }
        let mut world = World::new(setup);
        world.is_checked = false;
        let (from, to) = (BEGIN.after(SETTLING), BEGIN.after(SETTLING + SHARED));
        while world.now < to {
            assert!(
                world.step() && !world.is_done(),
                "somebody has all that he wants"
            );
        }
        let served = world.service.iter().map(|jobs| {
            let counted = jobs.iter().filter(|(when, _)| *when >= from);
            counted.map(|(_, cost_us)| *cost_us as f64).sum()
        });
        cells += &format!(" {:.3} |", jain(&served.collect::<Vec<f64>>()));
    }
    println!("| {nodes} | {SUBMITTERS} |{cells}");
}

/// Jain's index: 1 when all get equally much, and one over their number when one gets everything.
fn jain(served: &[f64]) -> f64 {
    let sum: f64 = served.iter().sum();
    let squares: f64 = served.iter().map(|x| x * x).sum();
    sum * sum / (served.len() as f64 * squares)
}
