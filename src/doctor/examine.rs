//! Finds out everything, side by side where it waits, and has it judged.

use std::path::PathBuf;
use std::time::Duration;

use smol::future::FutureExt;

use super::facts::{DaemonState, Facts, SchedulerFacts, SchedulerState};
use super::finding::Finding;
use super::{calls, cluster, look, machine, peers, trial};
use crate::client::Variables;
use crate::config::DaemonConfig;
use crate::executor;
use crate::reactor::Timer;
use crate::threads;

/// No single look takes longer: reading the files of a compiler from a slow disk is the longest.
const LOOK: Duration = Duration::from_secs(20);
/// Nodes that are tried at most; a doctor is no load test.
const NODES_MAX: usize = 32;

/// Who is examined.
#[derive(Clone, Debug)]
pub struct Patient {
    /// What a daemon of this user would be told.
    pub daemon: DaemonConfig,
    /// The environment.
    pub variables: Variables,
    /// The working directory.
    pub cwd: PathBuf,
    /// Whether each node compiles something.
    pub has_trials: bool,
}

/// Looks at everything and says what is to be said, in the order of the report. Takes seconds, and at most about a
/// minute when everything hangs.
pub async fn examine(patient: Patient) -> Vec<Finding> {
    let mut facts = gather(&patient).await;
    facts.daemon.user = nix::unistd::geteuid().as_raw();
    let mut findings = cluster::findings(&facts);
    findings.extend(machine::findings(&facts));
    // The order within a group stays.
    findings.sort_by_key(|finding| finding.group);
    findings
}

async fn gather(patient: &Patient) -> Facts {
    let config = &patient.daemon;
    let (key, credentials) = peers::key(config);
    let sandbox = executor::spawn(within(LOOK, look::sandbox()));
    let variables = patient.variables.clone();
    let daemon = executor::spawn(within(
        LOOK,
        threads::unblock(move || peers::daemon(&variables)),
    ));
    let scheduler = {
        let (config, credentials) = (config.clone(), credentials.clone());
        executor::spawn(async move {
            let Some(credentials) = credentials else {
                return SchedulerFacts {
                    state: SchedulerState::Untried,
                    ..peers::named(&config)
                };
            };
            within(LOOK, peers::scheduler(&config, &credentials))
                .await
                .unwrap_or_else(|| SchedulerFacts {
                    state: SchedulerState::NotFound(format!("nothing was found within {LOOK:?}")),
                    ..peers::named(&config)
                })
        })
    };
    let (variables, cwd) = (patient.variables.clone(), patient.cwd.clone());
    let compilers = executor::spawn(async move { look::compilers(&variables, &cwd, LOOK).await });

    let mut facts = Facts {
        key,
        daemon: daemon.await.unwrap_or_default(),
        scheduler: scheduler.await,
        calls: calls::calls(&patient.variables),
        ..Facts::default()
    };
    let is_ours = match &facts.daemon.state {
        DaemonState::Answers(_, owner) => *owner == nix::unistd::geteuid().as_raw(),
        _ => true,
    };
    facts.limits = look::limits(config, is_ours);
    facts.sandbox = Some(
        sandbox
            .await
            .unwrap_or_else(|| Err(format!("trying it did not come to an end within {LOOK:?}"))),
    );
    (facts.compilers, facts.archive) = compilers.await;

    let Some(credentials) = credentials else {
        return facts;
    };
    if matches!(facts.daemon.state, DaemonState::Answers(..)) {
        peers::await_joining(&mut facts.scheduler, &credentials).await;
    }
    facts.nodes = peers::others(&facts.scheduler);
    facts.nodes_left_out = facts.nodes.len().saturating_sub(NODES_MAX);
    facts.nodes.truncate(NODES_MAX);
    let compiler = facts
        .compilers
        .iter()
        .find_map(|compiler| compiler.program.clone());
    let can_try = patient.has_trials && matches!(facts.daemon.state, DaemonState::Answers(..));
    let bench = match compiler.filter(|_| can_try) {
        Some(compiler) => within(LOOK, trial::Bench::new(compiler)).await.flatten(),
        None => None,
    };
    let status = facts.scheduler.status.clone().unwrap_or_default();
    let tries: Vec<_> = facts
        .nodes
        .drain(..)
        .enumerate()
        .map(|(number, mut node)| {
            let takes_jobs = status.nodes.iter().any(|other| {
                other.name == node.name && other.slots > 0 && other.no_remote.is_none()
            });
            let (credentials, bench) = (credentials.clone(), bench.clone());
            executor::spawn(async move {
                if !takes_jobs {
                    return node;
                }
                node.reach = peers::knock(&node.address, &credentials).await;
                if let Some(bench) = bench
                    && node.reach == super::facts::Reach::Reached
                {
                    node.trial = Some(bench.compile_on(number, &node.name).await);
                }
                node
            })
        })
        .collect();
    for tried in tries {
        facts.nodes.push(tried.await);
    }
    facts
}

/// What comes of `look`, unless it takes too long.
async fn within<T>(bound: Duration, look: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(bound).await;
        None
    };
    async { Some(look.await) }.or(late).await
}
