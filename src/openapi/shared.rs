//! What endpoints have in common: header fields of answers, and refusals as problem details (RFC 9457).

use serde_json::Value;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{AdditionalProperties, KnownFormat, Schema};
use utoipa::openapi::{Array, ArrayBuilder, Object, ObjectBuilder, RefOr, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{Answer, Field, Media, Refused};
use crate::problem::{Kind, Problem, Violated};

/// What a token looks like in examples; it is none.
pub const TOKEN_EXAMPLE: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJkZW1vIn0.c2lnbmF0dXJl";

/// In every answer.
pub const REQUEST_ID: Field = Field {
    name: "X-Request-Id",
    component: "RequestId",
    description: "The request's number: it stands in the operator's log, and in the `instance` of a problem.",
    pattern: "^[0-9a-f]{16}$",
    example: "3a6f9c02d41be857",
};

/// In answers that nobody may keep.
pub const NO_STORE: Field = Field {
    name: "Cache-Control",
    component: "NoStore",
    description: "Nobody may keep this answer.",
    pattern: "^no-store$",
    example: "no-store",
};

/// The same for caches of HTTP/1.0 (RFC 6749 §5.1).
pub const NO_CACHE: Field = Field {
    name: "Pragma",
    component: "NoCache",
    description: "The same for caches of HTTP/1.0 (RFC 6749 §5.1).",
    pattern: "^no-cache$",
    example: "no-cache",
};

/// In public documents.
pub const FIVE_MINUTES: Field = Field {
    name: "Cache-Control",
    component: "FiveMinutes",
    description: "Anyone may keep this answer for five minutes.",
    pattern: "^public, max-age=[0-9]+$",
    example: "public, max-age=300",
};

/// In the document of all endpoints.
pub const ENTITY_TAG: Field = Field {
    name: "ETag",
    component: "EntityTag",
    description: "Changes when the document does (RFC 9110 §8.8.3).",
    pattern: "^\"[A-Za-z0-9_-]+\"$",
    example: "\"5Xk0pZrVbW3nTq8y\"",
};

/// How long to wait.
pub const RETRY_AFTER: Field = Field {
    name: "Retry-After",
    component: "RetryAfter",
    description: "Seconds after which it may go better (RFC 9110 §10.2.3).",
    pattern: "",
    example: "12",
};

/// What bounds a request, where a plan or the rate of the Demo group does.
pub const RATE_LIMIT_POLICY: Field = Field {
    name: "RateLimit-Policy",
    component: "RateLimitPolicy",
    description: "Where a plan bounds the request: its limits (draft-ietf-httpapi-ratelimit-headers), `q` in `w` seconds each. \
                  The rate of the Demo group is \"demo.address\".",
    pattern: "^\"[!-~]+\";q=[0-9]+",
    example: "\"pro.minute\";q=600;w=60",
};

/// What is left of it.
pub const RATE_LIMIT: Field = Field {
    name: "RateLimit",
    component: "RateLimit",
    description: "What is left of each limit of RateLimit-Policy (`r`), and the seconds until there is more (`t`).",
    pattern: "^\"[!-~]+\";r=[0-9]+",
    example: "\"pro.minute\";r=599;t=60",
};

/// What the token endpoint asks for.
pub const BASIC_CHALLENGE: Field = Field {
    name: "WWW-Authenticate",
    component: "BasicChallenge",
    description: "Which credentials are asked for (RFC 7617).",
    pattern: "^Basic ",
    example: "Basic realm=\"keybearer\", charset=\"UTF-8\"",
};

/// What guarded paths ask for.
pub const CHALLENGE: Field = Field {
    name: "WWW-Authenticate",
    component: "Challenge",
    description: "What is asked for, and what was wrong with what was presented (RFC 6750 §3). A Bearer challenge names \
                  the metadata of what it guards (RFC 9728 §5.1).",
    pattern: "^(Bearer|Basic) ",
    example: "Bearer realm=\"keybearer\", error=\"invalid_token\", error_description=\"The access token expired\"",
};

/// 400
pub const BAD_REQUEST: Refused = Refused {
    component: "BadRequest",
    status: 400,
    answer: || {
        problems(
            "The request breaks a rule of HTTP, its path could be read in two ways, or it came in the clear.",
            &[
                (Kind::MalformedRequest, "There is more than one Authorization header."),
                (Kind::HttpsRequired, "Only HTTPS is served. Whatever was sent in the clear counts as exposed."),
            ],
        )
    },
};

/// 401 to a token that is missing or no good.
pub const UNAUTHORIZED: Refused = Refused {
    component: "Unauthorized",
    status: 401,
    answer: || {
        problems(
            "No access token was presented, or it is malformed, forged, expired or revoked.",
            &[
                (Kind::MissingToken, "Send `Authorization: Bearer <token>`. The token endpoint is /token."),
                (Kind::InvalidToken, "The access token expired. Get a new one at /token."),
            ],
        )
        .field(&CHALLENGE)
    },
};

/// 403
pub const FORBIDDEN: Refused = Refused {
    component: "Forbidden",
    status: 403,
    answer: || {
        let detail = "This needs a licence for the group 'orders'. Ask the operator of this API for a licence.";
        let example = Problem::new(Kind::InsufficientScope, detail).licence(Some("orders"), None);
        let said = Answer::new("The token is good, and its groups do not reach this path.").field(&CHALLENGE);
        said.field(&NO_STORE).media(media([(Kind::InsufficientScope, example)]))
    },
};

/// 408
pub const REQUEST_TIMEOUT: Refused = Refused {
    component: "RequestTimeout",
    status: 408,
    answer: || {
        problems(
            "The content did not arrive in time.",
            &[(Kind::RequestTimeout, "The content did not arrive within 30 s.")],
        )
    },
};

/// 413
pub const CONTENT_TOO_LARGE: Refused = Refused {
    component: "ContentTooLarge",
    status: 413,
    answer: || problems("There is too much content.", &[(Kind::ContentTooLarge, "The content may have 65536 bytes.")]),
};

/// 429
pub const TOO_MANY_REQUESTS: Refused = Refused {
    component: "TooManyRequests",
    status: 429,
    answer: || {
        let quota = "The plan allows 600 requests a minute (pro.minute), and that is used up. Wait as long as Retry-After says, \
                     or ask the operator for more.";
        let violated = Violated {
            policies: vec!["pro.minute".to_owned()],
            limit: "600 requests a minute".to_owned(),
            scope: "all gateways",
        };
        let demo =
            "Too many requests in the Demo group from this address (demo.address). Wait, or ask for a key of your own.";
        let all = [
            (Kind::TooManyRequests, Problem::new(Kind::TooManyRequests, demo)),
            (Kind::QuotaExceeded, Problem::new(Kind::QuotaExceeded, quota).violated(violated)),
        ];
        Answer::new("A plan's quota is used up, or there are too many requests in the Demo group from this address.")
            .field(&NO_STORE)
            .field(&RETRY_AFTER)
            .field(&RATE_LIMIT_POLICY)
            .field(&RATE_LIMIT)
            .media(media(all))
    },
};

/// 431
pub const HEADERS_TOO_LARGE: Refused = Refused {
    component: "HeadersTooLarge",
    status: 431,
    answer: || {
        problems(
            "Path and header fields are too large.",
            &[(Kind::HeadersTooLarge, "Path and header fields may have 32768 bytes together.")],
        )
    },
};

/// 500
pub const INTERNAL: Refused = Refused {
    component: "InternalError",
    status: 500,
    answer: || {
        problems(
            "The gateway failed. Nothing of the inside is told; the log has it under the request's number.",
            &[(Kind::Internal, "The request could not be handled. It was logged.")],
        )
    },
};

/// 503
pub const UNAVAILABLE: Refused = Refused {
    component: "Unavailable",
    status: 503,
    answer: || {
        problems("Not now.", &[(Kind::Unavailable, "The answer took too long. Try again in a moment.")])
            .field(&RETRY_AFTER)
    },
};

/// A refusal by one of these problems.
pub fn problems(description: &str, all: &[(Kind, &str)]) -> Answer {
    let all = all.iter().map(|(kind, detail)| (*kind, Problem::new(*kind, *detail)));
    Answer::new(description).field(&NO_STORE).media(media(all))
}

fn media(all: impl IntoIterator<Item = (Kind, Problem)>) -> Media {
    let examples = all.into_iter().map(|(kind, problem)| {
        let value = serde_json::to_value(problem.instance(REQUEST_ID.example)).unwrap_or_default();
        let example = ExampleBuilder::new().summary(kind.title()).value(Some(value)).build();
        (kind.word().to_owned(), example)
    });
    Media::of::<ProblemDetails>("application/problem+json", Value::Null).examples(examples)
}

/// What [`Problem`] is on the wire.
struct ProblemDetails;

impl ToSchema for ProblemDetails {
    fn name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }
}

impl PartialSchema for ProblemDetails {
    fn schema() -> RefOr<Schema> {
        let types = Kind::ALL.map(|kind| format!("urn:keybearer:problem:{}", kind.word()));
        let titles = Kind::ALL.map(Kind::title);
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types));
        let title = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(titles));
        let status = integer(400, 599);
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Problem details (RFC 9457)."))
            .property("type", kind.description(Some("What went wrong, for programs.")))
            .property("title", title.description(Some("What went wrong, for people.")))
            .property("status", status)
            .property("detail", text(2048, "^.*$", "What to do about it."))
            .property("instance", text(64, "^urn:keybearer:request:[0-9a-f]{16}$", "The request this happened to."))
            .property(
                "missing_group",
                text(64, "^[a-z0-9][a-z0-9._-]*$", "The group that a licence would have to grant."),
            )
            .property("contact", text(256, "^.*$", "Whom to write to for a licence."))
            .property("violated-policies", violated_policies())
            .property("limit", text(256, "^.*$", "The limit that is reached."))
            .property("scope", text(16, "^(all gateways|this gateway)$", "Who counts it together."))
            .property("errors", registry_errors())
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .required("instance")
            .into()
    }
}

/// The policies whose quota is used up.
fn violated_policies() -> Array {
    let description = "The policies whose quota is used up, by their names in RateLimit-Policy.";
    let policy = text(160, "^[!-~]+$", "A policy.");
    ArrayBuilder::new().items(policy).min_items(Some(1)).max_items(Some(1)).description(Some(description)).build()
}

/// What clients of a registry of container images read in place of the rest.
fn registry_errors() -> Array {
    let error = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("code", text(64, "^[A-Z]+$", "What went wrong, for programs."))
        .property("message", text(2048, "^.*$", "What to do about it."))
        .required("code")
        .required("message")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let description =
        "The same, as the distribution project has it: to clients of a registry of container images alone.";
    ArrayBuilder::new().items(error).min_items(Some(1)).max_items(Some(1)).description(Some(description)).build()
}

fn text(longest: usize, pattern: &str, description: &str) -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(longest)).pattern(Some(pattern));
    text.description(Some(description)).build()
}

fn integer(least: u32, most: u32) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(least))
        .maximum(Some(most))
        .build()
}

/// Whole seconds, up to a day.
pub(super) fn seconds() -> Object {
    integer(0, 86_400)
}
