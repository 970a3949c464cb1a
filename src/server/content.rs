//! Content on its way through the outermost layer, in both directions: counted as usage, and an answer's watched until its last
//! byte was handed over.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::connection::InFlight;
use crate::exchange::{Meter, UnderWay};

/// How much content a frame has.
fn bytes_of<E>(frame: &Poll<Option<Result<http_body::Frame<Bytes>, E>>>) -> Option<usize> {
    match frame {
        Poll::Ready(Some(Ok(frame))) => frame.data_ref().map(Bytes::len),
        _ => None,
    }
}

pin_project! {
    /// A request's body, counted as it arrives.
    #[derive(Debug)]
    pub struct Arriving {
        #[pin]
        pub body: Incoming,
        pub meter: Meter,
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Some(bytes) = bytes_of(&frame) {
            this.meter.received(bytes);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// An answer's body, which keeps its request in flight until its last byte was handed over.
    #[derive(Debug)]
    pub struct Tracked {
        #[pin]
        pub body: Body,
        pub in_flight: Option<InFlight>,
        pub meter: Option<Meter>,
        pub under_way: Option<UnderWay>,
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let mut this = self.project();
        let frame = this.body.as_mut().poll_frame(cx);
        if let (Some(meter), Some(bytes)) = (this.meter, bytes_of(&frame)) {
            meter.sent(bytes);
        }
        // Before its last byte is on its way: whoever has read all of it may ask for the next one.
        if this.under_way.is_some() && (matches!(frame, Poll::Ready(None | Some(Err(_)))) || this.body.is_end_stream())
        {
            *this.under_way = None;
        }
        if let Some(in_flight) = this.in_flight {
            match &frame {
                Poll::Pending => in_flight.work(),
                Poll::Ready(_) => in_flight.rest(),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
