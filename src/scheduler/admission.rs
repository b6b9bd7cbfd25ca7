//! What a peer may claim: every number and length from outside meets its limit here, once.
//!
//! Knows no node and no queue; it judges a message by itself. Whoever goes beyond a limit lies or is
//! broken, and the scheduler drops him: a message that is half believed harms everyone else.

use crate::id::PATH_BYTES_MAX;
use crate::message::{Deal, Login, NodeState, Outcome, ToScheduler, Want};
use crate::news::{LocalJobs, REASONS_MAX};

/// Slots of one node, at most.
pub const SLOTS_MAX: u32 = 4096;
/// The longest name of a node, a cluster or a preferred host, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// The longest name of a platform, in bytes (`uname -m` has at most 64).
pub const PLATFORM_BYTES_MAX: usize = 64;
/// The longest reason why a node takes no remote jobs, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// The longest word for a reason why jobs are local, in bytes.
pub const REASON_WORD_BYTES_MAX: usize = 64;
/// Toolchains that one node may have, or name in one message, at most.
pub const TOOLCHAINS_MAX: usize = 10_000;
/// Nodes that one request may exclude, at most.
pub const EXCEPT_MAX: usize = 1024;
/// The highest niceness.
pub const NICENESS_MAX: u8 = 19;
/// Jobs that a node may say it has, of each kind.
pub const JOBS_MAX: u32 = 1 << 20;
/// The highest load average that is believed, times 1000.
pub const LOAD_MILLI_MAX: u32 = 100_000_000;
/// The largest memory that is believed, in MiB.
pub const MEMORY_MIB_MAX: u64 = 1 << 30;
/// The longest use of a processor, or wait, that is believed of one job, in microseconds: a week.
pub const JOB_US_MAX: u64 = 7 * 24 * 3600 * 1_000_000;
/// The largest output that is believed of one job, and the largest toolchain, in bytes.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 40;

/// What is wrong with a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Nonsense {
    /// A number or a length beyond its limit.
    #[error("claims {what} of {value}; at most {limit} is accepted")]
    Excess {
        /// What is too large.
        what: &'static str,
        /// What the peer said.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A text that would garble a terminal or a log.
    #[error("uses control characters in {0}")]
    Control(&'static str),
}

/// Whether a login is within the limits.
pub fn login(login: &Login) -> Result<(), Nonsense> {
    text("a name", &login.name, NAME_BYTES_MAX)?;
    text("a netname", &login.netname, NAME_BYTES_MAX)?;
    text("a platform", &login.platform, PLATFORM_BYTES_MAX)?;
    text(
        "a reason",
        login.no_remote.as_deref().unwrap_or(""),
        REASON_BYTES_MAX,
    )?;
    at_most("slots", login.slots.into(), SLOTS_MAX.into())?;
    state(&login.state)?;
    count("toolchains", login.toolchains.len(), TOOLCHAINS_MAX)
}

/// Whether a message of a node that is logged in is within the limits. Whether it makes sense at
/// this moment is not judged here.
pub fn message(message: &ToScheduler) -> Result<(), Nonsense> {
    match message {
        ToScheduler::Login(of) => login(of),
        ToScheduler::State(of) => state(of),
        ToScheduler::Capacity { slots, no_remote } => {
            let why = no_remote.as_deref().unwrap_or("");
            text("a reason", why, REASON_BYTES_MAX)?;
            at_most("slots", (*slots).into(), SLOTS_MAX.into())
        }
        ToScheduler::Deal(Deal::Want(of)) => want(of),
        ToScheduler::Deal(Deal::Ended { outcome: of, .. }) => outcome(of),
        // What is measured can be far off without a lie, so a way is not judged here but kept within bounds
        // where it is learned.
        ToScheduler::Deal(
            Deal::Withdraw(_) | Deal::Began { .. } | Deal::Return(_) | Deal::Way { .. },
        ) => Ok(()),
        ToScheduler::Toolchains { added, removed } => {
            count("added toolchains", added.len(), TOOLCHAINS_MAX)?;
            count("removed toolchains", removed.len(), TOOLCHAINS_MAX)
        }
        ToScheduler::LocalJobs(jobs) => {
            count("reasons for local jobs", jobs.len(), REASONS_MAX)?;
            jobs.iter().try_for_each(local_jobs)
        }
        ToScheduler::Block { node, .. } => text("a node's name", node, NAME_BYTES_MAX),
        ToScheduler::Status | ToScheduler::Watch => Ok(()),
    }
}

fn state(state: &NodeState) -> Result<(), Nonsense> {
    at_most("local jobs", state.local_jobs.into(), JOBS_MAX.into())?;
    at_most("remote jobs", state.remote_jobs.into(), JOBS_MAX.into())?;
    at_most("waiting jobs", state.waiting.into(), JOBS_MAX.into())?;
    at_most("a load", state.load_milli.into(), LOAD_MILLI_MAX.into())?;
    at_most("memory", state.memory_mib, MEMORY_MIB_MAX)?;
    at_most(
        "waiting for a processor",
        state.processor_stall_milli.into(),
        1000,
    )?;
    at_most("waiting for memory", state.memory_stall_milli.into(), 1000)
}

fn want(want: &Want) -> Result<(), Nonsense> {
    let terms = &want.terms;
    text("a platform", &terms.platform, PLATFORM_BYTES_MAX)?;
    text("a preferred host", &terms.preferred, NAME_BYTES_MAX)?;
    count("a file name", want.file.len(), PATH_BYTES_MAX)?;
    count("excluded nodes", want.except.len(), EXCEPT_MAX)?;
    at_most("a toolchain's size", want.toolchain_bytes, OUTPUT_BYTES_MAX)?;
    at_most("a niceness", terms.niceness.into(), NICENESS_MAX.into())
}

fn local_jobs(jobs: &LocalJobs) -> Result<(), Nonsense> {
    text("a reason's word", &jobs.reason, REASON_WORD_BYTES_MAX)?;
    count("a file name", jobs.file.len(), PATH_BYTES_MAX)?;
    at_most("local jobs", jobs.jobs.into(), JOBS_MAX.into())
}

fn outcome(outcome: &Outcome) -> Result<(), Nonsense> {
    match outcome {
        Outcome::Done {
            usage,
            output_bytes,
        } => {
            at_most("processor time", usage.cpu_us, JOB_US_MAX)?;
            at_most("wall time", usage.wall_us, JOB_US_MAX)?;
            at_most("setup time", usage.setup_us, JOB_US_MAX)?;
            at_most("a resident set", usage.rss_kib, MEMORY_MIB_MAX << 10)?;
            at_most("output", *output_bytes, OUTPUT_BYTES_MAX)
        }
        Outcome::Lagged { ran_us } => at_most("the time of a run", *ran_us, JOB_US_MAX),
        Outcome::Unused | Outcome::Failed { .. } => Ok(()),
    }
}

fn text(what: &'static str, text: &str, limit: usize) -> Result<(), Nonsense> {
    count(what, text.len(), limit)?;
    if text.chars().any(char::is_control) {
        return Err(Nonsense::Control(what));
    }
    Ok(())
}

fn count(what: &'static str, value: usize, limit: usize) -> Result<(), Nonsense> {
    at_most(what, value as u64, limit as u64)
}

fn at_most(what: &'static str, value: u64, limit: u64) -> Result<(), Nonsense> {
    if value > limit {
        return Err(Nonsense::Excess { what, value, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Bytes, Digest, LeaseId, NodeId, RequestId};
    use crate::message::{Terms, Usage};

    fn sane_login() -> Login {
        Login {
            port: 10245,
            slots: SLOTS_MAX,
            toolchains: vec![Digest([0; 32]); TOOLCHAINS_MAX],
            ..Login::new("a", "ICE", "x86_64")
        }
    }

    fn sane_want() -> Want {
        Want {
            request: RequestId(1),
            toolchain: Digest([0; 32]),
            toolchain_bytes: OUTPUT_BYTES_MAX,
            terms: Terms {
                niceness: NICENESS_MAX,
                ..Terms::new("x86_64")
            },
            file: Bytes(vec![b'x'; PATH_BYTES_MAX]),
            variant: u64::MAX,
            except: vec![NodeId(1); EXCEPT_MAX],
            own: crate::message::OwnNode::Locally,
        }
    }

    #[test]
    fn a_login_is_believed_up_to_its_limits_and_not_beyond() {
        type Lie = fn(&mut Login);
        let lies: &[(&str, Lie)] = &[
            ("slots", |l| l.slots = u32::MAX),
            ("a name", |l| l.name = "n".repeat(NAME_BYTES_MAX + 1)),
            ("a name", |l| l.name = "n\x1b[2J".into()),
            ("a netname", |l| l.netname = "n".repeat(NAME_BYTES_MAX + 1)),
            ("a platform", |l| l.platform = "p".repeat(65)),
            ("a reason", |l| l.no_remote = Some("r".repeat(1025))),
            ("toolchains", |l| l.toolchains.push(Digest([1; 32]))),
        ];
        assert_eq!(login(&sane_login()), Ok(()));
        for (what, lie) in lies {
            let mut lying = sane_login();
            lie(&mut lying);
            let error = login(&lying).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn messages_are_believed_up_to_their_limits_and_not_beyond() {
        let want = |want| ToScheduler::Deal(Deal::Want(want));
        let done = |cpu_us, output_bytes| {
            let usage = Usage {
                cpu_us,
                ..Usage::default()
            };
            ToScheduler::Deal(Deal::Ended {
                request: RequestId(1),
                lease: LeaseId(1),
                outcome: Outcome::Done {
                    usage,
                    output_bytes,
                },
            })
        };
        let state = |state| ToScheduler::State(state);
        let sane = NodeState::default();
        for (ok, message_of) in [
            (true, want(sane_want())),
            (
                false,
                want(Want {
                    terms: Terms {
                        niceness: 20,
                        ..sane_want().terms
                    },
                    ..sane_want()
                }),
            ),
            (
                false,
                want(Want {
                    file: Bytes(vec![b'x'; PATH_BYTES_MAX + 1]),
                    ..sane_want()
                }),
            ),
            (
                false,
                want(Want {
                    except: vec![NodeId(1); EXCEPT_MAX + 1],
                    ..sane_want()
                }),
            ),
            (true, state(sane.clone())),
            (
                false,
                state(NodeState {
                    load_milli: u32::MAX,
                    ..sane.clone()
                }),
            ),
            (
                false,
                state(NodeState {
                    local_jobs: u32::MAX,
                    ..sane.clone()
                }),
            ),
            (
                false,
                state(NodeState {
                    memory_stall_milli: 1001,
                    ..sane
                }),
            ),
            (true, done(JOB_US_MAX, OUTPUT_BYTES_MAX)),
            (false, done(u64::MAX, 0)),
            (false, done(0, u64::MAX)),
            (
                false,
                ToScheduler::Toolchains {
                    added: vec![Digest([0; 32]); TOOLCHAINS_MAX + 1],
                    removed: vec![],
                },
            ),
        ] {
            assert_eq!(message(&message_of).is_ok(), ok, "{message_of:?}");
        }
    }
}
