//! What the doctor says of one thing.

/// Where a finding stands in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The cluster's key.
    Key,
    /// This machine's daemon.
    Daemon,
    /// The scheduler, how it is found, and whether this node is in its list.
    Scheduler,
    /// Whose clock is wrong.
    Clocks,
    /// Whether jobs of others can be run here.
    Sandbox,
    /// The compilers that can be sent.
    Compilers,
    /// What a build finds when it calls a compiler.
    Calls,
    /// What this machine has too little of.
    Limits,
    /// The nodes, as they are seen from here.
    Nodes,
}

impl Group {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Daemon => "daemon",
            Self::Scheduler => "scheduler",
            Self::Clocks => "clocks",
            Self::Sandbox => "sandbox",
            Self::Compilers => "compilers",
            Self::Calls => "calls",
            Self::Limits => "limits",
            Self::Nodes => "nodes",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It is as it should be.
    Fine,
    /// It could not be looked at, since something else is broken.
    Unknown,
    /// It works, but less well than it could, or not everywhere.
    Warning,
    /// It does not work.
    Broken,
}

impl Grade {
    /// Its word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Unknown => "-",
            Self::Warning => "warning",
            Self::Broken => "BROKEN",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands.
    pub group: Group,
    /// How bad it is.
    pub grade: Grade,
    /// What was looked at, and what came of it: a sentence without a full stop.
    pub what: String,
    /// A command that mends it, or a sentence where no single command does.
    pub mend: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn fine(group: Group, what: impl Into<String>) -> Self {
        Self::new(group, Grade::Fine, what, None)
    }

    /// It could not be looked at.
    pub fn unknown(group: Group, what: impl Into<String>) -> Self {
        Self::new(group, Grade::Unknown, what, None)
    }

    /// It works less well than it could.
    pub fn warning(group: Group, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(group, Grade::Warning, what, Some(mend.into()))
    }

    /// It does not work.
    pub fn broken(group: Group, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(group, Grade::Broken, what, Some(mend.into()))
    }

    fn new(group: Group, grade: Grade, what: impl Into<String>, mend: Option<String>) -> Self {
        Self {
            group,
            grade,
            what: what.into(),
            mend,
        }
    }
}
