//! Links to ice under compilers' names: a directory to be put first in `PATH`.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::client::Variables;
use crate::client::lookup::{OWN_EXECUTABLE, compilers_in, leads_to_ice, search_path};
use crate::id::Bytes;

/// Makes a link in `directory` for every compiler in `PATH`, and prints what it made.
pub(super) fn print(directory: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let names = make(directory, &Variables::of_this_process())
        .map_err(|error| format!("can't make links in {}: {error}", directory.display()))?;
    if names.is_empty() {
        return Err("there is no compiler in PATH".into());
    }
    let mut out = io::stdout().lock();
    for name in names {
        writeln!(out, "{}", directory.join(name.as_path()).display())?;
    }
    Ok(())
}

/// Makes the links and returns their names. A link to an ice that is there already is made anew;
/// anything else that is in the way, a compiler above all, is an error.
pub(super) fn make(directory: &Path, variables: &Variables) -> io::Result<Vec<Bytes>> {
    fs::create_dir_all(directory)?;
    let executable = own_path()?;
    let names = compilers_in(search_path(variables));
    for name in &names {
        let link = directory.join(name.as_path());
        if leads_to_ice(&link) {
            fs::remove_file(&link)?;
        }
        symlink(&executable, &link).map_err(|error| {
            io::Error::new(error.kind(), format!("{name} is in the way: {error}"))
        })?;
    }
    Ok(names)
}

/// Where our executable is, as a path that others can use.
pub(super) fn own_path() -> io::Result<PathBuf> {
    fs::read_link(OWN_EXECUTABLE)
}
