//! `ice config`: every setting in force, and where it comes from.
//!
//! What it prints is a configuration file: whoever wants to change a value copies its line.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::resolve::World;
use super::settings::{self, SECTIONS, Settings};

/// The settings of one word, or of all that have any.
pub(super) fn report(
    word: Option<&str>,
    world: &World,
    settings: &Settings,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut text = String::new();
    let files = world.config_files();
    for file in &files {
        let there = if file.exists() { "" } else { " (not there)" };
        writeln!(text, "# {}{there}", file.display())?;
    }
    if let Some(word) = word
        && !SECTIONS.contains(&word)
    {
        let known = SECTIONS.join(", ");
        return Err(format!("no settings for {word:?}; there are some for: {known}").into());
    }
    let grammar = settings.grammar(&world.variables);
    let words = SECTIONS
        .into_iter()
        .filter(|known| word.is_none_or(|word| word == *known));
    for word in words {
        let matches = grammar.clone().try_get_matches_from(["ice", word])?;
        let (Some(command), Some((_, matches))) =
            (grammar.find_subcommand(word), matches.subcommand())
        else {
            continue;
        };
        writeln!(text, "\n[{word}]")?;
        for arg in settings::keys(command) {
            let (line, origin) = in_force(word, arg, matches, world, settings);
            writeln!(text, "{line:40} # {origin}")?;
        }
    }
    Ok(text)
}

/// A setting as a line of a file, and its origin.
fn in_force(
    word: &str,
    arg: &Arg,
    matches: &ArgMatches,
    world: &World,
    settings: &Settings,
) -> (String, String) {
    let key = arg.get_long().unwrap_or_default();
    if let Some((name, value)) = settings::variable(&world.variables, key) {
        let value = value.to_string_lossy();
        return (format!("{key} = {value:?}"), format!("variable {name}"));
    }
    let origin = match settings.of(word, key) {
        Some(setting) => setting.to_string(),
        None => "default".to_owned(),
    };
    let id = arg.get_id().as_str();
    match arg.get_action() {
        ArgAction::SetTrue => return (format!("{key} = {}", matches.get_flag(id)), origin),
        ArgAction::Count => return (format!("{key} = {}", matches.get_count(id)), origin),
        _ => {}
    }
    let given = matches
        .value_source(id)
        .is_some_and(|source| source == ValueSource::DefaultValue)
        .then(|| matches.get_raw(id))
        .flatten()
        .map(|values| {
            let values = values
                .map(|value| value.to_string_lossy())
                .collect::<Vec<_>>();
            values.join(",")
        });
    let place = |place: Option<PathBuf>| place.map(|place| place.to_string_lossy().into_owned());
    let value = given.or_else(|| match key {
        "cache-dir" => place(world.places.cache_dir().ok()),
        "key-file" => place(world.places.key_file().ok()),
        "socket" => place(world.places.socket().ok()),
        _ => None,
    });
    match value {
        Some(value) if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() => {
            (format!("{key} = {value}"), origin)
        }
        Some(value) => (format!("{key} = {value:?}"), origin),
        // The help tells what happens without it.
        None => (
            format!("# {key} ="),
            format!("not set: {}", arg.get_help().cloned().unwrap_or_default()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_printed_with_its_origin() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ice.toml");
        std::fs::write(&file, "[daemon]\nnice = 7\nno-remote = true\n").unwrap();
        let mut world = World::default();
        world.places.home = Some("/home/u".into());
        for (name, value) in [
            ("ICE_CONFIG", file.to_str().unwrap()),
            ("ICECC_SCHEDULER", "s"),
        ] {
            world.variables.insert(name.into(), value.into());
        }
        let settings = Settings::read(&world.config_files()).unwrap();
        let text = report(Some("daemon"), &world, &settings).unwrap();
        for (line, origin) in [
            ("nice = 7", format!("{}:2", file.display())),
            ("no-remote = true", format!("{}:3", file.display())),
            ("port = 10245", "default".to_owned()),
            ("scheduler = \"s\"", "variable ICECC_SCHEDULER".to_owned()),
            ("cache-dir = \"/home/u/.cache/ice\"", "default".to_owned()),
        ] {
            let expect = format!("{line:40} # {origin}\n");
            assert!(text.contains(&expect), "{expect:?} in {text}");
        }
        assert!(text.contains("# max-jobs ="), "{text}");
        assert!(!text.contains("[scheduler]"));
        assert!(report(Some("bake"), &world, &settings).is_err());
    }
}
