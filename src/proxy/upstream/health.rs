//! Active checks of an endpoint: what an answer makes of its health, and how one is asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::BodyExt;

use super::connect::Wanted;
use super::endpoint::Endpoint;
use super::pool::{Checkout, Connection};
use super::send::shape;
use super::settings::{HealthCheck, HostHeader};

/// An answer's content is read up to so much, to use the connection again.
const CONTENT_BYTES: usize = 64 << 10;

/// So many connections may turn out to have been closed while they were idle.
const STALE: usize = 3;

/// The health of one endpoint: good until enough checks in a row say otherwise.
#[derive(Debug)]
pub(super) struct Health {
    is_good: bool,
    /// Checks in a row that say otherwise.
    contrary: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { is_good: true, contrary: 0 }
    }
}

impl Health {
    /// A check was `good` or not. Says how it stands, when that has changed.
    pub fn checked(&mut self, good: bool, rules: &HealthCheck) -> Option<bool> {
        if good == self.is_good {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        if self.contrary < if good { rules.healthy_after } else { rules.unhealthy_after } {
            return None;
        }
        *self = Self { is_good: good, contrary: 0 };
        Some(good)
    }
}

/// Checks an endpoint once, unless the last check is still under way.
pub(super) async fn check(endpoint: Arc<Endpoint>) {
    let Some(rules) = &endpoint.settings.health else { return };
    if endpoint.being_checked.swap(true, Ordering::AcqRel) {
        return;
    }
    let outcome = tokio::time::timeout(rules.timeout, ask(&endpoint, rules)).await;
    let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".into()));
    endpoint.checked(outcome);
    endpoint.being_checked.store(false, Ordering::Release);
}

/// Asks once, over a connection as requests have it. Says why the answer is bad.
async fn ask(endpoint: &Endpoint, rules: &HealthCheck) -> Result<(), String> {
    let mut stale = 0;
    loop {
        let mut request = Request::get(rules.path.as_str())
            .header(USER_AGENT, HeaderValue::from_static(concat!("keybearer/", env!("CARGO_PKG_VERSION"))))
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let host = match &endpoint.settings.host {
            HostHeader::Name(name) => HeaderValue::from_str(name).map_err(|error| error.to_string())?,
            HostHeader::Client | HostHeader::Target => endpoint.target.host.clone(),
        };
        request.headers_mut().insert(HOST, host);
        let wanted: Wanted = endpoint.wanted(false);
        let Checkout { mut connection, reused } =
            endpoint.pool.checkout(wanted).await.map_err(|error| error.to_string())?;
        shape(&mut request, &connection, endpoint).map_err(|error| error.to_string())?;
        let answer = match &mut connection {
            Connection::Http1(own) => own.sender().try_send_request(request).await,
            Connection::Http2(stream) => stream.sender().try_send_request(request).await,
        };
        let response = match answer {
            Ok(response) => response,
            // It was closed since it was last used; that says nothing.
            Err(_) if reused && stale < STALE => {
                stale += 1;
                continue;
            }
            Err(error) => return Err(error.into_error().to_string()),
        };
        let (head, mut content) = response.into_parts();
        let mut bytes = 0;
        while let Some(frame) = content.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
            if bytes > CONTENT_BYTES {
                break;
            }
        }
        if bytes <= CONTENT_BYTES {
            endpoint.pool.give_back(connection);
        }
        let status = head.status;
        let is_good = status.is_success() || status.is_redirection();
        return if is_good { Ok(()) } else { Err(format!("status {}", status.as_u16())) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_some_in_a_row_to_change() {
        let rules = HealthCheck { healthy_after: 2, unhealthy_after: 3, ..HealthCheck::default() };
        let mut health = Health::default();
        let seen: Vec<_> = [false, false, true, false, false, false, false, true, false, true, true, true]
            .into_iter()
            .map(|good| health.checked(good, &rules))
            .collect();
        let mut wanted = [None; 12];
        wanted[5] = Some(false);
        wanted[10] = Some(true);
        assert_eq!(seen, wanted);
    }
}
