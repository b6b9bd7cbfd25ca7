//! What the monitor hears, as lines of JSON for programs: one object a line.

use crate::monitor::model::Event;
pub use crate::news::OUTCOMES;
pub use crate::news::json::EVENTS;
use crate::news::json::Encoder;

/// Writes events; knows the names of nodes from those before.
#[derive(Clone, Debug, Default)]
pub struct JsonLines {
    encoder: Encoder,
}

impl JsonLines {
    /// The lines of an event that was heard `time_ms` milliseconds after 1970; each ends with a newline.
    pub fn lines(&mut self, event: &Event, time_ms: u64) -> String {
        let encoder = &mut self.encoder;
        encoder.time_ms = time_ms;
        let mut lines = String::new();
        let mut line = |object: String| {
            lines.push_str(&object);
            lines.push('\n');
        };
        match event {
            Event::Found(scheduler) => line(encoder.found(scheduler)),
            Event::Lost(why) => line(encoder.lost(why)),
            Event::Snapshot(snapshot) => line(encoder.snapshot(snapshot)),
            Event::News { skipped, news } => {
                if *skipped > 0 {
                    line(encoder.missed(*skipped));
                }
                for news in news {
                    line(encoder.news(news));
                }
            }
            Event::Tick => {}
        }
        lines
    }
}
