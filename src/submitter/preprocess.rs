//! Runs the compiler's preprocessor here, for jobs that travel as text.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use crate::child;
use crate::id::Bytes;
use crate::message::Call;
use crate::sys;

/// Preprocessed text at most; more is compiled locally. The largest seen in the wild are about a
/// tenth of it.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// What came of preprocessing.
pub enum Preprocessed {
    /// The text, and not a word on standard error.
    Text(Arc<Vec<u8>>),
    /// The preprocessor failed or warned: only the compiler itself says that as it should be said.
    Spoke,
}

/// Runs `argv` (its first word is the name that the compiler is told) in the client's directory,
/// environment and umask. When the future is dropped, the preprocessor is killed.
pub async fn run(call: &Call, argv: &[Bytes]) -> io::Result<Preprocessed> {
    let mut command = Command::new(call.compiler.as_os_str());
    command
        .arg0(argv[0].as_os_str())
        .args(argv[1..].iter().map(|word| word.as_os_str()));
    command.env_clear().envs(
        call.env
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str())),
    );
    command.current_dir(call.cwd.as_path());
    sys::set_umask_of(&mut command, call.umask);
    let printed = child::run(command, TEXT_BYTES_MAX).await?;
    if !printed.status.success() || !printed.errors.is_empty() {
        return Ok(Preprocessed::Spoke);
    }
    Ok(Preprocessed::Text(Arc::new(printed.output)))
}
