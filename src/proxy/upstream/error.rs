//! What can go wrong with an upstream: when it is set up, and when it is sent a request. Knows no status codes.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use super::connect::ConnectError;
use crate::ids::UpstreamId;

/// An upstream that cannot be set up; `Display` says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamError {
    /// Whose settings they are.
    pub upstream: UpstreamId,
    /// The file that is at fault, if one is.
    pub path: Option<PathBuf>,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream {}: ", self.upstream)?;
        if let Some(path) = &self.path {
            write!(f, "{} ", path.display())?;
        }
        f.write_str(&self.problem)
    }
}

impl StdError for UpstreamError {}

/// A request that got no answer.
#[derive(Debug)]
pub enum SendError {
    /// No target may be used: all are unhealthy, or none has an address.
    AllDown,
    /// The upstream works on as many requests as it may.
    Overloaded,
    /// No connection came about.
    Connect(ConnectError),
    /// No connection came about in time.
    ConnectTimeout,
    /// The head of the answer did not come in time.
    ResponseTimeout,
    /// The connection broke, or the stream was reset, before the head of the answer.
    Broken(hyper::Error),
    /// What the target did is not HTTP, or not what was asked for.
    Protocol(&'static str),
    /// The client's content failed while it was passed on. The target is not to blame.
    RequestBody(hyper::Error),
}

impl SendError {
    /// A stable word for logs and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::AllDown => "upstream_down",
            Self::Overloaded => "upstream_full",
            Self::Connect(_) => "upstream_connect",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::ResponseTimeout => "upstream_timeout",
            Self::Broken(error) if error.is_parse() => "upstream_protocol",
            Self::Broken(_) => "upstream_broke",
            Self::Protocol(_) => "upstream_protocol",
            Self::RequestBody(_) => "request_body",
        }
    }

    /// Whether it was the client's content that failed, not the target.
    pub fn is_request_body(&self) -> bool {
        matches!(self, Self::RequestBody(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllDown => "no target of the upstream is healthy and has an address",
            Self::Overloaded => "the upstream has as many requests in flight as it may",
            Self::Connect(_) => "no connection to the target came about",
            Self::ConnectTimeout => "no connection to the target came about in time",
            Self::ResponseTimeout => "the target did not answer in time",
            Self::Broken(_) => "the exchange with the target broke before its answer",
            Self::Protocol(what) => what,
            Self::RequestBody(_) => "the request's content failed while it was passed on",
        })
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Broken(error) | Self::RequestBody(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConnectError> for SendError {
    fn from(error: ConnectError) -> Self {
        if error.is_timeout() { Self::ConnectTimeout } else { Self::Connect(error) }
    }
}
