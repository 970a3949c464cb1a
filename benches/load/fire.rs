//! The traffic: guarded calls, calls of `/token` by keys that were proven before and by others, rolls; and then the same beside
//! a flood of credentials that are wrong.
//!
//! What happens is told on stdout, one JSON object a line, so that the script knows when to read the server's memory and when to
//! revoke keys.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::Full;
use keybearer::keys::{ApiKey, KeyPrefix};
use serde_json::{Value, json};

use super::client::{Client, Tally, Target, at_pace, tls};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    folder: PathBuf,
    /// Where clients connect by HTTPS.
    #[arg(long)]
    port: u16,
    /// Where a proxy connects, in the clear; it says whose requests it passes on.
    #[arg(long)]
    proxied_port: u16,
    /// How long each part takes.
    #[arg(long)]
    seconds: u64,
    /// Keys whose tokens are used, and that ask for tokens again and again.
    #[arg(long)]
    holders: usize,
    /// Keys that the script revokes, one after the other; their tokens are used too.
    #[arg(long)]
    victims: usize,
    /// Keys that are rolled by their holders.
    #[arg(long)]
    rolled: usize,
    /// A second: guarded calls.
    #[arg(long)]
    guarded: f64,
    /// A second: calls of `/token` by holders.
    #[arg(long)]
    warm: f64,
    /// A second: calls of `/token` by keys that were not seen before.
    #[arg(long)]
    cold: f64,
    /// A second: rolls by the keys' own holders.
    #[arg(long)]
    rolls: f64,
    /// A second: wrong credentials, half of them from one address.
    #[arg(long)]
    flood: f64,
    /// Addresses that the other half comes from.
    #[arg(long)]
    flood_addresses: u32,
}

const GUARDED: &str = "/sample/orders/1";
const TOKEN: &str = "/token";

/// `kb_` and the id of a key; and what a key ends with.
const ID_LENGTH: usize = 15;
const CHECKSUM_LENGTH: usize = 6;

/// The one address of the flood. Everybody else is at 127.0.0.1.
const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn request(path: &str, authorization: &str) -> http::request::Builder {
    Request::get(path).header(HOST, "localhost").header(AUTHORIZATION, authorization)
}

fn without_content(builder: http::request::Builder) -> Option<Request<Full<Bytes>>> {
    Some(builder.body(Full::default()).expect("a request"))
}

fn basic(user_id: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user_id}:{password}")))
}

fn token_for(key: &str) -> Option<Request<Full<Bytes>>> {
    without_content(request(TOKEN, &basic(key, "")))
}

/// Says something to the script.
fn say(what: &Value) {
    println!("{what}");
}

/// CPU time of this process, in seconds: a generator that is out of breath measures itself.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()).as_secs_f64()
}

/// One key after the other.
fn turns<T: Clone>(all: Vec<T>) -> impl FnMut() -> T {
    let mut next = 0;
    move || {
        next += 1;
        all[(next - 1) % all.len()].clone()
    }
}

/// A key with a token of it.
#[derive(Clone)]
struct Held {
    key: String,
    bearer: String,
}

async fn tokens(target: &Target, keys: &[String]) -> Vec<Held> {
    let mut client = Client::new(target.clone());
    let mut held = Vec::new();
    for key in keys {
        let (status, body) = client.send(token_for(key).expect("a request")).await;
        assert_eq!(status, 200, "a token for a good key: {body:?}");
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        held.push(Held { key: key.clone(), bearer: format!("Bearer {}", answer["token"].as_str().expect("a token")) });
    }
    held
}

/// A well-formed key with the id of `known` and a secret of its own: nothing but its hash tells that it is wrong.
fn impostor(known: &str) -> String {
    let other = ApiKey::generate(&KeyPrefix::default());
    let other = other.secret().expose();
    let (id, checksum) = (ID_LENGTH, other.len() - CHECKSUM_LENGTH);
    let body = format!("{}{}", &known[..id], &other[id..checksum]);
    let checksum = keybearer::random::to_base62(u64::from(crc32fast::hash(body.as_bytes())), CHECKSUM_LENGTH);
    body + &checksum
}

/// A credential that is wrong: in turn another secret of a key that exists, a key that does not exist, and a password.
fn wrong(n: u64, known: &str) -> String {
    match n % 3 {
        0 => basic(&impostor(known), ""),
        1 => basic(ApiKey::generate(&KeyPrefix::default()).secret().expose(), ""),
        _ => basic(&format!("account-{}", n % 1000), "a wrong password"),
    }
}

struct Scene {
    arguments: Arguments,
    target: Target,
    holders: Vec<Held>,
    victims: Vec<Held>,
    /// Each is rolled once, with a token of its own.
    to_roll: RefCell<VecDeque<Held>>,
    /// Keys that nobody has used yet.
    fresh: RefCell<VecDeque<String>>,
}

impl Scene {
    fn next_fresh(&self) -> Option<String> {
        self.fresh.borrow_mut().pop_front()
    }

    async fn roll(&self, time: Duration) -> Tally {
        at_pace(self.target.clone(), 4, self.arguments.rolls, time, || {
            let Held { key, bearer } = self.to_roll.borrow_mut().pop_front()?;
            let content = json!({ "grace": "1h", "start": "first-use", "api_key": key }).to_string();
            let path = format!("/me/keys/{}/roll", &key[..ID_LENGTH]);
            let request = Request::post(path).header(HOST, "localhost").header(AUTHORIZATION, bearer);
            let request = request.header("content-type", "application/json");
            Some(request.body(Full::from(content)).expect("a request"))
        })
        .await
    }

    async fn flood(&self, time: Duration, many: bool) -> Tally {
        let known = self.holders.iter().map(|held| held.key.clone()).collect();
        let (mut known, mut n) = (turns(known), 0u64);
        let Arguments { port: _, proxied_port, flood, flood_addresses, .. } = &self.arguments;
        let target = match many {
            true => Target { address: ([127, 0, 0, 1], *proxied_port).into(), tls: None, ..self.target.clone() },
            false => Target { from: FLOODER, ..self.target.clone() },
        };
        let addresses = u64::from((*flood_addresses).max(1));
        // More than can wait for a hash: were they fewer, the flood would wait for its own answers and be no flood.
        at_pace(target, 256, flood / 2.0, time, || {
            n += 1;
            let request = request(TOKEN, &wrong(n, &known()));
            without_content(match many {
                true => {
                    let from = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n % addresses).unwrap_or_default());
                    request.header("x-forwarded-for", from.to_string()).header("x-forwarded-proto", "https")
                }
                false => request,
            })
        })
        .await
    }

    /// One part of the scenario.
    async fn part(&self, name: &str, flooded: bool) {
        let Arguments { seconds, guarded, warm, cold, .. } = self.arguments;
        let time = Duration::from_secs(seconds);
        let mut of_holders = turns(self.holders.clone());
        let mut of_victims = turns(self.victims.clone());
        let mut warm_keys = turns(self.holders.clone());
        let bearer = |held: Held| without_content(request(GUARDED, &held.bearer));
        say(&json!({ "begins": name }));
        let (cpu_before, target) = (cpu(), &self.target);
        let (guarded, revoked, warm, cold, rolls, one, many) = tokio::join!(
            at_pace(target.clone(), 32, guarded, time, || bearer(of_holders())),
            at_pace(target.clone(), 4, guarded / 20.0, time, || bearer(of_victims())),
            at_pace(target.clone(), 32, warm, time, || token_for(&warm_keys().key)),
            at_pace(target.clone(), 32, cold, time, || self.next_fresh().and_then(|key| token_for(&key))),
            self.roll(time),
            async { if flooded { self.flood(time, false).await } else { Tally::default() } },
            async { if flooded { self.flood(time, true).await } else { Tally::default() } },
        );
        say(&json!({
            "ends": name,
            "busy": (cpu() - cpu_before) / time.as_secs_f64(),
            "guarded": guarded.summary(),
            "revoked": revoked.summary(),
            "warm": warm.summary(),
            "cold": cold.summary(),
            "rolls": rolls.summary(),
            "flood_one": one.summary(),
            "flood_many": many.summary(),
        }));
    }
}

pub async fn run(arguments: Arguments) {
    let keys = std::fs::read_to_string(arguments.folder.join("usable.txt")).expect("keys");
    let mut fresh: VecDeque<String> = keys.lines().map(str::to_owned).collect();
    let target = Target {
        address: SocketAddr::from(([127, 0, 0, 1], arguments.port)),
        from: Ipv4Addr::LOCALHOST,
        tls: Some(tls(&arguments.folder.join("data/tls/ca.pem"))),
    };
    let victims: Vec<String> = fresh.drain(..arguments.victims).collect();
    let holders: Vec<String> = fresh.drain(..arguments.holders).collect();
    let to_roll: Vec<String> = fresh.drain(..arguments.rolled).collect();
    let victims = tokens(&target, &victims).await;
    let holders = tokens(&target, &holders).await;
    let to_roll = RefCell::new(tokens(&target, &to_roll).await.into());
    let scene = Scene { arguments, target, holders, victims, to_roll, fresh: RefCell::new(fresh) };
    // So that memory, connections and the generator itself are as they will be.
    scene.part("warm-up", false).await;
    scene.part("quiet", false).await;
    if scene.arguments.flood > 0.0 {
        scene.part("flood", true).await;
    }
}
