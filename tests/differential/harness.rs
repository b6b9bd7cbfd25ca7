//! Runs trials in threads and says what came of each, in the words of Rust's own test harness.
//!
//! The standard harness knows only tests that exist when the program is compiled; here each case
//! is one, so that `N passed` counts cases and a case can be named to be run alone.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// One test.
pub struct Trial {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Box<dyn FnOnce() -> Result<(), Fault> + Send>,
}

/// Why a trial did not pass.
#[derive(Debug)]
pub enum Fault {
    /// Something is wrong, told in lines.
    Failed(String),
    /// It can't be run here, and why.
    Skipped(String),
}

/// Arguments that Rust's harness understands and that mean nothing here.
const IGNORED: [&str; 5] = [
    "--nocapture",
    "--quiet",
    "-q",
    "--include-ignored",
    "--show-output",
];

#[derive(Default)]
struct Request {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    threads: Option<usize>,
}

impl Request {
    fn of_this_process() -> Self {
        let mut request = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let (option, joined) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || joined.clone().or_else(|| words.next()).expect("a value");
            match option {
                "--skip" => request.skips.push(value()),
                "--test-threads" => request.threads = Some(value().parse().expect("a number")),
                "--format" | "--color" => drop(value()),
                "--exact" => request.exact = true,
                "--list" => request.list = true,
                _ if IGNORED.contains(&option) => {}
                _ if option.starts_with('-') => panic!("{option} is not understood"),
                _ => request.filters.push(word),
            }
        }
        request
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skips.iter().any(fits)
    }
}

/// Runs the trials that the process's arguments ask for; before the first, in this thread, `begin`.
pub fn run(trials: Vec<Trial>, begin: impl FnOnce()) -> ExitCode {
    let request = Request::of_this_process();
    let all = trials.len();
    let wanted: Vec<Trial> = trials
        .into_iter()
        .filter(|trial| request.wants(&trial.name))
        .collect();
    let left_out = all - wanted.len();
    if request.list {
        for trial in &wanted {
            println!("{}: test", trial.name);
        }
        return ExitCode::SUCCESS;
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = request.threads.unwrap_or(processors).max(1);
    let count = wanted.len();
    println!("\nrunning {count} tests");
    let began = Instant::now();
    if count > 0 {
        begin();
    }

    let queue: Vec<Mutex<Option<Trial>>> = wanted.into_iter().map(Some).map(Mutex::new).collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let skipped = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                while let Some(place) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let trial = place.lock().expect("no panic inside").take();
                    let trial = trial.expect("each is taken once");
                    let word = match attempt(trial.action) {
                        Ok(()) => "ok".to_owned(),
                        Err(Fault::Skipped(why)) => {
                            skipped.fetch_add(1, Ordering::Relaxed);
                            format!("ignored, {why}")
                        }
                        Err(Fault::Failed(why)) => {
                            let mut failures = failures.lock().expect("no panic inside");
                            failures.push((trial.name.clone(), why));
                            "FAILED".to_owned()
                        }
                    };
                    let line = format!("test {} ... {word}\n", trial.name);
                    let _ = std::io::stdout().lock().write_all(line.as_bytes());
                }
            });
        }
    });

    let mut failures = failures.into_inner().expect("all threads have ended");
    failures.sort();
    let skipped = skipped.into_inner();
    for (name, why) in &failures {
        println!("\n---- {name} ----\n{why}");
    }
    let failed = failures.len();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {failed} failed; {skipped} ignored; 0 measured; \
         {left_out} filtered out; finished in {:.2}s\n",
        count - failed - skipped,
        began.elapsed().as_secs_f64()
    );
    // In CI nothing is skipped.
    let complete = skipped == 0 || std::env::var_os("CI").is_none();
    if !complete {
        println!("error: {skipped} tests were ignored, and CI is set");
    }
    ExitCode::from(u8::from(failed > 0 || !complete))
}

/// The outcome; a panic is a failure.
fn attempt(action: Box<dyn FnOnce() -> Result<(), Fault> + Send>) -> Result<(), Fault> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Fault::Failed(format!("panicked: {}", said.unwrap_or("?"))))
    })
}
