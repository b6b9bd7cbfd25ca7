//! Runs the compiler's preprocessor here, for jobs that travel as text.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;

use smol::io::AsyncReadExt;
use smol::process::Command;

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
    let mut command = std::process::Command::new(call.compiler.as_os_str());
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
    let mut command = Command::from(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut text, mut errors) = (Vec::new(), Vec::new());
    let read_text = async {
        match stdout {
            Some(stdout) => stdout.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text).await,
            None => Ok(0),
        }
    };
    let read_errors = async {
        match stderr {
            Some(stderr) => stderr.take(1 << 20).read_to_end(&mut errors).await,
            None => Ok(0),
        }
    };
    let (text_result, errors_result) = smol::future::zip(read_text, read_errors).await;
    text_result?;
    errors_result?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::other(format!(
            "more than {TEXT_BYTES_MAX} bytes of preprocessed text"
        )));
    }
    let status = child.status().await?;
    if !status.success() || !errors.is_empty() {
        return Ok(Preprocessed::Spoke);
    }
    Ok(Preprocessed::Text(Arc::new(text)))
}
