//! A gateway with a route to upstreams, a customer, and a token of it.

use tokio::runtime::Runtime;

use crate::backend::Backend;
use crate::caller::{Caller, runtime};
use crate::installation::{Customer, Installation, SERVE, Server};
use crate::poll::until;

/// The route `/api/*`, with the prefix taken off, to these targets. `more` is the rest of the upstream's settings.
pub fn route_to(targets: &[String], more: &str) -> String {
    format!(
        "[[routes]]\nid = \"api\"\npath = \"/api/*\"\ngroups = [\"sample\"]\nupstream = \"api\"\n\
         strip_prefix = \"/api\"\n\n[[upstreams]]\nid = \"api\"\ntargets = {targets:?}\n{more}\n"
    )
}

pub struct Scene {
    pub installation: Installation,
    pub server: Server,
    pub customer: Customer,
    pub token: String,
    pub caller: Caller,
    pub runtime: Runtime,
}

impl Scene {
    #[track_caller]
    pub fn new(config: &str) -> Self {
        let installation = Installation::with(config);
        let command = installation.command(SERVE);
        Self::of(installation, command)
    }

    /// With a server that is started in another way.
    #[track_caller]
    pub fn of(installation: Installation, command: std::process::Command) -> Self {
        let customer = installation.customer("acme");
        let server = Server::start(command).expect_serving(&installation);
        let token = server.client().with_key(&customer.key).token();
        let caller = Caller::new(&installation, &server, &token);
        Self { installation, server, customer, token, caller, runtime: runtime() }
    }

    /// A value of the upstream `api`.
    #[track_caller]
    pub fn of_upstream(&self, name: &str) -> f64 {
        self.server.metric(&format!("keybearer_upstream_{name}{{upstream=\"api\"}}"))
    }

    /// How many of its addresses are so.
    #[track_caller]
    pub fn endpoints(&self, state: &str) -> f64 {
        self.server.metric(&format!("keybearer_upstream_endpoints{{upstream=\"api\",state=\"{state}\"}}"))
    }

    /// How often content was cut off for this reason.
    #[track_caller]
    pub fn cuts(&self, reason: &str) -> f64 {
        self.server.metric(&format!("keybearer_flows_cut_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until nothing is under way any more, and no connection to the backend is open; `keep_alive` must be short.
    #[track_caller]
    pub fn until_at_rest(&self, backend: &Backend) {
        until("no request is at the upstream", || self.of_upstream("requests_in_flight") == 0.0);
        until("no content is under way", || self.server.metric("keybearer_flows_under_way") == 0.0);
        until("no tunnel is open", || self.server.metric("keybearer_tunnels") == 0.0);
        until("the upstream's connections are closed", || {
            backend.open() == 0 && self.of_upstream("connections") == 0.0
        });
    }
}
