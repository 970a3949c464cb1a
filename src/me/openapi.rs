//! What this door says of itself in the OpenAPI document.

#![expect(dead_code, reason = "the types are there for their schemas; answers are held against them by a test")]

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Required, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::openapi::{
    Answer, CONTENT_TOO_LARGE, Endpoint, INTERNAL, Media, NO_CACHE, NO_STORE, REQUEST_TIMEOUT, RETRY_AFTER, Refused,
    Tag, UNAVAILABLE, problems,
};
use crate::problem::Kind;
use crate::usage::By;

/// What the holder of a token has used.
#[derive(ToSchema)]
struct UsageReport {
    #[schema(max_length = 128, pattern = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$")]
    account: String,
    /// The key whose usage it is; `null` for the whole account's.
    #[schema(max_length = 64, pattern = r"^[A-Za-z0-9_]+$", required = true)]
    key: Option<String>,
    #[schema(max_length = 32, format = DateTime)]
    since: String,
    #[schema(max_length = 32, format = DateTime)]
    until: String,
    #[schema(schema_with = by)]
    by: String,
    #[schema(max_items = 100_000)]
    usage: Vec<UsageEntry>,
    total: UsageCounts,
}

/// Counts, and under the name of `by` what they are of.
struct UsageEntry;

impl ToSchema for UsageEntry {
    fn name() -> Cow<'static, str> {
        "UsageEntry".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        UsageCounts::schemas(schemas);
    }
}

impl PartialSchema for UsageEntry {
    fn schema() -> RefOr<Schema> {
        let mut schema = UsageCounts::schema();
        if let RefOr::T(Schema::Object(entry)) = &mut schema {
            entry.description = Some("Counts, and under the name of `by` what they are of.".into());
            entry.properties.extend(By::ALL.map(|by| (by.word().to_owned(), label().into())));
        }
        schema
    }
}

#[derive(ToSchema)]
struct UsageCounts {
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, format = Int64)]
    requests: u64,
    /// Of content, to the API.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, format = Int64)]
    bytes_in: u64,
    /// Of content, from the API.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, format = Int64)]
    bytes_out: u64,
    latency_ms: Latency,
}

/// Milliseconds to the head of the answer, as the bound of a bucket; `null` without requests, and beyond the last bound.
#[derive(ToSchema)]
struct Latency {
    #[schema(minimum = 0, maximum = 32_768, format = Int32, required = true)]
    p50: Option<u32>,
    #[schema(minimum = 0, maximum = 32_768, format = Int32, required = true)]
    p95: Option<u32>,
    #[schema(minimum = 0, maximum = 32_768, format = Int32, required = true)]
    p99: Option<u32>,
}

/// A label; `null` for none.
fn label() -> Schema {
    let types = SchemaType::Array(vec![Type::Null, Type::String]);
    ObjectBuilder::new().schema_type(types).max_length(Some(160)).pattern(Some("^.+$")).build().into()
}

/// What usage can be told apart by.
fn by() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(By::ALL.map(By::word))).build()
}

/// `GET /me/usage`
pub fn usage(path: &str) -> Endpoint {
    let counts = json!({
        "requests": 1204, "bytes_in": 0, "bytes_out": 48_160, "latency_ms": { "p50": 2, "p95": 8, "p99": 16 },
    });
    let mut entry = counts.clone();
    entry["day"] = "2026-01-01".into();
    let example = json!({
        "account": "acme", "key": "kb_0123456789ab", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z",
        "by": "day", "usage": [entry], "total": counts,
    });
    let text =
        |pattern: &str| ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).max_length(Some(40));
    let instant =
        || text(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2}))?$").build();
    Endpoint::get(path, Tag::Resources, "getMyUsage")
        .says(
            "What the token's holder has used",
            "A key's token sees what that key has used, a password's the whole account. By hour it is 31 days at most.",
        )
        .parameter(parameter("since", "From this day or instant on, UTC; to the hour.", instant()))
        .parameter(parameter("until", "Up to this day or instant; now, when it is left out.", instant()))
        .parameter(parameter("by", "How it is told apart; by day, when it is left out.", by()))
        .answers(200, Answer::new("The usage.").field(&NO_STORE).media(Media::json::<UsageReport>(example)))
        .refuses([&UNAVAILABLE])
}

/// How a key is to be rolled, and what proves that whoever asks is its holder: one of `api_key` and `password`.
#[derive(ToSchema)]
struct RollRequest {
    /// The key that is to be rolled, whole.
    #[schema(max_length = 128, pattern = r"^[A-Za-z0-9_]+$")]
    api_key: Option<String>,
    /// The account's password.
    #[schema(max_length = 1024, format = Password)]
    password: Option<String>,
    /// For how long the old secret goes on, as in `90m`, `24h` or `7d`; `0` ends it at once, with its tokens.
    #[schema(max_length = 20, pattern = r"^[0-9]+(ms|s|m|h|d)?$")]
    grace: Option<String>,
    /// Where the grace is counted from.
    start: Option<GraceStart>,
}

#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
enum GraceStart {
    FirstUse,
    Now,
}

/// A key with its new secret. It is told this once.
#[derive(ToSchema)]
struct RolledKey {
    #[schema(max_length = 128, pattern = r"^[A-Za-z0-9_]+$")]
    api_key: String,
    /// Its name, which stays.
    #[schema(max_length = 64, pattern = r"^[A-Za-z0-9_]+$")]
    key: String,
    old_secret: RolledSecret,
}

/// Either it is known when it ends, or for how long it goes on once the new one is used.
#[derive(ToSchema)]
struct RolledSecret {
    #[schema(max_length = 32, format = DateTime, required = true)]
    ends_at: Option<String>,
    #[schema(minimum = 0, maximum = 2_592_000, format = Int64, required = true)]
    grace_seconds: Option<u64>,
}

const NOT_YOURS: Refused = Refused {
    component: "NotYourKey",
    status: 404,
    answer: || problems("Of the account there is no such key.", &[(Kind::NotFound, "You have no such key.")]),
};

const NOT_NOW: Refused = Refused {
    component: "KeyConflict",
    status: 409,
    answer: || {
        let detail = "The key was rolled before, and its old secret works until 2026-01-02T00:00:00Z.";
        problems("The last roll is not over, or the key is suspended, expired or revoked.", &[(Kind::Conflict, detail)])
    },
};

const TOO_OFTEN: Refused = Refused {
    component: "TooManyRolls",
    status: 429,
    answer: || {
        let detail = "The keys of this account were rolled too often. Wait before the next one.";
        problems("Too many rolls, or too many failed proofs.", &[(Kind::TooManyRequests, detail)]).field(&RETRY_AFTER)
    },
};

/// `POST /me/keys/{id}/roll`
pub fn roll(path: &str) -> Endpoint {
    let request = json!({ "api_key": "kb_0123456789ab_0000000000000000000000", "grace": "24h", "start": "first-use" });
    let answer = json!({
        "api_key": "kb_0123456789ab_0000000000000000000000", "key": "kb_0123456789ab",
        "old_secret": { "ends_at": null, "grace_seconds": 86_400 },
    });
    let id = ObjectBuilder::new().schema_type(Type::String).max_length(Some(64)).pattern(Some(r"^[A-Za-z0-9_]+$"));
    let id = ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The key's name, as in `kb_0123456789ab`."))
        .schema(Some(id.build()))
        .build();
    Endpoint::post(path, Tag::Resources, "rollMyKey")
        .says(
            "Give a key a new secret",
            "The old one goes on working for a grace. A key's token rolls that very key, a password's any of the account. The \
             content proves that the sender has the key or the password: a token alone is not enough.",
        )
        .parameter(id)
        .takes("How, and the proof.", true, [Media::json::<RollRequest>(request)])
        .answers(200, Answer::new("The key.").field(&NO_STORE).field(&NO_CACHE).media(Media::json::<RolledKey>(answer)))
        .refuses([&NOT_YOURS, &REQUEST_TIMEOUT, &NOT_NOW, &CONTENT_TOO_LARGE, &TOO_OFTEN, &INTERNAL, &UNAVAILABLE])
}

fn parameter(name: &str, description: &str, schema: Object) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}
