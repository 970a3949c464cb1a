//! What is under way: the content of requests and answers as it passes, watched so that nothing stays for ever.
//!
//! A stream can outlive its token, and either end of it can stop moving without closing. Content that waits is not polled,
//! so it cannot watch itself: [`Flows`] looks over all that is under way four times a second, and at once when a token is
//! revoked. Short answers are never put on its list.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::headers;
use super::upstream::{Pulse, UpstreamBody};
use crate::access::{Ending, Gate, Permit};
use crate::routes::TokenEnd;

/// How often all that is under way is looked over.
const EVERY: Duration = Duration::from_millis(250);

/// Why content that is under way was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing moved for too long.
    Idle,
    /// Its token expired.
    Expired,
    /// Its token was revoked.
    Revoked,
    /// The gateway ends.
    Shutdown,
}

impl Cut {
    /// A stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Expired => "token_expired",
            Self::Revoked => "token_revoked",
            Self::Shutdown => "shutdown",
        }
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "nothing moved for too long",
            Self::Expired => "its token expired",
            Self::Revoked => "its token was revoked",
            Self::Shutdown => "the gateway ends",
        })
    }
}

impl std::error::Error for Cut {}

/// What is wrong with a request's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// It is larger than the route allows.
    TooLarge,
    /// The client broke off.
    Broken,
}

/// What an exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The content of the request is on its way.
    Asking,
    /// The upstream is to answer. How long that may take is another limit's affair.
    Asked,
    /// The answer is on its way, and perhaps content of the request still.
    Answering,
}

/// One exchange's content in both directions.
#[derive(Debug)]
pub struct Flow {
    flows: Arc<Flows>,
    permit: Permit,
    token_end: TokenEnd,
    /// Nothing may move for so long.
    idle: Duration,
    /// When something last moved.
    pulse: Arc<Pulse>,
    /// The answer has no end of its own.
    is_stream: AtomicBool,
    is_listed: AtomicBool,
    /// See [`Phase`].
    phase: AtomicU8,
    /// The first reason counts.
    cut: OnceLock<Cut>,
    fault: OnceLock<UploadFault>,
    /// The request's content waits for the client.
    awaits_client: AtomicBool,
    upload: Mutex<Option<Waker>>,
    download: Mutex<Download>,
}

#[derive(Debug, Default)]
struct Download {
    body: Option<UpstreamBody>,
    waker: Option<Waker>,
}

impl Flow {
    /// Of an exchange that is let through.
    pub fn new(flows: &Arc<Flows>, permit: Permit, token_end: TokenEnd, idle: Duration) -> Arc<Self> {
        Arc::new(Self {
            flows: Arc::clone(flows),
            permit,
            token_end,
            idle,
            pulse: Arc::new(Pulse::new()),
            is_stream: AtomicBool::new(false),
            is_listed: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Asked as u8),
            cut: OnceLock::new(),
            fault: OnceLock::new(),
            awaits_client: AtomicBool::new(false),
            upload: Mutex::default(),
            download: Mutex::default(),
        })
    }

    /// When something last moved, for whoever waits for the head of the answer.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// What was wrong with the request's content, if anything was.
    pub fn upload_fault(&self) -> Option<UploadFault> {
        self.fault.get().copied()
    }

    /// Whether the request's content is waited for, and not the upstream.
    pub fn awaits_client(&self) -> bool {
        self.awaits_client.load(Ordering::Acquire)
    }

    /// Why it was cut off, if it was.
    pub fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    /// Lets go of the upstream, and wakes both directions so that they fail.
    fn end(&self, why: Cut) {
        if self.cut.set(why).is_err() {
            return;
        }
        self.flows.count_cut(why);
        self.pulse.stop();
        let Download { body, waker } = std::mem::take(&mut *lock(&self.download));
        // Outside of the lock: what is dropped here ends a connection.
        drop(body);
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(waker) = lock(&self.upload).take() {
            waker.wake();
        }
    }

    fn failed(&self, fault: UploadFault) {
        let _ = self.fault.set(fault);
        self.pulse.fail();
    }

    /// All content of the request is there.
    fn asked(&self) {
        self.awaits_client.store(false, Ordering::Release);
        self.pulse.end();
        let (asking, asked) = (Phase::Asking as u8, Phase::Asked as u8);
        let _ = self.phase.compare_exchange(asking, asked, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Has it looked over from now on.
    fn list(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            self.pulse.bump();
            self.flows.add(self);
        }
    }

    /// Whether it has to end, and why.
    fn verdict(&self, now: Instant) -> Option<Cut> {
        if self.phase.load(Ordering::Acquire) != Phase::Asked as u8
            && now.saturating_duration_since(self.pulse.last()) >= self.idle
        {
            return Some(Cut::Idle);
        }
        let is_stream = self.is_stream.load(Ordering::Acquire);
        if is_stream && self.flows.is_ending() {
            return Some(Cut::Shutdown);
        }
        let ending = match self.token_end {
            TokenEnd::Nothing => return None,
            TokenEnd::Streams | TokenEnd::Everything => self.flows.gate.ending(&self.permit, self.flows.grace)?,
        };
        match ending {
            Ending::Revoked => Some(Cut::Revoked),
            Ending::Expired => (is_stream || self.token_end == TokenEnd::Everything).then_some(Cut::Expired),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that is under way.
#[derive(Debug)]
pub struct Flows {
    gate: Arc<Gate>,
    /// How long a stream may go on after its token has expired.
    grace: Duration,
    listed: Mutex<Vec<Weak<Flow>>>,
    /// How many are off the list because they are looked over at this moment.
    taken: AtomicUsize,
    ending: AtomicBool,
    cuts: [AtomicU64; 4],
}

impl Flows {
    /// Nothing yet. Streams are given `grace` after their token has expired, and none when it is revoked.
    pub fn new(gate: Arc<Gate>, grace: Duration) -> Arc<Self> {
        let (listed, ending) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { gate, grace, listed, taken: AtomicUsize::new(0), ending, cuts: Default::default() })
    }

    fn add(&self, flow: &Arc<Flow>) {
        lock(&self.listed).push(Arc::downgrade(flow));
    }

    fn count_cut(&self, why: Cut) {
        self.cuts[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often content was cut off for this reason.
    pub fn cuts(&self, why: Cut) -> u64 {
        self.cuts[why as usize].load(Ordering::Relaxed)
    }

    /// How much is listed that is still under way.
    pub fn under_way(&self) -> usize {
        let listed = lock(&self.listed);
        listed.iter().filter(|flow| flow.strong_count() > 0).count() + self.taken.load(Ordering::Relaxed)
    }

    /// The gateway ends: what has no end of its own is cut off.
    pub fn begin_to_end(&self) {
        self.ending.store(true, Ordering::Release);
        self.look_over();
    }

    /// Whether the gateway ends.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Looks over everything once.
    pub fn look_over(&self) {
        let now = Instant::now();
        // The list is taken, so that nobody waits for it meanwhile.
        let mut flows = {
            let mut listed = lock(&self.listed);
            self.taken.fetch_add(listed.len(), Ordering::Relaxed);
            std::mem::take(&mut *listed)
        };
        let taken = flows.len();
        flows.retain(|flow| {
            let Some(flow) = flow.upgrade() else { return false };
            match flow.verdict(now) {
                Some(why) => {
                    flow.end(why);
                    false
                }
                None => true,
            }
        });
        let mut listed = lock(&self.listed);
        self.taken.fetch_sub(taken, Ordering::Relaxed);
        listed.append(&mut flows);
    }

    /// Looks over everything for ever: in turn, and when a token is revoked.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(EVERY, self.gate.next_revocation()).await;
            self.look_over();
        }
    }
}

/// A request's content on its way to the upstream: counted, and watched.
#[derive(Debug)]
pub struct Upload {
    body: Body,
    flow: Arc<Flow>,
    /// Bytes that may still come.
    left: Option<u64>,
}

impl Upload {
    /// The content of a request, of which `most` bytes may come.
    pub fn new(body: Body, flow: &Arc<Flow>, most: Option<u64>) -> Self {
        flow.phase.store(Phase::Asking as u8, Ordering::Release);
        // Its client may stop before the upstream has said anything.
        flow.list();
        Self { body, flow: Arc::clone(flow), left: most }
    }

    fn cut_off(&self, why: Cut) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // Unless it is the upstream that took nothing, it is not to blame for what follows.
        if why != Cut::Idle || self.flow.awaits_client() {
            self.flow.pulse.fail();
        }
        Poll::Ready(Some(Err(io::Error::other(why))))
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(cut) = self.flow.cut() {
            return self.cut_off(cut);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.flow.awaits_client.store(polled.is_pending(), Ordering::Release);
        match polled {
            Poll::Pending => {
                *lock(&self.flow.upload) = Some(cx.waker().clone());
                // The cut may have come before the waker was there.
                match self.flow.cut() {
                    Some(cut) => self.cut_off(cut),
                    None => Poll::Pending,
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.flow.pulse.bump();
                if self.body.is_end_stream() {
                    self.flow.asked();
                }
                if let (Some(data), Some(left)) = (frame.data_ref(), self.left) {
                    let Some(left) = left.checked_sub(data.len() as u64) else {
                        self.flow.failed(UploadFault::TooLarge);
                        return Poll::Ready(Some(Err(io::Error::other("the content is too large"))));
                    };
                    self.left = Some(left);
                }
                Poll::Ready(Some(Ok(cleaned(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.flow.failed(UploadFault::Broken);
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            Poll::Ready(None) => {
                self.flow.asked();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's content on its way to the client, watched.
#[derive(Debug)]
pub struct Answered {
    flow: Arc<Flow>,
    hint: SizeHint,
    is_done: bool,
}

impl Answered {
    /// The content of an answer; `is_stream` says that it has no end of its own.
    pub fn new(body: UpstreamBody, flow: Arc<Flow>, is_stream: bool) -> Self {
        let (hint, is_done) = (body.size_hint(), body.is_end_stream());
        // What is not looked over needs no time; [`Flow::list`] tells it when that changes.
        if flow.is_listed.load(Ordering::Acquire) {
            flow.pulse.bump();
        }
        flow.phase.store(Phase::Answering as u8, Ordering::Release);
        flow.is_stream.store(is_stream, Ordering::Release);
        lock(&flow.download).body = Some(body);
        // It may have been cut off while the answer was awaited. Then it is not on the list any more, and nothing but this
        // would let go of the answer.
        if flow.cut().is_some() {
            let late = lock(&flow.download).body.take();
            drop(late);
        }
        Self { flow, hint, is_done }
    }
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Self { flow, hint, is_done } = self.get_mut();
        if *is_done {
            return Poll::Ready(None);
        }
        let mut download = lock(&flow.download);
        let Some(body) = download.body.as_mut() else {
            drop(download);
            *is_done = true;
            let why = flow.cut().map_or_else(|| io::Error::other("cut off"), io::Error::other);
            return Poll::Ready(Some(Err(why)));
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        *is_done = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Ready(_) => true,
        };
        *hint = body.size_hint();
        if polled.is_pending() && !download.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            download.waker = Some(cx.waker().clone());
        }
        // A body that is done gives its connection back, which must not happen under the lock.
        let done = if *is_done { download.body.take() } else { None };
        drop(download);
        drop(done);
        // A short answer is done with its first frame, and never asks for the time.
        if !*is_done {
            if polled.is_ready() && flow.is_listed.load(Ordering::Acquire) {
                flow.pulse.bump();
            }
            flow.list();
        }
        polled.map(|frame| frame.map(|frame| frame.map(cleaned).map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// A frame without what must not stand in trailers.
fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::trailers(trailers);
    }
    frame
}
