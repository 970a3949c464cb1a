//! Which settings a reload does not put into force.

use super::Limits;
use crate::config::Config;

/// The settings that were changed and are not put into force by a reload.
pub(super) fn fixed_settings(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut demo = new.demo.clone();
    (demo.requests_per_address, demo.tokens_per_address) = (old.demo.requests_per_address, old.demo.tokens_per_address);
    demo.plan.clone_from(&old.demo.plan);
    let mut credentials = new.credentials.clone();
    credentials.failures_per_address = old.credentials.failures_per_address;
    credentials.failures_per_user = old.credentials.failures_per_user;
    credentials.failures_in_all = old.credentials.failures_in_all;
    let read_at_start = |limits: &Limits| {
        (
            limits.header_bytes,
            limits.body_bytes,
            limits.handshake_timeout,
            limits.body_timeout,
            limits.request_timeout,
            limits.http2_streams,
        )
    };
    let forward_auth = |config: &Config| {
        let settings = config.forward_auth.as_ref()?;
        Some((settings.unix_socket.clone(), settings.grpc_listen))
    };
    let service = |config: &Config| config.image_registry.as_ref().map(|registry| registry.service.clone());
    let changed = [
        ("data_dir", old.data_dir != new.data_dir),
        ("key_prefix", old.key_prefix != new.key_prefix),
        ("store", old.store != new.store),
        ("server", old.server != new.server),
        ("limits (sizes, content, handshake and HTTP/2)", read_at_start(&old.limits) != read_at_start(&new.limits)),
        ("tls (paths and names; changed files are noticed)", old.tls != new.tls),
        ("access", old.access != new.access),
        ("tokens", old.tokens != new.tokens),
        ("signing", old.signing != new.signing),
        ("credentials (all but the failure rates)", old.credentials != credentials),
        ("demo (all but the rates and the plan)", old.demo != demo),
        ("logging", old.logging != new.logging),
        ("image_registry (its service, and whether there is one)", service(old) != service(new)),
        ("quotas", old.quotas != new.quotas),
        ("licences", old.licences != new.licences),
        ("notices", (&old.notices, &old.webhook) != (&new.notices, &new.webhook)),
        ("forward_auth (all but trusted)", forward_auth(old) != forward_auth(new)),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}
