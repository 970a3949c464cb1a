//! `keybearer try`: plays a client from key to token to secured path, then everything that must be refused, and prints each
//! exchange. Nothing it prints is a credential, and nothing but an empty request goes out without TLS.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Uri};
use http_body_util::Empty;
use serde::Serialize;

use super::client::{Answer, CallError, Client, Trust};
use super::failure::Failure;
use super::password::{read_secret, secret_file};
use super::{Exit, Session, scrub};
use crate::groups::demo;
use crate::secret::Secret;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  keybearer try\n  \
    keybearer try https://api.example.com --key-file acme.key --path /orders\n  \
    keybearer try https://gateway:8443 --cacert data/tls/ca.pem --key-stdin < acme.key")]
pub(super) struct Args {
    /// The gateway; the one that the configuration describes when not given.
    url: Option<Uri>,
    /// A PEM file with the certificate authority to trust, beside those of the system. Without it DATA_DIR/tls/ca.pem is
    /// used when it exists.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Read the API key from a file; without one the published demo key is used.
    #[arg(long, value_name = "FILE", conflicts_with = "key_stdin")]
    key_file: Option<PathBuf>,
    /// Read the API key from standard input.
    #[arg(long)]
    key_stdin: bool,
    /// The secured path to call.
    #[arg(long, default_value = "/demo/time")]
    path: String,
}

/// One exchange and what was expected of it.
#[derive(Debug, Serialize)]
struct Step {
    title: &'static str,
    request: String,
    expected_status: u16,
    status: Option<u16>,
    ok: bool,
    /// Why it is not.
    problem: Option<String>,
    duration_ms: Option<f64>,
    #[serde(skip)]
    text: String,
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: Args) -> Result<Exit, Failure> {
    let key = key(session, &args)?;
    let (host, port) = target(session, args.url.as_ref())?;
    if !args.path.starts_with('/') {
        return Err(Failure::misuse("--path is a path on the gateway and begins with \"/\""));
    }
    let mut trust = Trust::nobody();
    trust.system();
    let own = session.config.data_dir.join("tls/ca.pem");
    match &args.cacert {
        Some(file) => trust.authorities(file)?,
        None if own.exists() => trust.authorities(&own)?,
        None => {}
    }
    let client = Client::new(&host, port, trust, LIMIT)?;
    let player = Player { authority: client.authority(), client, key, path: args.path, json: session.out.json() };
    player.play(session).await
}

/// The key to play with.
fn key(session: &mut Session<'_, '_>, args: &Args) -> Result<Secret<String>, Failure> {
    let text = if args.key_stdin {
        read_secret(&mut *session.stdin, "standard input")?
    } else if let Some(file) = &args.key_file {
        secret_file(file)?
    } else {
        return Ok(demo::key(&session.config.key_prefix).secret().clone());
    };
    let key = text.expose().trim();
    if key.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':') || key.is_empty() {
        return Err(Failure::mendable("what was given is no API key: one line with the key alone is expected"));
    }
    Ok(Secret::from(key))
}

/// Host and port of the gateway.
fn target(session: &Session<'_, '_>, url: Option<&Uri>) -> Result<(String, u16), Failure> {
    let Some(url) = url else {
        return Ok(("localhost".to_owned(), session.config.server.listen.port()));
    };
    if url.scheme_str() != Some("https") {
        return Err(Failure::misuse("the URL must begin with https://: a gateway is called over HTTPS only")
            .hint("keybearer try https://localhost:8443"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(
            Failure::misuse("credentials do not belong into a URL").hint("give the key with --key-file or --key-stdin")
        );
    }
    if url.path() != "/" || url.query().is_some() {
        return Err(Failure::misuse("the URL names the gateway alone; give the path with --path"));
    }
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, url.port_u16().unwrap_or(443)))
}

struct Player {
    client: Client,
    authority: String,
    key: Secret<String>,
    path: String,
    json: bool,
}

impl Player {
    async fn play(&self, session: &mut Session<'_, '_>) -> Result<Exit, Failure> {
        let mut steps = Vec::new();
        let (step, token) = self.token().await?;
        steps.push(step);
        self.print(session, &mut steps)?;
        let bearer = token.as_ref().map(|token| Secret::new(format!("Bearer {}", token.expose())));
        let forged = token.as_ref().map(|token| Secret::new(format!("Bearer {}", forge(token.expose()))));

        match &bearer {
            Some(bearer) => {
                let shown = "Bearer eyJ…(redacted)";
                let title = "A secured path with the token";
                steps.push(self.call(title, Some((bearer, shown)), 200, token.as_ref(), |_| None).await?);
            }
            None => steps.push(untried("A secured path with the token", 200)),
        }
        self.print(session, &mut steps)?;
        steps.push(self.call("The same path without a token", None, 401, None, needs_challenge).await?);
        self.print(session, &mut steps)?;
        match &forged {
            Some(forged) => {
                let shown = "Bearer eyJ…(the token with its signature changed)";
                let title = "The same path with a forged token";
                steps.push(self.call(title, Some((forged, shown)), 401, token.as_ref(), needs_challenge).await?);
            }
            None => steps.push(untried("The same path with a forged token", 401)),
        }
        self.print(session, &mut steps)?;
        steps.push(self.in_the_clear().await?);
        self.print(session, &mut steps)?;

        let ok = steps.iter().all(|step| step.ok);
        if self.json {
            let url = format!("https://{}", self.authority);
            session.out.document(&serde_json::json!({ "url": url, "ok": ok, "steps": steps }))?;
        } else {
            let good = steps.iter().filter(|step| step.ok).count();
            session.out.data(&format!("{good} of {} as expected", steps.len()))?;
        }
        Ok(if ok { Exit::Done } else { Exit::Failed })
    }

    /// Each exchange is printed when it is over, so that a slow one can be seen waiting.
    fn print(&self, session: &mut Session<'_, '_>, steps: &mut [Step]) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let number = steps.len();
        match steps.last() {
            Some(step) => session.out.data(&format!("{number}. {}\n{}", step.title, step.text)),
            None => Ok(()),
        }
    }

    async fn token(&self) -> Result<(Step, Option<Secret<String>>), Failure> {
        let credentials = Secret::new(format!("{}:", self.key.expose()));
        let basic = Secret::new(format!("Basic {}", STANDARD.encode(credentials.expose())));
        let shown = format!("Basic ({}, no password)", self.key_name());
        let answer = self.client.send(self.request("/token", Some(&basic))?).await;
        // Nothing further can be learnt from a gateway that is not there.
        if let Err(error) = &answer {
            return Err(Failure::mendable(error.to_string()).hint(error.what_next()));
        }
        let token = answer.as_ref().ok().and_then(|answer| {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
            let token = body.get("token")?.as_str()?;
            // What would not fit into a header is no token.
            HeaderValue::from_str(token).ok().map(|_| Secret::from(token))
        });
        let missing = token.is_none();
        let check = move |_: &Answer| missing.then(|| "the answer holds no \"token\"".to_owned());
        let title = "The key becomes a token";
        Ok((self.step(title, "https", "/token", Some(&shown), 200, answer, token.as_ref(), check), token))
    }

    async fn call(
        &self,
        title: &'static str,
        authorization: Option<(&Secret<String>, &str)>,
        expected: u16,
        token: Option<&Secret<String>>,
        check: impl Fn(&Answer) -> Option<String>,
    ) -> Result<Step, Failure> {
        let request = self.request(&self.path, authorization.map(|(value, _)| value))?;
        let answer = self.client.send(request).await;
        let shown = authorization.map(|(_, shown)| shown);
        Ok(self.step(title, "https", &self.path, shown, expected, answer, token, check))
    }

    async fn in_the_clear(&self) -> Result<Step, Failure> {
        let answer = self.client.send_in_the_clear(self.request("/token", None)?).await;
        let redirected = |answer: &Answer| {
            answer
                .headers
                .contains_key("location")
                .then(|| "it redirects, which invites credentials in the clear".into())
        };
        let title = "Plain HTTP to the same port (without credentials)";
        Ok(self.step(title, "http", "/token", None, 400, answer, None, redirected))
    }

    fn request(&self, path: &str, authorization: Option<&Secret<String>>) -> Result<Request<Empty<Bytes>>, Failure> {
        let mut request = Request::get(path).header(HOST, &self.authority).header("accept", "application/json");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value.expose());
        }
        // The cause is not shown: it could repeat a header.
        request.body(Empty::new()).map_err(|_| Failure::misuse("the path or the key does not fit into an HTTP request"))
    }

    #[allow(clippy::too_many_arguments, reason = "what was sent, what was expected and what came, of one exchange")]
    fn step(
        &self,
        title: &'static str,
        scheme: &str,
        path: &str,
        authorization: Option<&str>,
        expected: u16,
        answer: Result<Answer, CallError>,
        token: Option<&Secret<String>>,
        check: impl Fn(&Answer) -> Option<String>,
    ) -> Step {
        let request = format!("GET {scheme}://{}{path}", self.authority);
        let mut text = format!("   > {request}\n");
        if let Some(shown) = authorization {
            text.push_str(&format!("   > authorization: {shown}\n"));
        }
        let (status, problem, took) = match &answer {
            Ok(answer) => {
                text.push_str(&self.redact(&rendered(answer), token));
                let status = answer.status.as_u16();
                let problem = if status == expected { check(answer) } else { Some(format!("{expected} was expected")) };
                (Some(status), problem, Some(answer.took))
            }
            Err(error) => (None, Some(format!("{error}; {}", error.what_next())), None),
        };
        text.push_str(&match &problem {
            None => format!("   ✓ {expected}, as expected\n"),
            Some(problem) => format!("   ✗ {problem}\n"),
        });
        Step {
            title,
            request,
            expected_status: expected,
            status,
            ok: problem.is_none(),
            problem,
            duration_ms: took.map(millis),
            text,
        }
    }

    /// `kb_<id>_…`, or nothing of what does not look like a key.
    fn key_name(&self) -> String {
        scrub::key_name(self.key.expose()).map_or_else(|| "(the key)".to_owned(), |name| format!("{name}_…"))
    }

    fn redact(&self, text: &str, token: Option<&Secret<String>>) -> String {
        let text = text.replace(self.key.expose().as_str(), &self.key_name());
        // Header and claims: a token with another signature shows as much of them as the token itself.
        match token.and_then(|token| token.expose().rsplit_once('.')) {
            Some((signed, _)) => {
                let token = token.map(|token| token.expose().as_str()).unwrap_or_default();
                text.replace(token, "eyJ…(redacted)").replace(signed, "eyJ…(redacted)")
            }
            None => text,
        }
    }
}

fn untried(title: &'static str, expected: u16) -> Step {
    let problem = "not tried: there is no token".to_owned();
    Step {
        title,
        request: String::new(),
        expected_status: expected,
        status: None,
        ok: false,
        text: format!("   ✗ {problem}\n"),
        problem: Some(problem),
        duration_ms: None,
    }
}

/// A 401 without its challenge is not finished (RFC 9110 §11.6.1).
fn needs_challenge(answer: &Answer) -> Option<String> {
    let challenged = answer
        .headers
        .get(WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("Bearer"));
    (!challenged).then(|| "the answer has no \"WWW-Authenticate: Bearer\"".to_owned())
}

/// The token with one character of its signature changed: the first, of which every bit counts.
fn forge(token: &str) -> String {
    match token.rsplit_once('.') {
        Some((signed, signature)) if !signature.is_empty() => {
            let first = if signature.starts_with('A') { 'B' } else { 'A' };
            let rest: String = signature.chars().skip(1).collect();
            format!("{signed}.{first}{rest}")
        }
        _ => format!("{token}A"),
    }
}

/// Status, headers and content for people.
fn rendered(answer: &Answer) -> String {
    let reason = answer.status.canonical_reason().unwrap_or_default();
    let mut text = format!("   < {} {reason} ({:.1} ms)\n", answer.status.as_u16(), millis(answer.took));
    for (name, value) in &answer.headers {
        if !matches!(name.as_str(), "date" | "content-length" | "connection" | "vary") {
            text.push_str(&format!("   < {name}: {}\n", value.to_str().unwrap_or("(binary)")));
        }
    }
    let body = match serde_json::from_slice::<serde_json::Value>(&answer.body) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap_or_default(),
        // An answer that is no JSON is not ours; its control characters stay off the terminal.
        Err(_) => {
            String::from_utf8_lossy(&answer.body).chars().filter(|c| !c.is_control() || *c == '\n').take(2000).collect()
        }
    };
    for line in body.lines() {
        text.push_str(&format!("     {line}\n"));
    }
    text
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_differs_in_its_signature_alone() {
        assert_eq!(forge("a.b.Axyz"), "a.b.Bxyz");
        assert_eq!(forge("a.b.xyz"), "a.b.Ayz");
        assert_ne!(forge("odd"), "odd");
    }
}
