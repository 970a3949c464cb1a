//! An upstream under test that says whatever bytes a test writes, and records what came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wire::LONG;

/// An upstream that says whatever bytes a test writes. It ends when it is dropped.
pub struct Raw {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    ended: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    /// One that plays `script` on each connection.
    pub async fn start<F>(script: impl Fn(Peer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let ended: Arc<AtomicUsize> = Arc::default();
        let (of, done) = (Arc::clone(&received), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let number = {
                    let mut received = of.lock().unwrap();
                    received.push(Vec::new());
                    received.len() - 1
                };
                let play = script(Peer { tcp, number, received: Arc::clone(&of), read: Vec::new() });
                let done = Arc::clone(&done);
                connections.spawn(async move {
                    play.await;
                    done.fetch_add(1, Ordering::AcqRel);
                });
            }
        });
        Self { address, received, ended, task }
    }

    /// One that answers each request with these bytes, and closes.
    pub async fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut peer| {
            let bytes = bytes.clone();
            async move {
                if peer.head().await.is_some() {
                    peer.say(bytes).await;
                }
            }
        })
        .await
    }

    /// How many connections came.
    pub fn accepted(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// How many scripts have ended.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Acquire)
    }

    /// Everything that came, connection after connection.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap().concat()).into_owned()
    }
}

/// The other end of one connection of a [`Raw`].
pub struct Peer {
    tcp: TcpStream,
    pub number: usize,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    read: Vec<u8>,
}

impl Peer {
    /// A header section, with its blank line; `None` when there is none any more.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("text"));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads until `end` came.
    pub async fn until(&mut self, end: &str) {
        while !self.read.windows(end.len()).any(|some| some == end.as_bytes()) && self.more().await {}
    }

    /// Writes as much as the other end takes.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.tcp.write_all(bytes.as_ref()).await;
    }

    /// Reads until the other end closes, or breaks.
    pub async fn rest(&mut self) {
        while self.more().await {}
    }

    async fn more(&mut self) -> bool {
        let before = self.read.len();
        let read = timeout(LONG, self.tcp.read_buf(&mut self.read)).await.expect("bytes, or the end, in time");
        self.received.lock().unwrap()[self.number].extend_from_slice(&self.read[before..]);
        matches!(read, Ok(1..))
    }
}
