//! Those who look on without a key of their own: readers of the page's events, askers of metrics, and icecream's
//! monitors.
//!
//! It watches the cluster once, as a peer of the dispatcher in the same process, and hands on what it hears in
//! each language. Whoever reads so slowly that his channel fills up is let go: he comes again and hears the
//! present, which is better than an old story. The languages are pure ([`crate::news::json`],
//! [`super::metrics`], [`super::icecream`]); the sockets are in [`super::http`] and
//! [`super::icecream_port`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use smol::channel::{self, Receiver, Sender, TrySendError};
use smol::future::FutureExt;

use crate::message::FromScheduler;
use crate::news::json::Encoder;
use crate::news::{News, Snapshot};
use crate::reactor::Timer;
use crate::scheduler::election::Role;
use crate::scheduler::icecream::Translator;
use crate::scheduler::metrics::{Metrics, Moment};
use crate::scheduler::tally::Tally;

/// Who reads events at a time, at most, in each language.
pub const READERS_MAX: usize = 32;
/// What waits to be read by one of them, at most, in pieces of up to [`crate::news::NEWS_MAX`] news.
const PIECES_MAX: usize = 64;
/// A reader of events hears something at least this often, so that he knows that the scheduler is there.
const BEAT: Duration = Duration::from_secs(1);
/// Guests that wait at the door, at most.
const GUESTS_MAX: usize = 16;

/// What the audience wants of the dispatcher.
#[derive(Debug)]
pub enum Request {
    /// A snapshot, and the news from then on; answered by [`Told::Line`] when there was no line.
    Watch,
    /// What this scheduler is.
    Role(Sender<Role>),
    /// What became of all jobs.
    Tally(Sender<Tally>),
}

/// What the dispatcher tells the audience.
#[derive(Debug)]
pub enum Told {
    /// What this scheduler is now.
    Role(Role),
    /// Where the news come from until it ends.
    Line(Receiver<FromScheduler>),
}

/// Who comes in.
#[derive(Debug)]
pub enum Guest {
    /// A reader of server-sent events.
    Events(Seat),
    /// A monitor of icecream.
    Icecream(Seat),
    /// Somebody who wants the metrics.
    Metrics(Sender<String>),
}

/// The audience's end of a reader.
#[derive(Debug)]
pub struct Seat {
    pieces: Sender<Bytes>,
    /// Closed when the seat is taken away, so that a writer who is stuck hears of it.
    _held: Sender<()>,
}

/// The reader's end.
#[derive(Debug)]
pub struct Ticket {
    /// What is to be written.
    pub pieces: Receiver<Bytes>,
    /// Ends with an error when the reader was let go.
    pub held: Receiver<()>,
}

/// Both ends of a reader.
pub fn seat() -> (Seat, Ticket) {
    let (sender, pieces) = channel::bounded(PIECES_MAX);
    let (holder, held) = channel::bounded(1);
    let seat = Seat {
        pieces: sender,
        _held: holder,
    };
    (seat, Ticket { pieces, held })
}

/// The way into the audience.
pub fn door() -> (Sender<Guest>, Receiver<Guest>) {
    channel::bounded(GUESTS_MAX)
}

/// Serves whoever comes through `guests` until the dispatcher is gone.
pub async fn run(told: Receiver<Told>, requests: Sender<Request>, guests: Receiver<Guest>) {
    Audience {
        told,
        requests,
        guests,
        line: None,
        role: Role::Undecided,
        start: Instant::now(),
        last_beat: Instant::now(),
        is_stale: true,
        metrics: Metrics::default(),
        encoder: Encoder::default(),
        translator: Translator::default(),
        newcomers: Vec::new(),
        readers: Vec::new(),
        monitors: Vec::new(),
    }
    .run()
    .await;
}

struct Audience {
    told: Receiver<Told>,
    requests: Sender<Request>,
    guests: Receiver<Guest>,
    line: Option<Receiver<FromScheduler>>,
    role: Role,
    start: Instant,
    last_beat: Instant,
    /// Whether the next snapshot is news to icecream's monitors and to readers.
    is_stale: bool,
    metrics: Metrics,
    encoder: Encoder,
    translator: Translator,
    /// Readers who wait for a snapshot.
    newcomers: Vec<Seat>,
    readers: Vec<Seat>,
    monitors: Vec<Seat>,
}

enum Next {
    Told(Told),
    Said(FromScheduler),
    LineEnded,
    Guest(Guest),
    Beat,
    End,
}

impl Audience {
    async fn run(mut self) {
        loop {
            match self.next().await {
                Next::End => return,
                Next::Told(Told::Role(role)) => self.become_role(role).await,
                Next::Told(Told::Line(line)) => {
                    self.line = Some(line);
                    self.is_stale = true;
                }
                Next::Said(FromScheduler::Snapshot(snapshot)) => self.snapshot(&snapshot),
                Next::Said(FromScheduler::News { skipped, news }) => {
                    self.news(skipped, &news).await;
                }
                Next::Said(_) => {}
                Next::LineEnded => {
                    self.line = None;
                    if let Role::Master(_) = self.role {
                        self.ask().await;
                    }
                }
                Next::Guest(guest) => self.admit(guest).await,
                Next::Beat => self.beat(),
            }
        }
    }

    async fn next(&self) -> Next {
        let told = async { self.told.recv().await.map_or(Next::End, Next::Told) };
        let said = async {
            match &self.line {
                Some(line) => line.recv().await.map_or(Next::LineEnded, Next::Said),
                None => smol::future::pending().await,
            }
        };
        let guest = async {
            match self.guests.recv().await {
                Ok(guest) => Next::Guest(guest),
                // Nobody comes any more; the metrics may have been asked for last.
                Err(_) => smol::future::pending().await,
            }
        };
        let beat = async {
            if self.readers.is_empty() && self.newcomers.is_empty() {
                return smol::future::pending().await;
            }
            Timer::at(self.last_beat + BEAT).await;
            Next::Beat
        };
        told.or(beat).or(guest).or(said).await
    }

    async fn become_role(&mut self, role: Role) {
        self.role = role;
        self.line = None;
        self.is_stale = true;
        self.metrics.on_role(role);
        match role {
            Role::Master(_) => self.ask().await,
            Role::Standby(_) | Role::Undecided => {
                self.readers.append(&mut self.newcomers);
                let piece = self.standing();
                deal(&mut self.readers, &piece);
                let piece = Bytes::from(self.translator.farewell());
                deal(&mut self.monitors, &piece);
            }
        }
    }

    /// Why there are no news, for readers.
    fn standing(&mut self) -> Bytes {
        let why = match self.role {
            Role::Standby(at) => format!("this scheduler stands by for the master at {at}"),
            Role::Undecided | Role::Master(_) => "this scheduler looks for the master".to_owned(),
        };
        self.encoder.time_ms = milliseconds_since_1970();
        event(&self.encoder.lost(&why)).into()
    }

    async fn ask(&self) {
        // The dispatcher is gone only when everything ends.
        let _ = self.requests.send(Request::Watch).await;
    }

    async fn admit(&mut self, guest: Guest) {
        match guest {
            Guest::Metrics(reply) => {
                let moment = Moment {
                    uptime: self.start.elapsed(),
                    event_readers: self.readers.len() + self.newcomers.len(),
                    icecream_monitors: self.monitors.len(),
                };
                // Counts are the core's: what was left out of the news must not be left out of them.
                let (told, tally) = channel::bounded(1);
                // The dispatcher is gone only when everything ends.
                let _ = self.requests.send(Request::Tally(told)).await;
                if let Ok(tally) = tally.recv().await {
                    // Whoever asked may be gone.
                    let _ = reply.try_send(self.metrics.render(&tally, moment));
                }
            }
            Guest::Events(seat) => {
                if self.readers.len() + self.newcomers.len() >= READERS_MAX {
                    log::warn!("a reader of events is refused: there are {READERS_MAX}");
                    return;
                }
                if self.readers.is_empty() && self.newcomers.is_empty() {
                    self.last_beat = Instant::now();
                }
                match self.role {
                    Role::Master(_) => {
                        self.newcomers.push(seat);
                        self.ask().await;
                    }
                    Role::Standby(_) | Role::Undecided => {
                        let mut seats = vec![seat];
                        deal(&mut seats, &self.standing());
                        self.readers.append(&mut seats);
                    }
                }
            }
            Guest::Icecream(seat) => {
                if self.monitors.len() >= READERS_MAX {
                    log::warn!("a monitor of icecream is refused: there are {READERS_MAX}");
                    return;
                }
                let mut seats = vec![seat];
                let welcome = self.translator.welcome(seconds_since_1970());
                deal(&mut seats, &welcome.into());
                self.monitors.append(&mut seats);
            }
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        self.metrics.on_snapshot(snapshot);
        self.encoder.time_ms = milliseconds_since_1970();
        // Names are learned of it even if nobody hears it.
        let piece = Bytes::from(event(&self.encoder.snapshot(snapshot)));
        if std::mem::take(&mut self.is_stale) {
            deal(&mut self.readers, &piece);
            let told = self.translator.snapshot(snapshot, seconds_since_1970());
            deal(&mut self.monitors, &told.into());
        }
        deal(&mut self.newcomers, &piece);
        self.readers.append(&mut self.newcomers);
    }

    async fn news(&mut self, skipped: u64, news: &[News]) {
        if skipped > 0 {
            self.metrics.on_missed(skipped);
            self.is_stale = true;
            self.ask().await;
        }
        let seconds = seconds_since_1970();
        self.encoder.time_ms = milliseconds_since_1970();
        let mut events = String::new();
        if skipped > 0 {
            events.push_str(&event(&self.encoder.missed(skipped)));
        }
        let mut messages = Vec::new();
        for news in news {
            self.metrics.on_news(news);
            messages.extend(self.translator.news(news, seconds));
            if !self.readers.is_empty() || matches!(news, News::Node(_) | News::Left { .. }) {
                events.push_str(&event(&self.encoder.news(news)));
            }
        }
        deal(&mut self.readers, &events.into());
        deal(&mut self.monitors, &messages.into());
    }

    fn beat(&mut self) {
        self.last_beat = Instant::now();
        let piece = Bytes::from_static(b"event: beat\ndata: {}\n\n");
        deal(&mut self.readers, &piece);
        self.newcomers.retain(|seat| !seat.pieces.is_closed());
    }
}

/// Gives a piece to everybody who can take it; the others lose their seats.
fn deal(seats: &mut Vec<Seat>, piece: &Bytes) {
    if piece.is_empty() {
        return;
    }
    seats.retain(|seat| match seat.pieces.try_send(piece.clone()) {
        Ok(()) => true,
        Err(TrySendError::Closed(_)) => false,
        Err(TrySendError::Full(_)) => {
            log::info!("a reader of events is let go, since it reads too slowly");
            false
        }
    });
}

/// An object as a server-sent event. It has no line ends, which JSON escapes.
fn event(object: &str) -> String {
    format!("data: {object}\n\n")
}

fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn seconds_since_1970() -> u32 {
    u32::try_from(milliseconds_since_1970() / 1000).unwrap_or(u32::MAX)
}
