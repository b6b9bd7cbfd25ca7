//! The cluster key: 32 secret bytes in a file. Who has it takes part; nobody else does.
//!
//! The file holds one line of 64 hexadecimal digits and is readable by its owner only, but where root has given a
//! group the right to read it. It is made on first start, so that one machine needs no set-up; a second machine
//! imports it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::ClusterConfig;
use crate::id::Digest;

/// The secret that a cluster shares.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

/// A key file that can't be used, or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading or writing failed.
    #[error("{action} the cluster key {}: {source}", path.display())]
    File {
        /// `read`, `create` or `replace`.
        action: &'static str,
        /// The key's file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// There is none yet.
    #[error(
        "there is no cluster key in {}: `ice key create` makes one, `ice key import` takes that of another machine",
        .0.display()
    )]
    None(PathBuf),
    /// The text is not a key.
    #[error("{0} does not hold a cluster key: 64 hexadecimal digits are expected")]
    Malformed(String),
}

impl ClusterKey {
    /// A new key from the kernel's randomness.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the text form; space around it does not matter.
    pub fn parse(text: &str) -> Option<Self> {
        Digest::parse(text.trim()).map(|digest| Self(digest.0))
    }

    /// The text form: 64 hexadecimal digits. It is the secret itself.
    pub fn reveal(&self) -> String {
        Digest(self.0).to_string()
    }

    /// The secret bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Eight hexadecimal digits that tell two keys apart and say nothing of the key. They travel
    /// in clear, so that a node with another key learns why it is refused.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = blake3::derive_key("ice 2026 cluster key fingerprint", &self.0);
        Fingerprint([digest[0], digest[1], digest[2], digest[3]])
    }

    /// Reads the key from `path`.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        // A key is 65 bytes; whatever is longer than a page is not one and is not read.
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| io::Read::read_to_string(&mut io::Read::take(file, 4096), &mut text))
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => KeyError::None(path.to_owned()),
                _ => KeyError::File {
                    action: "read",
                    path: path.to_owned(),
                    source,
                },
            })?;
        Self::parse(&text).ok_or_else(|| KeyError::Malformed(path.display().to_string()))
    }

    /// Reads the key from `path`, or makes one there. Says whether it was made. Two processes that
    /// start at the same time end with the same key.
    pub fn read_or_create(path: &Path) -> Result<(Self, bool), KeyError> {
        match Self::read(path) {
            Err(KeyError::None(_)) => {}
            other => return other.map(|key| (key, false)),
        }
        let failed = |source| KeyError::File {
            action: "create",
            path: path.to_owned(),
            source,
        };
        let key = Self::random().map_err(failed)?;
        match key.write(path, false) {
            Ok(()) => Ok((key, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path).map(|key| (key, false))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Puts this key at `path`, in place of the one that may be there.
    pub fn install(&self, path: &Path) -> Result<(), KeyError> {
        self.write(path, true).map_err(|source| KeyError::File {
            action: "replace",
            path: path.to_owned(),
            source,
        })
    }

    /// Writes a temporary file first, so that nobody ever reads half a key.
    fn write(&self, path: &Path, replace: bool) -> io::Result<()> {
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
        let temporary = path.with_extension(format!("new{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(format!("{}\n", self.reveal()).as_bytes())?;
        file.sync_all()?;
        if replace
            && let Ok(old) = fs::metadata(path)
            && (old.uid(), old.mode() & 0o040) == (0, 0o040)
            && old.gid() != 0
            && fchown(&file, Some(0), Some(old.gid())).is_ok()
        {
            // A package's scheduler is not root, and has a group that may read root's key: it goes on so.
            file.set_permissions(fs::Permissions::from_mode(0o640))?;
        }
        let result = if replace {
            fs::rename(&temporary, path)
        } else {
            fs::hard_link(&temporary, path)
        };
        let _ = fs::remove_file(&temporary);
        result
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterKey({})", self.fingerprint())
    }
}

/// See [`ClusterKey::fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 4]);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a process shows to others, and wants to be shown.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Only holders of this key.
    Key(Arc<ClusterKey>),
    /// Anybody (`--open`): encrypted, but not authenticated.
    Open,
}

impl Credentials {
    /// What `cluster` says: its key, or none. With `create`, a key that is missing is made, and it
    /// is said aloud, since the other machines need it too.
    pub fn of(cluster: &ClusterConfig, create: bool) -> Result<Self, KeyError> {
        if cluster.open {
            if create {
                log::warn!("--open: whoever reaches this machine's port takes part");
            }
            return Ok(Self::Open);
        }
        let path = &cluster.key_file;
        let (key, made) = if create {
            ClusterKey::read_or_create(path)?
        } else {
            (ClusterKey::read(path)?, false)
        };
        if made {
            let path = path.display();
            log::warn!(
                "made a new cluster key in {path}: copy it to the other machines with `ice key import`"
            );
        }
        Ok(Self::Key(Arc::new(key)))
    }

    /// The key for datagrams: the cluster's own, or one that everybody knows.
    pub fn datagram_key(&self) -> [u8; 32] {
        match self {
            Self::Key(key) => blake3::derive_key("ice 2026 discovery", key.bytes()),
            Self::Open => blake3::derive_key("ice 2026 discovery", b"open"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/key");
        let (first, made) = ClusterKey::read_or_create(&path).unwrap();
        assert!(made);
        let (second, made) = ClusterKey::read_or_create(&path).unwrap();
        assert!(!made && first == second);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file stays"
        );
        let other = ClusterKey::random().unwrap();
        other.install(&path).unwrap();
        assert_eq!(ClusterKey::read(&path).unwrap(), other);
    }

    #[test]
    fn who_may_read_a_key_may_read_the_next_one_and_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        ClusterKey::read_or_create(&path).unwrap();
        // Only root can give a key to a group that is not his own; of anybody else's nothing is kept.
        let is_root = nix::unistd::geteuid().is_root();
        let group = is_root.then_some(54321);
        std::os::unix::fs::chown(&path, None, group).unwrap();
        for (before, by_root) in [(0o640, 0o640), (0o600, 0o600), (0o644, 0o640)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            ClusterKey::random().unwrap().install(&path).unwrap();
            let after = fs::metadata(&path).unwrap();
            let expect = if is_root { by_root } else { 0o600 };
            assert_eq!(after.mode() & 0o7777, expect, "{before:o}");
            if expect == 0o640 {
                assert_eq!(after.gid(), 54321);
            } else if is_root {
                std::os::unix::fs::chown(&path, None, group).unwrap();
            }
        }
    }

    #[test]
    fn a_damaged_key_is_an_error_and_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for text in ["", "0123", &"x".repeat(64), &"0".repeat(65)] {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(
                    ClusterKey::read_or_create(&path),
                    Err(KeyError::Malformed(_))
                ),
                "{text:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), *text);
        }
    }

    #[test]
    fn the_fingerprint_tells_keys_apart_and_debug_keeps_the_secret() {
        let (a, b) = (ClusterKey([1; 32]), ClusterKey([2; 32]));
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert!(!format!("{a:?}").contains(&a.reveal()));
    }
}
