//! How these doors refuse: problems in the plain dialect, and the errors of RFC 6749 §5.2 in OAuth's. Where one endpoint speaks
//! both, an answer has two media types.

use serde_json::{Value, json};
use utoipa::openapi::example::{Example, ExampleBuilder};

use super::schemas::OAuthError;
use crate::openapi::{Answer, BASIC_CHALLENGE, CHALLENGE, Media, NO_CACHE, NO_STORE, RETRY_AFTER, Refused, problems};
use crate::problem::Kind;

pub(super) const OAUTH_BAD_REQUEST: Refused = Refused {
    component: "OAuthBadRequest",
    status: 400,
    answer: || {
        let oauth = "The form cannot be read, a parameter is missing or doubled, or it asks for what there is not; or the \
                     request breaks a rule of HTTP, which is told as a problem.";
        let errors = [("invalid_request", "The parameter token is missing")];
        with_oauth(problems(oauth, &[(Kind::MalformedRequest, "The Host header is malformed.")]), &errors)
    },
};

pub(super) const OAUTH_UNAUTHORIZED: Refused = Refused {
    component: "OAuthUnauthorized",
    status: 401,
    answer: || {
        let answer = Answer::new("Whoever asks did not say who it is, or could not prove it.").field(&CHALLENGE);
        let errors = [
            ("invalid_client", "The client is unknown, or its credentials are wrong"),
            ("invalid_token", "The access token expired"),
        ];
        answer.field(&NO_STORE).field(&NO_CACHE).media(oauth_errors(&errors))
    },
};

pub(super) const OAUTH_TIMEOUT: Refused = Refused {
    component: "OAuthRequestTimeout",
    status: 408,
    answer: || no_store("The content did not arrive in time.", "invalid_request", "The content did not arrive in time"),
};

pub(super) const OAUTH_TOO_LARGE: Refused = Refused {
    component: "OAuthContentTooLarge",
    status: 413,
    answer: || no_store("There is too much content.", "invalid_request", "The content is too large"),
};

pub(super) const OAUTH_TOO_MANY: Refused = Refused {
    component: "OAuthTooManyRequests",
    status: 429,
    answer: || {
        let (description, code) = ("Too many failed attempts by this address or user-id.", "temporarily_unavailable");
        no_store(description, code, "Too many failed attempts").field(&RETRY_AFTER)
    },
};

pub(super) const OAUTH_UNAVAILABLE: Refused = Refused {
    component: "OAuthUnavailable",
    status: 503,
    answer: || {
        let slow = [(Kind::Unavailable, "The answer took too long. Try again in a moment.")];
        let errors = [("temporarily_unavailable", "Credentials cannot be verified now")];
        with_oauth(problems("Not now.", &slow), &errors).field(&RETRY_AFTER)
    },
};

pub(super) const TOKEN_BAD_REQUEST: Refused = Refused {
    component: "CredentialsNotSpecified",
    status: 400,
    answer: || problems(NOT_SPECIFIED, &NOT_SPECIFIED_KINDS),
};

const NOT_SPECIFIED: &str = "The username and/or the password is not specified: there is no Authorization header, or more \
    than one, or one of another scheme, or one that cannot be read.";

const NOT_SPECIFIED_KINDS: [(Kind, &str); 2] = [
    (
        Kind::CredentialsNotSpecified,
        "There is no Authorization header. Send your API key as user-id with an empty password, or a username and a password.",
    ),
    (Kind::MalformedRequest, "The Host header is malformed."),
];

const WRONG: &str = "The credentials are wrong, expired, revoked or suspended. Which of these is not said.";

pub(super) const TOKEN_UNAUTHORIZED: Refused = Refused {
    component: "InvalidCredentials",
    status: 401,
    answer: || {
        let detail = "The credentials are wrong, or are not valid any more.";
        problems(WRONG, &[(Kind::InvalidCredentials, detail)]).field(&BASIC_CHALLENGE)
    },
};

/// Of `GET`, where there is a registry of container images whose clients come too.
pub(super) const REGISTRY_BAD_REQUEST: Refused = Refused {
    component: "CredentialsOrServiceNotSpecified",
    status: 400,
    answer: || {
        let description = format!("{NOT_SPECIFIED} Or the service is another one, or a scope cannot be read.");
        problems(&description, &NOT_SPECIFIED_KINDS)
    },
};

pub(super) const REGISTRY_UNAUTHORIZED: Refused = Refused {
    component: "InvalidOrNoCredentials",
    status: 401,
    answer: || {
        let detail = "The credentials are wrong, or are not valid any more.";
        let description = format!("{WRONG} Or there are none, where there is a service or a scope.");
        problems(&description, &[(Kind::InvalidCredentials, detail)]).field(&BASIC_CHALLENGE)
    },
};

const TOO_MANY: &str = "Too many failed attempts by this address or user-id, or too many demo tokens for this address. \
    Credentials that were verified a moment ago are never refused so.";

const TOO_MANY_KINDS: [(Kind, &str); 1] = [(
    Kind::TooManyRequests,
    "Too many failed attempts from this address or for this user-id. Wait before trying again.",
)];

pub(super) const TOKEN_TOO_MANY: Refused = Refused {
    component: "TooManyAttempts",
    status: 429,
    answer: || problems(TOO_MANY, &TOO_MANY_KINDS).field(&RETRY_AFTER),
};

pub(super) const TOKEN_UNAVAILABLE: Refused = Refused {
    component: "CredentialsUnverifiable",
    status: 503,
    answer: || {
        let busy = "Too many credentials are being verified now. Try again in a moment.";
        problems("Credentials cannot be verified now.", &[(Kind::Unavailable, busy)]).field(&RETRY_AFTER)
    },
};

/// Both dialects of `POST /token`, one answer for each status.
pub(super) const TOKEN_FORM: [Refused; 4] = [
    Refused {
        component: "TokenBadRequest",
        status: 400,
        answer: || {
            let errors = [
                ("unsupported_grant_type", "The only grant here is client_credentials"),
                ("invalid_scope", "The scope is malformed, or asks for what these credentials do not have"),
                ("invalid_request", "A parameter is in the form more than once"),
            ];
            with_oauth(problems(NOT_SPECIFIED, &NOT_SPECIFIED_KINDS), &errors)
        },
    },
    Refused {
        component: "TokenUnauthorized",
        status: 401,
        answer: || {
            let detail = "The credentials are wrong, or are not valid any more.";
            let plain = problems(WRONG, &[(Kind::InvalidCredentials, detail)]).field(&BASIC_CHALLENGE);
            with_oauth(plain, &[("invalid_client", "The client is unknown, or its credentials are wrong")])
        },
    },
    Refused {
        component: "TokenTooManyRequests",
        status: 429,
        answer: || {
            let plain = problems(TOO_MANY, &TOO_MANY_KINDS).field(&RETRY_AFTER);
            with_oauth(plain, &[("temporarily_unavailable", "Too many failed attempts")])
        },
    },
    Refused {
        component: "TokenUnavailable",
        status: 503,
        answer: || {
            let busy = "Too many credentials are being verified now. Try again in a moment.";
            let plain = problems("Credentials cannot be verified now.", &[(Kind::Unavailable, busy)]);
            let errors = [("temporarily_unavailable", "Too many credentials are being verified now")];
            with_oauth(plain.field(&RETRY_AFTER), &errors)
        },
    },
];

pub(super) const OAUTH_INTERNAL: Refused = Refused {
    component: "OAuthInternalError",
    status: 500,
    answer: || {
        let failed = [(Kind::Internal, "The request could not be handled. It was logged.")];
        let description =
            "The gateway failed. Nothing of the inside is told; the log has it under the request's number.";
        with_oauth(problems(description, &failed), &[("server_error", "The token could not be signed")])
    },
};

fn no_store(description: &str, code: &str, said: &str) -> Answer {
    Answer::new(description).field(&NO_STORE).field(&NO_CACHE).media(oauth_errors(&[(code, said)]))
}

fn with_oauth(answer: Answer, errors: &[(&str, &str)]) -> Answer {
    answer.media(oauth_errors(errors))
}

fn oauth_errors(errors: &[(&str, &str)]) -> Media {
    let example = |(code, description): &(&str, &str)| -> (String, Example) {
        let value = json!({ "error": code, "error_description": description });
        ((*code).to_owned(), ExampleBuilder::new().summary(*code).value(Some(value)).build())
    };
    Media::json::<OAuthError>(Value::Null).examples(errors.iter().map(example))
}
