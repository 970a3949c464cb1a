//! What takes a process of its own: a umask, another user, a kill.

use super::*;

const SCENARIO: &str = "KEYBEARER_TEST_SCENARIO";
const FOLDER: &str = "KEYBEARER_TEST_FOLDER";

/// This test binary again, to run `scenario` alone.
fn process(scenario: &str, folder: &Path) -> Command {
    let test = concat!(module_path!(), "::in_a_process_of_its_own");
    let test = test.split_once("::").map_or(test, |(_, rest)| rest);
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(SCENARIO, scenario).env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

#[tokio::test]
#[ignore = "run by the tests below, in a process of its own"]
async fn in_a_process_of_its_own() {
    let (Ok(scenario), Ok(folder)) = (std::env::var(SCENARIO), std::env::var(FOLDER)) else { return };
    let path = Path::new(&folder).join("keybearer.db");
    match scenario.split_once(' ').unwrap_or((&scenario, "")) {
        ("umask", mask) => {
            let mask = u32::from_str_radix(mask, 8).expect("an octal number");
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
            let store = SqliteStore::open(&path).await.expect("a store");
            assert!(store.insert_account(&account("acme", "")).await.expect("an insert"));
            assert_eq!(files(&path).map(|file| mode(&file)), [0o600; 3]);
        }
        ("stranger", _) => {
            let error = SqliteStore::open(&path).await.expect_err("a refusal");
            assert!(matches!(&error, Error::Forbidden { path: at, .. } if *at == path), "{error:?}");
            let error = SqliteStore::open(&Path::new(&folder).join("new.db")).await.expect_err("a refusal");
            assert!(matches!(&error, Error::Forbidden { .. }), "{error:?}");
        }
        ("writer", prefix) => {
            let store = SqliteStore::open(&path).await.expect("a store");
            for number in 0..25 {
                let account = account(&format!("{prefix}{number}"), "");
                assert!(store.insert_account(&account).await.expect("an insert"));
            }
        }
        ("until-killed", _) => {
            let store = SqliteStore::open(&path).await.expect("a store");
            for number in 0..1_000_000 {
                let name = format!("a{number}");
                assert!(store.insert_account(&account(&name, "")).await.expect("an insert"));
                println!("acknowledged {name}");
            }
        }
        other => panic!("no such scenario: {other:?}"),
    }
}

/// Runs `command` to its end, as the user nobody if we are the superuser: to that one no mode means anything. What it is to
/// own has to be its own then.
fn as_nobody(mut command: Command, owned: &Path) {
    const NOBODY: u32 = 65_534;
    if fs::metadata(owned).expect("a file").uid() == 0 {
        std::os::unix::fs::chown(owned, Some(NOBODY), Some(NOBODY)).expect("a new owner");
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => eprintln!("SKIPPED: cannot run as another user: {error}"),
    }
}

#[test]
fn files_are_private_whatever_the_umask() {
    for mask in ["000", "022", "077", "777"] {
        let (folder, _) = place();
        as_nobody(process(&format!("umask {mask}"), folder.path()), folder.path());
    }
}

#[test]
fn a_file_or_folder_of_another_user_is_refused() {
    let (folder, path) = place();
    fs::write(&path, b"").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("a mode");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).expect("a mode");
    as_nobody(process("stranger", folder.path()), &path);
    // So that the folder can be removed again.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
}

#[tokio::test]
async fn several_processes_may_open_a_new_file_at_once_and_write() {
    let (folder, path) = place();
    let start = |prefix: &str| process(&format!("writer {prefix}"), folder.path()).spawn().expect("a process");
    let processes = ["a", "b", "c", "d"].map(start);
    for mut process in processes {
        let status = process.wait().expect("an end");
        assert!(status.success(), "{status}");
    }
    let store = SqliteStore::open(&path).await.expect("a store");
    assert_eq!(store.accounts().await.expect("a list").len(), 100);
    assert_eq!(store.version().await.expect("a version"), 100);
    assert_eq!(store.check().await.expect("a check"), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (folder, path) = place();
    for round in 0..3 {
        let mut child = process("until-killed", folder.path()).spawn().expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut acknowledged: Vec<String> = Vec::new();
        let mut take = |line: std::io::Result<String>| {
            if let Some((_, name)) = line.expect("a line").split_once("acknowledged ") {
                acknowledged.push(name.to_owned());
            }
        };
        lines.by_ref().take(40 + round * 7).for_each(&mut take);
        child.kill().expect("a kill");
        lines.for_each(&mut take);
        child.wait().expect("an end");
        assert!(acknowledged.len() > 10, "{acknowledged:?}");

        let store = SqliteStore::open(&path).await.expect("the store again");
        assert_eq!(store.check().await.expect("a check"), Vec::<String>::new());
        let there: Vec<String> =
            store.accounts().await.expect("a list").iter().map(|held| held.name.to_string()).collect();
        for name in &acknowledged {
            assert!(there.contains(name), "{name} was acknowledged and is lost");
        }
        assert_eq!(store.version().await.expect("a version"), there.len() as u64, "each with its entry in the feed");
        store.close().await;
        fs::remove_file(&path).expect("a fresh start");
    }
}
