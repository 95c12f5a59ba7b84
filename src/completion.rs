//! What can stand where the cursor is, for shells: scripts of theirs, and answers to `kubectl`, which asks its plugins.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell, generate};

use crate::cli::Cli;

/// What `kubectl` calls to complete `kubectl sidestep …`: a link of this name on the PATH, beside that of the plugin.
pub(crate) const FOR_KUBECTL: &str = "kubectl_complete-sidestep";

/// The script that makes a shell complete `sidestep …`.
pub(crate) fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "sidestep", &mut script);
    script
}

/// What `kubectl` is to offer for the last of these words, which come after `kubectl sidestep`: a candidate a line, with what it is after a
/// tab, and last what to make of them (4: no file names), as Cobra's `__complete` has it.
pub(crate) fn answer(words: impl Iterator<Item = OsString>) -> String {
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut root = Cli::command();
    root.build();
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    let mut lines: Vec<String> = candidates(&root, before, last);
    lines.push(":4\n".to_owned());
    lines.join("\n")
}

fn candidates(root: &Command, before: &[String], last: &str) -> Vec<String> {
    let mut command = root;
    let mut value_of = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        value_of = takes_value(command, word);
        command = command.find_subcommand(word).unwrap_or(command);
    }
    if let Some(flag) = value_of {
        let values = flag.get_possible_values();
        let named = values
            .iter()
            .filter(|value| value.get_name().starts_with(last));
        return named.map(|value| value.get_name().to_owned()).collect();
    }
    if last.starts_with('-') {
        return flags(command)
            .filter(|line| line.starts_with(last))
            .collect();
    }
    let below = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set() && below.get_name() != "help");
    let lines = below.map(|below| line(below.get_name(), below.get_about()));
    lines.filter(|line| line.starts_with(last)).collect()
}

/// The flag that a word names, if its value is the next word.
fn takes_value<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let named = |flag: &&Arg| {
        let long = flag
            .get_long()
            .is_some_and(|long| word.strip_prefix("--") == Some(long));
        long || flag
            .get_short()
            .is_some_and(|short| word == format!("-{short}"))
    };
    let flag = command.get_arguments().find(named)?;
    flag.get_action().takes_values().then_some(flag)
}

fn flags(command: &Command) -> impl Iterator<Item = String> {
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
    shown.filter_map(|flag| Some(line(&format!("--{}", flag.get_long()?), flag.get_help())))
}

fn line(name: &str, about: Option<&StyledStr>) -> String {
    let about = about.map(ToString::to_string).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default();
    format!("{name}\t{about}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The candidates for the last word of a line.
    fn offered(line: &str) -> Vec<String> {
        let answer = answer(line.split(' ').map(OsString::from));
        let (candidates, directive) = answer.rsplit_once(':').unwrap();
        assert_eq!(directive, "4\n", "{line}");
        let names = candidates
            .lines()
            .map(|line| line.split('\t').next().unwrap_or_default());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn kubectl_offers_what_can_stand_there() {
        for (line, expected) in [
            ("pro", &["proxy", "promote"][..]),
            ("set ", &["image"]),
            ("-n shop get ", &["rollout"]),
            ("-n get set ", &["image"]),
            ("--namespace=shop abo", &["abort"]),
            ("promote --f", &["--full"]),
            ("get rollout --imp", &[]),
            ("get rollout --as", &["--as", "--as-group", "--as-uid"]),
            ("completion --kubeconfig ", &[]),
            ("promote web ", &[]),
        ] {
            assert_eq!(offered(line), expected, "{line}");
        }
        assert!(offered("").contains(&"status".to_owned()));
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            assert!(script.contains("promote"), "{shell}");
        }
    }
}
