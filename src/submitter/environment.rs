//! Which of the user's variables travel with a job. Pure.
//!
//! The compiler's driver and its parts read these; nothing else of a user's environment leaves his
//! machine. Variables that name files or programs (`GCC_EXEC_PREFIX`, `COMPILER_PATH`, …) do not
//! travel either: with them set, the classifier keeps the job local. The list follows gcc's manual
//! ("Environment Variables Affecting GCC"), its sources' `getenv` calls, and clang's.

use crate::id::Bytes;

const TRAVELS: &[&[u8]] = &[
    // Language and character set of messages; `LC_*` is added below.
    b"LANG",
    b"LANGUAGE",
    // The working directory as the user spells it ends up in the debug information.
    b"PWD",
    // Search paths: they are part of what the scanner asks the compiler.
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
    // Time.
    b"SOURCE_DATE_EPOCH",
    b"TZ",
    // The look of diagnostics.
    b"GCC_COLORS",
    b"GCC_URLS",
    b"TERM_URLS",
    b"TERM",
    b"COLUMNS",
    b"NO_COLOR",
    b"GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    // gcc notes its command line in the object when asked to.
    b"COLLECT_GCC_OPTIONS",
    b"CCC_OVERRIDE_OPTIONS",
    b"FORCE_CLANG_DIAGNOSTICS_CRASH",
];

/// The job's whole environment.
pub fn travelling(env: &[(Bytes, Bytes)]) -> Vec<(Bytes, Bytes)> {
    // What the driver execs it finds by its own prefix; a search path that says nothing of the
    // submitter is enough for the rest.
    let mut job = vec![(Bytes::from("PATH"), Bytes::from("/usr/bin:/bin"))];
    for (name, value) in env {
        if TRAVELS.contains(&&name[..]) || name.starts_with(b"LC_") {
            job.push((name.clone(), value.clone()));
        }
    }
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_at_home() {
        let env = [
            ("LC_ALL", "C"),
            ("AWS_SECRET", "x"),
            ("PATH", "/home/u/bin"),
            ("CPATH", "/inc"),
        ]
        .map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
        let job = travelling(&env);
        let names: Vec<String> = job.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["PATH", "LC_ALL", "CPATH"]);
        assert_eq!(job[0].1, Bytes::from("/usr/bin:/bin"));
    }
}
