//! What these doors take and answer, as schemas.

#![expect(
    dead_code,
    reason = "the types are there for their schemas; what is on the wire is held against them by a test"
)]

use utoipa::ToSchema;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

/// An access token.
#[derive(ToSchema)]
pub(super) struct TokenResponse {
    /// The access token: a JWT (RFC 9068).
    #[schema(max_length = 8192, pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]
    token: String,
    /// The same, by the name that RFC 6749 §5.1 has for it.
    #[schema(max_length = 8192, pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]
    access_token: String,
    token_type: TokenType,
    /// Seconds until it expires.
    #[schema(minimum = 0, maximum = 2_592_000, format = Int32)]
    expires_in: u32,
    /// The granted groups, with blanks between them.
    #[schema(max_length = 8192, pattern = r"^[a-z0-9][a-z0-9._-]*( [a-z0-9][a-z0-9._-]*)*$")]
    scope: String,
}

/// An access token, or one for the registry of container images that the configuration has.
#[derive(ToSchema)]
pub(super) struct AnyTokenResponse {
    /// The token: a JWT.
    #[schema(max_length = 8192, pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]
    token: String,
    /// The same, by the name that RFC 6749 §5.1 has for it.
    #[schema(max_length = 8192, pattern = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")]
    access_token: String,
    token_type: TokenType,
    /// Seconds until it expires.
    #[schema(minimum = 0, maximum = 2_592_000, format = Int32)]
    expires_in: u32,
    /// The granted groups, or what may be done in which repositories, with blanks between them.
    #[schema(max_length = 8192, pattern = r"^[!-~]*( [!-~]+)*$")]
    scope: String,
    /// When it was issued: of a token for the registry alone.
    #[schema(max_length = 32, format = DateTime)]
    issued_at: Option<String>,
}

/// How a token is presented.
#[derive(ToSchema)]
pub(super) enum TokenType {
    Bearer,
}

/// The Client Credentials Grant (RFC 6749 §4.4.2). Parameters that are not listed are ignored.
#[derive(ToSchema)]
pub(super) struct ClientCredentialsRequest {
    grant_type: GrantType,
    /// The groups that are wanted, with blanks between them; all that the credentials have when it is left out.
    #[schema(max_length = 4096, pattern = r"^[a-z0-9._ -]*$")]
    scope: Option<String>,
    /// The key's id, or the account's name, or the whole key. In place of the Authorization header, never beside it.
    #[schema(max_length = 4096, pattern = r"^[A-Za-z0-9._@+-]*$")]
    client_id: Option<String>,
    /// The whole key, or the account's password.
    #[schema(max_length = 4096, format = Password)]
    client_secret: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum GrantType {
    ClientCredentials,
}

/// A question about a token. Parameters that are not listed are ignored, `token_type_hint` among them: there is one type.
#[derive(ToSchema)]
pub(super) struct TokenQuestion {
    /// The token that is meant.
    #[schema(min_length = 1, max_length = 8192, pattern = r"^[A-Za-z0-9._~+/-]+=*$")]
    token: String,
}

/// What a token says (RFC 7662 §2.2). Of one that is not active nothing else is said.
#[derive(ToSchema)]
pub(super) struct Introspection {
    /// Whether it would be let through now.
    active: bool,
    token_type: Option<TokenType>,
    /// The account it was issued to.
    #[schema(max_length = 128, pattern = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$")]
    username: Option<String>,
    /// The groups it reaches, with blanks between them.
    #[schema(max_length = 8192, pattern = r"^[a-z0-9._ -]*$")]
    scope: Option<String>,
    /// The key's id, or the account's name when it was a password.
    #[schema(max_length = 160, pattern = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$")]
    client_id: Option<String>,
    /// When it expires, in seconds since 1970.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64, format = Int64)]
    exp: Option<u64>,
    /// When it was issued.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64, format = Int64)]
    iat: Option<u64>,
    /// Since when it is good.
    #[schema(minimum = 0, maximum = 253_402_300_799_i64, format = Int64)]
    nbf: Option<u64>,
    /// The account.
    #[schema(max_length = 128, pattern = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$")]
    sub: Option<String>,
    #[schema(schema_with = audience, required = false)]
    aud: Option<String>,
    /// Who issued it.
    #[schema(max_length = 2048, format = "uri")]
    iss: Option<String>,
    /// Its own id.
    #[schema(max_length = 22, pattern = r"^[A-Za-z0-9_-]{22}$")]
    jti: Option<String>,
}

/// Whom a token is for: one as text, several as a list (RFC 7519 §4.1.3).
fn audience() -> Schema {
    let one = ObjectBuilder::new().schema_type(Type::String).max_length(Some(2048)).pattern(Some("^.+$")).build();
    let several = ArrayBuilder::new().items(one.clone()).min_items(Some(2)).max_items(Some(64)).build();
    OneOfBuilder::new().item(one).item(several).description(Some("Whom it is for: one, or several.")).into()
}

/// An error as OAuth spells it (RFC 6749 §5.2).
#[derive(ToSchema)]
pub(super) struct OAuthError {
    error: OAuthErrorCode,
    /// What to mend, for people.
    #[schema(max_length = 256, pattern = r"^[ -!#-\[\]-~]*$")]
    error_description: String,
}

/// RFC 6749 §5.2 and §4.1.2.1, RFC 6750 §3.1.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum OAuthErrorCode {
    InvalidRequest,
    InvalidClient,
    UnsupportedGrantType,
    InvalidScope,
    InvalidToken,
    TemporarilyUnavailable,
    ServerError,
}

/// Metadata of the authorization server (RFC 8414).
#[derive(ToSchema)]
pub(super) struct ServerMetadata {
    /// The `iss` of every token.
    #[schema(max_length = 2048, format = "uri")]
    issuer: String,
    #[schema(max_length = 2048, format = "uri")]
    token_endpoint: String,
    #[schema(max_length = 2048, format = "uri")]
    jwks_uri: String,
    /// `none` alone: there is no authorization endpoint.
    #[schema(min_items = 1, max_items = 1)]
    response_types_supported: Vec<ResponseType>,
    #[schema(max_items = 8)]
    grant_types_supported: Vec<GrantType>,
    #[schema(max_items = 8)]
    token_endpoint_auth_methods_supported: Vec<ClientAuthentication>,
    #[schema(max_length = 2048, format = "uri")]
    introspection_endpoint: String,
    #[schema(max_items = 8)]
    introspection_endpoint_auth_methods_supported: Vec<ClientAuthentication>,
    #[schema(max_length = 2048, format = "uri")]
    revocation_endpoint: String,
    #[schema(max_items = 8)]
    revocation_endpoint_auth_methods_supported: Vec<ClientAuthentication>,
    #[schema(max_length = 2048, format = "uri")]
    service_documentation: String,
}

/// OAuth 2.0 Multiple Response Type Encoding Practices §4.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is there for its schema")]
pub(super) enum ResponseType {
    None,
}

/// How clients authenticate (RFC 7591 §2).
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum ClientAuthentication {
    ClientSecretBasic,
    ClientSecretPost,
}

/// Metadata of what is guarded (RFC 9728).
#[derive(ToSchema)]
pub(super) struct ResourceMetadata {
    #[schema(max_length = 2048, format = "uri")]
    resource: String,
    #[schema(max_items = 8)]
    authorization_servers: Vec<IssuerUrl>,
    #[schema(max_length = 2048, format = "uri")]
    jwks_uri: String,
    /// Only in the Authorization header.
    #[schema(max_items = 1)]
    bearer_methods_supported: Vec<BearerMethod>,
    #[schema(max_length = 2048, format = "uri")]
    resource_documentation: String,
}

/// An issuer.
#[derive(ToSchema)]
#[schema(max_length = 2048, format = "uri")]
pub(super) struct IssuerUrl(String);

/// RFC 6750 §2.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum BearerMethod {
    Header,
}

/// The keys that verify tokens (RFC 7517 §5).
#[derive(ToSchema)]
pub(super) struct JwkSet {
    #[schema(max_items = 256)]
    keys: Vec<Jwk>,
}

/// A public key. Those of RSA have `n` and `e`, those on curves `crv` and `x`, and on P-256 `y`.
#[derive(ToSchema)]
pub(super) struct Jwk {
    kty: KeyType,
    /// What it is for: signatures.
    #[schema(rename = "use")]
    use_: KeyUse,
    alg: SignatureAlgorithm,
    /// Its thumbprint (RFC 7638).
    #[schema(max_length = 43, pattern = "^[A-Za-z0-9_-]{43}$")]
    kid: String,
    /// The modulus.
    #[schema(max_length = 1366, pattern = "^[A-Za-z0-9_-]+$")]
    n: Option<String>,
    /// The exponent.
    #[schema(max_length = 16, pattern = "^[A-Za-z0-9_-]+$")]
    e: Option<String>,
    crv: Option<Curve>,
    #[schema(max_length = 43, pattern = "^[A-Za-z0-9_-]{43}$")]
    x: Option<String>,
    #[schema(max_length = 43, pattern = "^[A-Za-z0-9_-]{43}$")]
    y: Option<String>,
}

#[derive(ToSchema)]
pub(super) enum KeyType {
    #[schema(rename = "RSA")]
    Rsa,
    #[schema(rename = "EC")]
    Ec,
    #[schema(rename = "OKP")]
    Okp,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum KeyUse {
    Sig,
}

#[derive(ToSchema)]
pub(super) enum SignatureAlgorithm {
    #[schema(rename = "RS256")]
    Rs256,
    #[schema(rename = "ES256")]
    Es256,
    #[schema(rename = "EdDSA")]
    EdDsa,
}

#[derive(ToSchema)]
pub(super) enum Curve {
    #[schema(rename = "P-256")]
    P256,
    Ed25519,
}
