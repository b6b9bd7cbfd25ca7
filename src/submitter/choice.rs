//! Which toolchains a call can be compiled with: this machine's own compiler, or the archives of
//! `ICECC_VERSION`, one for each platform whose nodes may do it.

use std::collections::VecDeque;

use super::inputs::{Compiler, Reason, because};
use crate::id::Bytes;
use crate::masquerade::file_name;
use crate::message::Call;
use crate::toolchain::selection::{self, Selected};
use crate::toolchain::{Located, Toolchains};

/// A toolchain that was not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Of the compiler that is installed here.
    Installed,
    /// In an archive.
    Archive(Selected),
}

impl Choice {
    /// Which compiler a job meets with it.
    pub fn compiler(&self, located: &Located) -> Compiler {
        match self {
            Self::Installed => Compiler::Installed(located.toolchain.digest),
            Self::Archive(_) => Compiler::Archived,
        }
    }
}

/// What there is to choose from, best first. Never empty.
///
/// # Errors
/// When the user names archives, and none is for this compiler.
pub fn choices(call: &Call, platform: &str) -> Result<VecDeque<Choice>, Reason> {
    let version = call.variable("ICECC_VERSION");
    let Some(version) = version.filter(|value| !value.is_empty()) else {
        return Ok(VecDeque::from([Choice::Installed]));
    };
    let name = file_name(&call.compiler);
    let selected = selection::select(version, platform.as_bytes(), name);
    if selected.is_empty() {
        let sentence = format!("no archive of ICECC_VERSION is for {}", Bytes::from(name));
        return Err(because("toolchain", sentence));
    }
    Ok(selected.into_iter().map(Choice::Archive).collect())
}

/// Looks at the first of the choices that can be used, and takes it and those before it out.
///
/// # Errors
/// Why the last one can't be used.
pub async fn locate(
    toolchains: &Toolchains,
    call: &Call,
    choices: &mut VecDeque<Choice>,
) -> Result<(Choice, Located), Reason> {
    let mut last = because("toolchain", "there is no archive to choose");
    while let Some(choice) = choices.pop_front() {
        let compiler = call.compiler.as_path();
        let located = match &choice {
            Choice::Installed => {
                let search_path = call.variable("PATH");
                let search_path = search_path.map(|path| &path[..]).unwrap_or_default();
                toolchains.locate(compiler, search_path).await
            }
            Choice::Archive(selected) => {
                // The client's directory, not the daemon's.
                let file = call.cwd.as_path().join(selected.file.as_path());
                toolchains.unpack(&file, compiler).await
            }
        };
        match located {
            Ok(located) => return Ok((choice, located)),
            Err(error) => last = because("toolchain", error.to_string()),
        }
    }
    Err(last)
}
