//! What the decisions for other proxies say of themselves in the OpenAPI document. The one by gRPC has a description of its
//! own, Envoy's `external_auth.proto`.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use crate::openapi::{
    Answer, CHALLENGE, Endpoint, Field, NO_STORE, RATE_LIMIT, RATE_LIMIT_POLICY, RETRY_AFTER, Refused, Tag, problems,
    scheme,
};
use crate::problem::Kind;
use crate::routes::Contract;

const SUBJECT: Field = Field {
    name: "X-Auth-Subject",
    component: "AuthSubject",
    description: "The account.",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._@+-]*$",
    example: "acme",
};

const KEY_ID: Field = Field {
    name: "X-Auth-Key-Id",
    component: "AuthKeyId",
    description: "The API key's id; empty for a password.",
    pattern: "^[A-Za-z0-9_]*$",
    example: "kb_0123456789ab",
};

const GROUPS: Field = Field {
    name: "X-Auth-Groups",
    component: "AuthGroups",
    description: "The groups that the token reaches, those of the route first.",
    pattern: "^[a-z0-9._, -]*$",
    example: "orders",
};

const TOKEN_ID: Field = Field {
    name: "X-Auth-Token-Id",
    component: "AuthTokenId",
    description: "The token's `jti`.",
    pattern: "^[A-Za-z0-9_-]{22}$",
    example: "t5rWcX0oQm2yZk8uVb4nLA",
};

const EXPIRES: Field = Field {
    name: "X-Auth-Expires",
    component: "AuthExpires",
    description: "When the token ends, in seconds since 1970.",
    pattern: "^[0-9]+$",
    example: "1767229200",
};

const REASON: Field = Field {
    name: "X-Auth-Reason",
    component: "AuthReason",
    description: "Why, in a word.",
    pattern: "^[a-z_]+$",
    example: "token_missing",
};

const STATUS: Field = Field {
    name: "X-Auth-Status",
    component: "AuthStatus",
    description: "The status that is meant: 429. nginx can be told 401 and 403 alone.",
    pattern: "^429$",
    example: "429",
};

const UNAUTHORIZED: Refused = Refused {
    component: "DecisionUnauthorized",
    status: 401,
    answer: || {
        let detail = "Send `Authorization: Bearer <token>`. The token endpoint is /token.";
        problems("The request has no good access token.", &[(Kind::MissingToken, detail)])
            .field(&CHALLENGE)
            .field(&REASON)
    },
};

const FORBIDDEN: Refused =
    Refused { component: "DecisionForbidden", status: 403, answer: || forbidden("").field(&CHALLENGE).field(&REASON) };

/// What nginx is told in place of two.
const FORBIDDEN_OR_TOO_MANY: Refused = Refused {
    component: "DecisionForbiddenOrTooMany",
    status: 403,
    answer: || {
        let more = " Or there are too many requests, which X-Auth-Status and Retry-After then say.";
        [&CHALLENGE, &REASON, &STATUS, &RETRY_AFTER, &RATE_LIMIT_POLICY, &RATE_LIMIT]
            .into_iter()
            .fold(forbidden(more), Answer::field)
    },
};

fn forbidden(more: &str) -> Answer {
    let detail = "This needs a licence for the group 'orders'. Ask the operator of this API for a licence.";
    let description = "The token does not reach the path, there is no such route, whoever asks is not trusted, or the question \
                       does not say what was asked for.";
    problems(&format!("{description}{more}"), &[(Kind::InsufficientScope, detail)])
}

const TOO_MANY: Refused = Refused {
    component: "DecisionTooManyRequests",
    status: 429,
    answer: || {
        let detail =
            "Too many requests in the Demo group from this address (demo.address). Wait, or ask for a key of your own.";
        let quota = "The plan allows 600 requests a minute (pro.minute), and that is used up. Wait as long as Retry-After says, \
                     or ask the operator for more.";
        let all = [(Kind::TooManyRequests, detail), (Kind::QuotaExceeded, quota)];
        problems("A plan's quota is used up, or there are too many requests in the Demo group from this address.", &all)
            .field(&RATE_LIMIT_POLICY)
            .field(&RATE_LIMIT)
            .field(&RETRY_AFTER)
            .field(&REASON)
    },
};

/// The decision by one contract. It is asked for by any method; the document names the one that proxies use by default.
pub fn decision(contract: Contract) -> Endpoint {
    let (operation, who, below) = match contract {
        Contract::AuthRequest => ("decideForNginx", "nginx `auth_request`", ""),
        Contract::ForwardAuth => ("decideForTraefikAndCaddy", "Traefik `ForwardAuth` and Caddy `forward_auth`", ""),
        Contract::ExtAuthz => ("decideForEnvoy", "Envoy `ext_authz` over HTTP", "/{path}"),
        Contract::HaProxy => ("decideForHaproxy", "HAProxy, by its Lua script", ""),
    };
    let description = "Whether a request that another proxy was sent may proceed: the question says what was asked for, and \
                       has the client's own Authorization. It may come by any method, and is for the proxies that the \
                       configuration trusts.";
    let endpoint = Endpoint::get(format!("{}{below}", contract.path()), Tag::ForwardAuth, operation)
        .without([400, 431])
        .says(&format!("Decide for {who}"), description)
        .asks_for(&[scheme::BEARER])
        .answers(
            200,
            [&SUBJECT, &KEY_ID, &GROUPS, &TOKEN_ID, &EXPIRES, &NO_STORE, &RATE_LIMIT_POLICY, &RATE_LIMIT]
                .into_iter()
                .fold(Answer::new("The request may proceed, and this is whose it is."), Answer::field),
        )
        .refuses([&UNAUTHORIZED]);
    let endpoint = match contract {
        // nginx knows 401 and 403 alone.
        Contract::AuthRequest => endpoint.refuses([&FORBIDDEN_OR_TOO_MANY]),
        _ => endpoint.refuses([&FORBIDDEN, &TOO_MANY]),
    };
    parameters(contract).into_iter().fold(endpoint, Endpoint::parameter)
}

fn parameters(contract: Contract) -> Vec<Parameter> {
    let (method, uri) = match contract {
        Contract::AuthRequest | Contract::HaProxy => ("X-Original-Method", "X-Original-URI"),
        Contract::ForwardAuth => ("X-Forwarded-Method", "X-Forwarded-Uri"),
        Contract::ExtAuthz => {
            let path = parameter("path", "The original path, with its slashes.", "^.+$", "orders")
                .parameter_in(ParameterIn::Path);
            return vec![path.required(Required::True).build()];
        }
    };
    [
        (method, "The original method.", "^[A-Z]+$", "GET"),
        (uri, "The original path and query, from its first slash on.", "^[!-~]+$", "/orders/1"),
        ("X-Forwarded-Host", "The original host.", "^[A-Za-z0-9.:-]+$", "api.example.com"),
        ("X-Forwarded-Proto", "How the original request came: by `https`, or it is refused.", "^https$", "https"),
        ("X-Forwarded-For", "The client's address, behind those that it named itself.", "^.*$", "203.0.113.7"),
    ]
    .into_iter()
    .map(|(name, description, pattern, example)| {
        let parameter = parameter(name, description, pattern, example).parameter_in(ParameterIn::Header);
        parameter.required(Required::True).build()
    })
    .collect()
}

fn parameter(name: &str, description: &str, pattern: &str, example: &str) -> ParameterBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).max_length(Some(2048));
    ParameterBuilder::new()
        .name(name)
        .description(Some(description))
        .schema(Some(text.build()))
        .example(Some(example.into()))
}
