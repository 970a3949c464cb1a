//! What this door says of itself in the OpenAPI document.

#![expect(dead_code, reason = "the types are there for their schemas; answers are held against them by a test")]

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Required, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::openapi::{Answer, Endpoint, Media, NO_STORE, Tag, UNAVAILABLE};
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

fn parameter(name: &str, description: &str, schema: Object) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}
