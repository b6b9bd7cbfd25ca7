//! What a job consists of: its files, its command, the directories it may write.
//!
//! A source job is its main file, every file the scanner says it could open, and the unchanged
//! command. A preprocessed job is one file of text and a command without the preprocessor's
//! options. From here on both are the same thing.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use smol::lock::Semaphore;

use super::attempt::{Content, Delivered};
use super::preprocess::{self, Preprocessed};
use super::spelling;
use crate::args::Plan;
use crate::id::{AbsPath, Bytes, Digest};
use crate::message::{Call, Entry, EntryKind, Mode, Mtime};

/// A response file of this size or more is not read, and its job is local.
const RESPONSE_BYTES_MAX: u64 = 16 << 20;

/// Where the text of a preprocessed job lies on the worker. Its own name is in its line markers.
const TEXT_DIRECTORY: &str = "/ice-preprocessed";

/// A job, ready to be sent to any worker.
pub struct Inputs {
    /// How it travels.
    pub mode: Mode,
    /// Its command line.
    pub argv: Vec<Bytes>,
    /// Its working directory.
    pub cwd: AbsPath,
    /// Its files.
    pub entries: Vec<Entry>,
    /// Where it may write.
    pub writable: Vec<AbsPath>,
    /// The text of a preprocessed job.
    text: Option<(Digest, Arc<Vec<u8>>)>,
    /// Whether the user asked for preprocessed jobs, with what is lost by them.
    asked: bool,
}

impl Inputs {
    /// Where the bytes with this digest are.
    pub fn content(&self, digest: &Digest) -> Option<Content> {
        if let Some((_, text)) = self.text.as_ref().filter(|(name, _)| name == digest) {
            return Some(Content::Memory(text.clone()));
        }
        let mut files = self.entries.iter();
        let found = files.find(
            |entry| matches!(&entry.kind, EntryKind::File { digest: other, .. } if other == digest),
        );
        found.map(|entry| Content::File(entry.path.as_path().to_owned()))
    }

    /// Why this result can't be the compiler's own, if so. Preprocessed text has lost its columns
    /// and macros, so what a compiler says of it is not what it says of the source.
    pub fn distrusts(&self, delivered: &Delivered) -> Option<(String, String)> {
        let silent = delivered.status == 0 && delivered.printed.is_empty();
        (self.mode == Mode::Preprocessed && !self.asked && !silent).then(|| {
            let sentence =
                "the compiler had something to say, and says it exactly only of the source itself";
            ("diagnostics".to_owned(), sentence.to_owned())
        })
    }
}

/// Reads a small file whole.
///
/// # Errors
/// When it is not a regular file, or larger than a response file may be.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(RESPONSE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > RESPONSE_BYTES_MAX {
        return Err(io::Error::other("too large"));
    }
    Ok(bytes)
}

/// Finds out what the job consists of.
///
/// # Errors
/// The reason, as word and sentence, why it has to be compiled locally.
pub async fn prepare(
    call: &Call,
    cwd: &AbsPath,
    plan: &Plan,
    preprocessing: &Semaphore,
) -> Result<Inputs, (String, String)> {
    let asked = call
        .variable("ICECC_REMOTE_CPP")
        .is_some_and(|value| value.is_empty() || value[0] == b'0');
    if !plan.preprocessed.exact && !asked {
        let sentence =
            "its result would depend on whether the source or preprocessed text was compiled";
        return Err(("inexact".to_owned(), sentence.to_owned()));
    }
    let _turn = preprocessing.acquire().await;
    let text = match preprocess::run(call, &plan.preprocessed.preprocess).await {
        Ok(Preprocessed::Text(text)) => text,
        Ok(Preprocessed::Spoke) => {
            let sentence = "the preprocessor had something to say, and the compiler says it best";
            return Err(("diagnostics".to_owned(), sentence.to_owned()));
        }
        Err(error) => {
            return Err((
                "preprocess".to_owned(),
                format!("run the preprocessor: {error}"),
            ));
        }
    };
    preprocessed(cwd, plan, text, asked)
        .map_err(|error| ("output-place".to_owned(), error.to_string()))
}

fn preprocessed(cwd: &AbsPath, plan: &Plan, text: Arc<Vec<u8>>, asked: bool) -> io::Result<Inputs> {
    let directory = AbsPath::parse(TEXT_DIRECTORY).map_err(io::Error::other)?;
    let path = directory.join(b"text").map_err(io::Error::other)?;
    let digest = Digest(*blake3::hash(&text).as_bytes());
    let mut argv = plan.preprocessed.compile.clone();
    argv[plan.preprocessed.compile_input] = Bytes::from(path.as_bytes());
    let kind = EntryKind::File {
        digest,
        size: text.len() as u64,
        executable: false,
        mtime: Mtime::default(),
    };
    let mut entries = vec![Entry { path, kind }];
    let mut writable = Vec::new();
    for place in &plan.writable {
        writable.push(spelling::resolve(cwd, place, &mut entries)?);
    }
    writable.sort();
    writable.dedup();
    // Directories come into being with what is in them; the symlinks have to be told.
    entries.retain(|entry| entry.kind != EntryKind::Directory);
    entries.sort();
    entries.dedup();
    Ok(Inputs {
        mode: Mode::Preprocessed,
        argv,
        cwd: cwd.clone(),
        entries,
        writable,
        text: Some((digest, text)),
        asked,
    })
}
