//! One direction of a tunnel: its copying, and its ending between two frames. Polled, because both directions share both
//! connections.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Protocol;
use crate::proxy::websocket::Frames;

/// Most bytes that are read at once, and that are kept while the target does not take them.
pub(super) const BUFFER: usize = 16 * 1024;

/// How copying in one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// With the end of the source, which was passed on.
    All,
    /// The source's connection broke.
    SourceLost,
    /// The target's connection broke.
    TargetLost,
}

/// How far the ending of one direction is.
#[derive(Debug, Clone, Copy)]
enum Closing {
    /// The frame that is under way.
    Frame,
    /// Our Close.
    Close { written: usize },
    /// The target has got all there is for it, or cannot get it. What the source says is looked through for its Close.
    Said,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    /// What the target has not taken yet. Has memory only while there is something: most tunnels wait most of the time.
    rest: Vec<u8>,
    /// Where in `rest` it begins.
    at: usize,
    passed: Passed,
    source_ended: bool,
    copied: Option<Copied>,
    closing: Closing,
    close: Vec<u8>,
}

/// What the target took.
#[derive(Debug)]
struct Passed {
    bytes: u64,
    frames: Option<Frames>,
    is_flushed: bool,
}

impl Passed {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.is_flushed = false;
        if let Some(frames) = &mut self.frames {
            frames.feed(bytes);
        }
    }

    fn poll_flush<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, target: &mut T) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            ready!(Pin::new(target).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Way {
    pub(super) fn new(protocol: Protocol) -> Self {
        let frames = (protocol == Protocol::WebSocket).then(Frames::new);
        Self {
            rest: Vec::new(),
            at: 0,
            passed: Passed { bytes: 0, frames, is_flushed: true },
            source_ended: false,
            copied: None,
            closing: Closing::Frame,
            close: Vec::new(),
        }
    }

    /// Bytes that the target took.
    pub(super) fn moved(&self) -> u64 {
        self.passed.bytes
    }

    /// Copies until the source waits, or the target does.
    pub(super) fn poll_copy<S, T>(&mut self, cx: &mut Context<'_>, source: &mut S, target: &mut T) -> Poll<Copied>
    where
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        if self.copied.is_none() {
            self.copied = Some(ready!(self.poll_copy_on(cx, source, target)));
        }
        self.copied.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_copy_on<S, T>(&mut self, cx: &mut Context<'_>, source: &mut S, target: &mut T) -> Poll<Copied>
    where
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        // On the stack, so that a tunnel that waits has no buffer; what the target does not take at once is kept in `rest`.
        let mut space = [MaybeUninit::uninit(); BUFFER];
        loop {
            while self.at < self.rest.len() {
                match ready!(poll_write(cx, target, &self.rest[self.at..])) {
                    Ok(taken) => self.rest_was_taken(taken),
                    Err(_) => return Poll::Ready(Copied::TargetLost),
                }
            }
            if self.source_ended {
                // All that was said has been taken; that there is nobody any more to hear of the end is no loss.
                let _ = ready!(Pin::new(&mut *target).poll_shutdown(cx));
                return Poll::Ready(Copied::All);
            }
            let mut read = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *source).poll_read(cx, &mut read) {
                Poll::Pending => {
                    return match ready!(self.passed.poll_flush(cx, target)) {
                        Ok(()) => Poll::Pending,
                        Err(_) => Poll::Ready(Copied::TargetLost),
                    };
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Copied::SourceLost),
                Poll::Ready(Ok(())) => {}
            }
            let mut bytes = read.filled();
            self.source_ended = bytes.is_empty();
            while !bytes.is_empty() {
                match poll_write(cx, target, bytes) {
                    Poll::Ready(Ok(taken)) => {
                        self.passed.add(&bytes[..taken]);
                        bytes = &bytes[taken..];
                    }
                    waits_or_fails => {
                        self.rest = bytes.to_vec();
                        return waits_or_fails.map(|_| Copied::TargetLost);
                    }
                }
            }
        }
    }

    fn rest_was_taken(&mut self, taken: usize) {
        self.passed.add(&self.rest[self.at..self.at + taken]);
        self.at += taken;
        if self.at == self.rest.len() {
            self.rest = Vec::new();
            self.at = 0;
        }
    }

    /// From now on [`Way::poll_close`] is to be called in place of [`Way::poll_copy`]; it writes `close`.
    pub(super) fn begin_close(&mut self, close: Vec<u8>) {
        self.close = close;
        // A target that was told of the end, or is gone, can be told nothing more.
        if self.copied.is_some() {
            self.closing = Closing::Said;
        }
    }

    pub(super) fn has_said_all(&self) -> bool {
        matches!(self.closing, Closing::Said)
    }

    /// Passes on the rest of the frame that is under way, then the Close, and looks through what the source says for a Close
    /// of its own. Ready when that was there, or can no longer come.
    pub(super) fn poll_close<S, T>(&mut self, cx: &mut Context<'_>, source: &mut S, target: &mut T) -> Poll<()>
    where
        S: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            let Some(frames) = &mut self.passed.frames else { return Poll::Ready(()) };
            match self.closing {
                Closing::Frame if frames.at_border() => {
                    // Who has said a Close says nothing more (RFC 6455 §5.5.1).
                    self.closing = if frames.closed() { Closing::Said } else { Closing::Close { written: 0 } };
                }
                Closing::Frame if self.rest.is_empty() => {
                    if let Poll::Ready(Err(_)) = self.passed.poll_flush(cx, target) {
                        self.closing = Closing::Said;
                    } else if ready!(self.poll_refill(cx, source)) {
                        // Within a frame nothing can be said.
                        self.closing = Closing::Said;
                    }
                }
                Closing::Frame => {
                    let rest = &self.rest[self.at..];
                    let in_frame = frames.clone().feed_to_border(rest);
                    match ready!(poll_write(cx, target, &rest[..in_frame])) {
                        Ok(taken) => self.rest_was_taken(taken),
                        Err(_) => self.closing = Closing::Said,
                    }
                }
                Closing::Close { written } if written < self.close.len() => {
                    self.closing = match ready!(poll_write(cx, target, &self.close[written..])) {
                        Ok(taken) => Closing::Close { written: written + taken },
                        Err(_) => Closing::Said,
                    };
                }
                Closing::Close { .. } => {
                    let _ = ready!(Pin::new(&mut *target).poll_flush(cx));
                    self.closing = Closing::Said;
                }
                Closing::Said => {
                    frames.feed(&self.rest[self.at..]);
                    self.rest = Vec::new();
                    self.at = 0;
                    if frames.closed() || self.source_ended {
                        return Poll::Ready(());
                    }
                    ready!(self.poll_refill(cx, source));
                }
            }
        }
    }

    /// Reads once, into an empty `rest`. Whether the source has ended.
    fn poll_refill<S: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, source: &mut S) -> Poll<bool> {
        let mut space = [MaybeUninit::uninit(); BUFFER];
        let mut read = ReadBuf::uninit(&mut space);
        if !self.source_ended {
            self.source_ended = ready!(Pin::new(source).poll_read(cx, &mut read)).is_err() || read.filled().is_empty();
            self.rest = read.filled().to_vec();
        }
        Poll::Ready(self.source_ended)
    }
}

/// Writes at least one byte.
fn poll_write<T: AsyncWrite + Unpin>(cx: &mut Context<'_>, target: &mut T, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(target).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(written),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    #[tokio::test]
    async fn a_direction_that_waits_keeps_no_buffer() {
        let (mut source, mut from) = duplex(1000);
        let (mut target, mut to) = duplex(10);
        let mut way = Way::new(Protocol::Other);
        source.write_all(&[1; 100]).await.unwrap();
        let step = |way: &mut Way, from: &mut DuplexStream, to: &mut DuplexStream| {
            way.poll_copy(&mut Context::from_waker(Waker::noop()), from, to)
        };
        assert!(step(&mut way, &mut from, &mut to).is_pending());
        assert_eq!(way.rest.len() - way.at, 90);
        for _ in 0..10 {
            target.read_exact(&mut [0; 10]).await.unwrap();
            assert!(step(&mut way, &mut from, &mut to).is_pending());
        }
        assert_eq!((way.rest.capacity(), way.moved()), (0, 100));
    }
}
