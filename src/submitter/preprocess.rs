//! Runs the compiler's preprocessor here, for jobs that travel as text.

use std::io;
use std::sync::Arc;

use super::compiler;
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
    let mut command = compiler::command(call, &argv[0]);
    command.args(argv[1..].iter().map(|word| word.as_os_str()));
    sys::set_umask_of(&mut command, call.umask);
    let printed = child::run(command, TEXT_BYTES_MAX).await?;
    if !printed.status.success() || !printed.errors.is_empty() {
        return Ok(Preprocessed::Spoke);
    }
    Ok(Preprocessed::Text(Arc::new(printed.output)))
}
