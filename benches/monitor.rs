//! What a monitor of a large cluster costs: processor time for each second of 1000 nodes and 5000
//! events, with ten pictures of 200x60 cells, from the bytes of the messages to those for the terminal.
//!
//! `cargo bench --bench monitor`. Processor time and not wall time, so that a busy machine says the same.

use std::io;
use std::time::Duration;

use ice::frame::{self, Decoder};
use ice::id::Time;
use ice::message::{FromScheduler, MESSAGE_BYTES_MAX};
use ice::monitor::demo::Demo;
use ice::monitor::model::{Event, Model};
use ice::monitor::theme::Theme;
use ice::monitor::ui::{Ui, View};
use ice::monitor::views;
use nix::sys::resource::{UsageWho, getrusage};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

const NODES: u32 = 1000;
const SECONDS: u64 = 20;
const FRAMES: u64 = 10;
const SCREEN: Rect = Rect::new(0, 0, 200, 60);
const THEME: Theme = Theme {
    has_colors: true,
    has_unicode: true,
};

fn main() {
    // Long jobs, so that there are about as many events as wanted, on slots that are all in use.
    let mut demo = Demo::new(1, NODES, Duration::from_millis(4300));
    let snapshot = demo.snapshot();
    // The cluster fills up first.
    let before = demo.advance(Time(20_000_000));
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut events = 0;
    for frame in 1..=SECONDS * FRAMES {
        let now = Time(20_000_000 + frame * 1_000_000 / FRAMES);
        let news = demo.advance(now);
        events += news.len();
        let mut bytes = Vec::new();
        let message = FromScheduler::News { skipped: 0, news };
        frame::encode(&message, MESSAGE_BYTES_MAX, &mut bytes).expect("it fits");
        frames.push(bytes);
    }
    println!(
        "{NODES} nodes, {} jobs run, {} events a second, {FRAMES} pictures a second",
        demo.running(),
        events as u64 / SECONDS
    );
    for view in View::ALL {
        let mut model = Model::default();
        model.on_event(Event::Snapshot(snapshot.clone()), Time(0));
        let news = before.clone();
        model.on_event(Event::News { skipped: 0, news }, Time(20_000_000));
        let mut ui = Ui::at(view);
        let options = TerminalOptions {
            viewport: Viewport::Fixed(SCREEN),
        };
        let mut terminal = Terminal::with_options(CrosstermBackend::new(io::sink()), options)
            .expect("a terminal of nothing");
        let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
        let mut drawing = Duration::ZERO;
        let start = cpu();
        for (number, bytes) in (1..).zip(&frames) {
            decoder.push(bytes);
            let message = decoder.take().expect("a message");
            let Some(FromScheduler::News { skipped, news }) = message else {
                panic!("no news");
            };
            let now = Time(20_000_000 + number * 1_000_000 / FRAMES);
            model.on_event(Event::News { skipped, news }, now);
            let drawn = cpu();
            terminal
                .draw(|frame| {
                    views::draw(&model, &mut ui, THEME, frame.area(), frame.buffer_mut());
                })
                .expect("drawn");
            drawing += cpu() - drawn;
        }
        let all = cpu() - start;
        let percent = |of: Duration| of.as_secs_f64() * 100.0 / SECONDS as f64;
        println!(
            "{:<8} {:5.1} % of a core, drawing {:5.1} %",
            view.title(),
            percent(all),
            percent(drawing)
        );
    }
}

/// Processor time of this process so far, user and system.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let time =
        |of: nix::sys::time::TimeVal| Duration::new(of.tv_sec() as u64, of.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}
