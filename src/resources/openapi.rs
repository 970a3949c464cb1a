//! What the built-in resources say of themselves in the OpenAPI document.

#![expect(
    dead_code,
    reason = "the types are there for their schemas; what is on the wire is held against them by a test"
)]

use http::Method;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

use crate::openapi::{
    Answer, CONTENT_TOO_LARGE, Endpoint, Media, NO_STORE, RATE_LIMIT, RATE_LIMIT_POLICY, REQUEST_TIMEOUT,
    TOKEN_EXAMPLE, Tag, UNAVAILABLE,
};

/// What the Demo group publishes. Neither key nor token is a secret.
#[derive(ToSchema)]
struct Demo {
    /// The group that both open, and nothing else.
    #[schema(max_length = 4, pattern = "^demo$")]
    group: String,
    /// The demo key.
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9_]+$")]
    key: String,
    /// A demo token.
    #[schema(max_length = 8192, pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]
    token: String,
    #[schema(max_length = 6, pattern = "^Bearer$")]
    token_type: String,
    /// Seconds until the token expires. It is replaced when half of its life is over.
    #[schema(minimum = 0, maximum = 2_592_000, format = Int32)]
    expires_in: u32,
    #[schema(max_length = 32, format = DateTime)]
    expires_at: String,
    /// Lines to copy.
    #[schema(max_items = 2)]
    try_it: Vec<CommandLine>,
}

/// A line for a shell.
#[derive(ToSchema)]
#[schema(max_length = 16384, pattern = "^curl ")]
struct CommandLine(String);

/// The request as it was received, credentials blanked.
#[derive(ToSchema)]
struct Echo {
    #[schema(max_length = 64, pattern = "^[!-~]+$")]
    method: String,
    #[schema(max_length = 1048576, pattern = "^/")]
    path: String,
    #[schema(max_length = 1048576, pattern = "^.*$", required)]
    query: Option<String>,
    #[schema(max_length = 8, pattern = "^HTTP/[0-9.]+$")]
    http_version: String,
    /// The client's address.
    #[schema(max_length = 45, pattern = "^[0-9a-fA-F:.]+$")]
    client: String,
    /// By their names in lower case; several lines of one name are one value with commas.
    headers: std::collections::BTreeMap<EchoHeaderName, EchoHeader>,
    content: EchoContent,
    #[schema(max_length = 16, pattern = "^[0-9a-f]{16}$")]
    request_id: String,
}

/// A header field's name.
#[derive(ToSchema)]
#[schema(max_length = 65536, pattern = "^[!-@\\[-~]+$")]
struct EchoHeaderName(String);

/// A header field's value.
#[derive(ToSchema)]
#[schema(max_length = 1048576, pattern = r"^[\s\S]*$")]
struct EchoHeader(String);

/// The content, as text or in base64, if there is any.
#[derive(ToSchema)]
struct EchoContent {
    #[schema(minimum = 0, maximum = 67_108_864, format = Int32)]
    bytes: u32,
    #[schema(max_length = 67108864, pattern = r"^[\s\S]*$")]
    text: Option<String>,
    #[schema(max_length = 89478488, pattern = "^[A-Za-z0-9+/]*={0,2}$")]
    base64: Option<String>,
}

/// The time of day.
#[derive(ToSchema)]
struct TimeOfDay {
    #[schema(max_length = 32, format = DateTime)]
    time: String,
    /// Seconds since 1970.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64, format = Int64)]
    unix: u64,
}

/// Who a token belongs to, and what it reaches.
#[derive(ToSchema)]
struct Whoami {
    #[schema(max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._@+-]*$")]
    account: String,
    credential: WhoamiCredential,
    #[schema(max_items = 1024)]
    groups: Vec<Group>,
    token: WhoamiToken,
    /// Rates that hold for it.
    #[schema(max_items = 8)]
    limits: Vec<WhoamiLimit>,
    /// What is left of the plans of its key and its licences, where they have any; in the Demo group, of what its address may.
    #[schema(max_items = 1024)]
    quotas: Option<Vec<WhoamiQuota>>,
}

/// A limit of a plan.
#[derive(ToSchema)]
struct WhoamiQuota {
    /// Its name in RateLimit-Policy.
    #[schema(max_length = 160, pattern = "^[!-~]+$", example = "pro.month")]
    policy: String,
    #[schema(max_length = 256, pattern = "^.*$", example = "1000000 requests a month")]
    limit: String,
    /// Who shares it.
    #[schema(max_length = 16, pattern = "^(key|licence|client address)$")]
    per: String,
    #[schema(minimum = 0, maximum = 999_999_999_999_999_i64, format = Int64)]
    left: u64,
    /// Seconds until there is more; null for what is limited at any time alike.
    #[schema(minimum = 0, maximum = 2_678_400, format = Int32, required)]
    resets_in: Option<u32>,
}

/// By which credential of the account the token was got.
#[derive(ToSchema)]
struct WhoamiCredential {
    r#type: CredentialKind,
    /// A key's id.
    #[schema(max_length = 12, pattern = "^[0-9A-Za-z]{12}$")]
    id: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum CredentialKind {
    Key,
    Password,
}

/// A group of resources.
#[derive(ToSchema)]
#[schema(max_length = 64, pattern = "^[a-z0-9][a-z0-9._-]*$")]
struct Group(String);

/// The token itself.
#[derive(ToSchema)]
struct WhoamiToken {
    /// Its `jti`.
    #[schema(max_length = 22, pattern = "^[A-Za-z0-9_-]{22}$")]
    id: String,
    #[schema(max_length = 32, format = DateTime)]
    issued_at: String,
    #[schema(max_length = 32, format = DateTime)]
    expires_at: String,
    /// Seconds until it expires.
    #[schema(minimum = 0, maximum = 2_592_000, format = Int32)]
    expires_in: u32,
}

/// So many in such a time.
#[derive(ToSchema)]
struct WhoamiLimit {
    #[schema(max_length = 32, pattern = "^[a-z]+$")]
    name: String,
    #[schema(max_length = 16, pattern = "^[0-9]+/[smhd]$", example = "300/m")]
    rate: String,
    #[schema(max_length = 32, pattern = "^[a-z ]+$")]
    per: String,
}

/// What the Demo group publishes; `key` is its key.
pub fn demo(path: &str, key: &str) -> Endpoint {
    let example = json!({
        "group": "demo", "key": key, "token": TOKEN_EXAMPLE, "token_type": "Bearer", "expires_in": 86_400,
        "expires_at": "2026-01-02T00:00:00Z",
        "try_it": [
            format!("curl -u '{key}:' https://api.example.com/token"),
            format!("curl -H 'Authorization: Bearer {TOKEN_EXAMPLE}' https://api.example.com/demo/time"),
        ],
    });
    Endpoint::get(path, Tag::Resources, "getDemo")
        .says(
            "The published demo key and a demo token",
            "Whoever wants to try needs nothing else: both open the Demo group, and nothing but it.",
        )
        .answers(200, Answer::new("Key and token.").field(&NO_STORE).media(Media::json::<Demo>(example)))
}

/// Who a token belongs to.
pub fn whoami(path: &str) -> Endpoint {
    let example = json!({
        "account": "acme", "credential": { "type": "key", "id": "0123456789ab" }, "groups": ["orders"],
        "token": {
            "id": "t5rWcX0oQm2yZk8uVb4nLA", "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T01:00:00Z",
            "expires_in": 3600,
        },
        "limits": [],
    });
    Endpoint::get(path, Tag::Resources, "whoami")
        .says(
            "Who the token belongs to",
            "Account, credential and groups of the token, when it ends, and what is left of what it may use. Any valid token will do.",
        )
        .answers(200, bounded(Answer::new("Who it is.")).media(Media::json::<Whoami>(example)))
}

/// The time of day.
pub fn time(path: &str) -> Endpoint {
    let example = json!({ "time": "2026-01-01T00:00:00Z", "unix": 1_767_225_600 });
    Endpoint::get(path, Tag::Resources, "getTime")
        .says("The time of day", "Something to call with a demo token.")
        .answers(200, bounded(Answer::new("The time.")).media(Media::json::<TimeOfDay>(example)))
}

/// The request as it was received, by each method that the document can name. Others are answered too.
pub fn echo(path: &str, body_bytes: usize) -> Vec<Endpoint> {
    let by = |method: Method, operation: &str| {
        let example = json!({
            "method": method.as_str(), "path": path, "query": null, "http_version": "HTTP/2.0", "client": "203.0.113.7",
            "headers": { "accept": "*/*", "authorization": "[redacted]" }, "content": { "bytes": 0 },
            "request_id": "3a6f9c02d41be857",
        });
        let answer = bounded(Answer::new("The request."));
        let takes = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let summary = format!("The request as it was received, by {method}");
        let description = "Shows a request to whoever sent it. Credentials are blanked, wherever they stand.";
        let answer = if method == Method::HEAD { answer } else { answer.media(Media::json::<Echo>(example)) };
        let endpoint = Endpoint::new(method, path, Tag::Resources, operation).says(&summary, description);
        let endpoint = match takes {
            true => endpoint.takes("Anything, up to the gateway's limit.", false, anything(body_bytes)),
            // What comes all the same is read and shown.
            false => endpoint.refuses([&REQUEST_TIMEOUT, &CONTENT_TOO_LARGE, &UNAVAILABLE]),
        };
        endpoint.answers(200, answer)
    };
    vec![
        by(Method::GET, "echoGet"),
        by(Method::HEAD, "echoHead"),
        by(Method::POST, "echoPost"),
        by(Method::PUT, "echoPut"),
        by(Method::PATCH, "echoPatch"),
        by(Method::DELETE, "echoDelete"),
        by(Method::OPTIONS, "echoOptions"),
    ]
}

/// An answer to its caller alone, which says what bounds it where anything does.
fn bounded(answer: Answer) -> Answer {
    answer.field(&NO_STORE).field(&RATE_LIMIT_POLICY).field(&RATE_LIMIT)
}

fn anything(most: usize) -> [Media; 1] {
    let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
    let bytes = ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).max_length(Some(most)).build();
    [Media::raw("application/octet-stream", bytes)]
}
