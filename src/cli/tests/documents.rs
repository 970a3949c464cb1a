//! What the README and the developer page tell people to type is something that this program understands.

use clap::Parser;

use super::super::Cli;
use crate::groups::demo;
use crate::keys::KeyPrefix;

const README: &str = include_str!("../../../README.md");
const PAGE: &str = include_str!("../../portal/page.html");

/// The `keybearer …` and `cargo run --release -- …` of a text: in code blocks, code spans and the page's lines, each up to
/// where the command ends.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("cargo run --release --", "keybearer");
    let begins = |before: &str| before.is_empty() || before.ends_with(['\n', '`', '(', '>']);
    text.match_indices("keybearer ")
        .filter(|(at, _)| begins(&text[..*at]))
        .map(|(at, _)| {
            let rest = &text[at..];
            let rest = &rest[..rest.find(['\n', '`', ')', '<', '>', '#', '|']).unwrap_or(rest.len())];
            words(rest)
        })
        // `…` stands for any command.
        .filter(|words| !words.iter().any(|word| word == "…"))
        .collect()
}

/// The words of a shell's line, which has no quotes but double ones.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (index, part) in line.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[test]
fn every_command_in_the_documents_can_be_typed() {
    let (readme, page) = (commands(README), commands(PAGE));
    assert!(readme.len() > 20, "{readme:#?}");
    assert!(page.len() >= 4, "{page:#?}");
    for command in readme.into_iter().chain(page) {
        if let Err(error) = Cli::try_parse_from(&command) {
            // A sentence may name a command without its arguments.
            let is_named = command == ["keybearer", "keys", "revoke"];
            assert!(is_named, "{command:?}: {error}");
        }
    }
}

#[test]
fn the_published_key_is_the_one_in_the_readme() {
    let key = demo::key(&KeyPrefix::default());
    assert!(README.contains(key.secret().expose().as_str()));
}
