//! ★ §5: keys are secret, and so are passwords, tokens and private keys: nothing the gateway writes or shows has one in it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keybearer::keys::{ApiKey, KeyPrefix};
use keybearer::server::PlaintextCredentials;
use keybearer::telemetry::{Format, Sink};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::client::{Answer, BOTH, Http, basic, form_encoded};
use crate::forge;
use crate::gateway::{SAMPLE, TestGateway};
use crate::wire::Wire;

/// Whether this test runs: the subscriber is one for the whole process.
static LISTENING: AtomicBool = AtomicBool::new(false);

/// Whatever is written, in memory.
#[derive(Debug, Clone, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);

impl Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Shelf {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Shelf {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

/// What must be nowhere, by name.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, what: &str, secret: impl Into<String>) {
        let secret = secret.into();
        assert!(secret.len() >= 8, "{what} is long enough not to occur by chance");
        self.0.push((what.into(), secret));
    }

    fn add_key(&mut self, what: &str, key: &ApiKey) {
        let text = key.secret().expose();
        self.add(what, text);
        self.add(&format!("the secret half of {what}"), &text[16..]);
        self.add(&format!("{what} in Basic"), &basic(text, "")[6..]);
    }

    fn add_token(&mut self, what: &str, token: &str) {
        let parts: Vec<&str> = token.split('.').collect();
        self.add(&format!("the claims of {what}"), parts[1]);
        self.add(&format!("the signature of {what}"), parts[2]);
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for (what, secret) in &self.0 {
            let found = text.find(secret.as_str());
            let around = found.map(|at| text[..at].rsplit('\n').next().unwrap_or_default().to_owned());
            assert!(found.is_none(), "{what} is in {place}, behind {around:?}");
        }
    }
}

/// A visit by everyone: right, wrong, careless and hostile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_metric_answer_or_debug_output() {
    let (events, lines) = (Shelf::default(), Shelf::default());
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(events.clone());
    let layer = layer.with_filter(dynamic_filter_fn(|_, _| LISTENING.load(Ordering::Relaxed)));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).expect("nobody else listens");
    LISTENING.store(true, Ordering::Relaxed);

    for format in [Format::Text, Format::Json] {
        visit(format, &events, &lines).await;
    }
    LISTENING.store(false, Ordering::Relaxed);
    let (events, lines) = (events.text(), lines.text());
    for expected in ["EXPOSED", "revoked", "certificate loaded"] {
        assert!(events.contains(expected), "it was listened to: {expected}");
    }
    for expected in ["/whoami", "\"http.path\"", "reason=wrong_secret", "token_revoked"] {
        assert!(lines.contains(expected), "requests were logged: {expected}");
    }
}

async fn visit(format: Format, events: &Shelf, lines: &Shelf) {
    let sink = Sink::start(lines.clone()).expect("a thread");
    let build = TestGateway::build().sqlite().behind_proxy(&["127.0.0.0/8"]).log_to(sink.clone()).with(|config| {
        config.logging.format = format;
        config.server.plaintext_credentials = PlaintextCredentials::Revoke;
    });
    let gateway = build.start().await;
    let mut secrets = Secrets::default();
    let password = "correct horse battery staple";
    gateway.group(SAMPLE, None).await;
    gateway.account("acme", Some(password)).await;
    gateway.licence("acme", &[SAMPLE], None).await;
    let (key, exposed, proxied) = (gateway.key("acme").await, gateway.key("acme").await, gateway.key("acme").await);
    let unknown = ApiKey::generate(&KeyPrefix::default());
    for (what, key) in [
        ("the key", &key),
        ("an exposed key", &exposed),
        ("another exposed key", &proxied),
        ("an unknown key", &unknown),
    ] {
        secrets.add_key(what, key);
    }
    let id = format!("kb_{}", key.id());
    secrets.add("the password", password);
    secrets.add("the password in Basic", &basic("acme", password)[6..]);
    secrets.add("the key behind its id", &basic(&id, key.secret().expose())[6..]);
    for line in forge::ours().pem().lines().filter(|line| !line.starts_with('-')) {
        secrets.add("the signing key", line);
    }
    for entry in std::fs::read_dir(gateway.data_dir().join("tls")).expect("the folder of certificates") {
        let pem = std::fs::read_to_string(entry.expect("a file").path()).unwrap_or_default();
        if pem.contains("PRIVATE KEY") {
            for line in pem.lines().filter(|line| line.len() > 16 && !line.starts_with('-')) {
                secrets.add("a certificate's key", line);
            }
        }
    }
    let stored = gateway.store.key(key.id()).await.expect("stored").expect("the record");
    secrets.add("the key's hash", stored.hash.as_phc());
    let mut answers: Vec<Answer> = Vec::new();

    for http in BOTH {
        // The right ones; the answers hold tokens, and are the only ones that may.
        let token = gateway.token_call(&key).over(http).await.token();
        let by_password = gateway.get("/token").basic("acme", password).over(http).await.token();
        let by_id = gateway.get("/token").basic(&id, key.secret().expose()).over(http).await.token();
        for token in [&token, &by_password, &by_id] {
            secrets.add_token("a token", token);
        }
        answers.push(gateway.get("/whoami").bearer(&token).over(http).await);
        // The wrong ones: what someone mistypes is often what he uses elsewhere.
        for (user, wrong) in [
            ("acme", "wrong-password"),
            ("user-id-or-password", "x-password-x"),
            (key.secret().expose(), "with-password"),
        ] {
            secrets.add("a wrong password", wrong);
            secrets.add("a wrong pair in Basic", &basic(user, wrong)[6..]);
            answers.push(gateway.get("/token").basic(user, wrong).over(http).await);
        }
        secrets.add("a user-id that nobody has", "user-id-or-password");
        answers.push(gateway.token_call(&unknown).over(http).await);
        let mut mistyped = key.secret().expose().clone();
        mistyped.pop();
        answers.push(gateway.get("/token").basic(&mistyped, "").over(http).await);
        oauth_visit(&gateway, http, (&key, &unknown), password, &mut secrets, &mut answers).await;
        // The careless ones, who put them where they do not belong.
        for place in [
            format!("/whoami?key={}", key.secret().expose()),
            format!("/whoami?access_token={token}"),
            format!("/{}", key.secret().expose()),
            format!("/sample/{}/x", key.secret().expose()),
            format!("/sample/{token}"),
            format!("/demo/echo?key={}&t={token}", key.secret().expose()),
        ] {
            answers.push(gateway.get(&place).over(http).await);
            answers.push(gateway.get(&place).bearer(&token).over(http).await);
        }
        let careless = gateway.get("/demo/echo").bearer(&token).header("x-api-key", key.secret().expose());
        answers.push(careless.header("cookie", format!("t={token}")).header("x-t", &token).over(http).await);
        answers.push(gateway.get("/whoami").header("authorization", key.secret().expose()).over(http).await);
        answers.push(gateway.get("/token").bearer(key.secret().expose()).over(http).await);
        answers.push(
            gateway.get("/token").header("authorization", format!("Basic {}", key.secret().expose())).over(http).await,
        );
        // The hostile ones.
        let (head, signature) = token.rsplit_once('.').expect("three parts");
        answers.push(gateway.get("/whoami").bearer(format!("{head}.{}", forge::encode([0; 256]))).over(http).await);
        answers.push(gateway.get("/whoami").bearer(format!("{token}.{signature}")).over(http).await);
        answers.push(gateway.get("/whoami").bearer(&token).bearer(&token).over(http).await);
    }
    // In the clear, to both kinds of listener.
    let token = gateway.token(&key).await;
    secrets.add_token("an exposed token", &token);
    for authorization in
        [basic(exposed.secret().expose(), ""), format!("Bearer {token}"), basic("acme", "wrong-password")]
    {
        let mut wire = Wire::open_plain(&gateway).await;
        wire.send(format!("GET /token HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n")).await;
        secrets.assert_absent("an answer in the clear", &String::from_utf8_lossy(&wire.rest().await));
    }
    answers.push(gateway.by_proxy("/token").key(&proxied).header("x-forwarded-proto", "http").await);
    while gateway.metric("keybearer_revocations").await < 3.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answers.push(gateway.token_call(&exposed).await);
    answers.push(gateway.get("/whoami").bearer(&token).await);
    for path in [
        "/",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/health/ready",
        "/nothing",
    ] {
        answers.push(gateway.get(path).await);
    }
    answers.push(gateway.admin("GET", "/metrics").await);
    let shown = [
        format!("{:?} {:#?}", gateway.config, gateway.config),
        format!("{:?} {:?} {:?}", gateway.gateway, gateway.registry(), gateway.follower()),
        format!("{key:?} {:?} {stored:?} {stored:#?}", key.secret()),
        format!("{:?}", gateway.store.account(&"acme".parse().expect("a name")).await),
        format!("{:?}", gateway.store.signing_keys().await),
        format!("{:?}", forge::ours().key),
    ];
    gateway.stop(Duration::from_secs(5)).await;
    sink.flush();
    for answer in &answers {
        secrets.assert_absent("an answer", &format!("{:?} {}", answer.headers, answer.body));
    }
    for shown in &shown {
        secrets.assert_absent("Debug output", shown);
    }
    secrets.assert_absent("the log", &events.text());
    secrets.assert_absent("the request log", &lines.text());
    assert_eq!(sink.dropped(), 0, "nothing was left out");
}

/// The same at the doors that speak OAuth: right, wrong, careless and hostile. Introspection shows claims, and no token.
async fn oauth_visit(
    gateway: &TestGateway,
    http: Http,
    (key, unknown): (&ApiKey, &ApiKey),
    password: &str,
    secrets: &mut Secrets,
    answers: &mut Vec<Answer>,
) {
    let (text, id) = (key.secret().expose().as_str(), format!("kb_{}", key.id()));
    let grant = ("grant_type", "client_credentials");
    let post = |path: &str| gateway.post(path).over(http);
    let by_form = post("/token").form(&[grant, ("client_id", &id), ("client_secret", text)]).await.token();
    let encoded = form_encoded(password);
    secrets.add("the encoded password", &encoded);
    secrets.add("the encoded password in Basic", &basic("acme", &encoded)[6..]);
    let by_password = post("/token").form(&[grant, ("scope", SAMPLE)]).basic("acme", &encoded).await.token();
    for token in [&by_form, &by_password] {
        secrets.add_token("a token of a form", token);
    }
    let wrong = "wrong+pass%20word";
    secrets.add("a wrong password with two readings", wrong);
    secrets.add("its other reading", "wrong pass word");
    for path in ["/token", "/introspect", "/revoke"] {
        let form = |more: &[(&str, &str)]| {
            let mut form = vec![grant, ("token", by_form.as_str())];
            form.extend(more);
            post(path).form(&form)
        };
        let mut calls = vec![
            form(&[]).basic("acme", wrong),
            form(&[("client_id", "acme"), ("client_secret", wrong)]),
            form(&[("client_id", unknown.secret().expose())]),
            form(&[("client_id", text), ("client_secret", password)]),
            form(&[("client_id", &id), ("client_secret", text)]).basic("acme", password),
            form(&[("scope", text)]).bearer(&by_form),
            form(&[("client_secret", text)]),
            form(&[(text, &by_form), ("client_id", &text[..50])]),
            form(&[]).bearer(text),
            post(path).raw_form(format!("grant_type=x&grant_type=y&client_secret={text}&token={by_form}")).key(key),
            post(path).raw_form(format!("grant_type=%zz&{text}={by_form}")).basic("acme", password),
            post(&format!("{path}?client_id={id}&client_secret={text}&token={by_form}")).form(&[("grant_type", "x")]),
        ];
        if path != "/token" {
            calls.push(form(&[("token_type_hint", text)]).key(key));
        }
        if path == "/introspect" {
            calls.push(form(&[]).bearer(&by_form));
        }
        for call in calls {
            answers.push(call.await);
        }
    }
    for scope in [text, by_form.as_str(), password] {
        answers.push(post("/token").form(&[grant, ("scope", scope)]).key(key).await);
    }
    answers.push(post("/token").form(&[("grant_type", text)]).key(key).await);
    answers.push(gateway.get("/whoami").bearer(&by_form).over(http).await);
}
