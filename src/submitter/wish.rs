//! What the scheduler is told of a job that wants a slot.

use super::course::Course;
use crate::args::Plan;
use crate::id::{AbsPath, Bytes, RequestId};
use crate::message::{Call, OwnNode, Terms, Want};
use crate::toolchain::Toolchain;

/// Beginnings of the flags that make a compile take longer or shorter. Those that name places and
/// versions are left out: they differ from one checkout to the next, and the work does not.
const FLAGS_THAT_MATTER: [&[u8]; 8] = [
    b"-O", b"-g", b"-f", b"-m", b"-std", b"-x", b"--param", b"-S",
];
/// So many of the last components of a source file's path tell it from others of its name, in every checkout.
const COMPONENTS_THAT_MATTER: usize = 3;

/// The request of a job; its number is filled in by who makes it.
pub fn want(
    call: &Call,
    cwd: &AbsPath,
    plan: &Plan,
    toolchain: &Toolchain,
    course: &Course,
) -> Want {
    let preferred = call.variable("ICECC_PREFERRED_HOST");
    Want {
        request: RequestId(0),
        toolchain: toolchain.digest,
        toolchain_bytes: toolchain.manifest.bytes(),
        terms: Terms {
            niceness: call.niceness.clamp(0, 19) as u8,
            platform: toolchain.manifest.platform.clone(),
            preferred: preferred.map(|value| value.to_string()).unwrap_or_default(),
        },
        file: plan.name().clone(),
        variant: variant(&call.argv, cwd, plan.name()),
        except: course.except().to_vec(),
        own: match course.tries() {
            // For tests: its own node does it like any other.
            0 if call.variable("ICECC_TEST_REMOTEBUILD").is_some() => OwnNode::AsWorker,
            0 => OwnNode::Locally,
            _ => OwnNode::Nothing,
        },
    }
}

fn variant(argv: &[Bytes], cwd: &AbsPath, input: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut add = |word: &[u8]| {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word);
    };
    if let Ok(path) = AbsPath::lexical(cwd, input) {
        path.components()
            .rev()
            .take(COMPONENTS_THAT_MATTER)
            .for_each(&mut add);
    }
    let matters = |word: &&[u8]| {
        let begins = |flag: &&[u8]| word.starts_with(flag);
        FLAGS_THAT_MATTER.iter().any(begins) && !word.contains(&b'/')
    };
    argv.iter()
        .skip(1)
        .map(|word| &word[..])
        .filter(matters)
        .for_each(add);
    let digest = hasher.finalize();
    u64::from_le_bytes(
        digest.as_bytes()[..8]
            .try_into()
            .expect("a digest is longer"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_work_has_the_same_name_in_every_checkout() {
        let of = |cwd: &str, argv: &[&str], input: &str| {
            let argv: Vec<Bytes> = argv.iter().copied().map(Bytes::from).collect();
            variant(&argv, &AbsPath::parse(cwd).unwrap(), input.as_bytes())
        };
        let plain = of(
            "/home/a/p/lib",
            &["gcc", "-O2", "-c", "core/x.c"],
            "core/x.c",
        );
        let cases: &[(bool, &str, &[&str], &str)] = &[
            (
                true,
                "/home/b/q/lib",
                &["cc", "-O2", "-I/home/b", "-c", "core/x.c"],
                "core/x.c",
            ),
            (
                true,
                "/src/lib/core",
                &["gcc", "-O2", "-DV=\"7\"", "-o", "y.o"],
                "x.c",
            ),
            (
                true,
                "/lib",
                &["gcc", "-ffile-prefix-map=/a=/b", "-O2"],
                "core/x.c",
            ),
            (false, "/home/a/p/lib", &["gcc", "-O3"], "core/x.c"),
            (false, "/home/a/p/lib", &["gcc", "-O2", "-g"], "core/x.c"),
            (false, "/home/a/p/lib", &["gcc", "-O2"], "other/x.c"),
            (false, "/home/a/p/lib", &["gcc", "-O2"], "core/y.c"),
        ];
        for (same, cwd, argv, input) in cases {
            assert_eq!(
                of(cwd, argv, input) == plain,
                *same,
                "{cwd} {argv:?} {input}"
            );
        }
    }
}
