//! The doors that speak OAuth 2.0, through the real gateway: what any library for it may rely on.

mod client_credentials;
mod introspection;
mod metadata;
mod repositories;
mod revocation;

use keybearer::groups::OPERATOR;
use keybearer::keys::ApiKey;

use crate::client::{Call, Http};
use crate::gateway::{SAMPLE, TestGateway};

/// Two customers, and who looks after all.
struct Scene {
    gateway: TestGateway,
    /// Of `acme`, whose password is `open sesame`.
    key: ApiKey,
    /// Of `other`.
    other: ApiKey,
    /// Of `office`.
    operator: ApiKey,
}

impl Scene {
    async fn start() -> Self {
        Self::of(TestGateway::start().await).await
    }

    async fn of(gateway: TestGateway) -> Self {
        let key = gateway.acme().await;
        gateway.account("other", None).await;
        gateway.licence("other", &[SAMPLE], None).await;
        gateway.group(OPERATOR, None).await;
        gateway.account("office", None).await;
        gateway.licence("office", &[OPERATOR], None).await;
        let (other, operator) = (gateway.key("other").await, gateway.key("office").await);
        Self { gateway, key, other, operator }
    }

    /// Whether the guard lets this token through.
    async fn is_alive(&self, token: &str) -> bool {
        match self.gateway.get("/whoami").bearer(token).await.status {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }
}

/// `POST /token` for a token of these parameters.
fn grant<'a>(gateway: &'a TestGateway, parameters: &[(&str, &str)], http: Http) -> Call<'a> {
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(parameters);
    gateway.post("/token").form(&form).over(http)
}
