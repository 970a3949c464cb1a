//! The document that the descriptions of endpoints make.

use std::collections::BTreeSet;

use http::Method;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::external_docs::ExternalDocsBuilder;
use utoipa::openapi::path::{HttpMethod, PathItem};
use utoipa::openapi::security::{ClientCredentials, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, Contact, InfoBuilder, License, OpenApi, OpenApiBuilder, PathsBuilder, RefOr, Server,
};

use super::endpoint::Definitions;
use super::{Endpoint, Tag, scheme};

/// What a document says of the server as a whole.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// What it is called.
    pub title: &'a str,
    /// What it is, in CommonMark.
    pub description: &'a str,
    /// Where it is reached, without a slash at the end.
    pub base_url: &'a str,
    /// Whom to write to, an address or a URL.
    pub contact: Option<&'a str>,
    /// Whether only operators reach it.
    pub is_internal: bool,
}

/// A document in the making.
pub struct Document<'a> {
    site: Site<'a>,
    paths: Vec<(String, PathItem)>,
    tags: BTreeSet<Tag>,
    schemes: Vec<&'static str>,
    definitions: Definitions,
}

impl<'a> Document<'a> {
    /// An empty one.
    pub fn new(site: Site<'a>) -> Self {
        Self { site, paths: vec![], tags: BTreeSet::new(), schemes: vec![], definitions: Definitions::default() }
    }

    /// With one more endpoint, which wants a Bearer token where it is guarded.
    pub fn with(mut self, endpoint: Endpoint, is_guarded: bool) -> Self {
        let Some(method) = method(&endpoint.method) else { return self };
        let servers =
            endpoint.is_of_host.then(|| origin(self.site.base_url)).filter(|origin| *origin != self.site.base_url);
        let server = servers.map(|origin| server(origin, &self.site));
        let (path, tag) = (endpoint.path.clone(), endpoint.tag);
        let (operation, definitions) = endpoint.described(is_guarded);
        for known in [scheme::BASIC, scheme::BEARER, scheme::OAUTH2] {
            // A requirement does not tell what it is for but by its form on the wire.
            let is_asked = operation
                .security
                .iter()
                .flatten()
                .any(|asked| serde_json::to_value(asked).is_ok_and(|asked| asked.get(known).is_some()));
            if is_asked && !self.schemes.contains(&known) {
                self.schemes.push(known);
            }
        }
        self.definitions.take(definitions);
        self.tags.insert(tag);
        let mut item = PathItem::new(method, operation);
        item.servers = server.map(|server| vec![server]);
        match self.paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, known)) => known.merge_operations(item),
            None => self.paths.push((path, item)),
        }
        self
    }

    /// The document.
    pub fn finish(self) -> OpenApi {
        let Self { site, paths, tags, schemes, definitions } = self;
        let mut components = ComponentsBuilder::new();
        for (name, schema) in definitions.schemas {
            components = components.schema(name, schema);
        }
        for (name, response) in definitions.responses {
            components = components.response(name, response);
        }
        for (name, header) in definitions.headers {
            components = components.header(name, RefOr::T(header));
        }
        for name in schemes {
            components = components.security_scheme(name, security(name, site.base_url));
        }
        let tags = tags.into_iter().map(|tag| {
            let (name, description) = tag.words();
            TagBuilder::new().name(name).description(Some(description)).build()
        });
        let mut licence = License::new("Apache-2.0");
        licence.identifier = Some("Apache-2.0".to_owned());
        let mut contact = Contact::new();
        contact.name = Some("The operator of this gateway".to_owned());
        match site.contact {
            Some(url) if url.starts_with("https://") => contact.url = Some(url.to_owned()),
            Some(address) if address.contains('@') => contact.email = Some(address.to_owned()),
            // What the setting says otherwise has no place of its own here.
            _ => {}
        }
        let info = InfoBuilder::new()
            .contact(Some(contact))
            .title(site.title)
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(site.description))
            .license(Some(licence));
        let docs =
            ExternalDocsBuilder::new().url(format!("{}/", site.base_url)).description(Some("The developer page"));
        let documented = (!site.is_internal).then(|| docs.build());
        let paths = paths.into_iter().fold(PathsBuilder::new(), |paths, (path, item)| paths.path(path, item));
        OpenApiBuilder::new()
            .info(info)
            .servers(Some([server(site.base_url, &site)]))
            .paths(paths)
            .components(Some(components.build()))
            .tags(Some(tags))
            .external_docs(documented)
            .build()
    }
}

fn method(method: &Method) -> Option<HttpMethod> {
    Some(match method.as_str() {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        "OPTIONS" => HttpMethod::Options,
        "HEAD" => HttpMethod::Head,
        _ => return None,
    })
}

fn server(url: &str, site: &Site<'_>) -> Server {
    let audience = if site.is_internal { "For operators alone" } else { "For clients" };
    let url = if url.is_empty() { "/" } else { url };
    ServerBuilder::new()
        .url(url)
        .description(Some(format!("Production: {audience}")))
        .extensions(Some(ExtensionsBuilder::new().add("x-internal", site.is_internal).build()))
        .build()
}

/// A URL without its path.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |path| &url[..host + path])
}

fn security(name: &str, base_url: &str) -> SecurityScheme {
    match name {
        scheme::BASIC => SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Basic)
                .description(Some(
                    "An API key as user-id with an empty password, or the key's id with the whole key as password, or an \
                     account's name with its password (RFC 7617, UTF-8).",
                ))
                .build(),
        ),
        scheme::BEARER => SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .description(Some(
                    "An access token of the token endpoint (RFC 6750), a JWT by the profile of RFC 9068. It is verified by \
                     the rules of [RFC8725](https://www.rfc-editor.org/rfc/rfc8725). In the `Authorization` header alone: \
                     in a query or a form it is refused.",
                ))
                .build(),
        ),
        _ => SecurityScheme::OAuth2(OAuth2::with_description(
            [Flow::ClientCredentials(ClientCredentials::new(format!("{base_url}/token"), Scopes::new()))],
            "The same token, for libraries that get it by themselves (RFC 6749 §4.4). Scopes are the groups that the \
             credentials are licensed for. The tokens are verified by the rules of \
             [RFC8725](https://www.rfc-editor.org/rfc/rfc8725).",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_host_has_a_server_of_its_own_only_below_a_path() {
        let document = |base_url| {
            let site = Site { title: "T", description: "D", base_url, contact: None, is_internal: false };
            let endpoint = Endpoint::get("/.well-known/x", Tag::Discovery, "x").of_host();
            serde_json::to_value(Document::new(site).with(endpoint, false).finish()).unwrap()
        };
        let below = document("https://a.example/one");
        assert_eq!(below["paths"]["/.well-known/x"]["servers"][0]["url"], "https://a.example");
        assert_eq!(below["servers"][0]["url"], "https://a.example/one");
        assert!(document("https://a.example")["paths"]["/.well-known/x"].get("servers").is_none());
    }
}
