//! What a request holds of an upstream until its answer is over: its place among the requests in flight, and its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::endpoint::{Counters, Endpoint};
use super::pool::Connection;

/// A place among an upstream's requests in flight.
#[derive(Debug)]
pub(super) struct Slot(Arc<Counters>);

impl Slot {
    /// `None` when there are `most` already.
    pub fn enter(counters: &Arc<Counters>, most: usize) -> Option<Self> {
        let slot = Self(Arc::clone(counters));
        // If it is too many, dropping the slot counts it down again.
        (counters.in_flight.fetch_add(1, Ordering::AcqRel) < most).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place among an endpoint's requests in flight.
#[derive(Debug)]
pub(super) struct Visit(Arc<Endpoint>);

impl Visit {
    pub fn begin(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an exchange, or the tunnel that came of it, holds of an upstream. Dropped before the answer was read to its end, it
/// closes an HTTP/1.1 connection and resets an HTTP/2 stream.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    visit: Visit,
    _slot: Arc<Slot>,
    /// The head of the answer was a failure already.
    has_failed: bool,
}

impl Lease {
    pub(super) fn new(connection: Connection, visit: Visit, slot: Arc<Slot>) -> Self {
        Self { connection, visit, _slot: slot, has_failed: false }
    }

    /// The answer is a failure of the endpoint, though it has come.
    pub(super) fn fail(&mut self, why: &str) {
        self.has_failed = true;
        self.visit.0.failed(why);
    }

    /// The endpoint has done what it was asked.
    pub(super) fn succeeded(&self) {
        self.visit.0.succeeded();
    }

    /// The answer is over: the connection may serve the next request.
    fn end(self) {
        if !self.has_failed {
            self.succeeded();
        }
        self.visit.0.pool.give_back(self.connection);
    }

    /// The answer broke.
    fn broke(self) {
        if !self.has_failed {
            self.visit.0.failed("upstream_broke");
        }
    }
}

/// The content of an upstream's answer, passed on frame by frame, trailers included.
#[derive(Debug)]
pub struct UpstreamBody {
    content: Incoming,
    lease: Option<Lease>,
    is_tunnel: bool,
}

impl UpstreamBody {
    pub(super) fn new(content: Incoming, lease: Lease, is_tunnel: bool) -> Self {
        let mut body = Self { content, lease: Some(lease), is_tunnel };
        if body.content.is_end_stream() {
            body.ended();
        }
        body
    }

    /// What is to be held while a tunnel lives that came of a 101 answer. With any other answer it is `None` once the
    /// content is over.
    pub fn into_lease(self) -> Option<Lease> {
        self.lease
    }

    fn ended(&mut self) {
        if !self.is_tunnel
            && let Some(lease) = self.lease.take()
        {
            lease.end();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(cx));
        match &frame {
            // Who reads a content of known length need not ask once more after its last byte.
            Some(Ok(_)) if self.content.is_end_stream() => self.ended(),
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                if let Some(lease) = self.lease.take() {
                    lease.broke();
                }
            }
            None => self.ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
