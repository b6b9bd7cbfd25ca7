//! The life of one call, from the client's socket to its answer.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smol::future::FutureExt;
use smol::lock::Semaphore;

use super::attempt::{self, Contents, Delivered, Prepared, Undelivered};
use super::choice;
use super::client::Client;
use super::compiler::{classify, input_obstacle, other_library, place_obstacle};
use super::course::{self, Course, Step};
use super::environment;
use super::inputs::{self, Inputs, Means, Misses, Reason, because};
use super::locale::{Locale, Locales};
use super::native::Processors;
use super::parcels::{Content, Parcels};
use super::placement::{Lease, Placement, Progress, Word};
use super::pool::Pool;
use super::race::{Next, Race};
use super::sources::Sources;
use super::stopwatch::Stopwatch;
use super::verification::{self, Rota};
use super::ways::Measured;
use super::wish::want;
use crate::account;
use crate::args::{Family, Plan, Verdict};
use crate::config::Declined;
use crate::executor;
use crate::id::{AbsPath, Bytes, Digest, JobId};
use crate::key::Credentials;
use crate::message::{
    Answer, Call, CallKind, CallPhase, JobSpec, Mode, Outcome, OwnNode, PROTOCOL, Report,
};
use crate::reactor::Async;
use crate::sight;
use crate::toolchain::{Located, Toolchain, Toolchains};

/// A job that has not got a lease within this time is made ready while it waits.
const SHORT_WAIT: Duration = Duration::from_millis(5);

/// Places the compiles of one user on one machine.
pub struct Submitter {
    pub(super) placement: Arc<Placement>,
    pool: Pool,
    toolchains: Toolchains,
    sources: Sources,
    locales: Locales,
    parcels: Parcels,
    processors: Processors,
    /// Preprocessors that run at a time: they are this machine's own work.
    preprocessing: Semaphore,
    /// What becomes of compiles that the scanner declines.
    declined: Declined,
    platform: String,
    tenant: [u8; 16],
    jobs: AtomicU64,
    rota: Rota,
}

/// What a call came to.
pub(super) enum Ending {
    /// It was compiled elsewhere.
    Remote(Box<Delivered>, Report),
    /// Two nodes compiled it differently, and this is to be said.
    Different(String, Report),
    /// It is to be run here; under this lease, if there is one.
    Local(Report, Option<Box<Lease>>),
}

impl Submitter {
    /// A submitter that asks `placement` for slots and runs at most `preprocessors` preprocessors.
    ///
    /// # Errors
    /// When `spool`, where archives are unpacked, can't be made.
    pub fn new(
        placement: Arc<Placement>,
        credentials: Credentials,
        preprocessors: usize,
        declined: Declined,
        platform: String,
        spool: PathBuf,
    ) -> io::Result<Arc<Self>> {
        let mut tenant = [0; 16];
        io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut tenant)?;
        Ok(Arc::new(Self {
            placement,
            pool: Pool::new(credentials),
            toolchains: Toolchains::new(spool)?,
            sources: Sources::default(),
            locales: Locales::default(),
            parcels: Parcels::default(),
            processors: Processors::default(),
            platform,
            preprocessing: Semaphore::new(preprocessors.max(1)),
            declined,
            tenant,
            jobs: AtomicU64::new(0),
            rota: Rota::default(),
        }))
    }

    /// Serves one client to its end.
    pub async fn serve(&self, stream: Async<UnixStream>) {
        let result = async {
            let Some((mut client, call)) = Client::accept(stream).await? else {
                return Ok(());
            };
            let mut watch = Stopwatch::start();
            client.say(&Answer::Accepted).await?;
            let ending = async { Some(self.decide(&call, &mut watch).await) }
                .or(async {
                    client.gone().await;
                    None
                })
                .await;
            match ending {
                Some(ending) => self.answer(client, &call, ending, watch).await,
                // Everything that the job held went back when it was dropped.
                None => Ok(()),
            }
        };
        let result: io::Result<()> = result.await;
        if let Err(error) = result {
            log::debug!("a client went away: {error}");
        }
    }

    async fn answer(
        &self,
        mut client: Client,
        call: &Call,
        ending: Ending,
        mut watch: Stopwatch,
    ) -> io::Result<()> {
        let (mut report, lease) = match ending {
            Ending::Remote(mut delivered, mut report) => {
                let status = delivered.status;
                let printed = std::mem::take(&mut delivered.printed);
                let umask = call.umask;
                match delivered.commit(umask).await {
                    Ok(()) => {
                        watch.lap(CallPhase::Commit);
                        report.phases = watch.spans();
                        for (stream, data) in printed {
                            client
                                .say(&Answer::Output {
                                    stream,
                                    data: Bytes(data),
                                })
                                .await?;
                        }
                        let said = client.say(&Answer::Exit { status, report }).await;
                        if let Some(statement) = account::statement() {
                            log::info!("account: {statement}");
                        }
                        return said;
                    }
                    Err(error) => {
                        let reason = because(
                            "result-not-written",
                            format!("put the result in place: {error}"),
                        );
                        (
                            Report {
                                mode: Mode::Local,
                                node: String::new(),
                                reason: Some(reason),
                                ..report
                            },
                            None,
                        )
                    }
                }
            }
            Ending::Different(said, report) => {
                let data = Bytes(said.into_bytes());
                client.say(&Answer::Output { stream: 2, data }).await?;
                let status = verification::DIFFERENT_STATUS;
                return client.say(&Answer::Exit { status, report }).await;
            }
            Ending::Local(report, lease) => (report, lease),
        };
        if let Some((word, sentence)) = &report.reason {
            // Of a call without a file, its program is told.
            let what = match call.argv.first() {
                Some(program) if report.file.is_empty() => program,
                _ => &report.file,
            };
            log::info!("{what} is run locally: {word}: {sentence}");
            // The scheduler knows of a job under a lease.
            if lease.is_none() {
                self.placement.note_local(word, what);
            }
        }
        let slot = async { Some(self.placement.local_slot().await) }
            .or(async {
                client.gone().await;
                None
            })
            .await;
        if slot.is_some() {
            watch.lap(CallPhase::Slot);
            report.phases = watch.spans();
            client.say(&Answer::Local { report }).await?;
            client.gone().await;
        }
        drop((slot, lease));
        Ok(())
    }

    /// Decides where the call runs, and runs it if that is elsewhere.
    async fn decide(&self, call: &Call, watch: &mut Stopwatch) -> Ending {
        let mut report = Report::default();
        let local = |report: Report, reason: Reason| {
            Ending::Local(
                Report {
                    mode: Mode::Local,
                    reason: Some(reason),
                    ..report
                },
                None,
            )
        };
        if call.protocol != PROTOCOL {
            let sentence = format!(
                "the client speaks protocol {}, the daemon {PROTOCOL}",
                call.protocol
            );
            return local(report, because("other-version", sentence));
        }
        let paths = (call.cwd.as_path(), call.compiler.as_path());
        if let Some(path) = sight::difference(&call.sight, paths.0, paths.1) {
            let sentence = format!(
                "the daemon sees another {} than this process: one of them is in a container",
                path.display()
            );
            return local(report, because("other-files", sentence));
        }
        if call.kind == CallKind::Local {
            return local(report, because("asked", "a local run was asked for"));
        }
        let Ok(cwd) = AbsPath::parse(call.cwd.0.clone()) else {
            return local(
                report,
                because("no-directory", "the working directory has no plain name"),
            );
        };
        let verdict = classify(call, &cwd);
        watch.lap(CallPhase::Classify);
        let plan = match verdict {
            Verdict::Distribute(plan) => plan,
            Verdict::Local(reason) => {
                report.file = reason.subject.clone();
                return local(report, because(reason.word(), reason.sentence()));
            }
        };
        report.file = plan.name().clone();
        match self.distribute(call, &cwd, &plan, &mut report, watch).await {
            Ok(ending) => ending,
            Err(reason) => local(report, reason),
        }
    }

    /// The way of a job that can be compiled elsewhere.
    async fn distribute(
        &self,
        call: &Call,
        cwd: &AbsPath,
        plan: &Plan,
        report: &mut Report,
        watch: &mut Stopwatch,
    ) -> Result<Ending, Reason> {
        if let Some(reason) = place_obstacle(cwd, plan) {
            return Err(reason);
        }
        let mut choices = choice::choices(call, &self.platform)?;
        let (mut chosen, mut located) =
            choice::locate(&self.toolchains, call, &mut choices).await?;
        if let Some(reason) = other_library(call, cwd, &located.toolchain) {
            return Err(reason);
        }
        let locale = self.locales.of(call, plan.family).await;
        let verified = self.rota.is_due(verification::rate(call));
        watch.lap(CallPhase::Toolchain);
        let mut course = Course::default();
        let mut inputs: Option<Inputs> = None;
        let mut misses = Misses::default();
        'courses: loop {
            let toolchain = &located.toolchain;
            let compiler = chosen.compiler(&located);
            let mut wanted = want(call, cwd, plan, toolchain, &course);
            if verified {
                wanted.own = OwnNode::Nothing;
            }
            let ticket = self.placement.ask(wanted);
            // A job that has to wait is made ready meanwhile. One that does not may stay here.
            let mut first = async { Some(ticket.word().await) }
                .or(async {
                    executor::late(SHORT_WAIT).await;
                    None
                })
                .await;
            watch.lap(CallPhase::Wait);
            match first {
                Some(Word::Lease(lease)) if lease.is_own() => return Ok(own(report, lease)),
                // Nodes of another platform may have the user's archive for them.
                Some(Word::Denied(_)) if !choices.is_empty() => {
                    drop(ticket);
                    (chosen, located) =
                        choice::locate(&self.toolchains, call, &mut choices).await?;
                    continue;
                }
                Some(Word::Denied(why)) => return Err(because("no-node", why)),
                _ => {}
            }
            let prepared = match &inputs {
                Some(inputs) => inputs,
                None => {
                    let means = Means {
                        sources: &self.sources,
                        processors: &self.processors,
                        preprocessing: &self.preprocessing,
                        declined: self.declined,
                        given_up: misses.given_up(),
                    };
                    inputs.insert(inputs::prepare(call, cwd, plan, compiler, means).await?)
                }
            };
            watch.lap(CallPhase::Scan);
            if let Some(reason) = input_obstacle(prepared, toolchain) {
                return Err(reason);
            }
            let job = Job {
                call,
                cwd,
                plan,
                inputs: prepared,
                located: &located,
                locale,
            };
            let mut race = Race::default();
            loop {
                let next = match first.take() {
                    Some(Word::Lease(lease)) => Next::Lease(lease),
                    _ => race.next(&ticket).await,
                };
                match next {
                    Next::Denied(_) if race.is_empty() && !choices.is_empty() => {
                        drop(race);
                        (chosen, located) =
                            choice::locate(&self.toolchains, call, &mut choices).await?;
                        continue 'courses;
                    }
                    Next::Denied(why) => return Err(because("no-node", why)),
                    Next::Lease(lease) if lease.is_own() && race.is_empty() => {
                        return Ok(own(report, lease));
                    }
                    Next::Lease(lease) => {
                        let progress = lease.progress();
                        race.enter(lease, self.attempt(progress, job));
                    }
                    Next::Ended(lease, Ok(delivered)) => {
                        let ran = Duration::from_micros(delivered.usage.wall_us);
                        watch.attempt(delivered.began, delivered.started, ran);
                        report.files = prepared.entries.len() as u32;
                        course.depart();
                        report.tries = course.tries();
                        report.mode = prepared.mode;
                        report.reason = prepared.declined.clone();
                        report.node = lease.grant().name.clone();
                        let node = lease.grant().node;
                        let outcome = Outcome::Done {
                            usage: delivered.usage,
                            output_bytes: delivered.file_bytes,
                        };
                        lease.end(outcome);
                        race.is_won();
                        let account = prepared
                            .account(call, plan, toolchain.digest, &self.sources, &delivered)
                            .await?;
                        if let Some(sentence) = account {
                            misses.add(sentence);
                            drop(race);
                            inputs = None;
                            continue 'courses;
                        }
                        if let Some(reason) = prepared.distrusts(call, plan, locale, &delivered) {
                            return Err(reason);
                        }
                        if verified {
                            let report = report.clone();
                            return Ok(self.verify(job, node, delivered, report).await);
                        }
                        return Ok(Ending::Remote(Box::new(delivered), report.clone()));
                    }
                    Next::Ended(lease, Err(failure)) => {
                        watch.lap(CallPhase::Lost);
                        course.depart();
                        let (node, name) = (lease.grant().node, lease.grant().name.clone());
                        log::info!("{} on {name}: {failure}", plan.name());
                        if matches!(failure, Undelivered::Dead(_) | Undelivered::Misbehaves(_)) {
                            self.pool.forget(lease.grant().address);
                        }
                        lease.end(course::outcome(&failure));
                        let step = course.on_failure(node, &name, &failure);
                        if !race.is_empty() {
                            continue;
                        }
                        if let Step::Local(word, sentence) = step {
                            report.tries = course.tries();
                            return Err(because(word, sentence));
                        }
                        if matches!(failure, Undelivered::Changed(_)) {
                            drop(race);
                            inputs = None;
                        }
                        continue 'courses;
                    }
                }
            }
        }
    }

    /// One try on the node of a lease.
    pub(super) async fn attempt(
        &self,
        progress: Progress,
        job: Job<'_>,
    ) -> Result<Delivered, Undelivered> {
        let Job {
            call,
            plan,
            inputs,
            located,
            locale,
            ..
        } = job;
        let toolchain = &located.toolchain;
        let language = match locale {
            Locale::Like(value) | Locale::ButForErrors(value) => Some(value),
            Locale::AsItIs | Locale::Foreign => None,
        };
        let spec = JobSpec {
            job: JobId(self.jobs.fetch_add(1, Ordering::Relaxed)),
            lease: progress.grant().lease,
            term: progress.grant().term,
            tenant: self.tenant,
            toolchain: toolchain.digest,
            program: located.program.clone(),
            argv: inputs.argv.clone(),
            cwd: inputs.cwd.clone(),
            env: environment::travelling(
                &call.env,
                language,
                call.terminal.map(|terminal| terminal.columns),
            ),
            umask: call.umask,
            // Clang asks a database of terminals, which is not part of a toolchain.
            terminal: call.terminal.filter(|_| plan.family == Family::Gcc),
            writable: inputs.writable.clone(),
            standing: inputs.standing.clone(),
            fresh: Vec::new(),
            entries: Vec::new(),
        };
        log::debug!(
            "{} goes to {} as job {}",
            plan.name(),
            progress.grant().name,
            spec.job
        );
        let contents = JobContents { inputs, toolchain };
        let prepared = Prepared {
            spec,
            entries: &inputs.entries,
            contents: &contents,
            parcels: &self.parcels,
            manifest: &toolchain.manifest,
            progress: &progress,
        };
        let address = progress.grant().address;
        let mut warm = self.pool.take(address).await?;
        if !warm.used {
            progress.measured(Measured::Travel(warm.travel));
        }
        let mut spoke = false;
        let mut result = attempt::run(&mut warm, &prepared, &mut spoke).await;
        if matches!(result, Err(Undelivered::Dead(_))) && warm.used && !spoke {
            // The worker may have been restarted since; that is not its death.
            self.pool.forget(address);
            warm = self.pool.open(address).await?;
            result = attempt::run(&mut warm, &prepared, &mut spoke).await;
        }
        if result.is_ok() {
            self.pool.give_back(warm);
        }
        result
    }
}

/// Everything that is sent of a job.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) call: &'a Call,
    pub(super) cwd: &'a AbsPath,
    pub(super) plan: &'a Plan,
    pub(super) inputs: &'a Inputs,
    pub(super) located: &'a Located,
    pub(super) locale: Locale,
}

/// The job is compiled on this machine, under a lease for that.
fn own(report: &Report, lease: Lease) -> Ending {
    let reason = because("own-node", "this machine is free and fast enough");
    let report = Report {
        mode: Mode::Local,
        reason: Some(reason),
        ..report.clone()
    };
    Ending::Local(report, Some(Box::new(lease)))
}

struct JobContents<'a> {
    inputs: &'a Inputs,
    toolchain: &'a Toolchain,
}

impl Contents for JobContents<'_> {
    fn content(&self, digest: &Digest) -> Option<Content> {
        self.inputs.content(digest).or_else(|| {
            self.toolchain
                .open_blob(digest)
                .map(|path| Content::File(path.into()))
        })
    }
}
