//! The contracts by which proxies ask. Each has a path of its own: a door that guessed the contract by the headers could be
//! talked into another one by a client's.

/// How a proxy asks, and what it makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Contract {
    /// nginx `auth_request`: the operator's `proxy_set_header` lines say what was asked.
    AuthRequest,
    /// Traefik `ForwardAuth` and Caddy `forward_auth`.
    ForwardAuth,
    /// Envoy `ext_authz` over HTTP: the asking request is the original one, below our path.
    ExtAuthz,
    /// HAProxy, by the Lua script that is shipped for it.
    HaProxy,
}

impl Contract {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AuthRequest, Self::ForwardAuth, Self::ExtAuthz, Self::HaProxy];

    /// Where it is asked; everything below belongs to it too.
    pub const fn path(self) -> &'static str {
        match self {
            Self::AuthRequest => "/authz/auth-request",
            Self::ForwardAuth => "/authz/forward-auth",
            Self::ExtAuthz => "/authz/ext-authz",
            Self::HaProxy => "/authz/haproxy",
        }
    }

    /// Its id among the routes.
    pub const fn id(self) -> &'static str {
        match self {
            Self::AuthRequest => "authz-auth-request",
            Self::ForwardAuth => "authz-forward-auth",
            Self::ExtAuthz => "authz-ext-authz",
            Self::HaProxy => "authz-haproxy",
        }
    }

    /// The contract of an asking request's path, and what follows there. The path is taken as received: what Envoy appends
    /// is the original request's, and is normalised as that.
    pub fn of(path: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|contract| {
            let rest = path.strip_prefix(contract.path())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((contract, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_contract_with_all_below_it() {
        let of = |path| Contract::of(path);
        assert_eq!(of("/authz/auth-request"), Some((Contract::AuthRequest, "")));
        assert_eq!(of("/authz/forward-auth/"), Some((Contract::ForwardAuth, "/")));
        assert_eq!(of("/authz/ext-authz/a/../b"), Some((Contract::ExtAuthz, "/a/../b")));
        assert_eq!(of("/authz/haproxy/x"), Some((Contract::HaProxy, "/x")));
        for other in ["/authz", "/authz/", "/authz/ext-authzz", "/authz/nginx", "/AUTHZ/haproxy", "/", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
