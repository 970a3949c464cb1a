//! A store of many accounts with a licence each, and the lines of their keys.

use std::fs::{DirBuilder, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use keybearer::accounts::{self, NewAccount};
use keybearer::clock::SystemClock;
use keybearer::credentials::{Hasher, Kept, Settings};
use keybearer::groups;
use keybearer::keys::{ApiKey, KeyPrefix};
use keybearer::licences::{self, NewLicence};
use keybearer::store::SqliteStore;

/// What the licences grant: the group of the route that is there by default.
const GROUP: &str = "sample";

#[derive(clap::Args)]
pub struct Arguments {
    /// Gets `data`, `keys.jsonl`, and the usable keys themselves in `usable.txt`.
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    accounts: usize,
    #[arg(long)]
    keys: usize,
    /// So many have a hash of their own. The others share one, which is nobody's: an argon2 hash takes some ten milliseconds.
    #[arg(long)]
    usable: usize,
}

pub async fn run(arguments: &Arguments) {
    let data = arguments.folder.join("data");
    DirBuilder::new().mode(0o700).create(&data).expect("a new folder");
    let store = Arc::new(SqliteStore::open(&data.join("keybearer.db")).await.expect("a store"));
    let (usable, ()) = tokio::join!(
        async {
            let count = arguments.usable.min(arguments.keys);
            tokio::task::spawn_blocking(move || hashed(count)).await.expect("hashes")
        },
        populate(&store, arguments.accounts)
    );
    store.close().await;

    let mut lines = BufWriter::new(File::create(arguments.folder.join("keys.jsonl")).expect("a file"));
    let mut secrets = BufWriter::new(File::create(arguments.folder.join("usable.txt")).expect("a file"));
    let mut hasher = Hasher::new(&Settings::default()).expect("a hasher");
    let nobodys = hasher.hash(b"nobody's", Kept::Key).expect("a hash");
    for n in 0..arguments.keys {
        // The usable ones are of accounts far apart.
        let account = account(n % arguments.accounts);
        let (id, hash) = match usable.get(n) {
            Some((key, hash)) => {
                writeln!(secrets, "{}", key.secret().expose()).expect("written");
                (*key.id(), hash.as_str())
            }
            None => (*ApiKey::generate(&KeyPrefix::default()).id(), nobodys.as_phc()),
        };
        writeln!(lines, r#"{{"id":"{id}","account":"{account}","hash":"{hash}"}}"#).expect("written");
    }
    lines.flush().expect("written");
    secrets.flush().expect("written");
}

fn account(n: usize) -> String {
    format!("account-{n}")
}

async fn populate(store: &Arc<SqliteStore>, count: usize) {
    let clock = Arc::new(SystemClock);
    let accounts = accounts::Operations::new(Arc::clone(store) as _, clock.clone(), KeyPrefix::default());
    let groups = groups::Operations::new(
        Arc::clone(store) as _,
        Arc::clone(store) as _,
        Arc::clone(store) as _,
        Arc::clone(store) as _,
        clock.clone(),
    );
    let licences =
        licences::Operations::new(Arc::clone(store) as _, Arc::clone(store) as _, Arc::clone(store) as _, clock);
    groups.create(GROUP.parse().expect("a group"), String::new(), None).await.expect("created");
    for n in 0..count {
        let name: keybearer::ids::AccountName = account(n).parse().expect("a name");
        let new = NewAccount { name: name.clone(), title: String::new(), password: None, expires_at: None };
        accounts.create(new).await.expect("created");
        let new = NewLicence {
            account: name,
            groups: [GROUP.parse().expect("a group")].into(),
            plan: None,
            starts_at: None,
            ends_at: None,
            seats: None,
            trial: false,
            again: false,
        };
        licences.grant(new).await.expect("granted");
    }
}

/// Keys with their hashes, by the parameters that are the default.
fn hashed(count: usize) -> Vec<(ApiKey, String)> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = |count: usize| {
        let mut hasher = Hasher::new(&Settings::default()).expect("a hasher");
        let mut one = || {
            let key = ApiKey::generate(&KeyPrefix::default());
            let hash = hasher.hash(key.secret().expose().as_bytes(), Kept::Key).expect("a hash");
            (key, hash.as_phc().to_owned())
        };
        (0..count).map(|_| one()).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let shares = (0..threads).map(|n| count / threads + usize::from(n < count % threads));
        let running: Vec<_> = shares.map(|share| scope.spawn(move || work(share))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("hashes")).collect()
    })
}
