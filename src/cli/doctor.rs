//! `ice doctor`: the options of a daemon's settings, and the report.

use std::error::Error;
use std::io::{self, Write};

use super::entry;
use super::options::{DoctorOptions, Word};
use super::resolve::World;
use super::settings::Settings;
use crate::client::Variables;
use crate::config::DaemonConfig;
use crate::doctor::{Grade, Patient, as_json, as_text, examine};
use crate::executor;

/// The exit status when something is broken.
const BROKEN_STATUS: u8 = 1;

/// Examines this machine, prints what was found and returns the exit status.
pub(super) fn doctor(
    options: DoctorOptions,
    world: &World,
    settings: &Settings,
) -> Result<u8, Box<dyn Error + Send + Sync>> {
    let (is_json, has_trials) = (options.json, !options.no_trial);
    let findings = executor::block_on(examine(Patient {
        daemon: daemon(options, world, settings)?,
        variables: Variables::of_this_process(),
        cwd: world.cwd.clone(),
        has_trials,
    }));
    let text = match is_json {
        true => as_json(&findings),
        false => as_text(&findings),
    };
    // Whoever pipes it to `head` has seen what he wanted.
    let _ = io::stdout().write_all(text.as_bytes());
    let is_broken = findings
        .iter()
        .any(|finding| finding.grade == Grade::Broken);
    Ok(if is_broken { BROKEN_STATUS } else { 0 })
}

/// What a daemon that is started now would be told, but for what the doctor is told.
fn daemon(
    options: DoctorOptions,
    world: &World,
    settings: &Settings,
) -> Result<DaemonConfig, Box<dyn Error + Send + Sync>> {
    let line = ["ice".into(), "daemon".into()];
    let Word::Daemon(mut told) = entry::parse(&line, world, settings)?.word else {
        return Err("`ice daemon` is not understood".into());
    };
    if !options.scheduler.is_empty() {
        told.scheduler = options.scheduler;
    }
    told.name = options.name.or(told.name);
    told.cache_dir = options.cache_dir.or(told.cache_dir);
    told.cluster.open |= options.open;
    told.cluster.key_file = options.key_file.or(told.cluster.key_file);
    if let Some(netname) = options.netname {
        told.cluster.netname = netname;
    }
    Ok(world.daemon(told)?)
}
