//! Calls as Envoy makes them, and such as it does not.

use http_body_util::Full;
use proptest::prelude::*;

use super::super::messages::{
    AttributeContext, HeaderMap as Lines, Pipe, Request as Attributes, SocketAddress, Source,
};
use super::super::tests::{House, PROXY, stranger};
use super::*;
use crate::tokens::{Client, Deprecated, Terms};

/// What Envoy sends for a request by TLS.
fn check_request(method: &str, path: &str, authorization: Option<&str>) -> CheckRequest {
    let fields = [
        (":authority", "api.example.com"),
        (":method", method),
        (":path", path),
        (":scheme", "https"),
        ("user-agent", "curl/8.14.1"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "0f1e2d3c-0000-4000-8000-000000000000"),
    ];
    let mut headers: std::collections::HashMap<_, _> =
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    headers.extend(authorization.map(|value| ("authorization".to_owned(), value.to_owned())));
    let http = HttpRequest {
        method: method.into(),
        headers,
        path: path.into(),
        host: "api.example.com:443".into(),
        scheme: "https".into(),
        header_map: None,
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(source("203.0.113.7")),
            request: Some(Attributes { http: Some(http) }),
        }),
    }
}

fn source(address: &str) -> Source {
    let socket_address = Some(SocketAddress { address: address.into() });
    Source { address: Some(Address { socket_address, pipe: None }) }
}

fn http(call: &mut CheckRequest) -> &mut HttpRequest {
    call.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// Makes a call with this content, and says what came of it: the status of HTTP, of gRPC, the message and the log's word.
async fn call(
    house: &House,
    peer: Peer,
    path: &str,
    content: Bytes,
) -> (u16, u16, Option<CheckResponse>, Option<&'static str>) {
    let request = Request::post(path).header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
    let request = request.body(Body::new(Full::new(content))).unwrap();
    let exchange = house.exchange(&request.clone_head());
    let response = house.door.check(&exchange, peer, request).await;
    let (head, body) = response.into_parts();
    assert_eq!(head.headers[CONTENT_TYPE], "application/grpc");
    let body = body.collect().await.unwrap();
    let status = head.headers.get(GRPC_STATUS).or(body.trailers().and_then(|trailers| trailers.get(GRPC_STATUS)));
    let status = status.unwrap().to_str().unwrap().parse().unwrap();
    let mut frame = body.to_bytes();
    let message = (!frame.is_empty()).then(|| {
        assert_eq!(frame.get_u8(), 0);
        assert_eq!(frame.get_u32() as usize, frame.len());
        CheckResponse::decode(frame).unwrap()
    });
    (head.status.as_u16(), status, message, exchange.reason())
}

trait Head {
    fn clone_head(&self) -> http::request::Parts;
}

impl<B> Head for Request<B> {
    fn clone_head(&self) -> http::request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method().clone();
        head.uri = self.uri().clone();
        head
    }
}

async fn check(house: &House, message: &CheckRequest) -> CheckResponse {
    let (http, grpc, response, _) = call(house, PROXY, CHECK, framed(0, &message.encode_to_vec())).await;
    assert_eq!((http, grpc), (200, 0));
    response.unwrap()
}

/// Status, reason and code of a denial.
fn denial(response: &CheckResponse) -> (i32, &str, i32) {
    assert_eq!(response.ok_response, None);
    let denied = response.denied_response.as_ref().expect("it is denied");
    let code = response.status.as_ref().unwrap().code;
    (denied.status.unwrap().code, header(&denied.headers, "x-auth-reason").expect("a reason"), code)
}

fn header<'a>(headers: &'a [HeaderValueOption], name: &str) -> Option<&'a str> {
    by(OVERWRITE_IF_EXISTS_OR_ADD, headers, name)
}

/// A header that is to be put on in this way.
fn by<'a>(action: i32, headers: &'a [HeaderValueOption], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|option| option.header.as_ref().unwrap().key == name)?;
    assert_eq!(header.append_action, action, "{name}");
    Some(&header.header.as_ref().unwrap().value)
}

/// What bounds a request is said to its client, whether it passes or not.
#[tokio::test]
async fn a_plan_is_told_to_the_client() {
    let house = House::new();
    let terms = Terms { plan: Some("pro".parse().unwrap()), ..Terms::default() };
    house.admit_on(terms, "bound", "carol", Client::Key("AbCdEfGhIjKm".parse().unwrap()), &["orders"]);
    let asked = check_request("GET", "/orders/1", Some("Bearer bound"));
    for left in [1, 0] {
        let ok = check(&house, &asked).await.ok_response.expect("it passes");
        let said = by(APPEND_IF_EXISTS_OR_ADD, &ok.response_headers_to_add, "ratelimit").expect("a field");
        assert!(said.starts_with(&format!("\"pro.day\";r={left};t=")), "{said}");
        assert_eq!(
            by(APPEND_IF_EXISTS_OR_ADD, &ok.response_headers_to_add, "ratelimit-policy"),
            Some("\"pro.day\";q=2;w=86400")
        );
        assert_eq!(header(&ok.headers, "ratelimit"), None, "it is nothing to the API");
    }
    let response = check(&house, &asked).await;
    assert_eq!(denial(&response), (429, "quota_exceeded", i32::from(RESOURCE_EXHAUSTED)));
    let denied = response.denied_response.expect("a denial");
    assert!(header(&denied.headers, "ratelimit").is_some_and(|said| said.starts_with("\"pro.day\";r=0;t=")));
    assert!(header(&denied.headers, "retry-after").is_some());
    assert!(denied.body.contains("\"violated-policies\":[\"pro.day\"]"), "{}", denied.body);
}

#[tokio::test]
async fn who_may_pass_passes_with_the_identity_and_without_the_credential() {
    let response = check(&House::new(), &check_request("GET", "/orders/7?x=1", Some("Bearer good"))).await;
    assert_eq!(response.status.unwrap().code, 0);
    assert_eq!(response.denied_response, None);
    let ok = response.ok_response.unwrap();
    assert_eq!(ok.headers.len(), 5);
    assert_eq!(header(&ok.headers, "x-auth-subject"), Some("alice"));
    assert_eq!(header(&ok.headers, "x-auth-key-id"), Some("kb_AbCdEfGhIjKl"));
    assert_eq!(header(&ok.headers, "x-auth-groups"), Some("orders,billing"));
    assert_eq!(ok.headers_to_remove, ["authorization"]);
}

#[tokio::test]
async fn the_client_hears_by_envoy_that_its_secret_was_replaced() {
    let house = House::new();
    let deprecated = Some(Deprecated { since: 1_688_169_599, until: Some(784_111_777) });
    let terms = Terms { deprecated, ..Terms::default() };
    house.admit_on(terms, "old", "alice", Client::Password, &["orders"]);
    let ok = check(&house, &check_request("GET", "/orders/7", Some("Bearer old"))).await.ok_response.unwrap();
    assert_eq!(by(ADD_IF_ABSENT, &ok.response_headers_to_add, "deprecation"), Some("@1688169599"));
    assert_eq!(by(ADD_IF_ABSENT, &ok.response_headers_to_add, "sunset"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let ok = check(&house, &check_request("GET", "/orders/7", Some("Bearer good"))).await.ok_response.unwrap();
    assert_eq!(ok.response_headers_to_add, []);
}

#[tokio::test]
async fn look_alikes_of_the_identity_are_removed() {
    let mut message = check_request("GET", "/orders", Some("Bearer good"));
    for name in ["x_auth_subject", "x-auth-subject", "x-other"] {
        http(&mut message).headers.insert(name.into(), "root".into());
    }
    let line = Header { key: "x.auth.groups".into(), value: "all".into(), raw_value: vec![] };
    http(&mut message).header_map = Some(Lines { headers: vec![line] });
    let ok = check(&House::new(), &message).await.ok_response.unwrap();
    assert_eq!(ok.headers_to_remove, ["x_auth_subject", "x.auth.groups", "authorization"]);
    assert_eq!(header(&ok.headers, "x-auth-subject"), Some("alice"));
}

#[tokio::test]
async fn denials_carry_status_challenge_reason_and_problem() {
    let house = House::new();
    for (method, path, authorization, verdict) in [
        ("GET", "/orders", None, (401, "token_missing", 16)),
        ("GET", "/orders?access_token=good", None, (401, "token_in_query", 16)),
        ("GET", "/orders", Some("Bearer forged"), (401, "token_malformed", 16)),
        ("GET", "/orders", Some("Bearer good,Bearer good"), (401, "token_malformed", 16)),
        ("GET", "/orders", Some("Bearer weak"), (403, "insufficient_scope", 7)),
        ("DELETE", "/orders", Some("Bearer good"), (403, "method_not_allowed", 7)),
        ("GET", "/nowhere", Some("Bearer good"), (403, "no_route", 7)),
        ("GET", "/a/../orders", Some("Bearer good"), (403, "ambiguous_path", 7)),
        ("GET", "", Some("Bearer good"), (403, "original_request", 7)),
        ("GET", "*", Some("Bearer good"), (403, "original_request", 7)),
        ("G T", "/orders", Some("Bearer good"), (403, "original_request", 7)),
        ("", "/orders", Some("Bearer good"), (403, "original_request", 7)),
    ] {
        let response = check(&house, &check_request(method, path, authorization)).await;
        assert_eq!(denial(&response), verdict, "{method} {path} {authorization:?}");
    }
    let response = check(&house, &check_request("GET", "/orders", None)).await.denied_response.unwrap();
    let challenge = r#"Bearer realm="api", resource_metadata="https://api.example.com/r""#;
    assert_eq!(header(&response.headers, "www-authenticate"), Some(challenge));
    assert_eq!(header(&response.headers, "content-type"), Some("application/problem+json"));
    assert_eq!(header(&response.headers, "strict-transport-security"), None, "that is for the API's operator to say");
    let problem: serde_json::Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(problem["type"], "urn:keybearer:problem:missing-token");

    let demo = check_request("GET", "/open", Some("Bearer demo"));
    for said in ["\"demo.address\";r=1;t=30", "\"demo.address\";r=0;t=30"] {
        let ok = check(&house, &demo).await.ok_response.expect("it passes");
        assert_eq!(by(APPEND_IF_EXISTS_OR_ADD, &ok.response_headers_to_add, "ratelimit"), Some(said));
        assert_eq!(
            by(APPEND_IF_EXISTS_OR_ADD, &ok.response_headers_to_add, "ratelimit-policy"),
            Some("\"demo.address\";q=2;w=60")
        );
    }
    let response = check(&house, &demo).await;
    assert_eq!(denial(&response), (429, "demo_rate", 8));
    let denied = response.denied_response.unwrap();
    assert_eq!(header(&denied.headers, "retry-after"), Some("30"));
    assert_eq!(header(&denied.headers, "ratelimit"), Some("\"demo.address\";r=0;t=30"));
}

#[tokio::test]
async fn what_envoy_does_not_say_is_not_guessed() {
    let house = House::new();
    let good = || check_request("GET", "/orders", Some("Bearer good"));
    let verdict = async |change: &dyn Fn(&mut CheckRequest)| {
        let mut message = good();
        change(&mut message);
        let response = check(&house, &message).await;
        response.denied_response.is_some().then(|| denial(&response).1.to_owned())
    };
    let refused = |word: &str| Some(word.to_owned());
    assert_eq!(verdict(&|_| ()).await, None);
    assert_eq!(verdict(&|call| call.attributes = None).await, refused("original_request"));
    let attributes = |call: &mut CheckRequest| call.attributes.take().unwrap();
    let without_request = |call: &mut CheckRequest| {
        call.attributes = Some(AttributeContext { request: None, ..attributes(call) });
    };
    assert_eq!(verdict(&without_request).await, refused("original_request"));
    let without_source = |call: &mut CheckRequest| {
        call.attributes = Some(AttributeContext { source: None, ..attributes(call) });
    };
    assert_eq!(verdict(&without_source).await, refused("original_request"));
    assert_eq!(verdict(&|call| http(call).host.clear()).await, refused("original_request"));
    assert_eq!(verdict(&|call| http(call).host = "a,b".into()).await, refused("original_request"));
    assert_eq!(verdict(&|call| http(call).scheme = "http".into()).await, refused("not_https"));
    assert_eq!(verdict(&|call| http(call).scheme.clear()).await, None, "it need not say it");
}

#[tokio::test]
async fn raw_headers_are_read_as_well_and_a_doubled_authorization_is_refused() {
    let house = House::new();
    let line = |key: &str, value: &str| Header { key: key.into(), value: String::new(), raw_value: value.into() };
    let mut message = check_request("GET", "/orders", None);
    http(&mut message).headers.clear();
    http(&mut message).header_map = Some(Lines { headers: vec![line("authorization", "Bearer good")] });
    assert!(check(&house, &message).await.ok_response.is_some());
    http(&mut message).header_map.as_mut().unwrap().headers.push(line("authorization", "Bearer weak"));
    assert_eq!(denial(&check(&house, &message).await), (403, "original_request", 7));
}

#[test]
fn the_client_is_envoys_peer_or_whom_that_names_if_it_is_trusted() {
    let trusted = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]);
    let client = |source: Source, hops: &str| {
        let mut message = check_request("GET", "/", None);
        message.attributes.as_mut().unwrap().source = Some(source);
        http(&mut message).headers.insert("x-forwarded-for".into(), hops.into());
        read(&message, &trusted).map(|(original, _)| original.client.to_string())
    };
    assert_eq!(client(source("203.0.113.7"), "6.6.6.6, 203.0.113.7").as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(source("203.0.113.7"), "6.6.6.6").as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(source("10.0.0.2"), "6.6.6.6, 203.0.113.9, 10.0.0.2").as_deref(), Ok("203.0.113.9"));
    assert_eq!(client(source("10.0.0.2"), "").as_deref(), Ok("10.0.0.2"));
    let pipe = Source { address: Some(Address { socket_address: None, pipe: Some(Pipe {}) }) };
    assert_eq!(client(pipe, "6.6.6.6, 203.0.113.9").as_deref(), Ok("203.0.113.9"));
    assert_eq!(client(source("somewhere"), "6.6.6.6"), Err(Error::Malformed("source.address")));
    assert_eq!(client(Source { address: None }, "6.6.6.6"), Err(Error::Missing("source.address")));
}

#[tokio::test]
async fn a_stranger_is_denied_and_not_failed() {
    let house = House::new();
    let good = framed(0, &check_request("GET", "/orders", Some("Bearer good")).encode_to_vec());
    let (_, grpc, response, reason) = call(&house, stranger(), CHECK, good.clone()).await;
    assert_eq!((grpc, reason), (0, Some("untrusted_peer")));
    assert_eq!(denial(&response.unwrap()), (403, "untrusted_peer", 7));
    assert!(call(&house, Peer::Unix, CHECK, good).await.2.unwrap().ok_response.is_some());
}

#[tokio::test]
async fn what_cannot_be_read_is_denied_and_not_failed() {
    let house = House::new();
    let good = check_request("GET", "/orders", Some("Bearer good")).encode_to_vec();
    let frame = framed(0, &good);
    let mut two = BytesMut::from(&frame[..]);
    two.extend_from_slice(&frame);
    let mut large = check_request("GET", "/orders", Some("Bearer good"));
    http(&mut large).headers.insert("x-large".into(), "x".repeat(MESSAGE_BYTES));
    for (name, content) in [
        ("nothing", Bytes::new()),
        ("no whole prefix", frame.slice(..4)),
        ("truncated", frame.slice(..frame.len() - 1)),
        ("two messages", two.freeze()),
        ("no message of protobuf", framed(0, b"\xff\xff\xff")),
        ("another flag", framed(2, &good)),
        ("oversize", framed(0, &large.encode_to_vec())),
    ] {
        let (http, grpc, response, reason) = call(&house, PROXY, CHECK, content).await;
        assert_eq!((http, grpc, reason), (200, 0, Some("original_request")), "{name}");
        assert_eq!(denial(&response.unwrap()), (403, "original_request", 7), "{name}");
    }
}

#[tokio::test]
async fn what_is_not_this_method_is_unimplemented() {
    let house = House::new();
    let good = check_request("GET", "/orders", Some("Bearer good")).encode_to_vec();
    let other = "/envoy.service.auth.v2.Authorization/Check";
    let (http, grpc, response, reason) = call(&house, PROXY, other, framed(0, &good)).await;
    assert_eq!((http, grpc, response, reason), (200, 12, None, Some("unknown_method")));
    let (http, grpc, response, reason) = call(&house, PROXY, CHECK, framed(1, &good)).await;
    assert_eq!((http, grpc, response, reason), (200, 12, None, Some("compressed_message")));
    for request in [
        Request::get(CHECK).header(CONTENT_TYPE, "application/grpc"),
        Request::post(CHECK).header(CONTENT_TYPE, "application/json"),
        Request::post(CHECK),
    ] {
        let request = request.body(Body::empty()).unwrap();
        let exchange = house.exchange(&request.clone_head());
        assert_eq!(house.door.check(&exchange, PROXY, request).await.status(), 415);
    }
}

/// Bytes as Envoy writes them, by the published field numbers: nothing here is encoded by the code that is tested.
#[tokio::test]
async fn the_field_numbers_are_those_of_the_published_messages() {
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length > 0x7f {
            out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap());
        out.extend_from_slice(content);
        out
    }
    let entry = |key: &str, value: &str| field(3, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let port = [3 << 3, 0x90, 0x4e];
    let socket = [field(2, b"203.0.113.7"), port.to_vec()].concat();
    let peer = [field(1, &field(1, &socket)), field(2, b"a service"), field(4, b"a principal")].concat();
    let http = [
        field(1, b"an id"),
        field(2, b"GET"),
        entry("authorization", "Bearer good"),
        entry("x-forwarded-for", "203.0.113.7"),
        field(4, b"/orders/7?x=1"),
        field(5, b"api.example.com"),
        field(6, b"https"),
        field(10, b"HTTP/2"),
        field(12, b"a body"),
    ]
    .concat();
    let request = [field(1, &[1 << 3, 1]), field(2, &http)].concat();
    let attributes = [field(1, &peer), field(2, &peer), field(4, &request), field(10, &field(1, b"k"))].concat();
    let message = field(1, &attributes);
    let (_, grpc, response, _) = call(&House::new(), PROXY, CHECK, framed(0, &message)).await;
    assert_eq!(grpc, 0);
    let written = response.unwrap().encode_to_vec();
    let option =
        [field(1, &[field(1, b"x-auth-subject"), field(2, b"alice")].concat()), vec![3 << 3, 2, 4 << 3, 1]].concat();
    let is_in = |part: Vec<u8>| written.windows(part.len()).any(|window| window == part);
    assert!(is_in(field(2, &option)), "ok_response.headers");
    assert!(is_in(field(5, b"authorization")), "ok_response.headers_to_remove");
    assert_eq!(written[..2], [1 << 3 | 2, 0], "status: an empty message, whose code is OK");
    assert_eq!(written[2], 3 << 3 | 2, "ok_response");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_denied(content in proptest::collection::vec(any::<u8>(), 0..200), framing in any::<bool>()) {
        let content = if framing { framed(0, &content) } else { content.into() };
        if let Some(request) = message(content) {
            let _ = read(&request, &TrustedProxies::default()).map(|(original, _)| original.path.into_owned());
        }
    }

    #[test]
    fn any_strings_are_read_or_denied(method in any::<String>(), path in ".{0,30}", host in ".{0,20}") {
        let mut request = check_request(&method, &path, None);
        http(&mut request).host = host;
        if let Ok((original, _)) = read(&request, &TrustedProxies::default()) {
            let asked = path.split('?').next().unwrap();
            prop_assert_eq!(Ok(original.path), crate::routes::normalise(asked));
        }
    }
}
