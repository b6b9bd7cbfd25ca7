//! How soon builds could end at best, whoever places their jobs and whatever he knows.
//!
//! A lower bound, and never more: an oracle that knows the time of each job and the fate of each machine may
//! still need longer. It is the longest of these times, each of which holds for any way of placing:
//! - all work, spread evenly over all slots for as long as each is there;
//! - for any number of the longest jobs, their work over as many of the fastest slots: a job is in one place at a
//!   time. With one job that is the longest job on the fastest slot;
//! - for any number of the longest jobs, the time in which the slots could do as many of the shortest of them:
//!   a slot does whole jobs, so that 21 equal ones take 20 slots two rounds;
//! - for a job that comes late, since `make -j` runs no more at a time: the time in which as many jobs before
//!   it as must have ended by then could be done, shortest first, and then its own on the fastest slot;
//!
//! and to whichever it is, the way of the first request to the scheduler and back, and of the first job to its
//! worker and back: nothing runs during these.

/// A machine, as far as it limits a build.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Its slots.
    pub slots: u32,
    /// How many times longer than on the reference machine a job takes.
    pub slowness: f64,
    /// When it is away, from and to, in microseconds after the beginning.
    pub away_us: Vec<(u64, u64)>,
}

/// Jobs that one user wants done.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// What each costs on the reference machine, in microseconds, in the order in which they come.
    pub costs_us: &'a [u64],
    /// `make -j`.
    pub parallel: usize,
}

/// Numbers of jobs for which the bounds by the longest jobs are computed, at most. More would make it no longer by
/// much.
const LOOKED_AT: usize = 200;
/// Halvings of an interval: more digits than anybody prints.
const HALVINGS: u32 = 50;

/// The time that no way of placing could beat, in microseconds from the moment when all builds begin.
/// `delay_us` is the least time that a message travels.
pub fn bound_us(machines: &[Capacity], loads: &[Load<'_>], delay_us: u64) -> f64 {
    let mut longest_first: Vec<u64> = loads
        .iter()
        .flat_map(|load| load.costs_us)
        .copied()
        .collect();
    longest_first.sort_unstable_by(|a, b| b.cmp(a));
    let slots = Slots::of(machines);
    let work: u64 = longest_first.iter().sum();
    let mut bound = slots.to_do_us(work as f64);
    bound = bound.max(slots.one_place_each_us(&longest_first));
    bound = bound.max(slots.whole_jobs_us(&longest_first));
    for load in loads {
        bound = bound.max(slots.late_comers_us(load));
    }
    bound + 4.0 * delay_us as f64
}

struct Slots<'a> {
    machines: &'a [Capacity],
    /// Speeds, the highest first, with the number of slots that have it.
    speeds: Vec<(f64, u64)>,
}

impl<'a> Slots<'a> {
    fn of(machines: &'a [Capacity]) -> Self {
        let mut all: Vec<(f64, u64)> = machines
            .iter()
            .map(|machine| (1.0 / machine.slowness, u64::from(machine.slots)))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut speeds: Vec<(f64, u64)> = Vec::new();
        for (speed, slots) in all {
            match speeds.last_mut() {
                Some(last) if last.0 == speed => last.1 += slots,
                _ => speeds.push((speed, slots)),
            }
        }
        Self { machines, speeds }
    }

    fn fastest(&self) -> f64 {
        self.speeds.first().map_or(0.0, |&(speed, _)| speed)
    }

    /// How soon so much work could be done, spread evenly.
    fn to_do_us(&self, work_us: f64) -> f64 {
        least(|time_us| self.done_by(time_us) >= work_us)
    }

    /// The work that all slots could do until then, in reference microseconds.
    fn done_by(&self, time_us: f64) -> f64 {
        let of = |machine: &Capacity| {
            let away: f64 = machine
                .away_us
                .iter()
                .map(|&(from, to)| (time_us.min(to as f64) - from as f64).max(0.0))
                .sum();
            (time_us - away) * f64::from(machine.slots) / machine.slowness
        };
        self.machines.iter().map(of).sum()
    }

    /// The longest jobs, none in two places at a time.
    fn one_place_each_us(&self, longest_first: &[u64]) -> f64 {
        let mut speeds = self
            .speeds
            .iter()
            .flat_map(|&(speed, slots)| (0..slots).map(move |_| speed));
        let (mut work, mut speed, mut bound) = (0.0, 0.0, 0.0f64);
        for &cost_us in longest_first {
            let Some(next) = speeds.next() else {
                break;
            };
            work += cost_us as f64;
            speed += next;
            bound = bound.max(work / speed);
        }
        bound
    }

    /// The longest jobs, each of which is at least as long as the last of them.
    fn whole_jobs_us(&self, longest_first: &[u64]) -> f64 {
        let slots: u64 = self.speeds.iter().map(|&(_, slots)| slots).sum();
        let step = longest_first.len().div_ceil(LOOKED_AT).max(1);
        let rounds = (1..).map(|round| round * slots as usize + 1);
        let rounds = rounds.take_while(|&count| count <= longest_first.len());
        let counts = (1..=longest_first.len()).step_by(step).chain(rounds);
        let bound = |count: usize| {
            let cost_us = longest_first[count - 1] as f64;
            least(|time_us| {
                let whole = |&(speed, slots): &(f64, u64)| {
                    // A little more than there is room for, so that rounding makes no bound longer.
                    (time_us * speed / cost_us + 1e-9).floor() * slots as f64
                };
                self.speeds.iter().map(whole).sum::<f64>() >= count as f64
            })
        };
        counts.map(bound).fold(0.0, f64::max)
    }

    /// The longest of the jobs that come only when others have ended.
    fn late_comers_us(&self, load: &Load<'_>) -> f64 {
        let mut late: Vec<usize> = (load.parallel..load.costs_us.len()).collect();
        late.sort_unstable_by_key(|&number| std::cmp::Reverse(load.costs_us[number]));
        let mut bound = 0.0f64;
        for number in late.into_iter().take(LOOKED_AT) {
            let mut before = load.costs_us[..number].to_vec();
            before.sort_unstable();
            let ended: u64 = before[..=number - load.parallel].iter().sum();
            let own = load.costs_us[number] as f64 / self.fastest();
            bound = bound.max(self.to_do_us(ended as f64) + own);
        }
        bound
    }
}

/// The least time at which something is so that stays so.
fn least(is_so: impl Fn(f64) -> bool) -> f64 {
    let mut high = 1.0;
    while !is_so(high) {
        high *= 2.0;
    }
    let mut low = 0.0;
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        match is_so(middle) {
            true => high = middle,
            false => low = middle,
        }
    }
    // The lower end, since a bound may not be too long.
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(slots: u32, slowness: f64) -> Capacity {
        Capacity {
            slots,
            slowness,
            away_us: vec![],
        }
    }

    #[test]
    fn the_bound_is_what_limits_the_build() {
        let away = Capacity {
            away_us: vec![(1000, 3000)],
            ..machine(1, 1.0)
        };
        type Case<'a> = (&'a str, &'a [Capacity], &'a [u64], usize, f64);
        let cases: &[Case<'_>] = &[
            ("all work", &[machine(2, 1.0)], &[500; 8], 9, 2000.0),
            ("the longest", &[machine(4, 1.0)], &[900, 10], 9, 900.0),
            (
                "the longest, on the fastest",
                &[machine(4, 2.0), machine(1, 0.5)],
                &[900, 10],
                9,
                450.0,
            ),
            (
                "two long ones and one fast slot",
                &[machine(1, 1.0), machine(1, 1.5)],
                &[900, 900],
                9,
                // Neither can be done by the fast one after the other.
                1350.0,
            ),
            ("whole jobs", &[machine(4, 1.0)], &[500; 5], 9, 1000.0),
            (
                "a long job that comes last",
                &[machine(2, 1.0)],
                &[100, 100, 100, 100, 900],
                2,
                // Three of four must have ended on two slots.
                150.0 + 900.0,
            ),
            ("one that is away", &[away], &[1500], 9, 3500.0),
        ];
        for (what, machines, costs_us, parallel, expect) in cases {
            let load = Load {
                costs_us,
                parallel: *parallel,
            };
            let bound = bound_us(machines, &[load], 0);
            assert!((bound - expect).abs() < 0.01, "{what}: {bound}");
        }
    }

    #[test]
    fn the_ways_there_and_back_are_part_of_it() {
        let load = Load {
            costs_us: &[500],
            parallel: 1,
        };
        let bound = bound_us(&[machine(1, 1.0)], &[load], 100);
        assert!((bound - 900.0).abs() < 0.01, "{bound}");
    }
}
