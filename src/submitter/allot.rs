//! Which waiting job goes where: to an idle lease, behind the job that runs under another, or nowhere yet. Pure.
//!
//! Plays the near future through: jobs in their order, each to the lease where it would be finished first,
//! given what runs there and what was put there before it. Whatever turns out to begin at once is begun, and
//! whatever turns out to be next on a lease that takes a job in advance is sent there. So an idle but slow
//! lease is left alone when a fast one will be free in time, which matters at the end of a build, and is
//! used while many jobs wait.
//!
//! Knows no time but durations from now, and no reason why a job may not go somewhere.

use std::collections::{BTreeMap, BTreeSet};

/// Jobs that are played through, at most.
pub const PLAYED_MAX: usize = 256;
/// A job surely ends before the others if it is expected to end within this share of the time in which all could be
/// done.
const SURE_SHARE: f64 = 0.8;
/// Speeds are told apart in steps of the fourth root of two: leases of one step compete by when they are free.
const STEPS_PER_DOUBLING: f64 = 4.0;

/// A lease, as a place for jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// How many times longer than on the reference node a job takes there.
    pub slowness: f64,
    /// When what runs there will have ended, in microseconds from now; none when nothing runs.
    pub free_in_us: Option<f64>,
    /// The way there and back, in microseconds.
    pub travel_us: f64,
    /// Whether the next job may be sent before the running one has ended.
    pub takes_next: bool,
}

/// What is to be done now: the job at the first index goes to the room at the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allotment {
    /// It begins there.
    Start(usize, usize),
    /// It waits there for the one that runs.
    Next(usize, usize),
}

/// Allots so many jobs to rooms. `cost_us` says what a job costs, in reference microseconds, and `may`
/// whether it may go to a room at all; the less there is to allot, the fewer are asked about.
pub fn allot(
    jobs: usize,
    cost_us: impl Fn(usize) -> f64,
    rooms: &[Room],
    may: impl Fn(usize, usize) -> bool,
) -> Vec<Allotment> {
    let mut allotted = Vec::new();
    if !rooms.iter().any(Room::is_open) {
        return allotted;
    }
    let mut future = Future::of(rooms);
    for job in 0..jobs.min(PLAYED_MAX) {
        let cost_us = cost_us(job);
        if let Some(room) = future.best(cost_us, |room| may(job, room)) {
            allotted.extend(future.put(job, room, cost_us));
        }
        if future.open == 0 {
            return allotted;
        }
    }
    allotted
}

impl Room {
    /// What a job may cost that is to end here so many microseconds from now, if it begins now.
    pub fn longest_us(&self, end_us: f64) -> f64 {
        (end_us - self.travel_us) / self.slowness
    }

    /// Whether a job could be put here now.
    fn is_open(&self) -> bool {
        self.free_in_us.is_none() || self.takes_next
    }
}

/// When a job ought to end so that the others, whose work is so much, surely take longer; in microseconds from now.
pub fn surely_before_us(rooms: &[Room], work_us: f64) -> f64 {
    SURE_SHARE * all_done_us(rooms, work_us)
}

/// When all work could be done, were it spread evenly, in microseconds from now.
fn all_done_us(rooms: &[Room], work_us: f64) -> f64 {
    let mut free: Vec<(f64, f64)> = rooms
        .iter()
        .map(|room| (room.free_in_us.unwrap_or(0.0), 1.0 / room.slowness))
        .collect();
    free.sort_by(|a, b| a.0.total_cmp(&b.0));
    // By then, and what is done each microsecond from then on.
    let (mut done_us, mut speed, mut at_us) = (0.0, 0.0, 0.0);
    for (free_us, of_room) in free {
        let more_us = done_us + speed * (free_us - at_us);
        if more_us >= work_us {
            break;
        }
        (done_us, speed, at_us) = (more_us, speed + of_room, free_us);
    }
    at_us + (work_us - done_us) / f64::max(speed, f64::MIN_POSITIVE)
}

/// The rooms as they will be.
struct Future<'a> {
    rooms: &'a [Room],
    /// By step of slowness: when each room is free, as ordered bits, and which it is.
    steps: BTreeMap<i32, BTreeSet<(u64, usize)>>,
    free_at: Vec<f64>,
    /// Rooms in which nothing runs and to which nothing was given.
    idle: BTreeSet<usize>,
    /// Rooms that would take a job in advance, and to which nothing was given.
    takers: BTreeSet<usize>,
    /// How many rooms are still of use now.
    open: usize,
}

impl<'a> Future<'a> {
    fn of(rooms: &'a [Room]) -> Self {
        let numbered = || rooms.iter().enumerate();
        let mut future = Self {
            rooms,
            steps: BTreeMap::new(),
            free_at: rooms
                .iter()
                .map(|room| room.free_in_us.unwrap_or(0.0).max(0.0))
                .collect(),
            idle: numbered()
                .filter(|(_, room)| room.free_in_us.is_none())
                .map(|(number, _)| number)
                .collect(),
            takers: numbered()
                .filter(|(_, room)| room.free_in_us.is_some() && room.takes_next)
                .map(|(number, _)| number)
                .collect(),
            open: 0,
        };
        future.open = future.idle.len() + future.takers.len();
        for number in 0..rooms.len() {
            future.enter(number);
        }
        future
    }

    /// The room where a job would be finished first.
    fn best(&self, cost_us: f64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let of_step = |step: &BTreeSet<(u64, usize)>| {
            step.iter()
                .map(|&(_, number)| number)
                .find(|&number| may(number))
        };
        self.steps
            .values()
            .filter_map(of_step)
            // Among equals one that is free now: the others are so by a guess.
            .min_by(|&a, &b| {
                let order = self.end(a, cost_us).total_cmp(&self.end(b, cost_us));
                order.then(self.idle.contains(&b).cmp(&self.idle.contains(&a)))
            })
    }

    /// When a job that is put there next would have ended and its result be back.
    fn end(&self, number: usize, cost_us: f64) -> f64 {
        let room = &self.rooms[number];
        self.start(number) + cost_us * room.slowness + room.travel_us / 2.0
    }

    fn start(&self, number: usize) -> f64 {
        let room = &self.rooms[number];
        let one_way = room.travel_us / 2.0;
        match (self.idle.contains(&number), room.takes_next) {
            (true, _) => one_way,
            (false, true) => self.free_at[number].max(one_way),
            (false, false) => self.free_at[number] + room.travel_us,
        }
    }

    fn put(&mut self, job: usize, number: usize, cost_us: f64) -> Option<Allotment> {
        let end = self.start(number) + cost_us * self.rooms[number].slowness;
        self.leave(number);
        self.free_at[number] = end;
        let starts = self.idle.remove(&number);
        let waits = self.takers.remove(&number);
        self.enter(number);
        self.open -= usize::from(starts || waits);
        match (starts, waits) {
            (true, _) => Some(Allotment::Start(job, number)),
            (false, true) => Some(Allotment::Next(job, number)),
            (false, false) => None,
        }
    }

    fn enter(&mut self, number: usize) {
        let (step, key) = self.key(number);
        self.steps.entry(step).or_default().insert(key);
    }

    fn leave(&mut self, number: usize) {
        let (step, key) = self.key(number);
        if let Some(rooms) = self.steps.get_mut(&step) {
            rooms.remove(&key);
        }
    }

    fn key(&self, number: usize) -> (i32, (u64, usize)) {
        let room = &self.rooms[number];
        let step = (room.slowness.max(1e-6).log2() * STEPS_PER_DOUBLING).round() as i32;
        // Positive numbers keep their order as their bits.
        (step, (self.free_at[number].to_bits(), number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(slowness: f64) -> Room {
        Room {
            slowness,
            free_in_us: None,
            travel_us: 0.0,
            takes_next: false,
        }
    }

    fn busy(slowness: f64, free_in_us: f64) -> Room {
        Room {
            free_in_us: Some(free_in_us),
            ..idle(slowness)
        }
    }

    fn far(room: Room) -> Room {
        Room {
            travel_us: 50_000.0,
            takes_next: true,
            ..room
        }
    }

    use Allotment::{Next, Start};

    #[test]
    fn jobs_go_where_they_are_finished_first() {
        let second = 1_000_000.0;
        type Case<'a> = (&'a str, &'a [f64], &'a [Room], &'a [Allotment]);
        let cases: &[Case<'_>] = &[
            (
                "the fast first, then the slow",
                &[second, second],
                &[idle(2.0), idle(1.0)],
                &[Start(0, 1), Start(1, 0)],
            ),
            (
                "a slow one is left alone when a fast one is free in time",
                &[second],
                &[idle(4.0), busy(1.0, 0.5 * second)],
                &[],
            ),
            (
                "but not when many wait",
                &[second; 9],
                &[idle(4.0), busy(1.0, 0.5 * second)],
                &[Start(3, 0)],
            ),
            ("nothing waits", &[], &[idle(1.0)], &[]),
            ("nothing is there", &[second], &[], &[]),
            (
                "in advance to the one that ends first, one to each",
                &[second; 3],
                &[far(busy(1.0, 2.0 * second)), far(busy(1.0, second))],
                &[Next(0, 1), Next(1, 0)],
            ),
            (
                "an idle one before one that is soon free",
                &[second],
                &[far(busy(1.0, 1.0)), far(idle(1.0))],
                &[Start(0, 1)],
            ),
            (
                "never in advance to a slow one, at the end",
                &[second],
                &[far(busy(4.0, 1.0)), far(busy(1.0, second))],
                &[Next(0, 1)],
            ),
        ];
        for (what, costs, rooms, expect) in cases {
            let cost_us = |job: usize| costs[job];
            let allotted = allot(costs.len(), cost_us, rooms, |_, _| true);
            assert_eq!(allotted, *expect, "{what}");
        }
    }

    #[test]
    fn a_job_goes_only_where_it_may() {
        let rooms = [idle(1.0), idle(2.0)];
        let allotted = allot(2, |_| 1.0, &rooms, |job, room| job != 0 || room != 0);
        assert_eq!(allotted, [Start(0, 1), Start(1, 0)]);
    }

    #[test]
    fn what_ends_surely_before_the_rest_is_known_by_all_work_and_all_leases() {
        let rooms = [idle(1.0), busy(1.0, 600.0), idle(4.0), busy(1.0, 9000.0)];
        // By 600 the idle ones have done 750 of 2100, and from then on 2.25 is done at a time.
        let all_us = 600.0 + 1350.0 / 2.25;
        let before_us = surely_before_us(&rooms, 2100.0);
        assert!(
            (before_us - SURE_SHARE * all_us).abs() < 1e-6,
            "{before_us}"
        );
        assert!((rooms[2].longest_us(400.0) - 100.0).abs() < 1e-9);
        assert_eq!(surely_before_us(&rooms, 0.0), 0.0);
        assert!(surely_before_us(&[], 1.0) > 1e9);
    }
}
