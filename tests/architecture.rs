//! The house (ARCHITECTURE.md): rooms stand on floors, and imports go down only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room, by floor. A room may import rooms of its own floor and of those below; doors (floor 4) import neither one
/// another nor a backend.
const ROOMS: &[(u8, &[&str])] = &[
    (0, &["clock", "ids", "persist", "problem", "random", "secret"]),
    (
        1,
        &[
            "accounts",
            "authorities",
            "change",
            "client_addr",
            "credentials",
            "groups",
            "keys",
            "licences",
            "limits",
            "notices",
            "plans",
            "repositories",
            "revocations",
            "routes",
            "signing",
            "telemetry",
            "tokens",
            "usage",
        ],
    ),
    (2, &["access", "exchange", "openapi", "registry", "webhook"]),
    (3, &["store"]),
    (4, &["forward_auth", "me", "oauth", "portal", "proxy", "resources"]),
    (5, &["cli", "config", "server", "tls"]),
];

/// Imports that break the order and are wanted, each with its reason. This list only shrinks.
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("portal", "resources", "the developer page shows what the Demo group publishes")];

fn floor_of(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a file of non-test code names by `crate::`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        for after in line.split("crate::").skip(1) {
            let names = match after.strip_prefix('{') {
                Some(group) => group.split(',').map(|part| part.split("::").next().unwrap_or_default()).collect(),
                None => vec![after.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()],
            };
            for name in names {
                let name = name.trim().trim_end_matches(['}', ';']).to_owned();
                if !name.is_empty() {
                    found.push((number + 1, name));
                }
            }
        }
    }
    found
}

#[test]
fn imports_go_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(&src).expect("a file of src");
        let room = inside.iter().next().and_then(|part| part.to_str()).unwrap_or_default().trim_end_matches(".rs");
        let is_test = inside.iter().any(|part| matches!(part.to_str(), Some("tests" | "tests.rs" | "conformance")));
        if matches!(room, "lib" | "main") || is_test {
            continue;
        }
        *seen.entry(room.to_owned()).or_default() += 1;
        let Some(floor) = floor_of(room) else {
            wrong.push(format!("{}: the room `{room}` stands on no floor; add it to ROOMS", inside.display()));
            continue;
        };
        for (line, name) in imports(&fs::read_to_string(&file).expect("a source file")) {
            let Some(its_floor) = floor_of(&name) else { continue };
            let excepted = EXCEPTIONS.iter().any(|(from, to, _)| *from == room && *to == name);
            let door_to_door = floor == 4 && its_floor >= 3 && name != room;
            if !excepted && (its_floor > floor || door_to_door) {
                wrong.push(format!(
                    "{}:{line}: `{room}` (floor {floor}) imports `{name}` (floor {its_floor})",
                    inside.display()
                ));
            }
        }
    }
    for (_, rooms) in ROOMS {
        for room in *rooms {
            if !seen.contains_key(*room) {
                wrong.push(format!("the room `{room}` is listed and does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports must go down:\n{}", wrong.join("\n"));
}

#[test]
fn an_import_that_runs_up_is_noticed() {
    let text = "use crate::server::Gateway;\nuse crate::{cli, ids::KeyId};\n// use crate::tls;\n#[cfg(test)]\nuse crate::store;\n";
    assert_eq!(imports(text), [(1, "server".into()), (2, "cli".into()), (2, "ids".into())]);
    assert!(floor_of("server") > floor_of("tokens"));
}

#[test]
fn every_room_says_what_it_owns() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let silent: Vec<_> = files
        .iter()
        .filter(|file| !file.iter().any(|part| matches!(part.to_str(), Some("tests" | "tests.rs"))))
        .filter(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            !text.lines().take(3).any(|line| line.starts_with("//!"))
        })
        .collect();
    assert!(silent.is_empty(), "these files do not open with `//!`: {silent:?}");
}
