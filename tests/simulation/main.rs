//! Thousands of made-up clusters in which everything goes wrong, on a virtual clock.
//!
//! Each seed is a cluster, its builds and what befalls it. `ICE_SEED=n` tells one again, `ICE_SEEDS=n` tries
//! so many fresh ones. What must hold at any time is checked after every step in [`world`]; what must hold in the
//! end, here.

mod bound;
mod random;
mod story;
mod world;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ice::id::Time;
use ice::scheduler::Algorithm;
use ice::scheduler::speed::Speeds;

use bound::{Capacity, Load, bound_us};
use story::Story;
use world::{Build, Fault, Setup, Shape, World};

/// Seeds that every run tries.
const FIXED: u64 = 60;
/// Fresh seeds of an ordinary run.
const FRESH: u64 = 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn tell(seed: u64) {
    let outcome = std::panic::catch_unwind(|| Story::of(seed).tell());
    if let Err(panic) = outcome {
        eprintln!("ICE_SEED={seed} tells this story again");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn whatever_befalls_a_cluster_each_job_ends_once_and_all_drains() {
    if let Some(seed) = number("ICE_SEED") {
        tell(seed);
        return;
    }
    let fresh = number("ICE_SEEDS").unwrap_or(FRESH);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let first = clock.as_nanos() as u64;
    for seed in (0..FIXED).chain((0..fresh).map(|number| first.wrapping_add(number))) {
        tell(seed);
    }
}

/// A cluster in which nothing goes wrong, and its builds.
fn setup(machines: Vec<Shape>, builds: Vec<Build>) -> Setup {
    Setup {
        machines,
        schedulers: 1,
        algorithm: Algorithm::Finish,
        builds,
        delay_us: (200, 100),
        noise: 0.02,
        speeds: Speeds::default(),
        seed: 7,
    }
}

fn worker(slots: u32) -> Shape {
    Shape {
        slots,
        slowness: 1.0,
        equipped: true,
    }
}

fn build(machine: usize, parallel: usize, costs_us: Vec<u64>) -> Build {
    Build {
        machine,
        begins: Time(2_000_000),
        parallel,
        niceness: 0,
        costs_us,
        project: format!("p{machine}"),
    }
}

fn run(world: &mut World) {
    while !world.is_done() {
        assert!(world.step(), "nothing happens any more");
    }
}

fn seconds(time: Time) -> f64 {
    time.0 as f64 / 1e6
}

#[test]
fn twenty_submitters_get_equally_much() {
    let slots = 30;
    let mut machines = vec![worker(0); 20];
    machines.push(worker(slots));
    let builds = (0..20).map(|machine| {
        // They begin one after another, and none has enough for the others to be alone.
        let mut build = build(machine, 40, vec![400_000 + 20_000 * machine as u64; 600]);
        build.begins = Time(2_000_000 + 50_000 * machine as u64);
        build
    });
    let mut world = World::new(setup(machines, builds.collect()));
    let end = Time(34_000_000);
    while world.now < end {
        assert!(world.step());
    }
    let from = Time(4_000_000);
    let served: Vec<f64> = world
        .service
        .iter()
        .map(|jobs| {
            let counted = jobs.iter().filter(|(when, _)| *when >= from);
            counted.map(|(_, cost_us)| *cost_us as f64).sum()
        })
        .collect();
    let sum: f64 = served.iter().sum();
    let squares: f64 = served.iter().map(|x| x * x).sum();
    let jain = sum * sum / (served.len() as f64 * squares);
    assert!(jain >= 0.95, "Jain's index is {jain:.3}: {served:?}");
    // And nothing was idle for it.
    let used = sum / 1e6 / f64::from(slots) / (seconds(end) - seconds(from));
    assert!(used > 0.95, "{used:.3} of the slots were used");
}

#[test]
fn a_newcomer_has_his_share_within_a_second() {
    let machines = vec![worker(0), worker(0), worker(8), worker(8)];
    let mut second = build(1, 40, vec![300_000; 400]);
    second.begins = Time(6_000_000);
    let builds = vec![build(0, 100, vec![300_000; 2000]), second];
    let mut world = World::new(setup(machines, builds));
    while world.now < Time(12_000_000) {
        assert!(world.step());
    }
    let done = |build: usize, from: u64, to: u64| {
        let jobs = world.service[build].iter();
        jobs.filter(|(when, _)| (Time(from)..Time(to)).contains(when))
            .count()
    };
    let (old, new) = (
        done(0, 7_000_000, 10_000_000),
        done(1, 7_000_000, 10_000_000),
    );
    let ratio = old as f64 / new as f64;
    assert!((0.85..1.15).contains(&ratio), "{old} and {new}");
}

#[test]
fn a_running_build_waits_for_no_round_trip() {
    let jobs = 400;
    let mut spans = Vec::new();
    for delay_us in [100, 25_000] {
        let machines = vec![worker(0), worker(4), worker(4)];
        let mut setup = setup(machines, vec![build(0, 24, vec![200_000; jobs])]);
        setup.delay_us = (delay_us, 0);
        let mut world = World::new(setup);
        run(&mut world);
        spans.push(seconds(world.now) - 2.0);
    }
    let ratio = spans[1] / spans[0];
    assert!(ratio <= 1.1, "{spans:?}: {ratio:.3}");
}

#[test]
fn a_frozen_workers_jobs_end_elsewhere_and_it_is_used_again_when_it_thaws() {
    let machines = vec![worker(0), worker(4), worker(4), worker(4)];
    let mut world = World::new(setup(machines, vec![build(0, 24, vec![500_000; 600])]));
    world.plan(Time(4_000_000), Fault::Freeze(2));
    world.plan(Time(12_000_000), Fault::Thaw(2));
    let mut used_again = false;
    while !world.is_done() {
        assert!(world.step());
        let after = Time(16_000_000);
        used_again |= world.now > after
            && world
                .workers()
                .any(|(worker, used)| worker == 2 && used > after);
    }
    assert!(used_again);
    assert!(seconds(world.now) < 40.0, "{}", seconds(world.now));
    assert!(world.records[0].iter().all(|job| !job.local));
}

#[test]
fn a_build_survives_that_its_scheduler_is_replaced() {
    let machines = vec![worker(0), worker(4), worker(4)];
    let mut setup = setup(machines, vec![build(0, 16, vec![300_000; 400])]);
    setup.schedulers = 2;
    let mut world = World::new(setup);
    world.plan(Time(6_000_000), Fault::Stop(0));
    run(&mut world);
    let ideal = 400.0 * 0.3 / 8.0;
    let lost = seconds(world.now) - 2.0 - ideal;
    assert!(lost < 2.0, "it lost {lost:.2} s");
    let local = world.records[0].iter().filter(|job| job.local).count();
    assert_eq!(local, 0, "jobs came home");
}

#[test]
fn a_first_job_stays_at_home_and_a_parallel_build_goes_out() {
    let alone = |parallel, jobs| {
        let machines = vec![worker(4), worker(4), worker(4)];
        let mut world = World::new(setup(
            machines,
            vec![build(0, parallel, vec![100_000; jobs])],
        ));
        run(&mut world);
        world.records[0].iter().filter(|job| job.local).count()
    };
    assert_eq!(alone(1, 10), 10);
    let home = alone(8, 200);
    assert!((1..20).contains(&home), "{home} of 200 stayed at home");
}

#[test]
fn the_second_build_knows_the_nodes_and_the_jobs_of_the_first() {
    // A long job that comes last, on a cluster of which half is slow.
    let mut costs_us = vec![200_000; 150];
    costs_us.push(4_000_000);
    let slow = Shape {
        slowness: 4.0,
        ..worker(4)
    };
    let machines = vec![worker(0), worker(4), slow];
    let capacities: Vec<Capacity> = machines
        .iter()
        .map(|shape| Capacity {
            slots: shape.slots,
            slowness: shape.slowness,
            away_us: vec![],
        })
        .collect();
    let load = Load {
        costs_us: &costs_us,
        parallel: 200,
    };
    let bound = bound_us(&capacities, &[load], 200) / 1e6;
    let mut spans = Vec::new();
    let mut speeds = Speeds::default();
    for _ in 0..3 {
        let mut setup = setup(machines.clone(), vec![build(0, 200, costs_us.clone())]);
        setup.speeds = speeds;
        let mut world = World::new(setup);
        run(&mut world);
        spans.push(seconds(world.now) - 2.0);
        // The scheduler has yet to hear of the last job.
        let heard = world.now.after(Duration::from_secs(1));
        while world.now < heard && world.step() {}
        speeds = world.speeds();
    }
    assert!(
        spans[2] <= 1.1 * bound,
        "{spans:?}, and {bound} is possible"
    );
    assert!(spans[2] < spans[0], "nothing was learned: {spans:?}");
}
