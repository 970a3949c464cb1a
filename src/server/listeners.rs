//! Where the gateway listens: all addresses are bound before anything is served on any of them.

use std::net::SocketAddr;
use std::time::Duration;

use axum_server::{Handle, Server};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower_http::sensitive_headers::SetSensitiveRequestHeaders;

use super::Limits;
use super::accept::UnixDoor;
use super::dispatch::Dispatch;
use super::front::{Entrance, Serving};
use super::start::StartError;
use super::unix::{Bound, Socket};
use crate::access::RequireAccessService;
use crate::config::Config;

/// Where the gateway listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// HTTPS, for clients.
    pub https: SocketAddr,
    /// HTTPS, for operators.
    pub admin: SocketAddr,
    /// In the clear, for a load balancer.
    pub behind_proxy: Option<SocketAddr>,
    /// HTTPS, for Envoy's questions by gRPC.
    pub grpc: Option<SocketAddr>,
}

/// What stands behind the front of every listener.
pub(super) type Stack = SetSensitiveRequestHeaders<RequireAccessService<Dispatch>>;

/// What is bound before anything is served.
pub(super) struct Listeners {
    pub addresses: Addresses,
    pub https: TcpListener,
    pub admin: TcpListener,
    pub behind_proxy: Option<TcpListener>,
    pub grpc: Option<TcpListener>,
    pub socket: Option<Bound>,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let settings = &config.server;
        let bind = async |setting, address: SocketAddr| {
            let bound = async {
                let listener = TcpListener::bind(address).await?;
                Ok((listener.local_addr()?, listener))
            };
            bound.await.map_err(|source| StartError::Listen { setting, address, source })
        };
        let (https_at, https) = bind("server.listen", settings.listen).await?;
        let (admin_at, admin) = bind("server.admin_listen", settings.admin_listen).await?;
        let behind_proxy = match &settings.behind_proxy {
            Some(behind) => Some(bind("server.behind_proxy.listen", behind.listen).await?),
            None => None,
        };
        let forward_auth = config.forward_auth.as_ref();
        let grpc = match forward_auth.and_then(|settings| settings.grpc_listen) {
            Some(address) => Some(bind("forward_auth.grpc_listen", address).await?),
            None => None,
        };
        let socket = match forward_auth.and_then(|settings| settings.unix_socket.as_deref()) {
            Some(path) => Some(Bound::at(path).map_err(|source| StartError::Socket { path: path.to_owned(), source })?),
            None => None,
        };
        let addresses = Addresses {
            https: https_at,
            admin: admin_at,
            behind_proxy: behind_proxy.as_ref().map(|(address, _)| *address),
            grpc: grpc.as_ref().map(|(address, _)| *address),
        };
        let (behind_proxy, grpc) = (behind_proxy.map(|(_, it)| it), grpc.map(|(_, it)| it));
        Ok(Self { addresses, https, admin, behind_proxy, grpc, socket })
    }
}

pub(super) struct Running<'a> {
    pub limits: &'a Limits,
    pub handles: Vec<Handle<SocketAddr>>,
    pub servers: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Running<'_> {
    pub(super) fn serve<D>(&mut self, listener: TcpListener, door: D, entrance: Entrance<Stack>)
    where
        D: axum_server::accept::Accept<tokio::net::TcpStream, Serving<Stack>, Service = Serving<Stack>>
            + Clone
            + Send
            + Sync
            + 'static,
        D::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
        D::Future: Send,
    {
        let handle = Handle::new();
        let mut server = Server::<SocketAddr>::from_listener(listener).acceptor(door).handle(handle.clone());
        set_up(&mut server, self.limits);
        self.handles.push(handle);
        self.servers.push(tokio::spawn(server.serve(entrance)));
    }

    pub(super) fn serve_unix(&mut self, bound: Bound, entrance: Entrance<Stack>) -> Socket {
        let Bound { listener, file } = bound;
        let handle = Handle::new();
        let server = Server::<std::os::unix::net::SocketAddr>::from_listener(listener);
        let mut server = server.acceptor(UnixDoor).handle(handle.clone());
        set_up(&mut server, self.limits);
        self.servers.push(tokio::spawn(server.serve(entrance)));
        Socket { handle, _file: file }
    }
}

/// The rules of HTTP that hyper keeps for us.
fn set_up<A: axum_server::Address, D>(server: &mut Server<A, D>, limits: &Limits) {
    let header_bytes = limits.header_bytes;
    // hyper's own limit lies above ours, so that ours answers with a problem that says what the limit is.
    server.http_builder().http1().max_buf_size((header_bytes * 2).max(64 * 1024));
    server
        .http_builder()
        .http2()
        // WebSockets on streams (RFC 8441).
        .enable_connect_protocol()
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(header_bytes * 2).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(10));
}
