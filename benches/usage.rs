//! What usage costs the store: bytes of the database for a million requests, and how long a flush takes.
//!
//! `cargo bench --bench usage`. The requests are spread over one hour, written every ten seconds as a gateway does it. Nine in
//! ten go to half of the routes; of a hundred, three are refused and one fails. What grows is the number of lines (account, key,
//! group, route and status class) that an hour has, and not the number of requests.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keybearer::clock::{ManualClock, Timestamp};
use keybearer::ids::KeyId;
use keybearer::store::SqliteStore;
use keybearer::tokens::Client;
use keybearer::usage::{Event, Holder, Ledger, Line, Settings, Spot, StatusClass};

const HOUR: Timestamp = Timestamp::from_secs(1_800_000_000);
const REQUESTS: u64 = 1_000_000;
const ROUTES: u64 = 10;

/// A fixed sequence, as good as chance for this purpose.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    (n ^ (n >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) >> 11
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).expect("the database").len()
}

async fn measure(keys: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keybearer.db");
    let store = SqliteStore::open(&path).await.expect("a store");
    store.close().await;
    let before = size(&path);
    let store = SqliteStore::open(&path).await.expect("the store");
    let clock = Arc::new(ManualClock::new(HOUR));
    let ledger = Ledger::new(&Settings::default(), clock.clone());
    let ids: Vec<KeyId> = (0..keys).map(|_| KeyId::random()).collect();
    let (mut flushes, mut longest) = (Duration::ZERO, Duration::ZERO);
    for n in 0..REQUESTS {
        // The square makes some keys busier than others.
        let key = (mixed(n) % keys) * (mixed(n + REQUESTS) % keys) / keys;
        let busy = mixed(n ^ 0xbeef) % 10 < 9;
        let route = mixed(n ^ 0xf00d) % (ROUTES / 2) + if busy { 0 } else { ROUTES / 2 };
        let status = match mixed(n ^ 0xcafe) % 100 {
            0..3 => 403,
            3 => 502,
            _ => 200,
        };
        let class = StatusClass::of(status);
        let is_granted = status != 403;
        let hour = ledger.hour();
        let route_index = u32::try_from(route).ok();
        let spot = Spot { who: key + 1, table: 1, route: route_index, hour, class, is_granted };
        let answered = Some(Duration::from_micros(mixed(n ^ 0xd00d) % 40_000));
        let event = Event { answered, bytes_in: mixed(n) % 500, bytes_out: mixed(n) % 20_000 };
        ledger.count(spot, event, || Line {
            holder: Some(Holder {
                account: format!("account-{}", key / 10).parse().expect("a name"),
                client: Client::Key(ids[usize::try_from(key).expect("64 bits")]),
            }),
            group: is_granted.then(|| format!("group-{}", route % 3).parse().expect("a group")),
            route: Some(format!("route-{route}").parse().expect("a route")),
            class,
        });
        if n % (REQUESTS / 360) == 0 {
            let began = Instant::now();
            ledger.flush(&store).await.expect("written");
            let took = began.elapsed();
            (flushes, longest) = (flushes + took, longest.max(took));
        }
    }
    ledger.flush(&store).await.expect("written");
    store.close().await;
    let bytes = size(&path) - before;
    println!(
        "1,000,000 requests in an hour by {keys} keys on {ROUTES} routes: {bytes} bytes; a flush {:.1} ms, the longest {:.1} ms; {} \
         not told apart",
        flushes.as_secs_f64() * 1e3 / 360.0,
        longest.as_secs_f64() * 1e3,
        ledger.others(),
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for keys in [10, 1000, 10_000, 100_000] {
            measure(keys).await;
        }
    });
}
