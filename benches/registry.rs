//! What a million live tokens cost: bytes a token, and the time of a look-up beside that of a thousand tokens.
//!
//! `cargo bench --bench registry`. Memory is the growth of the process's resident set, so what the allocator wastes counts
//! too. Every token is distinct; "one key each" is the worst case, in which nothing is shared.

use std::hint::black_box;
use std::time::{Duration, Instant};

use keybearer::clock::Timestamp;
use keybearer::ids::{Groups, KeyId, TokenId};
use keybearer::registry::{Digest, Lookup, Registry};
use keybearer::tokens::{Client, Terms, Token};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LIFE: u64 = 3600;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

/// `tokens` live tokens of `keys` keys, ten keys an account.
fn fill(tokens: u64, keys: u64) -> Registry {
    let registry = Registry::new(usize::try_from(tokens).expect("64 bits"));
    let groups: Groups = ["demo", "orders"].map(|group| group.parse().expect("a group")).into();
    let ids: Vec<KeyId> = (0..keys).map(|_| KeyId::random()).collect();
    for n in 0..tokens {
        let key = n % keys;
        let token = Token {
            account: format!("account-{}", key / 10).parse().expect("a name"),
            client: Client::Key(ids[usize::try_from(key).expect("64 bits")]),
            groups: groups.clone(),
            id: TokenId::random(),
            issued_at: NOW.secs(),
            expires_at: NOW.secs() + 1 + (n * 7919) % LIFE,
            terms: Terms::default(),
        };
        registry.admit(digest(n), &token, NOW).expect("nothing is revoked");
    }
    registry
}

/// Nanoseconds a look-up, the digest not counted: the fastest of five passes.
fn look_up_nanos(registry: &Registry, tokens: u64) -> f64 {
    const LOOKS: u64 = 200_000;
    let digests: Vec<Digest> = (0..LOOKS).map(|n| digest((n * 104_729) % tokens)).collect();
    let pass = || {
        let began = Instant::now();
        for digest in &digests {
            assert!(matches!(black_box(registry.look_up(digest, NOW)), Lookup::Live(_)));
        }
        began.elapsed()
    };
    let fastest = (0..5).map(|_| pass()).min().unwrap_or(Duration::MAX);
    fastest.as_secs_f64() * 1e9 / LOOKS as f64
}

fn main() {
    let small = fill(1000, 10);
    println!("1,000 tokens of 10 keys: look-up {:.0} ns", look_up_nanos(&small, 1000));
    for (tokens, keys, what) in [
        (1_000_000u64, 1_000u64, "of 1,000 keys"),
        (1_000_000, 100_000, "of 100,000 keys"),
        (1_000_000, 1_000_000, "with one key each"),
    ] {
        let before = resident_bytes();
        let registry = fill(tokens, keys);
        let bytes = resident_bytes().saturating_sub(before) as f64 / tokens as f64;
        let nanos = look_up_nanos(&registry, tokens);
        let began = Instant::now();
        let swept = registry.sweep(NOW + Duration::from_secs(LIFE + 1));
        let sweep = began.elapsed().as_secs_f64() * 1e9 / swept as f64;
        assert_eq!(swept as u64, tokens);
        println!("1,000,000 tokens {what}: {bytes:.0} bytes a token, look-up {nanos:.0} ns, eviction {sweep:.0} ns");
    }
}
