//! Where the time of a call goes, lap by lap.
//!
//! Each lap begins where the last one ended, so spans never overlap and nothing is counted twice. A look at the clock
//! takes some 25 ns and there are about ten to a call, so it is done for all of them.

use std::time::{Duration, Instant};

use crate::message::{CallPhase, SPANS_MAX, Span};

/// The laps of one call.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    last: Instant,
    spans: Vec<Span>,
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last: now,
            spans: Vec::new(),
        }
    }

    /// What was done since the last lap is this, and ends now.
    pub fn lap(&mut self, phase: CallPhase) {
        self.lap_until(phase, Instant::now());
    }

    /// The same for what ended at `end`; what ended before the last lap did, or lies ahead, is cut.
    pub fn lap_until(&mut self, phase: CallPhase, end: Instant) {
        let end = end.clamp(self.last, Instant::now().max(self.last));
        let since = |at: Instant| at.duration_since(self.began).as_micros() as u64;
        let (from_us, to_us) = (since(self.last), since(end));
        self.last = end;
        match self.spans.last_mut() {
            // Work that goes on is one lap.
            Some(last) if last.phase == phase => last.to_us = to_us,
            _ => {
                if self.spans.len() < SPANS_MAX {
                    self.spans.push(Span {
                        phase,
                        from_us,
                        to_us,
                    });
                }
            }
        }
    }

    /// A remote attempt, of which is known when it began, when its compiler started if it was heard to, and how long
    /// that ran; it ended now.
    pub fn attempt(&mut self, began: Instant, started: Option<Instant>, compiled: Duration) {
        self.lap_until(CallPhase::Wait, began);
        let started = started.or_else(|| Instant::now().checked_sub(compiled));
        let started = started.unwrap_or(began);
        self.lap_until(CallPhase::Send, started);
        self.lap_until(CallPhase::Compile, started + compiled);
        self.lap(CallPhase::Fetch);
    }

    /// The laps so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_follow_each_other_whatever_is_said_of_their_ends() {
        let mut watch = Stopwatch::start();
        let began = watch.began;
        watch.lap(CallPhase::Classify);
        // Before the last lap, and in the future.
        watch.lap_until(CallPhase::Scan, began - Duration::from_secs(1));
        watch.lap_until(CallPhase::Wait, began + Duration::from_secs(1000));
        watch.attempt(Instant::now(), None, Duration::from_secs(1000));
        watch.lap(CallPhase::Commit);
        watch.lap(CallPhase::Commit);
        let spans = watch.spans();
        let phases: Vec<&str> = spans.iter().map(|span| span.phase.name()).collect();
        let expect = [
            "classify", "scan", "wait", "send", "compile", "fetch", "commit",
        ];
        assert_eq!(phases, expect);
        for pair in spans.windows(2) {
            assert_eq!(pair[0].to_us, pair[1].from_us);
        }
        assert!(spans.iter().all(|span| span.from_us <= span.to_us));
        assert!(spans[6].to_us < 100_000_000);
    }

    #[test]
    fn the_number_of_laps_has_a_bound() {
        let mut watch = Stopwatch::start();
        for _ in 0..100 {
            watch.lap(CallPhase::Wait);
            watch.lap(CallPhase::Lost);
        }
        assert_eq!(watch.spans().len(), SPANS_MAX);
    }
}
