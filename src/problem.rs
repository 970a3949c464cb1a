//! Problem details (RFC 9457): the one table from what went wrong to status, title and type.
//!
//! The outside text is fixed per kind, so that nothing of the inside can leave by an error body.

use serde::Serialize;

/// Everything a client can be told went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request breaks a rule of HTTP or of this gateway.
    MalformedRequest,
    /// The username and/or the password was not specified (CONTRACT §1).
    CredentialsNotSpecified,
    /// The username and/or the password is wrong.
    InvalidCredentials,
    /// No access token was presented.
    MissingToken,
    /// The access token is not valid (any more).
    InvalidToken,
    /// The access token does not reach this resource.
    InsufficientScope,
    /// Whoever asks may not ask this.
    Forbidden,
    /// There is nothing here.
    NotFound,
    /// The resource does not know this method.
    MethodNotAllowed,
    /// The request took too long to arrive.
    RequestTimeout,
    /// The present state of what is asked for does not allow it.
    Conflict,
    /// The content is larger than allowed.
    ContentTooLarge,
    /// The header section is larger than allowed.
    HeadersTooLarge,
    /// The request came over plain HTTP.
    HttpsRequired,
    /// Too many failed attempts, or too many requests in the Demo group.
    TooManyRequests,
    /// A plan's limit is reached.
    QuotaExceeded,
    /// The gateway failed.
    Internal,
    /// The gateway cannot answer now.
    Unavailable,
    /// The upstream gave no answer that could be passed on.
    BadGateway,
    /// The upstream gave no answer in time.
    GatewayTimeout,
    /// The request has come by here before.
    LoopDetected,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::MalformedRequest,
        Self::CredentialsNotSpecified,
        Self::InvalidCredentials,
        Self::MissingToken,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::ContentTooLarge,
        Self::HeadersTooLarge,
        Self::HttpsRequired,
        Self::TooManyRequests,
        Self::QuotaExceeded,
        Self::Internal,
        Self::Unavailable,
        Self::BadGateway,
        Self::GatewayTimeout,
        Self::LoopDetected,
    ];

    /// HTTP status (RFC 9110 §15).
    pub const fn status(self) -> u16 {
        match self {
            Self::MalformedRequest | Self::CredentialsNotSpecified | Self::HttpsRequired => 400,
            Self::InvalidCredentials | Self::MissingToken | Self::InvalidToken => 401,
            Self::InsufficientScope | Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::ContentTooLarge => 413,
            Self::TooManyRequests | Self::QuotaExceeded => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::GatewayTimeout => 504,
            Self::LoopDetected => 508,
        }
    }

    /// The stable word: last part of the type URI, reason in logs, label in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed-request",
            Self::CredentialsNotSpecified => "credentials-not-specified",
            Self::InvalidCredentials => "invalid-credentials",
            Self::MissingToken => "missing-token",
            Self::InvalidToken => "invalid-token",
            Self::InsufficientScope => "insufficient-scope",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::Conflict => "conflict",
            Self::ContentTooLarge => "content-too-large",
            Self::HeadersTooLarge => "headers-too-large",
            Self::HttpsRequired => "https-required",
            Self::TooManyRequests => "too-many-requests",
            Self::QuotaExceeded => "quota-exceeded",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::BadGateway => "bad-gateway",
            Self::GatewayTimeout => "gateway-timeout",
            Self::LoopDetected => "loop-detected",
        }
    }

    /// `title`: the same for every occurrence (RFC 9457 §3.1.3).
    pub const fn title(self) -> &'static str {
        match self {
            Self::MalformedRequest => "Malformed request",
            Self::CredentialsNotSpecified => "Username and/or password not specified",
            Self::InvalidCredentials => "Invalid credentials",
            Self::MissingToken => "Access token required",
            Self::InvalidToken => "Invalid access token",
            Self::InsufficientScope => "Licence required",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RequestTimeout => "Request timed out",
            Self::Conflict => "Conflict",
            Self::ContentTooLarge => "Content too large",
            Self::HeadersTooLarge => "Header section too large",
            Self::HttpsRequired => "HTTPS required",
            Self::TooManyRequests => "Too many requests",
            Self::QuotaExceeded => "Quota exceeded",
            Self::Internal => "Internal error",
            Self::Unavailable => "Temporarily unavailable",
            Self::BadGateway => "Bad gateway",
            Self::GatewayTimeout => "Gateway timeout",
            Self::LoopDetected => "Loop detected",
        }
    }
}

/// An error in the way of the distribution project's specification, for clients that read no problem details.
#[derive(Debug, Clone, Serialize)]
struct RegistryError {
    code: &'static str,
    message: String,
}

/// Which policy's quota is used up.
#[derive(Debug, Clone, Serialize)]
pub struct Violated {
    /// The policies, by their names in `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    #[serde(rename = "violated-policies")]
    pub policies: Vec<String>,
    /// The limit in words.
    pub limit: String,
    /// Who counts it together: "this gateway" or "all gateways".
    pub scope: &'static str,
}

/// A problem details object (RFC 9457 §3).
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The group that a licence would have to grant (extension member, on 403 alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_group: Option<String>,
    /// Whom to write to for a licence (extension member, on 403 alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<String>,
    /// Which policy's quota is used up, and where it is counted (extension members, on 429 alone).
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    violated: Option<Violated>,
    /// The same for clients of a registry (extension member, at the token endpoint alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[RegistryError; 1]>,
}

impl Problem {
    /// A problem of `kind`; `detail` says what to do next and nothing of the inside.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("urn:keybearer:problem:{}", kind.word()),
            title: kind.title(),
            status: kind.status(),
            detail: detail.into(),
            instance: None,
            missing_group: None,
            contact: None,
            violated: None,
            errors: None,
        }
    }

    /// Says it once more in the way that clients of a registry read.
    pub fn for_registry_clients(mut self) -> Self {
        let code = match self.status {
            401 => "UNAUTHORIZED",
            429 => "TOOMANYREQUESTS",
            503 => "UNAVAILABLE",
            _ => "UNKNOWN",
        };
        self.errors = Some([RegistryError { code, message: self.detail.clone() }]);
        self
    }

    /// With the status that it is answered with, where that is not its kind's (RFC 9457 §3.1.2: they must be the same).
    pub fn answered_as(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Names the request this happened to.
    pub fn instance(mut self, request: impl std::fmt::Display) -> Self {
        self.instance = Some(format!("urn:keybearer:request:{request}"));
        self
    }

    /// Names the group that is missing and whom to ask for it.
    pub fn licence(mut self, missing_group: Option<&str>, contact: Option<&str>) -> Self {
        self.missing_group = missing_group.map(str::to_owned);
        self.contact = contact.map(str::to_owned);
        self
    }

    /// Names the policy whose quota is used up.
    pub fn violated(mut self, violated: Violated) -> Self {
        self.violated = Some(violated);
        self
    }

    /// The JSON body, `application/problem+json`.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_all_there_are() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?}");
        }
        assert_eq!(Kind::ALL.len(), Kind::LoopDetected as usize + 1, "the last one");
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let json = Problem::new(Kind::InsufficientScope, "Ask for a licence.")
            .licence(Some("orders"), Some("sales@example.com"))
            .instance("00ff")
            .to_json();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"type":"urn:keybearer:problem:insufficient-scope","title":"Licence required","status":403,"detail":"Ask for a licence.","instance":"urn:keybearer:request:00ff","missing_group":"orders","contact":"sales@example.com"}"#
        );
    }
}
