//! The three ways to look on (a screen, a list, lines of JSON) at two things: a cluster and a demo.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::channel::{self, Receiver, Sender};

use crate::executor;
use crate::id::Time;
use crate::key::Credentials;
use crate::message::ToScheduler;
use crate::monitor::demo::Demo;
use crate::monitor::json::JsonLines;
use crate::monitor::model::{Event, Model};
use crate::monitor::term::{self, TermConfig};
use crate::monitor::views;
use crate::monitor::watch::{self, Find, WatchError};
use crate::reactor::Timer;

/// Events that wait to be shown, at most; then their source waits.
const EVENTS_MAX: usize = 64;
/// Requests to the scheduler that wait, at most.
const REQUESTS_MAX: usize = 16;
/// Between two looks at what happened in the demo.
const DEMO_STEP: Duration = Duration::from_millis(50);
/// What a demo's list shows: the cluster after so long.
const DEMO_LIST: Time = Time(20_000_000);
/// How long a job of the demo takes.
const DEMO_JOB: Duration = Duration::from_millis(1500);

/// What is looked at.
pub enum Source {
    /// The cluster of the scheduler that is found so.
    Cluster(Find, Credentials),
    /// A cluster that does not exist.
    Demo {
        /// What it is made from.
        seed: u64,
        /// How many nodes it has.
        nodes: u32,
    },
}

/// How it is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// On a screen.
    Screen(TermConfig),
    /// As a list, once.
    List(crate::monitor::theme::Theme),
    /// As lines of JSON: the snapshot, and the news after it unless `once`.
    Json {
        /// Whether to end after the snapshot.
        once: bool,
    },
}

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// There is no scheduler, and why.
    #[error("{0}")]
    Nowhere(String),
    /// It can't be watched.
    #[error("watch the scheduler: {0}")]
    Watch(#[from] WatchError),
    /// The terminal, or standard output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Shows `source` as `mode` says. Must be called before any other thread exists.
pub fn run(source: Source, mode: Mode) -> Result<(), MonitorError> {
    match mode {
        Mode::Screen(config) => {
            let (heard, events) = channel::bounded(EVENTS_MAX);
            let (requests, said) = channel::bounded(REQUESTS_MAX);
            let source = feed(source, heard, said);
            term::run(config, events, requests, source)?;
            Ok(())
        }
        Mode::List(theme) => executor::block_on(async {
            let mut model = Model::default();
            for event in picture(source).await? {
                model.on_event(event, DEMO_LIST);
            }
            print(&views::list::plain(&model, theme))?;
            Ok(())
        }),
        Mode::Json { once: true } => executor::block_on(async {
            let mut lines = JsonLines::default();
            for event in picture(source).await?.iter().take(1) {
                print(&lines.lines(event, now_ms()))?;
            }
            Ok(())
        }),
        Mode::Json { once: false } => executor::block_on(async {
            let (heard, events) = channel::bounded(EVENTS_MAX);
            // Nobody asks for anything; but a closed channel would mean the end.
            let (_requests, said) = channel::bounded(1);
            let source = executor::spawn(feed(source, heard, said));
            let mut lines = JsonLines::default();
            while let Ok(event) = events.recv().await {
                if !print(&lines.lines(&event, now_ms()))? {
                    break;
                }
            }
            drop(source);
            Ok(())
        }),
    }
}

/// Prints; false when nobody reads any more, as when the output is piped to `head`.
fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What happens, until nobody listens.
async fn feed(source: Source, events: Sender<Event>, requests: Receiver<ToScheduler>) {
    match source {
        Source::Cluster(find, credentials) => {
            watch::watch(find, credentials, events, requests).await;
        }
        Source::Demo { seed, nodes } => {
            let start = Instant::now();
            let mut demo = Demo::new(seed, nodes, DEMO_JOB);
            let found = Event::Found("demo".to_owned());
            for event in [found, Event::Snapshot(demo.snapshot())] {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            loop {
                Timer::after(DEMO_STEP).await;
                while let Ok(request) = requests.try_recv() {
                    demo.obey(&request);
                }
                let now = Time(start.elapsed().as_micros() as u64);
                let event = Event::News {
                    skipped: 0,
                    news: demo.advance(now),
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The events that lead to a picture of this moment, a snapshot first.
async fn picture(source: Source) -> Result<Vec<Event>, MonitorError> {
    match source {
        Source::Cluster(find, credentials) => {
            let addresses = find().await.map_err(MonitorError::Nowhere)?;
            let snapshot = watch::snapshot(&addresses, &credentials).await?;
            Ok(vec![Event::Snapshot(snapshot)])
        }
        Source::Demo { seed, nodes } => {
            let mut demo = Demo::new(seed, nodes, DEMO_JOB);
            let snapshot = Event::Snapshot(demo.snapshot());
            let news = demo.advance(DEMO_LIST);
            Ok(vec![snapshot, Event::News { skipped: 0, news }])
        }
    }
}
