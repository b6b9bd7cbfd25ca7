//! From a word to its role.

use std::error::Error;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, daemon, getppid};

use super::options::{Ice, Word};
use super::resolve::World;
use super::{log_output, run, symlinks};
use crate::client::{self, Invocation};
use crate::config::{
    BuildNativeConfig, DaemonConfig, InternalConfig, KeyConfig, ProcessConfig, SchedulerConfig,
    StatusConfig,
};
use crate::id::Bytes;
use crate::message::CallKind;

/// What a role returns: it has said all it has to say, or this is to be said.
type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs what was asked for and returns the exit status.
pub(super) fn dispatch(ice: Ice, world: &World) -> Result<u8, Box<dyn Error + Send + Sync>> {
    match ice.word {
        Word::Scheduler(options) => {
            let config = world.scheduler(options)?;
            settle(&config.process)?;
            scheduler(config)?;
        }
        Word::Daemon(options) => {
            let config = world.daemon(options)?;
            settle(&config.process)?;
            node(config)?;
        }
        Word::Status(options) => status(world.status(options)?)?,
        Word::BuildNative(options) => build_native(BuildNativeConfig {
            compiler: options.compiler,
        })?,
        Word::Key(options) => key(world.key(options)?)?,
        Word::Run(options) => return run::run(options.command, world),
        Word::Local(options) => {
            return Ok(client::run(Invocation {
                kind: CallKind::Local,
                argv: options.command.into_iter().map(Bytes::from).collect(),
            }));
        }
        Word::Symlinks(options) => symlinks::print(&world.cwd.join(options.directory))?,
        Word::Agent(options) => agent(InternalConfig {
            arguments: options.arguments,
        })?,
        Word::SandboxZygote(options) => sandbox_zygote(InternalConfig {
            arguments: options.arguments,
        })?,
    }
    Ok(0)
}

/// Makes this process what a process that stays has to be. No thread is started: the daemon forks
/// its zygote after this.
fn settle(process: &ProcessConfig) -> Done {
    if let Some(parent) = process.with_parent {
        set_pdeathsig(Signal::SIGTERM)?;
        if getppid() != Pid::from_raw(parent) {
            return Err(format!("process {parent}, to end with, has ended already").into());
        }
    }
    log_output::start(process)?;
    if process.daemonize {
        daemon(false, false).map_err(|error| format!("can't go into the background: {error}"))?;
    }
    Ok(())
}

// The roles. Each line here is where a role is called from, and the only one.

fn scheduler(_config: SchedulerConfig) -> Done {
    Err(not_built_in("the scheduler"))
}

fn node(_config: DaemonConfig) -> Done {
    Err(not_built_in("the daemon"))
}

fn status(_config: StatusConfig) -> Done {
    Err(not_built_in("the status"))
}

fn build_native(_config: BuildNativeConfig) -> Done {
    Err(not_built_in("making toolchain archives"))
}

fn key(_config: KeyConfig) -> Done {
    Err(not_built_in("the cluster key"))
}

fn agent(_config: InternalConfig) -> Done {
    Err(not_built_in("the agent"))
}

fn sandbox_zygote(_config: InternalConfig) -> Done {
    Err(not_built_in("the sandbox"))
}

fn not_built_in(what: &str) -> Box<dyn Error + Send + Sync> {
    format!("{what} is not built in").into()
}
