//! What these doors say of themselves in the OpenAPI document.

mod refusals;
mod schemas;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Type};

use crate::openapi::{
    Answer, CONTENT_TOO_LARGE, Endpoint, FIVE_MINUTES, Media, NO_CACHE, NO_STORE, REQUEST_TIMEOUT, TOKEN_EXAMPLE, Tag,
    scheme,
};
use refusals::{
    OAUTH_BAD_REQUEST, OAUTH_INTERNAL, OAUTH_TIMEOUT, OAUTH_TOO_LARGE, OAUTH_TOO_MANY, OAUTH_UNAUTHORIZED,
    OAUTH_UNAVAILABLE, REGISTRY_BAD_REQUEST, REGISTRY_UNAUTHORIZED, TOKEN_BAD_REQUEST, TOKEN_FORM, TOKEN_TOO_MANY,
    TOKEN_UNAUTHORIZED, TOKEN_UNAVAILABLE,
};
use schemas::{
    AnyTokenResponse, ClientCredentialsRequest, Introspection, JwkSet, ResourceMetadata, ServerMetadata, TokenQuestion,
    TokenResponse,
};

fn granted<T: ToSchema>() -> Answer {
    let example = json!({
        "token": TOKEN_EXAMPLE, "access_token": TOKEN_EXAMPLE, "token_type": "Bearer", "expires_in": 3600, "scope": "demo orders",
    });
    let next = |operation: &str, what: &str| -> Link {
        let content = json!({ "token": "$response.body#/access_token" });
        LinkBuilder::new().operation_id(operation).request_body(Some(content)).description(what).build()
    };
    Answer::new("The access token.")
        .field(&NO_STORE)
        .field(&NO_CACHE)
        .media(Media::json::<T>(example))
        .link("introspect", next("introspectToken", "Asks what the token is worth."))
        .link("revoke", next("revokeToken", "Ends the token before its time."))
}

/// What clients of a registry of container images ask for, where there is one.
fn of_registry(get: Endpoint, service: &str) -> Endpoint {
    let service =
        ObjectBuilder::new().schema_type(Type::String).max_length(Some(255)).enum_values(Some([service.to_owned()]));
    let scope = ObjectBuilder::new().schema_type(Type::String).max_length(Some(255)).pattern(Some(
        r"^repository:[a-z0-9]{1,64}(/[a-z0-9]{1,64}){0,2}:(pull|push|delete|\*)(,(pull|push|delete|\*)){0,3}$",
    ));
    let query = |name: &str, description: &str| {
        ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).description(Some(description))
    };
    let service =
        query("service", "The registry that the token is for, as its own configuration has it.").schema(Some(service));
    let scope = query(
        "scope",
        "What is to be done in a repository; there may be several. Only with `service`. With none, the token says who one is.",
    )
    .schema(Some(ArrayBuilder::new().items(scope).max_items(Some(8))));
    get.parameter(service.build()).parameter(scope.build()).refuses([&REGISTRY_BAD_REQUEST, &REGISTRY_UNAUTHORIZED])
}

/// The token endpoint. `service` is the registry of container images that it issues tokens for, if there is one.
pub fn token(path: &str, service: Option<&str>) -> [Endpoint; 2] {
    let granted = || if service.is_some() { granted::<AnyTokenResponse>() } else { granted::<TokenResponse>() };
    let get = Endpoint::get(path, Tag::Tokens, "getToken")
        .says(
            "Get an access token",
            "The plain way: credentials by HTTP Basic, and nothing else. With an API key, the key is the user-id and the \
             password is empty (`curl -u \"$KEY:\" …`); a client that insists on a password sends the key's id and the whole \
             key. Query parameters that are not listed are ignored.",
        )
        .see("HTTP Basic", "https://www.rfc-editor.org/rfc/rfc7617")
        .asks_for(&[scheme::BASIC])
        .answers(200, granted())
        .refuses([&TOKEN_TOO_MANY, &TOKEN_UNAVAILABLE])
        // Content is read and ignored.
        .refuses([&REQUEST_TIMEOUT, &CONTENT_TOO_LARGE]);
    let get = match service {
        Some(service) => of_registry(get, service),
        None => get.refuses([&TOKEN_BAD_REQUEST, &TOKEN_UNAUTHORIZED]),
    };
    let form = Media::form::<ClientCredentialsRequest>(json!({ "grant_type": "client_credentials", "scope": "demo" }));
    let post = Endpoint::post(path, Tag::Tokens, "requestToken")
        .says(
            "Get an access token, as OAuth has it",
            "The Client Credentials Grant, for OAuth libraries. Clients authenticate by HTTP Basic, or with `client_id` and \
             `client_secret` in the form. What has no `grant_type`, or no form, is answered as `GET` is, and its content is \
             ignored.",
        )
        .see("The Client Credentials Grant", "https://www.rfc-editor.org/rfc/rfc6749#section-4.4")
        .asks_for(&[scheme::BASIC])
        .takes("The grant.", false, [form])
        .answers(200, granted())
        .refuses(&TOKEN_FORM)
        .refuses([&OAUTH_INTERNAL]);
    [get, post]
}

fn question(path: &str, operation: &str) -> Endpoint {
    Endpoint::post(path, Tag::Tokens, operation)
        .asks_for(&[scheme::BASIC, scheme::BEARER])
        .takes(
            "Clients that authenticate in the form add `client_id` and `client_secret`, in place of the Authorization header.",
            true,
            [Media::form::<TokenQuestion>(json!({ "token": TOKEN_EXAMPLE }))],
        )
        .refuses([&OAUTH_BAD_REQUEST, &OAUTH_UNAUTHORIZED, &OAUTH_TOO_MANY, &OAUTH_UNAVAILABLE])
        .refuses([&OAUTH_TIMEOUT, &OAUTH_TOO_LARGE, &OAUTH_INTERNAL])
}

/// The introspection endpoint.
pub fn introspection(path: &str) -> Endpoint {
    let example = json!({
        "active": true, "token_type": "Bearer", "username": "acme", "scope": "orders", "client_id": "kb_0123456789ab",
        "sub": "acme", "aud": "https://api.example.com", "iss": "https://api.example.com",
        "iat": 1_767_225_600, "nbf": 1_767_225_598, "exp": 1_767_229_200, "jti": "t5rWcX0oQm2yZk8uVb4nLA",
    });
    question(path, "introspectToken")
        .says(
            "Ask what a token is worth",
            "An account may ask about its own tokens, by any of its credentials or by an access token; one with the group \
             `keybearer-operator` about all. A token that is not valid, or none of the asker's business, is not active, and \
             nothing else is said of it.",
        )
        .see("Token introspection", "https://www.rfc-editor.org/rfc/rfc7662")
        .answers(200, Answer::new("What the token says.").field(&NO_STORE).media(Media::json::<Introspection>(example)))
}

/// The revocation endpoint.
pub fn revocation(path: &str) -> Endpoint {
    question(path, "revokeToken")
        .says(
            "End a token before its time",
            "It is dead here with the answer, and everywhere within a second. A token that is not valid, or none of the \
             asker's business, is answered as one that was ended: it is of no use to the asker in either case.",
        )
        .see("Token revocation", "https://www.rfc-editor.org/rfc/rfc7009")
        .answers(200, Answer::new("The token is dead.").field(&NO_STORE).field(&NO_CACHE))
}

/// The metadata of the server.
pub fn server_metadata(path: &str, example: Value) -> Endpoint {
    Endpoint::get(path, Tag::Discovery, "getServerMetadata")
        .says("Metadata of the authorization server", "Where an OAuth library finds everything else.")
        .see("Authorization server metadata", "https://www.rfc-editor.org/rfc/rfc8414")
        .of_host()
        .answers(200, public(Media::json::<ServerMetadata>(example)))
}

/// The metadata of what is guarded.
pub fn resource_metadata(path: &str, example: Value) -> Endpoint {
    Endpoint::get(path, Tag::Discovery, "getResourceMetadata")
        .says("Metadata of what is guarded", "Every challenge to a Bearer token names this document.")
        .see("Protected resource metadata", "https://www.rfc-editor.org/rfc/rfc9728")
        .of_host()
        .answers(200, public(Media::json::<ResourceMetadata>(example)))
}

/// The published keys.
pub fn jwks(path: &str) -> Endpoint {
    let example = json!({ "keys": [{
        "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }] });
    Endpoint::get(path, Tag::Discovery, "getKeys")
        .says(
            "The keys that verify tokens",
            "A key is published long before it signs, and stays until the last token that it signed is dead; so verifiers \
             may keep this for the time it says.",
        )
        .see("JSON Web Key Set", "https://www.rfc-editor.org/rfc/rfc7517#section-5")
        .answers(200, public(Media::of::<JwkSet>("application/jwk-set+json", example)))
}

fn public(media: Media) -> Answer {
    Answer::new("The document.").field(&FIVE_MINUTES).media(media)
}
