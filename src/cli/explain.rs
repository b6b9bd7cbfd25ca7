//! `ice explain`: what would become of a compiler's call, and why, in words for people.

use std::error::Error;
use std::io::{self, Write};

use crate::client::{Preview, preview};
use crate::config::Declined;
use crate::daemon::process::platform;
use crate::executor;
use crate::id::Bytes;
use crate::message::{CallKind, Mode};
use crate::submitter::explain::{Job, Size, explain};

/// Prints what would become of the call `argv`; with `files`, every file that would travel.
pub(super) fn print(
    argv: &[Bytes],
    files: bool,
    declined: Declined,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let text = text(argv, files, declined)?;
    // Whoever pipes it to `head` has seen what he wanted.
    let _ = io::stdout().write_all(&text);
    Ok(())
}

fn text(
    argv: &[Bytes],
    files: bool,
    declined: Declined,
) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let call = match preview(argv) {
        Preview::Ask(call) => call,
        Preview::AtOnce(reason) => return Ok(local(reason.text().0, reason.text().1)),
        Preview::Command => {
            let sentence = "it is not known as a compiler for C or C++";
            return Ok(local("unknown-compiler", sentence));
        }
        Preview::NotFound => {
            let name = argv.first().map(Bytes::to_string).unwrap_or_default();
            return Err(format!("there is no {name} in PATH").into());
        }
    };
    if call.kind == CallKind::Local {
        return Ok(local("asked", "a local run was asked for (ICECC=no)"));
    }
    let spool = std::env::temp_dir().join(format!("ice-explain-{}", std::process::id()));
    let explained = executor::block_on(explain(&call, &platform(), declined, spool.clone()));
    let _ = std::fs::remove_dir_all(spool);
    Ok(match explained {
        Ok(job) => remote(&job, files),
        Err((word, sentence)) => local(&word, &sentence),
    })
}

fn local(word: &str, sentence: &str) -> Vec<u8> {
    format!("local      {word}: {sentence}\n").into_bytes()
}

fn remote(job: &Job, files: bool) -> Vec<u8> {
    let mut text = Vec::new();
    let mut line = |name: &str, value: &[u8]| {
        text.extend_from_slice(format!("{name:<10} ").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    };
    match (job.mode, &job.declined) {
        (Mode::Preprocessed, Some((word, sentence))) => {
            let why = format!("as preprocessed text, since: {word}: {sentence}");
            line("remote", why.as_bytes());
        }
        (Mode::Preprocessed, None) => line("remote", b"as preprocessed text, as asked for"),
        _ => line(
            "remote",
            b"with its sources, if a node is free and faster than this one",
        ),
    }
    for unless in &job.unless {
        line("unless", unless.as_bytes());
    }
    line("compiler", job.program.as_bytes());
    let toolchain = format!(
        "{} for {}, {}",
        job.toolchain,
        job.platform,
        amount(job.toolchain_size)
    );
    line("toolchain", toolchain.as_bytes());
    let words: Vec<Vec<u8>> = job.argv.iter().map(|word| quoted(word)).collect();
    line("command", &words.join(&b' '));
    line("directory", job.cwd.as_bytes());
    for place in &job.writable {
        line("writes in", place.as_bytes());
    }
    let size = Size::of(job.files.iter().map(|(_, size)| *size));
    line("sends", amount(size).as_bytes());
    if files {
        for (path, size) in &job.files {
            text.extend_from_slice(format!("{size:>10} ").as_bytes());
            text.extend_from_slice(path.as_bytes());
            text.push(b'\n');
        }
    }
    text
}

fn amount(size: Size) -> String {
    format!("{} files, {} bytes", size.files, size.bytes)
}

/// A word as a shell would read it.
fn quoted(word: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=./,+:@%^".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_wants_it() {
        for (word, expect) in [
            ("-O2", "-O2"),
            ("-DX=\"1 2\"", "'-DX=\"1 2\"'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("a\nb", "'a\nb'"),
        ] {
            assert_eq!(quoted(word.as_bytes()), expect.as_bytes(), "{word}");
        }
    }
}
