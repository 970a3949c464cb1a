use proptest::prelude::*;

use super::*;

const IDS: [u8; 24] = [0xab; 24];
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn direct() -> Onward<'static> {
    Onward {
        version: Version::HTTP_11,
        peer: "192.0.2.1".parse().unwrap(),
        chain: None,
        host: "api.example.com",
        request: RequestId(0xfeed),
        pass_credentials: false,
        identity: None,
    }
}

fn identity() -> IdentityHeaders {
    ["x-auth-subject", "x-auth-key-id", "x-auth-groups", "x-auth-token-id", "x-auth-expires"]
        .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("ours")))
}

fn sent_by(onward: Onward<'_>, lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = map(lines);
    onward.apply(&mut headers, || IDS).unwrap();
    headers
}

fn sent(lines: &[(&str, &str)]) -> HeaderMap {
    sent_by(direct(), lines)
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn a_request_without_anything_gets_the_gateways_own_fields() {
    let headers = sent(&[("accept", "*/*"), ("host", "api.example.com")]);
    let expected = map(&[
        ("accept", "*/*"),
        ("host", "api.example.com"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "api.example.com"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1;host=api.example.com;proto=https"),
        ("x-request-id", "000000000000feed"),
        ("traceparent", "00-abababababababababababababababab-abababababababab-01"),
        ("via", "1.1 keybearer"),
    ]);
    assert_eq!(headers, expected);
}

#[test]
fn what_is_for_one_hop_goes() {
    let one_hop = [
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authorization", "Basic eDp5"),
        ("proxy-authentication-info", "x"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ];
    let headers = sent(&one_hop);
    let mut answer = map(&one_hop);
    homeward(&mut answer, Version::HTTP_11);
    for (name, _) in one_hop {
        assert!(!headers.contains_key(name), "{name} of a request");
        assert!(!answer.contains_key(name), "{name} of an answer");
    }
    assert_eq!(answer, map(&[("via", "1.1 keybearer")]));
}

#[test]
fn every_field_for_one_hop_has_its_place() {
    for (place, name) in HOP_BY_HOP.iter().enumerate() {
        assert_eq!(hop(name.as_str()), Some(place), "{name}");
    }
    assert_eq!((HOP_BY_HOP[CONNECTION_PLACE].clone(), HOP_BY_HOP[TE_PLACE].clone()), (CONNECTION, TE));
}

#[test]
fn what_connection_names_goes_too() {
    for connection in [
        &["x-one, X-Two"][..],
        &["close, x-one,x-two"],
        &["x-one", "X-TWO"],
        &[" , x-one ,,\tx-two, ", "keep-alive"],
        &["no name, x-one, \"", "x-two, close"],
    ] {
        let mut lines = vec![("x-one", "1"), ("x-one", "2"), ("x-two", "3"), ("x-three", "4")];
        lines.extend(connection.iter().map(|value| ("connection", *value)));
        let headers = sent(&lines);
        assert!(!headers.contains_key("x-one") && !headers.contains_key("x-two"), "{connection:?}");
        assert_eq!(values(&headers, "x-three"), ["4"]);
    }
}

#[test]
fn connection_cannot_take_off_what_decides_how_a_request_is_understood() {
    let kept = [
        ("authorization", "Bearer x"),
        ("host", "api.example.com"),
        ("content-length", "3"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("cookie", "a=b"),
        ("cache-control", "no-cache"),
        ("traceparent", TRACE),
        ("tracestate", "a=b"),
        ("trailer", "x"),
    ];
    let names: Vec<&str> = kept.iter().map(|(name, _)| *name).collect();
    let named = format!("close, {}, via, forwarded, x-forwarded-for, x-auth-subject, x-request-id", names.join(", "));
    let mut lines = kept.to_vec();
    lines.push(("connection", &named));
    lines.push(("via", "1.1 other"));
    let onward = Onward { pass_credentials: true, identity: Some(identity()), ..direct() };
    let headers = sent_by(onward, &lines);
    for (name, value) in kept {
        assert_eq!(values(&headers, name), [value], "{name}");
    }
    assert_eq!(values(&headers, "via"), ["1.1 other", "1.1 keybearer"]);
    assert_eq!(values(&headers, "x-auth-subject"), ["ours"]);
    assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
}

#[test]
fn only_the_wish_for_trailers_is_passed_on() {
    for (te, passed) in [
        (&["trailers"][..], &["trailers"][..]),
        (&["gzip, Trailers"], &["trailers"]),
        (&["gzip", "trailers"], &["trailers"]),
        (&["gzip;q=0.5"], &[]),
        (&["trailers-not"], &[]),
    ] {
        let mut lines = vec![("connection", "te")];
        lines.extend(te.iter().map(|value| ("te", *value)));
        assert_eq!(values(&sent(&lines), "te"), passed, "{te:?}");
    }
    let mut headers = sent(&[("connection", "TE, close"), ("te", "trailers")]);
    name_te(&mut headers);
    assert_eq!(values(&headers, "connection"), ["te"]);
    let mut headers = sent(&[]);
    name_te(&mut headers);
    assert!(!headers.contains_key("connection"));
}

#[test]
fn an_upgrade_is_said_anew() {
    let mut headers = sent(&[("connection", "keep-alive, Upgrade, x-one"), ("upgrade", "websocket"), ("x-one", "1")]);
    assert!(!headers.contains_key("upgrade"));
    upgrade(&mut headers, HeaderValue::from_static("websocket"));
    assert_eq!((values(&headers, "connection"), values(&headers, "upgrade")), (vec!["upgrade"], vec!["websocket"]));
    assert!(!headers.contains_key("x-one"));
}

#[test]
fn look_alikes_of_our_own_words_are_dropped() {
    let forged = [
        "x-auth-subject",
        "x-auth-groups",
        "X-AUTH-other",
        "x_auth_subject",
        "x.auth.subject",
        "x-forwarded-port",
        "x_forwarded_for",
        "x-real-ip",
        "x_request_id",
    ];
    let lines: Vec<_> = forged.iter().map(|name| (*name, "forged")).collect();
    let headers = sent(&lines);
    assert!(headers.values().all(|value| value != "forged"), "{headers:?}");
    let headers = sent_by(Onward { identity: Some(identity()), ..direct() }, &lines);
    assert_eq!(values(&headers, "x-auth-subject"), ["ours"]);
    assert_eq!(headers.keys().filter(|name| name.as_str().starts_with("x-auth-")).count(), 5);
}

#[test]
fn credentials_are_taken_off_unless_they_are_to_be_passed() {
    let lines = [("authorization", "Bearer x"), ("proxy-authorization", "Basic eDp5")];
    assert!(!sent(&lines).contains_key("authorization"));
    let headers = sent_by(Onward { pass_credentials: true, ..direct() }, &lines);
    assert_eq!(values(&headers, "authorization"), ["Bearer x"]);
    assert!(!headers.contains_key("proxy-authorization"));
}

#[test]
fn an_expectation_is_for_this_hop() {
    assert!(!sent(&[("expect", "100-continue")]).contains_key("expect"));
}

#[test]
fn the_client_is_named_in_both_forms() {
    for (peer, chain, host, forwarded_for, forwarded) in [
        ("192.0.2.1", None, "a.example", "192.0.2.1", "for=192.0.2.1;host=a.example;proto=https"),
        (
            "2001:db8::1",
            None,
            "a.example:8443",
            "2001:db8::1",
            r#"for="[2001:db8::1]";host="a.example:8443";proto=https"#,
        ),
        ("::ffff:192.0.2.1", None, "[::1]", "192.0.2.1", r#"for=192.0.2.1;host="[::1]";proto=https"#),
        ("192.0.2.1", None, "", "192.0.2.1", "for=192.0.2.1;proto=https"),
        ("192.0.2.1", None, "a\"\\", "192.0.2.1", r#"for=192.0.2.1;host="a\"\\";proto=https"#),
        (
            "10.0.0.1",
            Some("203.0.113.7, [2001:db8::2]:80,nonsense"),
            "a.example",
            "203.0.113.7, [2001:db8::2]:80,nonsense, 10.0.0.1",
            r#"for=203.0.113.7, for="[2001:db8::2]", for=unknown, for=10.0.0.1;host=a.example;proto=https"#,
        ),
    ] {
        let headers = sent_by(
            Onward { peer: peer.parse().unwrap(), chain, host, ..direct() },
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-for", "7.7.7.7"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "forged"),
                ("forwarded", "for=6.6.6.6"),
                ("forwarded", "for=7.7.7.7"),
            ],
        );
        assert_eq!(values(&headers, "x-forwarded-for"), [forwarded_for]);
        assert_eq!(values(&headers, "forwarded"), [forwarded]);
        assert_eq!(values(&headers, "x-forwarded-host"), [host]);
        assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
    }
}

#[test]
fn a_host_that_makes_no_field_takes_none_with_it() {
    let headers =
        sent_by(Onward { host: "a\nb", ..direct() }, &[("x-forwarded-host", "forged"), ("forwarded", "forged")]);
    assert!(!headers.contains_key("x-forwarded-host") && !headers.contains_key("forwarded"));
    assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
}

#[test]
fn a_trusted_proxy_tells_of_the_hops_before_it() {
    for (lines, told) in [
        (
            &[("x-forwarded-for", "203.0.113.7,198.51.100.1"), ("x-forwarded-for", " 10.0.0.2")][..],
            Some("203.0.113.7, 198.51.100.1, 10.0.0.2"),
        ),
        (&[("forwarded", r#"For="[2001:db8::1]:80";proto=https, for=203.0.113.7"#)], Some("2001:db8::1, 203.0.113.7")),
        (&[("forwarded", r#"proto=https;for=_hidden"#)], Some("unknown")),
        (&[("forwarded", "proto=https"), ("x-forwarded-for", " , ")], None),
        (&[], None),
    ] {
        assert_eq!(chain(&map(lines)).as_deref(), told, "{lines:?}");
    }
}

#[test]
fn via_names_the_version_that_was_received() {
    for (version, entry) in
        [(Version::HTTP_10, "1.0 keybearer"), (Version::HTTP_11, "1.1 keybearer"), (Version::HTTP_2, "2 keybearer")]
    {
        let headers = sent_by(Onward { version, ..direct() }, &[("via", "1.1 first, 2 second")]);
        assert_eq!(values(&headers, "via"), ["1.1 first, 2 second", entry]);
        let mut answer = map(&[("via", "1.1 origin")]);
        homeward(&mut answer, version);
        assert_eq!(values(&answer, "via"), ["1.1 origin", entry]);
    }
}

#[test]
fn a_request_that_comes_round_again_and_again_is_a_loop() {
    let passed = |times: usize| {
        let mut headers = map(&[("via", "1.1 keybearer-not, 1.1 other (keybearer)")]);
        for n in 0..times {
            headers
                .append("via", HeaderValue::from_static(if n % 2 == 0 { "2 keybearer" } else { "1.1  KeyBearer (x)" }));
        }
        direct().apply(&mut headers, || IDS)
    };
    assert_eq!(passed(8), Ok(()));
    assert_eq!(passed(9), Err(LoopDetected));
    let line = ["1.1 keybearer"; 9].join(",");
    assert_eq!(direct().apply(&mut map(&[("via", &line)]), || IDS), Err(LoopDetected));
}

#[test]
fn a_trace_that_can_be_read_is_passed_unchanged_and_any_other_begun() {
    let headers = sent(&[("traceparent", TRACE), ("tracestate", "a=1"), ("tracestate", "b=2")]);
    assert_eq!(values(&headers, "traceparent"), [TRACE]);
    assert_eq!(values(&headers, "tracestate"), ["a=1", "b=2"]);
    let begun = "00-abababababababababababababababab-abababababababab-01";
    for bad in [&["nonsense"][..], &[TRACE, TRACE], &[]] {
        let mut lines = vec![("tracestate", "a=1")];
        lines.extend(bad.iter().map(|line| ("traceparent", *line)));
        let headers = sent(&lines);
        assert_eq!(values(&headers, "traceparent"), [begun], "{bad:?}");
        assert!(!headers.contains_key("tracestate"), "a state without its trace: {bad:?}");
    }
}

#[test]
fn chance_is_asked_only_where_a_trace_begins() {
    let mut headers = map(&[("traceparent", TRACE)]);
    direct().apply(&mut headers, || unreachable!("the trace is there")).unwrap();
}

#[test]
fn an_answer_keeps_all_but_its_hop() {
    let lines =
        [("x-auth-subject", "the upstream's own"), ("content-length", "5"), ("server", "x"), ("set-cookie", "a=b")];
    let mut answer = map(&lines);
    answer.insert(CONNECTION, HeaderValue::from_static("close, x-hop, content-length"));
    answer.insert("x-hop", HeaderValue::from_static("1"));
    homeward(&mut answer, Version::HTTP_2);
    let mut expected = map(&lines);
    expected.insert(VIA, HeaderValue::from_static("2 keybearer"));
    assert_eq!(answer, expected);
}

#[test]
fn a_trailer_section_holds_nothing_that_belongs_in_a_head() {
    let mut section = map(&[
        ("grpc-status", "0"),
        ("x-checksum", "1"),
        ("x-auth-subject", "forged"),
        ("x_auth_subject", "forged"),
        ("x-request-id", "forged"),
        ("forwarded", "forged"),
        ("authorization", "forged"),
        ("content-length", "7"),
        ("transfer-encoding", "chunked"),
        ("host", "forged"),
        ("te", "trailers"),
    ]);
    trailers(&mut section);
    assert_eq!(section, map(&[("grpc-status", "0"), ("x-checksum", "1")]));
}

proptest! {
    #[test]
    fn nothing_of_the_hop_and_no_forged_word_is_left(
        lines in prop::collection::vec((
            prop_oneof![
                "[a-z]{1,3}",
                "[xX][-_.](auth|AUTH|forwarded|real|request)[-_.](subject|groups|ip|id|for|x)",
                Just("connection".to_owned()), Just("te".to_owned()), Just("forwarded".to_owned()),
                Just("authorization".to_owned()), Just("keep-alive".to_owned()), Just("via".to_owned()),
                Just("traceparent".to_owned()), Just("x-auth-subject".to_owned()), Just("upgrade".to_owned()),
            ],
            prop_oneof!["[ -~]{0,12}", "([a-z]{1,3}|,| |x-auth-subject|authorization|keep-alive){0,5}"],
        ), 0..25),
        pass_credentials in any::<bool>(),
    ) {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (&**name, &**value)).collect();
        let received = map(&lines);
        let mut headers = received.clone();
        let onward = Onward { identity: Some(identity()), pass_credentials, ..direct() };
        if onward.apply(&mut headers, || IDS).is_err() { return Ok(()) }
        for option in received.get_all(CONNECTION).iter().flat_map(|value| value.to_str().unwrap().split(',')) {
            let option = option.trim().to_ascii_lowercase();
            prop_assert!(
                is_protected(&option) || !headers.contains_key(&option) || (option == "te" && headers["te"] == "trailers"),
                "{} is left", option
            );
        }
        for (name, value) in identity() {
            prop_assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), [&value]);
        }
        let set = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-request-id"];
        for name in headers.keys().map(HeaderName::as_str).filter(|name| is_ours(name)) {
            prop_assert!(set.contains(&name) || identity().iter().any(|(ours, _)| ours == name), "{} is left", name);
        }
        for name in set {
            prop_assert_eq!(headers.get_all(name).iter().count(), 1);
        }
        for name in HOP_BY_HOP.iter().filter(|name| **name != TE) {
            prop_assert!(!headers.contains_key(name));
        }
        prop_assert!(is_traced(&headers));
        if !pass_credentials { prop_assert!(!headers.contains_key(AUTHORIZATION)) }
        // What is nobody's business but the two ends' is untouched, and in order.
        let named: Vec<String> = received
            .get_all(CONNECTION).iter()
            .flat_map(|value| value.to_str().unwrap().split(',').map(|option| option.trim().to_ascii_lowercase()))
            .collect();
        for name in received.keys().filter(|name| name.as_str().len() <= 3 && **name != TE && **name != VIA) {
            if !named.iter().any(|option| option == name.as_str()) {
                prop_assert!(headers.get_all(name).iter().eq(received.get_all(name)));
            }
        }
    }
}

#[test]
fn cookies_that_came_by_http_2_are_one_line_again() {
    let lines = [("cookie", "a=b"), ("cookie", "c=d"), ("x-a", "b"), ("cookie", "e=\"f\"")];
    let cookies = |version, lines: &[(&str, &str)]| {
        let mut headers = map(lines);
        Onward { version, ..direct() }.apply(&mut headers, || IDS).unwrap();
        headers.get_all("cookie").iter().map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cookies(Version::HTTP_2, &lines), ["a=b; c=d; e=\"f\""]);
    assert_eq!(cookies(Version::HTTP_2, &lines[..1]), ["a=b"]);
    assert_eq!(cookies(Version::HTTP_11, &lines).len(), 3, "no such leave was given there");
}

#[test]
fn a_host_that_is_not_named_is_not_said() {
    let mut headers = map(&[("x-forwarded-host", "evil.example")]);
    Onward { host: "", ..direct() }.apply(&mut headers, || IDS).unwrap();
    assert_eq!(headers["forwarded"], "for=192.0.2.1;proto=https");
    assert_eq!(headers["x-forwarded-host"], "");
}
