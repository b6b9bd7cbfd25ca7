//! Where a compile looks for files, for looking there after it has failed.
//!
//! It asks the disk and not the include graph: the question is whether the graph is right.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use super::missing::{self, Complaint, Finding, Place, There};
use crate::id::{AbsPath, Bytes};
use crate::include::SearchList;
use crate::include::directives::{self, Form};

/// Bytes of a source file in which a line is looked for.
const SOURCE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a line that are quoted.
const QUOTED_BYTES_MAX: usize = 200;

/// Where one compile looks. It blocks on the disk.
pub struct Look {
    cwd: AbsPath,
    main: Bytes,
    list: Arc<SearchList>,
    /// The directories of all files of the job: a compiler that follows a macro names the file that
    /// defines it, which tells nothing of the file that includes by it.
    directories: BTreeSet<AbsPath>,
}

impl Look {
    /// Where a compile of `main` in `cwd` looks, which was sent with the files `sent`.
    pub fn new(cwd: AbsPath, main: Bytes, list: Arc<SearchList>, sent: &BTreeSet<AbsPath>) -> Self {
        let directories = sent
            .iter()
            .filter_map(|file| AbsPath::parse(directory(file.as_bytes())).ok())
            .collect();
        Self {
            cwd,
            main,
            list,
            directories,
        }
    }

    /// What complaints of a compiler elsewhere come to here.
    pub fn judge(&self, complaints: &[Complaint], sent: &BTreeSet<AbsPath>) -> Finding {
        // What the user's own message mentions is not missed.
        let relevant = |complaint: &&Complaint| {
            let line = (complaint.place.as_ref()).and_then(|(file, line)| self.line(file, *line));
            let tells = |line: Bytes| {
                [
                    &b"error"[..],
                    b"warning",
                    b"assert",
                    b"message",
                    b"deprecated",
                ]
                .iter()
                .any(|word| memchr::memmem::find(&line, word).is_some())
            };
            complaint.certain || !line.is_some_and(tells)
        };
        let complaints: Vec<Complaint> = complaints.iter().filter(relevant).cloned().collect();
        missing::judge(
            &complaints,
            &mut |place, name| self.exists(place, name),
            &|file| sent.contains(file),
        )
    }

    /// The regular files that a name may mean.
    fn exists(&self, place: Option<&Place>, name: &Bytes) -> Vec<There> {
        let written = place
            .and_then(|(file, line)| self.line(file, *line))
            .and_then(|line| form(&line, name));
        let beside = directory(place.map_or(&self.main, |(file, _)| file));
        let mut places: Vec<&[u8]> = Vec::new();
        if written != Some(Form::Angle) {
            places.push(beside);
            places.extend(self.list.quote.iter().map(|place| &place[..]));
        }
        if written.is_none() {
            // An assembler, and the command line, look in the working directory.
            places.push(b".");
            places.extend(self.directories.iter().map(|place| place.as_bytes()));
            places.extend(self.list.embed.iter().map(|place| &place[..]));
        }
        places.extend(self.list.angle.iter().map(|place| &place[..]));
        let mut found: Vec<There> = places
            .into_iter()
            .filter_map(|place| match name.first() {
                Some(b'/') => self.there(name),
                _ => self.there(&[place, b"/", name].concat()),
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn there(&self, path: &[u8]) -> Option<There> {
        let spelled = self.cwd.as_path().join(Bytes::from(path).as_path());
        let real = std::fs::canonicalize(&spelled).ok()?;
        if !real.metadata().ok()?.is_file() {
            return None;
        }
        Some(There {
            file: AbsPath::parse(Bytes::from(real.as_path()).0).ok()?,
            spelled: Bytes::from(spelled.as_path()),
        })
    }

    /// A line of a source file; none where there is none.
    pub fn line(&self, file: &Bytes, line: u32) -> Option<Bytes> {
        let path = self.cwd.as_path().join(file.as_path());
        let mut text = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        file.take(SOURCE_BYTES_MAX).read_to_end(&mut text).ok()?;
        let line = text
            .split(|&b| b == b'\n')
            .nth(line.checked_sub(1)? as usize)?
            .trim_ascii();
        Some(Bytes::from(&line[..line.len().min(QUOTED_BYTES_MAX)]))
    }

    /// The file of the job to which a directive belongs: the named one, else the main file.
    pub fn includer(&self, place: Option<&Place>, sent: &BTreeSet<AbsPath>) -> Option<AbsPath> {
        let real = |file: &Bytes| self.there(file).map(|there| there.file);
        place
            .and_then(|(file, _)| real(file))
            .filter(|file| sent.contains(file))
            .or_else(|| real(&self.main))
    }
}

/// How a name is written in a directive; none when it is computed or is no directive's.
fn form(line: &[u8], name: &[u8]) -> Option<Form> {
    let includes = directives::read(line).includes;
    let found = includes.iter().find(|include| include.name == name);
    found.map(|include| include.form)
}

/// The directory of a file, as it is spelled.
fn directory(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(0) => b"/",
        Some(slash) => &path[..slash],
        None => b".",
    }
}
