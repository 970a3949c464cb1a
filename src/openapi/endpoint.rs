//! The description of one endpoint by one method.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::example::Example;
use utoipa::openapi::external_docs::ExternalDocsBuilder;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Schema, SchemaType};
use utoipa::openapi::{
    Content, ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Required, SecurityRequirement, Type,
};

use super::shared;

/// What an endpoint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// How to get a token, and what becomes of it.
    Tokens,
    /// What programs find out by themselves.
    Discovery,
    /// The Demo group, and who one is.
    Resources,
    /// Decisions for other proxies.
    ForwardAuth,
    /// What operators and people look at.
    Operation,
}

impl Tag {
    /// Its name, and what it says.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Tokens => ("Tokens", "Get an access token, ask what one is worth, end one before its time."),
            Self::Discovery => ("Discovery", "What OAuth libraries and verifiers find out by themselves."),
            Self::Resources => ("Resources", "What a token opens: who it belongs to, and the Demo group."),
            Self::ForwardAuth => ("Forward-auth", "Decisions for proxies that answer requests themselves."),
            Self::Operation => ("Operation", "Health, and what people look at."),
        }
    }
}

/// What descriptions name, and the document has one of.
#[derive(Default)]
pub(super) struct Definitions {
    pub(super) schemas: BTreeMap<String, RefOr<Schema>>,
    pub(super) headers: BTreeMap<&'static str, Header>,
    pub(super) responses: BTreeMap<&'static str, Response>,
}

impl Definitions {
    pub(super) fn take(&mut self, other: Self) {
        self.schemas.extend(other.schemas);
        self.headers.extend(other.headers);
        self.responses.extend(other.responses);
    }
}

/// A header field of answers.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its name in the document.
    pub component: &'static str,
    /// What it says.
    pub description: &'static str,
    /// What its value looks like; nothing for a whole number.
    pub pattern: &'static str,
    /// A value.
    pub example: &'static str,
}

impl Field {
    fn header(&self) -> Header {
        let schema = match self.pattern {
            "" => shared::seconds(),
            pattern => {
                ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).max_length(Some(1024)).build()
            }
        };
        let example = match self.pattern {
            "" => self.example.parse::<u32>().map(Value::from).unwrap_or_default(),
            _ => self.example.into(),
        };
        HeaderBuilder::new().schema(Some(schema)).description(Some(self.description)).example(Some(example)).build()
    }
}

/// Content of one media type.
pub struct Media {
    media_type: &'static str,
    content: Content,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Media {
    /// JSON with the members of `T` and no others.
    pub fn json<T: ToSchema>(example: Value) -> Self {
        Self::of::<T>("application/json", example)
    }

    /// The same by another media type.
    pub fn of<T: ToSchema>(media_type: &'static str, example: Value) -> Self {
        Self::new::<T>(media_type, example, true)
    }

    /// A form. Parameters that it does not know are ignored, and none is there twice (RFC 6749 §3.2).
    pub fn form<T: ToSchema>(example: Value) -> Self {
        let mut form = Self::open::<T>("application/x-www-form-urlencoded", example);
        if let Some((_, RefOr::T(Schema::Object(form)))) = form.schemas.first_mut() {
            let value =
                ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[\s\S]*$")).max_length(Some(8192));
            form.additional_properties = Some(Box::new(AdditionalProperties::from(value)));
            form.max_properties = Some(64);
        }
        form
    }

    fn new<T: ToSchema>(media_type: &'static str, example: Value, closes: bool) -> Self {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        schemas.iter_mut().for_each(|(_, schema)| settle(schema, closes));
        let schema = Ref::from_schema_name(T::name());
        let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
        Self { media_type, content, schemas }
    }

    /// The same, and there may be other members.
    pub fn open<T: ToSchema>(media_type: &'static str, example: Value) -> Self {
        Self::new::<T>(media_type, example, false)
    }

    /// Content that is no JSON.
    pub fn raw(media_type: &'static str, schema: impl Into<RefOr<Schema>>) -> Self {
        Self { media_type, content: Content::new(Some(schema)), schemas: vec![] }
    }

    /// With several examples by their names, in place of one.
    pub fn examples(mut self, examples: impl IntoIterator<Item = (String, Example)>) -> Self {
        self.content.example = None;
        self.content.examples = examples.into_iter().map(|(name, example)| (name, RefOr::T(example))).collect();
        self
    }
}

/// Says of members that may be left out that they are no `null` then, and, where it `closes` objects, that they have no other
/// members.
fn settle(schema: &mut RefOr<Schema>, closes: bool) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            for (name, member) in &mut object.properties {
                if !object.required.contains(name) {
                    never_null(member);
                }
                settle(member, closes);
            }
            if closes && !object.properties.is_empty() && object.additional_properties.is_none() {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                settle(items, closes);
            }
        }
        // Whatever joins several objects is not known here.
        _ => {}
    }
}

/// Takes `null` off what an `Option` may be.
fn never_null(member: &mut RefOr<Schema>) {
    let RefOr::T(schema) = member else { return };
    match schema {
        Schema::Object(object) => {
            if let SchemaType::Array(types) = &object.schema_type
                && let [one, Type::Null] = types.as_slice()
            {
                object.schema_type = SchemaType::Type(one.clone());
            }
        }
        Schema::OneOf(one) => {
            let is_null = |item: &RefOr<Schema>| matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
            one.items.retain(|item| !is_null(item));
            if let [only] = one.items.as_slice() {
                *member = only.clone();
            }
        }
        _ => {}
    }
}

/// An answer.
pub struct Answer {
    response: Response,
    definitions: Definitions,
}

impl Answer {
    /// An answer without content.
    pub fn new(description: &str) -> Self {
        let mut answer = Self {
            response: ResponseBuilder::new().description(description).build(),
            definitions: Definitions::default(),
        };
        answer = answer.field(&shared::REQUEST_ID);
        answer
    }

    /// With content.
    pub fn media(mut self, media: Media) -> Self {
        self.definitions.schemas.extend(media.schemas);
        self.response.content.insert(media.media_type.to_owned(), RefOr::T(media.content));
        self
    }

    /// With a header field.
    pub fn field(mut self, field: &Field) -> Self {
        self.definitions.headers.insert(field.component, field.header());
        let header = Ref::new(format!("#/components/headers/{}", field.component));
        self.response.headers.insert(field.name.to_owned(), RefOr::Ref(header));
        self
    }

    /// With what a client may do next.
    pub fn link(mut self, name: &str, link: Link) -> Self {
        self.response.links.insert(name.to_owned(), RefOr::T(link));
        self
    }
}

/// A refusal that several endpoints share.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Its name in the document.
    pub component: &'static str,
    /// Its status.
    pub status: u16,
    /// What it is.
    pub answer: fn() -> Answer,
}

/// One endpoint by one method.
pub struct Endpoint {
    pub(super) path: String,
    pub(super) method: Method,
    pub(super) tag: Tag,
    operation: OperationBuilder,
    security: Option<Vec<SecurityRequirement>>,
    pub(super) is_of_host: bool,
    definitions: Definitions,
}

impl Endpoint {
    /// `operation` is its id, by which generated clients call it.
    pub fn new(method: Method, path: impl Into<String>, tag: Tag, operation: &str) -> Self {
        let endpoint = Self {
            path: path.into(),
            method,
            tag,
            operation: OperationBuilder::new().operation_id(Some(operation)).tag(tag.words().0),
            security: None,
            is_of_host: false,
            definitions: Definitions::default(),
        };
        endpoint.refuses([&shared::BAD_REQUEST, &shared::HEADERS_TOO_LARGE, &shared::INTERNAL])
    }

    /// `GET`
    pub fn get(path: impl Into<String>, tag: Tag, operation: &str) -> Self {
        Self::new(Method::GET, path, tag, operation)
    }

    /// `POST`
    pub fn post(path: impl Into<String>, tag: Tag, operation: &str) -> Self {
        Self::new(Method::POST, path, tag, operation)
    }

    /// What it does, in a few words, and in more.
    pub fn says(mut self, summary: &str, description: &str) -> Self {
        self.operation = self.operation.summary(Some(summary)).description(Some(description));
        self
    }

    /// Where more is said.
    pub fn see(mut self, what: &str, url: &str) -> Self {
        let docs = ExternalDocsBuilder::new().url(url).description(Some(what)).build();
        let mut operation = self.operation.build();
        operation.external_docs = Some(docs);
        self.operation = operation.into();
        self
    }

    /// Takes a parameter.
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.operation = self.operation.parameter(parameter);
        self
    }

    /// Takes content of these types.
    pub fn takes(mut self, description: &str, required: bool, all: impl IntoIterator<Item = Media>) -> Self {
        let required = if required { Required::True } else { Required::False };
        let mut body: RequestBody =
            RequestBodyBuilder::new().description(Some(description)).required(Some(required)).build();
        for media in all {
            self.definitions.schemas.extend(media.schemas);
            body.content.insert(media.media_type.to_owned(), RefOr::T(media.content));
        }
        self.operation = self.operation.request_body(Some(body));
        self.refuses([&shared::REQUEST_TIMEOUT, &shared::CONTENT_TOO_LARGE, &shared::UNAVAILABLE])
    }

    /// Asks for credentials by any one of these schemes.
    pub fn asks_for(mut self, schemes: &[&str]) -> Self {
        let none: [&str; 0] = [];
        self.security = Some(schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, none)).collect());
        self
    }

    /// Lies below the host, not below the path of the issuer (RFC 8615).
    pub fn of_host(mut self) -> Self {
        self.is_of_host = true;
        self
    }

    /// Answers so. Content that depends on the type is one answer.
    pub fn answers(mut self, status: u16, answer: Answer) -> Self {
        self.definitions.take(answer.definitions);
        self.operation = self.operation.response(status.to_string(), answer.response);
        self
    }

    /// Refuses so; a later one of a status replaces the one before.
    pub fn refuses<'a>(mut self, all: impl IntoIterator<Item = &'a Refused>) -> Self {
        for refused in all {
            let answer = (refused.answer)();
            self.definitions.take(answer.definitions);
            self.definitions.responses.insert(refused.component, answer.response);
            let response = Ref::from_response_name(refused.component);
            self.operation = self.operation.response(refused.status.to_string(), response);
        }
        self
    }

    /// Never answers so, though others do.
    pub fn without(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        let mut operation = self.operation.build();
        for status in statuses {
            operation.responses.responses.remove(&status.to_string());
        }
        self.operation = operation.into();
        self
    }

    /// The description, with a Bearer token where the endpoint is guarded.
    pub(super) fn described(mut self, is_guarded: bool) -> (Operation, Definitions) {
        if is_guarded && self.security.is_none() {
            let operation = self.operation.build();
            // What the endpoint says of a status itself, it says better.
            let guards = [&shared::UNAUTHORIZED, &shared::FORBIDDEN, &shared::TOO_MANY_REQUESTS];
            let unsaid = guards
                .into_iter()
                .filter(|guard| !operation.responses.responses.contains_key(&guard.status.to_string()));
            let unsaid: Vec<&Refused> = unsaid.collect();
            self.operation = operation.into();
            self = self.asks_for(&[super::scheme::BEARER, super::scheme::OAUTH2]).refuses(unsaid);
        }
        let mut operation = self.operation.build();
        // None are asked for: said as such, or the document's own would count.
        operation.security = Some(self.security.unwrap_or_default());
        (operation, self.definitions)
    }
}
