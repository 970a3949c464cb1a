//! The table of README.md, held against what is tested.

use serde_json::Value;

use crate::oauth::OPERATIONS;

const README: &str = include_str!("README.md");

/// The cells of each line that begins like this.
fn rows(beginning: &str) -> Vec<Vec<&'static str>> {
    let lines = README.lines().filter(|line| line.starts_with(beginning));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_has_every_operation() {
    let [head] = &rows("| client |")[..] else { panic!("one table of clients") };
    assert_eq!(head[1..], OPERATIONS);
    for client in ["oauth4webapi", "openid-client", "Authlib", "requests-oauthlib"] {
        let [row] = &rows(&format!("| `{client}`"))[..] else { panic!("{client}: one row") };
        assert_eq!(row.len(), head.len(), "{client}");
        assert!(row[1..].iter().all(|cell| cell.starts_with('✓')), "{client}");
    }
}

#[test]
fn the_table_has_the_versions_that_are_tested() {
    let packages: Value = serde_json::from_str(include_str!("package.json")).expect("JSON");
    let packages = packages["dependencies"].as_object().expect("dependencies").iter();
    let packages = packages.map(|(name, version)| (name.as_str(), version.as_str().expect("a version")));
    let libraries = include_str!("requirements.txt").lines().filter_map(|line| line.split_once("=="));
    // Those are no clients.
    let libraries = libraries.filter(|(name, _)| !["cryptography", "freezegun", "requests"].contains(name));
    for (name, version) in packages.chain(libraries) {
        assert!(README.contains(&format!("| `{name}` {version} (")), "{name} {version}");
    }
}

/// Whose registry they were locked at is nobody's business, and no other could be used.
#[test]
fn the_lock_file_names_no_registry() {
    assert!(!include_str!("package-lock.json").contains("\"resolved\""));
}
