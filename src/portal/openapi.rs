//! What the developer page says of itself in the OpenAPI document.

use utoipa::openapi::{ObjectBuilder, Type};

use crate::openapi::{Answer, Endpoint, Media, NO_STORE, Tag};

/// The page.
pub fn page(path: &str) -> Endpoint {
    let html =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^<!doctype html>")).max_length(Some(1024 * 1024));
    Endpoint::get(path, Tag::Operation, "getDeveloperPage")
        .says(
            "The developer page",
            "How to try the Demo group, what the answers mean, how to verify a token. For people.",
        )
        .answers(200, Answer::new("The page.").field(&NO_STORE).media(Media::raw("text/html", html.build())))
}
