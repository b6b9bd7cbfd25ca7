//! The terminal around model and views: one loop that hears news, keys and signals, and draws when
//! something changed, ten times a second at most for news.
//!
//! However the process ends (a key, a signal, a panic), the terminal is what it was before. Signals are
//! read as messages, so they are blocked before any thread exists.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{
    self as keys, DisableMouseCapture, EnableMouseCapture, Event as Input,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

use crate::executor;
use crate::id::Time;
use crate::message::ToScheduler;
use crate::monitor::model::{Event, Model};
use crate::monitor::theme::Theme;
use crate::monitor::ui::{Command, Ui};
use crate::monitor::views;
use crate::reactor::{Async, Timer};

/// Between two pictures of the news.
const FRAME: Duration = Duration::from_millis(100);
/// Between a key and the picture of what it did, while keys come fast.
const KEY_FRAME: Duration = Duration::from_millis(16);
/// Between two pictures when nothing happens: times go on.
const IDLE_FRAME: Duration = Duration::from_millis(1000);
/// Keys that wait to be looked at, at most; then the reading of them waits.
const KEYS_MAX: usize = 64;

/// What the screen is made with.
#[derive(Clone, Copy, Debug)]
pub struct TermConfig {
    /// Colours and characters.
    pub theme: Theme,
    /// Whether the mouse is listened to; then the terminal's own way to select text needs Shift.
    pub has_mouse: bool,
}

/// Shows what comes through `events` until the user has enough, and says what he wants through
/// `requests`. Must be called before any other thread exists. Errors: there is no terminal.
pub fn run(
    config: TermConfig,
    events: Receiver<Event>,
    requests: Sender<ToScheduler>,
    source: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    if !stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(io::Error::other(
            "standard input and output must be a terminal; --once and --json need none",
        ));
    }
    let signals = Signals::take()?;
    let screen = Screen::open(config.has_mouse)?;
    let (keys, pressed) = channel::bounded(KEYS_MAX);
    std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || read_keys(&keys))?;
    let mut shell = Shell {
        config,
        screen,
        model: Model::default(),
        ui: Ui::default(),
        start: Instant::now(),
        drawn: None,
        requests,
    };
    executor::block_on(async {
        let source = executor::spawn(source);
        let ended = shell.run(&events, &pressed, &signals).await;
        drop(source);
        ended
    })
}

enum Next {
    News(Event),
    Key(Input),
    Signal(Signal),
    Frame,
    End,
}

struct Shell {
    config: TermConfig,
    screen: Screen,
    model: Model,
    ui: Ui,
    start: Instant,
    drawn: Option<Instant>,
    requests: Sender<ToScheduler>,
}

impl Shell {
    async fn run(
        &mut self,
        events: &Receiver<Event>,
        pressed: &Receiver<Input>,
        signals: &Signals,
    ) -> io::Result<()> {
        let mut due = Instant::now();
        loop {
            let frame = async {
                Timer::at(due).await;
                Next::Frame
            };
            let news = async { events.recv().await.map_or(Next::End, Next::News) };
            let key = async { pressed.recv().await.map_or(Next::End, Next::Key) };
            let signal = async { signals.next().await.map_or(Next::End, Next::Signal) };
            // News come last: whatever their flood, keys are obeyed and pictures drawn.
            match signal.or(key).or(frame).or(news).await {
                Next::News(event) => {
                    let now = self.now();
                    self.model.on_event(event, now);
                    due = due.min(self.after(FRAME));
                }
                Next::Key(input) => {
                    match self.on_input(input) {
                        Some(Command::Quit) => return Ok(()),
                        Some(Command::Suspend) => self.suspend()?,
                        Some(Command::Redraw) => self.screen.clear()?,
                        Some(Command::Block { node, is_blocked }) => {
                            let request = ToScheduler::Block { node, is_blocked };
                            // Without a scheduler there is nobody to ask.
                            let _ = self.requests.try_send(request);
                        }
                        None => {}
                    }
                    due = due.min(self.after(KEY_FRAME));
                }
                Next::Signal(Signal::SIGTSTP) => self.suspend()?,
                Next::Signal(Signal::SIGCONT) => {
                    self.screen.enter()?;
                    due = Instant::now();
                }
                Next::Signal(_) | Next::End => return Ok(()),
                Next::Frame => {
                    let now = self.now();
                    self.model.on_event(Event::Tick, now);
                    self.draw()?;
                    let moves = !self.model.jobs().is_empty() && !self.ui.is_paused;
                    due = Instant::now() + if moves { FRAME } else { IDLE_FRAME };
                }
            }
        }
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// The next moment for a picture, so long after the last.
    fn after(&self, pause: Duration) -> Instant {
        self.drawn.map_or_else(Instant::now, |drawn| drawn + pause)
    }

    fn on_input(&mut self, input: Input) -> Option<Command> {
        match input {
            Input::Key(key) => self.ui.on_key(key, &self.model),
            Input::Mouse(event) => {
                self.ui.on_mouse(event, &self.model);
                None
            }
            Input::Resize(..) => None,
            Input::FocusGained | Input::FocusLost | Input::Paste(_) => None,
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let Self {
            config,
            screen,
            model,
            ui,
            ..
        } = self;
        if !screen.is_ours {
            return Ok(());
        }
        let theme = config.theme;
        // The terminal shows the picture when it is whole.
        execute!(screen.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        screen
            .terminal
            .draw(|frame| views::draw(model, ui, theme, frame.area(), frame.buffer_mut()))?;
        execute!(screen.terminal.backend_mut(), EndSynchronizedUpdate)?;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    /// Gives the terminal back and stops, until the shell continues us; SIGCONT says so.
    fn suspend(&mut self) -> io::Result<()> {
        self.screen.leave();
        kill(Pid::this(), Signal::SIGSTOP)?;
        Ok(())
    }
}

/// Hands keys over until nobody wants them; it ends with the process.
fn read_keys(keys: &Sender<Input>) {
    while let Ok(input) = keys::read() {
        if keys.send_blocking(input).is_err() {
            return;
        }
    }
}

/// The terminal in our hands; given back when it is dropped, and before a panic is printed.
struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    has_mouse: bool,
    /// Whether it may be drawn on: not while the shell has it.
    is_ours: bool,
}

impl Screen {
    fn open(has_mouse: bool) -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        let backend = CrosstermBackend::new(BufWriter::with_capacity(64 << 10, stdout()));
        let mut screen = Self {
            terminal: Terminal::new(backend)?,
            has_mouse,
            is_ours: false,
        };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        if self.has_mouse {
            execute!(stdout(), EnableMouseCapture)?;
        }
        self.is_ours = true;
        self.clear()
    }

    /// Makes the next picture a whole one. `Terminal::clear` asks the terminal for the cursor's place,
    /// and the answer would be read as keys.
    fn clear(&mut self) -> io::Result<()> {
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal.swap_buffers();
        Ok(())
    }

    fn leave(&mut self) {
        self.is_ours = false;
        give_back();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Makes the terminal what it was. When that fails there is no terminal any more.
fn give_back() {
    let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

/// Signals as messages.
struct Signals {
    descriptor: SignalFd,
    /// The same, to wait for.
    readiness: Async<OwnedFd>,
}

impl Signals {
    fn take() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
            Signal::SIGCONT,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let readiness = Async::new(descriptor.as_fd().try_clone_to_owned()?)?;
        Ok(Self {
            descriptor,
            readiness,
        })
    }

    async fn next(&self) -> io::Result<Signal> {
        let read = |_: &OwnedFd| match self.descriptor.read_signal()? {
            Some(info) => Ok(info),
            None => Err(io::ErrorKind::WouldBlock.into()),
        };
        let info = self.readiness.read_with(read).await?;
        Signal::try_from(info.ssi_signo as i32).map_err(io::Error::from)
    }
}
