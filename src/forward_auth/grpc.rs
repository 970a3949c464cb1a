//! Envoy's authorization service over gRPC: `envoy.service.auth.v3.Authorization/Check`.
//!
//! One unary method, framed here (gRPC over HTTP/2: five bytes before the message, the status in the trailers) and carried
//! by the gateway's own listener. A gRPC library would answer what it cannot read with an error, and an error is what Envoy
//! passes by where `failure_mode_allow` is set. Here all that can be answered with a denial is denied.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use prost::Message;

use super::messages::{
    ADD_IF_ABSENT, APPEND_IF_EXISTS_OR_ADD, Address, CheckRequest, CheckResponse, DeniedHttpResponse, Header,
    HeaderValueOption, HttpRequest, HttpStatus, OVERWRITE_IF_EXISTS_OR_ADD, OkHttpResponse, Status,
};
use super::original::{https, parse_host, parse_method, parse_target};
use super::{Error, ForwardAuth, Original, answer, decide, untrusted};
use crate::access::{DEPRECATION, RATE_LIMIT, RATE_LIMIT_POLICY, SUNSET, add_notices, identity_headers};
use crate::client_addr::{Peer, TrustedProxies};
use crate::exchange::{Exchange, Refusal, Verdict};
use crate::routes::Contract;

/// The path of the one method.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The most bytes of a message. Envoy's own limit for a request's headers is 60 KiB.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The compressed flag and the length.
const PREFIX_BYTES: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Codes of `google.rpc.Code`.
const OK: u16 = 0;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const UNAUTHENTICATED: u16 = 16;

impl ForwardAuth {
    /// Answers a call of the authorization service, for an Envoy that `peer` is.
    pub async fn check(&self, exchange: &Exchange, peer: Peer, call: Request<Body>) -> Response<Body> {
        let (head, body) = call.into_parts();
        let is_grpc =
            head.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if head.method != Method::POST || !is_grpc {
            // What is no gRPC gets a status of HTTP, which a client of gRPC reads too.
            exchange.note(Verdict { reason: Some("no_grpc"), who: None });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        if head.uri.path() != CHECK {
            exchange.note(Verdict { reason: Some("unknown_method"), who: None });
            return failed(UNIMPLEMENTED, "There is no such method here.");
        }
        let trusted = self.trusted.load_full();
        if !trusted.trusts_peer(peer) {
            return answered(&denied(untrusted(), exchange));
        }
        let frame = match Limited::new(body, PREFIX_BYTES + MESSAGE_BYTES).collect().await {
            Ok(frame) => frame.to_bytes(),
            // Too large, or broken off. Of the latter nobody hears.
            Err(_) => return answered(&denied(Error::Malformed("CheckRequest").into(), exchange)),
        };
        if frame.first() == Some(&1) {
            // What it is compressed by we have not said that we read.
            exchange.note(Verdict { reason: Some("compressed_message"), who: None });
            return failed(UNIMPLEMENTED, "Only identity is an encoding here.");
        }
        let verdict = message(frame)
            .ok_or_else(|| Error::Malformed("CheckRequest").into())
            .and_then(|request| self.decide_call(&request, &trusted, exchange));
        answered(&verdict.unwrap_or_else(|refusal| denied(refusal, exchange)))
    }

    fn decide_call(
        &self,
        call: &CheckRequest,
        trusted: &TrustedProxies,
        exchange: &Exchange,
    ) -> Result<CheckResponse, Refusal> {
        let (original, fields) = read(call, trusted)?;
        let authorization = fields.one("authorization", "Authorization")?;
        let allowed = decide::decide(&self.gate, &self.refusals, exchange, &original, authorization.as_deref())?;
        let identity = identity_headers(&allowed.permit, &self.prefix, allowed.route.audience.groups());
        let mut notices = HeaderMap::new();
        add_notices(&mut notices, allowed.permit.principal());
        if let Some(admission) = exchange.admission() {
            admission.add_fields(&mut notices);
        }
        let ok = OkHttpResponse {
            response_headers_to_add: notices.iter().map(|(name, value)| beside(name, value)).collect(),
            headers: identity.iter().map(|(name, value)| overwrite(name, value)).collect(),
            headers_to_remove: fields
                .names()
                .filter(|name| answer::is_look_alike(name))
                .chain((!answer::passes_credentials(&allowed)).then_some("authorization"))
                .map(str::to_owned)
                .collect(),
        };
        exchange.granted(allowed.permit);
        Ok(CheckResponse { status: Some(Status { code: OK.into() }), ok_response: Some(ok), denied_response: None })
    }
}

/// The one message of a unary call: a flag that says it is not compressed, its length, and it.
fn message(mut frame: Bytes) -> Option<CheckRequest> {
    if frame.len() < PREFIX_BYTES || frame.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(frame.get_u32()).ok()?;
    if frame.len() != length {
        return None;
    }
    CheckRequest::decode(frame).ok()
}

/// The original request that Envoy tells of, and its header fields.
fn read<'a>(call: &'a CheckRequest, trusted: &TrustedProxies) -> Result<(Original<'a>, Fields<'a>), Error> {
    let attributes = call.attributes.as_ref().ok_or(Error::Missing("attributes"))?;
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let http = http.ok_or(Error::Missing("request.http"))?;
    let required = |name, text: &'a str| if text.is_empty() { Err(Error::Missing(name)) } else { Ok(text) };
    if !http.scheme.is_empty() {
        https("scheme", &http.scheme)?;
    }
    let original = Original::of(
        parse_method("method", required("method", &http.method)?)?,
        parse_host("host", required("host", &http.host)?)?,
        parse_target("path", required("path", &http.path)?)?,
    )?;
    let source = attributes.source.as_ref().and_then(|source| source.address.as_ref());
    let source = source_of(source.ok_or(Error::Missing("source.address"))?)?;
    let fields = Fields(http);
    let client = if trusted.trusts_peer(source) {
        let lines = fields.lines("x-forwarded-for").collect::<Vec<_>>();
        trusted.client(source.ip(), lines.iter().map(|line| String::from_utf8_lossy(line)))
    } else {
        source.ip()
    };
    Ok((Original { client, ..original }, fields))
}

/// Envoy's word for who is at the other end of its connection. That may be a proxy too, one of the trusted networks.
fn source_of(address: &Address) -> Result<Peer, Error> {
    match (&address.socket_address, address.pipe) {
        (Some(socket), None) => {
            let ip: IpAddr = socket.address.parse().map_err(|_| Error::Malformed("source.address"))?;
            Ok(Peer::Address(SocketAddr::new(ip, 0)))
        }
        (None, Some(_)) => Ok(Peer::Unix),
        _ => Err(Error::Missing("source.address")),
    }
}

/// The header fields that Envoy tells of, joined in a map or line by line.
struct Fields<'a>(&'a HttpRequest);

impl<'a> Fields<'a> {
    /// The lines of a field, by its name in lower case.
    fn lines(&self, name: &'static str) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let joined = self.0.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()));
        let raw = self.0.header_map.as_ref().map_or(&[][..], |map| &map.headers);
        let raw = raw.iter().filter(move |line| line.key == name).map(|line| {
            Cow::Borrowed(if line.raw_value.is_empty() { line.value.as_bytes() } else { &line.raw_value[..] })
        });
        joined.into_iter().chain(raw)
    }

    /// The names of all fields.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let raw = self.0.header_map.as_ref().map_or(&[][..], |map| &map.headers);
        self.0.headers.keys().map(String::as_str).chain(raw.iter().map(|line| line.key.as_str()))
    }

    /// A field that may be there once; `spelled` is for people.
    fn one(&self, name: &'static str, spelled: &'static str) -> Result<Option<Cow<'a, [u8]>>, Error> {
        let mut lines = self.lines(name);
        let line = lines.next();
        if lines.next().is_some() { Err(Error::Repeated(spelled)) } else { Ok(line) }
    }
}

/// A denial. Envoy answers its client with the status, the headers and the content that are given.
fn denied(refusal: Refusal, exchange: &Exchange) -> CheckResponse {
    // Over gRPC Envoy understands what it does over HTTP.
    let (mut head, content) = answer::refused(refusal, Contract::ExtAuthz, exchange).into_parts();
    if let Some(admission) = exchange.admission() {
        admission.add_fields(&mut head.headers);
    }
    let code = match head.status {
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
        _ => PERMISSION_DENIED,
    };
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: head.status.as_u16().into() }),
        // Whether the API's host is for HTTPS alone (RFC 6797) is for its operator to say.
        headers: head
            .headers
            .iter()
            .filter(|(name, _)| *name != STRICT_TRANSPORT_SECURITY)
            .map(|(name, value)| overwrite(name, value))
            .collect(),
        body: String::from_utf8_lossy(&content).into_owned(),
    };
    CheckResponse { status: Some(Status { code: code.into() }), denied_response: Some(denied), ok_response: None }
}

/// A field for the client, on the API's answer. What the API itself says under that name is treated as what our own upstreams
/// say: lists go on, and of what may be there once its word holds; but the older fields are the gateway's.
fn beside(name: &HeaderName, value: &HeaderValue) -> HeaderValueOption {
    let append_action = if [RATE_LIMIT, RATE_LIMIT_POLICY].contains(name) {
        APPEND_IF_EXISTS_OR_ADD
    } else if [DEPRECATION, SUNSET].contains(name) {
        ADD_IF_ABSENT
    } else {
        OVERWRITE_IF_EXISTS_OR_ADD
    };
    HeaderValueOption { append_action, ..overwrite(name, value) }
}

fn overwrite(name: &HeaderName, value: &HeaderValue) -> HeaderValueOption {
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = Header { key: name.as_str().to_owned(), value, raw_value: vec![] };
    HeaderValueOption {
        header: Some(header),
        append_action: OVERWRITE_IF_EXISTS_OR_ADD,
        // An empty identity header must overwrite a forged one.
        keep_empty_value: true,
    }
}

/// A call's answer: the message, and after it that all went well.
fn answered(message: &CheckResponse) -> Response<Body> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from(OK))]);
    let mut response = Response::new(Body::new(Unary { message: Some(frame.freeze()), trailers: Some(trailers) }));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A call that gets no message: the status is in the header section, and there is nothing after it.
fn failed(status: u16, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

/// A message and its trailers.
#[derive(Debug)]
struct Unary {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Unary {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = self.message.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests;
