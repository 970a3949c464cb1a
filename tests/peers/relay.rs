//! A wire that can be cut: between a proxy and the gateway, so that connections can be counted, and the gateway taken away
//! and given back, without another port.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub struct Relay {
    /// Where to connect.
    pub address: SocketAddr,
    to: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: Option<JoinHandle<()>>,
}

impl Relay {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut relay = Self { address, to, accepted: Arc::default(), task: None };
        relay.carry(listener);
        relay
    }

    fn carry(&mut self, listener: TcpListener) {
        let (to, accepted) = (self.to, Arc::clone(&self.accepted));
        self.task = Some(tokio::spawn(async move {
            // Ends with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        }));
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Ends all connections and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Is there again, at the same address.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port of before");
        self.carry(listener);
    }
}
