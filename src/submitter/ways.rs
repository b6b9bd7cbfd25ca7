//! How far the workers are from this submitter: what the way takes, and how many bytes pass in a second.
//!
//! It is measured while jobs are on their way; nothing is sent for its own sake. The scheduler is told so that it
//! can count the way when it chooses a node: once something is known, and when it has changed. Knows no clock and
//! no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{NodeId, Time};
use crate::message::Way;

/// The way there and back as long as it was not measured, in microseconds.
const TRAVEL_UNKNOWN_US: f64 = 1_000.0;
/// Nodes whose distance is remembered, at most.
const WAYS_MAX: usize = 4096;
/// How far a new measurement moves what is known.
const GAIN: f64 = 0.1;
/// The same of bytes per second, which are measured seldom.
const GAIN_RATE: f64 = 0.3;
/// Fewer bytes in one direction say more of round trips and buffers than of the line.
const BYTES_LEAST: u64 = 512 << 10;
/// So many bytes go out before those are counted that follow: the kernel takes in the first at once, and what is
/// in its buffers is not there yet.
const BUFFERED: u64 = 8 << 20;
/// The scheduler is told when something is so many times larger or smaller than it knows.
const CHANGE: f64 = 1.25;
/// It is told of one node no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// To go there and back took so long.
    Travel(Duration),
    /// So many bytes went there in so long.
    Sent(u64, Duration),
    /// So many came from there.
    Received(u64, Duration),
}

/// The ways to the nodes.
#[derive(Debug, Default)]
pub struct Ways {
    of: BTreeMap<NodeId, Known>,
    /// Those that were travelled by length, as bits, which order positive numbers as they are: the longest is
    /// asked for at every event.
    by_length: BTreeSet<(u64, NodeId)>,
}

#[derive(Debug, Default)]
struct Known {
    travel_us: Option<f64>,
    up: Option<f64>,
    down: Option<f64>,
    told: Option<(Time, Way)>,
}

impl Ways {
    /// Takes in a measurement.
    pub fn learn(&mut self, node: NodeId, measured: Measured) {
        if self.of.len() >= WAYS_MAX && !self.of.contains_key(&node) {
            // The lowest number has been there longest.
            if let Some((gone, known)) = self.of.pop_first()
                && let Some(length) = known.travel_us
            {
                self.by_length.remove(&(length.to_bits(), gone));
            }
        }
        let known = self.of.entry(node).or_default();
        match measured {
            Measured::Travel(time) => {
                let measured = time.as_micros() as f64;
                let old = known.travel_us.unwrap_or(measured);
                // A busy machine makes the way look longer, never shorter.
                let learned = measured.min(old + GAIN * (measured - old));
                if let Some(old) = known.travel_us.replace(learned) {
                    self.by_length.remove(&(old.to_bits(), node));
                }
                self.by_length.insert((learned.to_bits(), node));
            }
            Measured::Sent(bytes, time) => blend(&mut known.up, bytes, time),
            Measured::Received(bytes, time) => blend(&mut known.down, bytes, time),
        }
    }

    /// The way there and back, in microseconds.
    pub fn travel_us(&self, node: NodeId) -> f64 {
        let known = self.of.get(&node).and_then(|known| known.travel_us);
        known.unwrap_or(TRAVEL_UNKNOWN_US)
    }

    /// The longest of them that was measured; 0 when none was.
    pub fn longest_us(&self) -> f64 {
        let longest = self.by_length.last();
        longest.map_or(0.0, |&(bits, _)| f64::from_bits(bits))
    }

    /// What the scheduler is to be told of a node now, if anything. It is taken to have been told.
    pub fn to_tell(&mut self, node: NodeId, now: Time) -> Option<Way> {
        let known = self.of.get_mut(&node)?;
        let whole = |number: Option<f64>| number.map_or(0, |number| number.max(1.0) as u64);
        let way = Way {
            travel_us: whole(known.travel_us),
            up: whole(known.up),
            down: whole(known.down),
        };
        let is_news = known.told.is_none_or(|(at, told)| {
            now.since(at) >= TELL_EVERY
                && (differs(told.travel_us, way.travel_us)
                    || differs(told.up, way.up)
                    || differs(told.down, way.down))
        });
        if !is_news {
            return None;
        }
        known.told = Some((now, way));
        Some(way)
    }

    /// Forgets all: the nodes have other numbers from now on.
    pub fn clear(&mut self) {
        self.of.clear();
        self.by_length.clear();
    }
}

/// Bytes that pass in one direction, as one attempt sees them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    unseen: u64,
    bytes: u64,
    time: Duration,
}

impl Meter {
    /// For what is sent: the first bytes only fill the buffers of the kernel.
    pub fn behind_buffers() -> Self {
        Self {
            unseen: BUFFERED,
            ..Self::default()
        }
    }

    /// So many bytes passed in so long.
    pub fn add(&mut self, bytes: u64, time: Duration) {
        if self.unseen > 0 {
            self.unseen = self.unseen.saturating_sub(bytes);
            return;
        }
        self.bytes += bytes;
        self.time += time;
    }

    /// What passed, if it is enough to tell how fast.
    pub fn read(&self) -> Option<(u64, Duration)> {
        (self.bytes >= BYTES_LEAST).then_some((self.bytes, self.time))
    }
}

fn blend(known: &mut Option<f64>, bytes: u64, time: Duration) {
    let rate = bytes as f64 / time.as_secs_f64().max(1e-6);
    *known = Some(known.map_or(rate, |old| old + GAIN_RATE * (rate - old)));
}

fn differs(told: u64, known: u64) -> bool {
    let (told, known) = (told as f64, known as f64);
    told * CHANGE < known || known * CHANGE < told
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn ms(time_ms: u64) -> Duration {
        Duration::from_millis(time_ms)
    }

    fn at(time_ms: u64) -> Time {
        Time(time_ms * 1000)
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let mut ways = Ways::default();
        assert_eq!(ways.to_tell(NODE, at(0)), None);
        assert_eq!(ways.travel_us(NODE), TRAVEL_UNKNOWN_US);
        assert_eq!(ways.longest_us(), 0.0);
        ways.learn(NODE, Measured::Received(1_000_000, ms(100)));
        let way = ways.to_tell(NODE, at(0)).unwrap();
        let expected = Way {
            down: 10_000_000,
            ..Way::default()
        };
        assert_eq!(way, expected);
        assert_eq!(ways.travel_us(NODE), TRAVEL_UNKNOWN_US);
    }

    #[test]
    fn the_scheduler_is_told_what_changed_and_not_too_often() {
        let mut ways = Ways::default();
        let travel = Measured::Travel(ms(50));
        let cases = [
            (at(0), travel, true),
            (at(5000), travel, false),
            (at(5000), Measured::Sent(3_000_000, ms(1000)), true),
            (at(5500), Measured::Received(1_000_000, ms(1000)), false),
            (at(6000), Measured::Received(1_000_000, ms(1000)), true),
            (at(9000), Measured::Travel(ms(49)), false),
            (at(9000), Measured::Travel(ms(5)), true),
        ];
        for (now, measured, told) in cases {
            ways.learn(NODE, measured);
            let way = ways.to_tell(NODE, now);
            assert_eq!(way.is_some(), told, "{now:?} {measured:?}");
        }
        ways.clear();
        assert_eq!(ways.to_tell(NODE, at(20_000)), None);
    }

    #[test]
    fn one_slow_handshake_makes_a_way_a_little_longer_and_a_fast_one_makes_it_short() {
        let mut ways = Ways::default();
        for (time_ms, known_us) in [(10, 10_000.0), (110, 20_000.0), (1, 1000.0)] {
            ways.learn(NODE, Measured::Travel(ms(time_ms)));
            assert_eq!(ways.travel_us(NODE), known_us);
        }
        assert_eq!(ways.longest_us(), 1000.0);
    }

    #[test]
    fn what_fills_the_buffers_is_not_counted_as_sent() {
        let mut meter = Meter::behind_buffers();
        meter.add(BUFFERED - 1, ms(1));
        meter.add(BYTES_LEAST, ms(1));
        assert_eq!(meter.read(), None);
        meter.add(BYTES_LEAST - 1, ms(100));
        assert_eq!(meter.read(), None);
        meter.add(1, ms(100));
        assert_eq!(meter.read(), Some((BYTES_LEAST, ms(200))));
        let mut meter = Meter::default();
        meter.add(BYTES_LEAST, ms(7));
        assert_eq!(meter.read(), Some((BYTES_LEAST, ms(7))));
    }

    #[test]
    fn ways_are_bounded() {
        let mut ways = Ways::default();
        for node in 0..WAYS_MAX as u32 * 2 {
            ways.learn(NodeId(node), Measured::Travel(ms(1)));
        }
        assert_eq!(ways.of.len(), WAYS_MAX);
    }
}
