//! What the parts of a request cost by themselves: the yardsticks for the whole, which `bench/compare` measures.
//!
//! `cargo bench --bench parts`, or one part: `cargo bench --bench parts -- rsa_2048_sign`.
//!
//! Times are **CPU time of the measuring thread**, not wall time: that is what `bench/compare` reports for servers, and it
//! does not grow when something else keeps the machine busy.

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use keybearer::signing::{Algorithm, PrivateKey};
use rustix::time::{ClockId, clock_gettime};

/// Length of what RS256 signs: header and claims of an access token, base64url.
const SIGNING_INPUT: usize = 420;
/// Length of a whole access token, signature included.
const ACCESS_TOKEN: usize = 700;

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a thread's CPU time is never negative")
}

/// Measures `part` in CPU time.
fn measure<T>(bencher: &mut Bencher<'_>, mut part: impl FnMut() -> T) {
    bencher.iter_custom(|iterations| {
        let start = cpu_time();
        for _ in 0..iterations {
            black_box(part());
        }
        cpu_time() - start
    });
}

/// One bare RS256 signature with a key that was parsed before: no token can cost less, so `/token` is held against it.
fn rsa_2048_sign(c: &mut Criterion) {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("RSA-2048 key");
    let random = SystemRandom::new();
    let message = [b'a'; SIGNING_INPUT];
    let mut signature = vec![0; key.public_modulus_len()];
    c.bench_function("rsa_2048_sign", |b| {
        measure(b, || key.sign(&RSA_PKCS1_SHA256, &random, black_box(&message), &mut signature).expect("signature"));
    });
}

/// What a token of each algorithm costs to sign, by the gateway's own key: RS256 is to cost what the bare signature does.
fn sign(c: &mut Criterion) {
    let message = [b'a'; SIGNING_INPUT];
    for algorithm in Algorithm::ALL {
        let key = PrivateKey::generate(algorithm, 2048).expect("a key");
        c.bench_function(&format!("sign_{algorithm}"), |b| {
            measure(b, || key.sign(black_box(&message)).expect("signature"));
        });
    }
}

/// The registry's look-up key: the digest of a presented token.
fn sha256_700(c: &mut Criterion) {
    let token = [b'a'; ACCESS_TOKEN];
    c.bench_function("sha256_700", |b| measure(b, || digest(&SHA256, black_box(&token))));
}

criterion_group!(parts, rsa_2048_sign, sign, sha256_700);
criterion_main!(parts);
