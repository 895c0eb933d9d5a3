// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is generated from the definition of the command line: reference, manual, completions.

use crate::command::Cli;
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use std::fmt::Write as _;

/// Returns the reference of all commands, as markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Commands\n\nGenerated from the program itself. Standard output is data, standard error \
         is conversation.\n",
    );
    let mut root = built();
    describe(&mut root, &mut text);
    text
}

/// Returns the manual pages: file names and contents, the program's own first.
pub fn man_pages() -> Vec<(String, Vec<u8>)> {
    let mut pages = Vec::new();
    collect_pages(&built(), &mut pages);
    pages
}

fn collect_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).title(name.to_uppercase());
    man.render(&mut page).expect("writing to memory does not fail");
    pages.push((format!("{name}.1"), page));
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        collect_pages(subcommand, pages);
    }
}

/// Returns the completions: file names and contents, one for each usual shell.
pub fn completions() -> Vec<(String, Vec<u8>)> {
    let names =
        [(Shell::Bash, "whimbrel.bash"), (Shell::Zsh, "_whimbrel"), (Shell::Fish, "whimbrel.fish")];
    names.into_iter().map(|(shell, name)| (name.to_owned(), completions_of(shell))).collect()
}

pub(crate) fn completions_of(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "whimbrel", &mut text);
    text
}

fn built() -> Command {
    // Pages are written by one user and read by another: the width of a terminal is not for them.
    let mut command = Cli::command().term_width(100);
    command.build();
    command
}

fn describe(command: &mut Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let is_root = !name.contains(' ');
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let _ = write!(text, "\n## `{name}`\n\n{about}\n\n```\n{usage}\n```\n");
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(text, "\nAlso called {}.\n", aliases.join(", "));
    }
    let is_shown = |arg: &&Arg| !arg.is_hide_set() && (is_root || !arg.is_global_set());
    let rows: Vec<_> = command.get_arguments().filter(is_shown).map(argument).collect();
    if !rows.is_empty() {
        let _ = write!(text, "\n| Argument | Meaning |\n| --- | --- |\n{}", rows.concat());
    }
    if is_root && let Some(after) = command.get_after_help() {
        let _ = write!(text, "\n{after}\n");
    }
    for subcommand in command.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        if subcommand.get_name() != "help" {
            describe(subcommand, text);
        }
    }
}

fn argument(arg: &Arg) -> String {
    let value = arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    let takes_value = arg.get_action().takes_values();
    let long = arg.get_long().map(|long| format!("--{long}"));
    let short = arg.get_short().map(|short| format!("-{short}"));
    let name = match (short, long) {
        (None, None) => format!("`{value}`"),
        (short, long) => {
            let names: Vec<_> = short.into_iter().chain(long).collect();
            let value = if takes_value { format!(" {value}") } else { String::new() };
            format!("`{}{value}`", names.join(", "))
        }
    };
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let defaults: Vec<_> =
        arg.get_default_values().iter().map(|value| value.display().to_string()).collect();
    let default = match defaults.as_slice() {
        [] => String::new(),
        values => format!(" Default: `{}`.", values.join(" ")),
    };
    format!("| {} | {}{default} |\n", name.replace('|', "\\|"), help.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that is not hidden has its section, its manual page and its help text.
    #[test]
    fn every_command_is_described() {
        let reference = reference();
        let pages = man_pages();
        for command in built().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(reference.contains(&format!("\n## `whimbrel {name}`\n")), "{name}");
            assert!(pages.iter().any(|(file, _)| *file == format!("whimbrel-{name}.1")), "{name}");
            assert!(command.get_about().is_some(), "{name} has no description");
        }
        assert_eq!(pages[0].0, "whimbrel.1");
        assert!(completions().iter().all(|(_, text)| !text.is_empty()));
    }

    /// clap's own check of the definition.
    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
