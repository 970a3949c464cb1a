//! A tunnel: an upgraded client and an upgraded upstream, joined until one of them ends, nothing moves, or the token that
//! opened it ends (RFC 9110 §7.8; for WebSocket RFC 6455 §7).
//!
//! Bytes pass as they are. A WebSocket's frames are followed so far that a Close can be put between two of them: the client
//! then learns why it was cut off, which a connection that just breaks does not tell. Knows nothing of tokens; when one
//! ends, it is told.

mod way;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::websocket::{close_frame, code};
use crate::random;

use way::{Copied, Way};

/// How long a frame under way may take to come to its end, after which a Close can be sent.
const FRAME_WITHIN: Duration = Duration::from_secs(5);

/// The same when its token was revoked. A frame may be as long as its sender likes, and a revocation is in force within a second.
const REVOKED_FRAME_WITHIN: Duration = Duration::from_millis(500);

/// How long the other ends may take to answer a Close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How long taking leave of a connection may take; TLS has something to say even then.
const SHUT_WITHIN: Duration = Duration::from_secs(2);

/// What is spoken in a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket, over HTTP/1.1 or HTTP/2.
    WebSocket,
    /// Anything else: it is cut when it has to end.
    Other,
}

/// Why a tunnel must end though neither side wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its token has expired.
    Expired,
    /// Its token was revoked.
    Revoked,
    /// The gateway ends.
    Shutdown,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both sides had said all.
    Closed,
    /// The client's connection broke.
    ClientLost,
    /// The upstream's connection broke.
    UpstreamLost,
    /// Nothing moved for too long.
    Idle,
    /// It had to.
    Ended(Ending),
}

impl Outcome {
    /// A stable word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientLost => "client_lost",
            Self::UpstreamLost => "upstream_lost",
            Self::Idle => "idle",
            Self::Ended(Ending::Expired) => "token_expired",
            Self::Ended(Ending::Revoked) => "token_revoked",
            Self::Ended(Ending::Shutdown) => "shutdown",
        }
    }

    /// What a WebSocket client is told, where it is told anything.
    fn farewell(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Closed | Self::ClientLost | Self::UpstreamLost => None,
            Self::Idle => Some((code::GOING_AWAY, "idle")),
            Self::Ended(Ending::Expired) => Some((code::TOKEN_ENDED, "token expired")),
            Self::Ended(Ending::Revoked) => Some((code::TOKEN_ENDED, "token revoked")),
            Self::Ended(Ending::Shutdown) => Some((code::GOING_AWAY, "going away")),
        }
    }
}

/// What became of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the client that the upstream took.
    pub to_upstream: u64,
    /// Bytes of the upstream that the client took.
    pub to_client: u64,
}

/// Joins `client` and `upstream`. When this returns, or is dropped, both are closed.
///
/// The end of one direction is passed on, and the other goes on. Where nothing has moved in either for `idle`, or `ended`
/// is ready, the tunnel ends: at once, or, for WebSocket, with a Close at the end of the frame that is under way in each
/// direction. That takes at most 5 s (half a second when the token was revoked), and the answers to it 2 s more.
pub async fn join<C, U, E>(client: C, upstream: U, protocol: Protocol, idle: Duration, ended: E) -> Summary
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    E: Future<Output = Ending>,
{
    let mut tunnel = Tunnel { client, upstream, onward: Way::new(protocol), homeward: Way::new(protocol) };
    let outcome = tunnel.run(idle, ended).await;
    let is_told = match outcome.farewell() {
        Some((code, reason)) if protocol == Protocol::WebSocket => {
            let within = if outcome == Outcome::Ended(Ending::Revoked) { REVOKED_FRAME_WITHIN } else { FRAME_WITHIN };
            tunnel.take_leave(code, reason, within).await;
            true
        }
        _ => false,
    };
    let Tunnel { mut client, mut upstream, onward, homeward } = tunnel;
    // One that takes nothing any more does not keep the other.
    match outcome {
        _ if is_told || outcome == Outcome::Closed => {
            let (client, upstream) = (client.shutdown(), upstream.shutdown());
            let _ = timeout(SHUT_WITHIN, async { tokio::join!(client, upstream) }).await;
        }
        // What breaks on one side breaks on the other: a TLS or HTTP/2 peer that were told of an end would take what it has
        // for the whole. So there is no shutdown here, and what was said until then goes out.
        Outcome::ClientLost | Outcome::UpstreamLost => {
            let (client, upstream) = (client.flush(), upstream.flush());
            let _ = timeout(SHUT_WITHIN, async { tokio::join!(client, upstream) }).await;
        }
        // Cut off, and that is to be noticed for the same reason.
        _ => {}
    }
    Summary { outcome, to_upstream: onward.moved(), to_client: homeward.moved() }
}

struct Tunnel<C, U> {
    client: C,
    upstream: U,
    /// Client to upstream.
    onward: Way,
    /// Upstream to client.
    homeward: Way,
}

impl<C: AsyncRead + AsyncWrite + Unpin, U: AsyncRead + AsyncWrite + Unpin> Tunnel<C, U> {
    /// Moves bytes until there is a reason to stop.
    async fn run(&mut self, idle: Duration, ended: impl Future<Output = Ending>) -> Outcome {
        // Beyond what an instant can be told of.
        let idle = idle.min(Duration::from_secs(365 * 24 * 60 * 60));
        let mut ended = pin!(ended);
        let mut alarm = pin!(sleep(idle));
        let mut last_moved = Instant::now();
        poll_fn(|cx| {
            if let Poll::Ready(ending) = ended.as_mut().poll(cx) {
                return Poll::Ready(Outcome::Ended(ending));
            }
            let before = self.onward.moved() + self.homeward.moved();
            let onward = self.onward.poll_copy(cx, &mut self.client, &mut self.upstream);
            let homeward = self.homeward.poll_copy(cx, &mut self.upstream, &mut self.client);
            match (onward, homeward) {
                (Poll::Ready(Copied::SourceLost), _) => return Poll::Ready(Outcome::ClientLost),
                (_, Poll::Ready(Copied::SourceLost)) => return Poll::Ready(Outcome::UpstreamLost),
                // A side that takes nothing any more may still have something to say, so the other direction goes on.
                (Poll::Ready(Copied::All), Poll::Ready(Copied::All)) => return Poll::Ready(Outcome::Closed),
                (Poll::Ready(_), Poll::Ready(Copied::TargetLost)) => return Poll::Ready(Outcome::ClientLost),
                (Poll::Ready(Copied::TargetLost), Poll::Ready(_)) => return Poll::Ready(Outcome::UpstreamLost),
                _ => {}
            }
            if self.onward.moved() + self.homeward.moved() > before {
                last_moved = Instant::now();
            }
            // The alarm is not set anew for every byte, but looked at when it goes off.
            while alarm.as_mut().poll(cx).is_ready() {
                if last_moved + idle <= Instant::now() {
                    return Poll::Ready(Outcome::Idle);
                }
                alarm.as_mut().reset(last_moved + idle);
            }
            Poll::Pending
        })
        .await
    }

    /// Ends both directions with a Close, after the frames under way where they end within `within`, and waits a little for
    /// the answers. What the sides still say is not passed on.
    async fn take_leave(&mut self, code: u16, reason: &str, within: Duration) {
        self.homeward.begin_close(close_frame(code, reason, None));
        self.onward.begin_close(close_frame(code::GOING_AWAY, "", Some(random::bytes())));
        let mut alarm = pin!(sleep(within));
        let mut client_is_shut = false;
        let mut is_said = false;
        poll_fn(|cx| {
            let client_answered = self.onward.poll_close(cx, &mut self.client, &mut self.upstream).is_ready();
            let upstream_answered = self.homeward.poll_close(cx, &mut self.upstream, &mut self.client).is_ready();
            // The server ends the connection first (RFC 6455 §7.1.1); a client need not wait for the upstream's answer.
            if client_answered && self.homeward.has_said_all() && !client_is_shut {
                client_is_shut = Pin::new(&mut self.client).poll_shutdown(cx).is_ready();
            }
            if client_answered && upstream_answered {
                return Poll::Ready(());
            }
            if !is_said && self.onward.has_said_all() && self.homeward.has_said_all() {
                is_said = true;
                alarm.as_mut().reset(Instant::now() + CLOSE_WITHIN);
            }
            alarm.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
