//! What befalls one cluster: machines, builds and faults drawn from a seed.

use std::time::Duration;

use ice::id::Time;
use ice::scheduler::Algorithm;
use ice::scheduler::speed::Speeds;

use crate::random::Random;
use crate::world::{Build, Fault, Setup, Shape, World};

/// How long after the last fault a machine that is up must be in use, if anything waits for it.
const USED_WITHIN: Duration = Duration::from_secs(15);
/// Steps of one story, at most: it would go round in circles.
const STEPS_MAX: u64 = 3_000_000;

/// A cluster and its fate.
pub struct Story {
    setup: Setup,
    faults: Vec<(Time, Fault)>,
    /// When all is well for good.
    well_at: Time,
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let submitters = random.within(1, 4) as usize;
        let workers = random.within(1, 8) as usize;
        let mut machines = Vec::new();
        for _ in 0..submitters {
            machines.push(Shape {
                slots: random.below(5) as u32,
                slowness: 1.0,
                equipped: random.below(2) == 0,
            });
        }
        for _ in 0..workers {
            machines.push(Shape {
                slots: random.within(1, 6) as u32,
                slowness: [1.0, 1.0, 1.5, 4.0][random.below(4) as usize],
                equipped: random.below(3) > 0,
            });
        }
        let builds = (0..submitters).map(|machine| {
            let jobs = random.within(1, 80);
            let typical = random.within(20, 2000) * 1000;
            Build {
                machine,
                begins: Time(2_000_000 + random.below(8_000_000)),
                parallel: random.within(1, 24) as usize,
                niceness: [0, 0, 0, 5, 19][random.below(5) as usize],
                costs_us: (0..jobs)
                    .map(|_| typical / 4 + random.below(typical))
                    .collect(),
                project: format!("p{}", random.below(2)),
            }
        });
        let builds = builds.collect();
        let schedulers = random.within(1, 2) as usize;
        let setup = Setup {
            builds,
            schedulers,
            algorithm: match random.below(8) {
                0 => Algorithm::Fastest,
                1 => Algorithm::RoundRobin,
                2 => Algorithm::LeastBusy,
                3 => Algorithm::Random,
                _ => Algorithm::Finish,
            },
            delay_us: [(100, 100), (2_000, 3_000), (25_000, 5_000)][random.below(3) as usize],
            noise: random.share() * 0.5,
            speeds: Speeds::default(),
            seed,
            machines,
        };
        let mut faults = Vec::new();
        let mut well_at = Time(3_000_000);
        for _ in 0..random.below(12) {
            let begins = Time(2_000_000 + random.below(20_000_000));
            let ends = begins.after(Duration::from_millis(random.within(50, 8_000)));
            let machine = random.below((submitters + workers) as u64) as usize;
            let seat = random.below(schedulers as u64) as usize;
            let (bad, good) = match random.below(8) {
                // One that builds may not die: its builds would.
                0 | 1 if machine >= submitters => (Fault::Die(machine), Fault::Revive(machine)),
                0..=2 => (Fault::Freeze(machine), Fault::Thaw(machine)),
                3 => (Fault::CutOff(machine), Fault::Reconnect(machine)),
                4 => (
                    Fault::Slow(machine, random.within(15, 80) as u32),
                    Fault::Slow(machine, 10),
                ),
                5 => (
                    Fault::Burden(machine, random.within(1, 6) as u32),
                    Fault::Burden(machine, 0),
                ),
                6 => (Fault::Stop(seat), Fault::Start(seat)),
                _ => (Fault::Hang(seat), Fault::Resume(seat)),
            };
            faults.push((begins, bad));
            faults.push((ends, good));
            well_at = well_at.max(ends);
        }
        // Faults may overlap; in the end all is well.
        for machine in 0..setup.machines.len() {
            for good in [
                Fault::Revive(machine),
                Fault::Thaw(machine),
                Fault::Reconnect(machine),
                Fault::Slow(machine, 10),
                Fault::Burden(machine, 0),
            ] {
                faults.push((well_at, good));
            }
        }
        for seat in 0..schedulers {
            faults.push((well_at, Fault::Start(seat)));
            faults.push((well_at, Fault::Resume(seat)));
        }
        Self {
            setup,
            faults,
            well_at,
        }
    }

    /// Lets it happen, and checks how it ends.
    pub fn tell(self) {
        let deadline = self.deadline();
        let well_at = self.well_at.after(USED_WITHIN);
        let mut world = World::new(self.setup);
        for (when, fault) in self.faults {
            world.plan(when, fault);
        }
        let mut steps = 0;
        let mut wanted_since = None;
        while !world.is_done() {
            assert!(world.step(), "nothing happens any more, and jobs wait");
            steps += 1;
            assert!(steps < STEPS_MAX, "it goes round in circles");
            assert!(
                world.now < deadline,
                "at {:?} jobs have not ended: {:?}",
                world.now,
                unfinished(&world)
            );
            if world.now < well_at || world.waiting() == 0 {
                wanted_since = None;
                continue;
            }
            let since = *wanted_since.get_or_insert(world.now);
            if world.now.since(since) > USED_WITHIN {
                for (worker, used) in world.workers() {
                    assert!(
                        used > since,
                        "machine {worker} is up and idle since {used:?}, at {:?}",
                        world.now
                    );
                }
            }
        }
        let drained = world.now.max(well_at).after(Duration::from_secs(5));
        while world.now < drained && world.step() {}
        assert_eq!(world.leases_out(), 0, "leases are held for nothing");
    }

    /// Later than all work could be done one job at a time by the slowest machine there is, which takes four
    /// times as long and half of that more.
    fn deadline(&self) -> Time {
        let work_us: u64 = self
            .setup
            .builds
            .iter()
            .flat_map(|build| &build.costs_us)
            .sum();
        self.well_at
            .after(Duration::from_micros(6 * work_us) + Duration::from_secs(60))
    }
}

fn unfinished(world: &World) -> Vec<(usize, usize)> {
    let builds = world.records.iter().enumerate();
    builds
        .flat_map(|(build, records)| {
            let jobs = records.iter().enumerate();
            jobs.filter(|(_, record)| record.ended.is_none() && record.began > Time(0))
                .map(move |(job, _)| (build, job))
        })
        .collect()
}
