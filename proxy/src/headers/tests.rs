use http::Request;

use super::*;

const PEER: &str = "192.0.2.7";

fn head(version: Version, target: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().version(version).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn peer(trusted: bool) -> Peer {
    Peer::new(PEER.parse().unwrap(), trusted, false)
}

fn instance() -> HeaderValue {
    HeaderValue::from_static("a1")
}

// The functions under test, with the fields of the head they are given.

fn to_upstream(
    head: &mut request::Parts,
    peer: &Peer,
    instance: &HeaderValue,
    protocol: Protocol,
    upgrade: Option<HeaderValue>,
    has_body: bool,
) -> Result<(), HostError> {
    let fields = Fields::of(&head.headers);
    let passage = Passage {
        fields,
        protocol,
        upgrade,
        has_body,
    };
    passage.apply(head, peer, instance)
}

fn to_downstream(headers: &mut HeaderMap, upgrade: bool) {
    super::to_downstream(headers, Fields::of(headers), upgrade);
}

fn wanted_upgrade(head: &request::Parts) -> Option<HeaderValue> {
    super::wanted_upgrade(head, Fields::of(&head.headers))
}

fn has_passed(headers: &HeaderMap, instance: &HeaderValue) -> bool {
    super::has_passed(headers, Fields::of(headers), instance)
}

fn has_unknown_coding(headers: &HeaderMap) -> bool {
    super::has_unknown_coding(headers, Fields::of(headers))
}

fn sorted(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

/// Sends `fields` through to an HTTP/1 upstream and compares all but the forwarded fields.
#[track_caller]
fn check_request(fields: &[(&str, &str)], expected: &[&str]) {
    let mut head = head(Version::HTTP_11, "/", fields);
    let upgrade = wanted_upgrade(&head);
    to_upstream(
        &mut head,
        &peer(false),
        &instance(),
        Protocol::Http1,
        upgrade,
        false,
    )
    .unwrap();
    let ours = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-sidestep-hop",
    ];
    for name in ours {
        head.headers.remove(name);
    }
    assert_eq!(sorted(&head.headers), expected, "fields = {fields:?}");
}

#[test]
fn hop_by_hop_fields_of_a_request_stay_behind() {
    check_request(&[("host", "a"), ("accept", "x")], &["accept: x", "host: a"]);
    check_request(
        &[
            ("host", "a"),
            ("connection", "keep-alive"),
            ("keep-alive", "5"),
        ],
        &["host: a"],
    );
    check_request(
        &[
            ("host", "a"),
            ("connection", "x-one, X-Two"),
            ("x-one", "1"),
            ("x-two", "2"),
        ],
        &["host: a"],
    );
    check_request(
        &[
            ("host", "a"),
            ("connection", "x-one"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
        ],
        &["host: a"],
    );
    check_request(
        &[
            ("host", "a"),
            ("proxy-connection", "close"),
            ("proxy-authorization", "b"),
        ],
        &["host: a"],
    );
    check_request(
        &[
            ("host", "a"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
        ],
        &["host: a"],
    );
}

#[test]
fn connection_cannot_take_away_what_others_rely_on() {
    let fields = [
        ("host", "a"),
        ("authorization", "b"),
        ("cookie", "c=d"),
        ("connection", "host, authorization, cookie, x-sidestep-a"),
        ("x-sidestep-a", "1"),
    ];
    check_request(
        &fields,
        &[
            "authorization: b",
            "cookie: c=d",
            "host: a",
            "x-sidestep-a: 1",
        ],
    );
}

#[test]
fn te_passes_only_as_trailers() {
    check_request(
        &[("host", "a"), ("te", "trailers"), ("connection", "te")],
        &["host: a", "te: trailers"],
    );
    check_request(
        &[
            ("host", "a"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
        ],
        &["host: a", "te: trailers", "trailer: x-sum"],
    );
    check_request(&[("host", "a"), ("te", "gzip")], &["host: a"]);
}

#[test]
fn trace_context_is_untouched() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    check_request(
        &[("host", "a"), ("traceparent", trace)],
        &["host: a", &format!("traceparent: {trace}")],
    );
}

#[test]
fn upgrade_passes_unless_it_tunnels_http2() {
    let websocket = [
        ("host", "a"),
        ("connection", "Keep-Alive, Upgrade"),
        ("upgrade", "websocket"),
    ];
    check_request(
        &websocket,
        &["connection: upgrade", "host: a", "upgrade: websocket"],
    );
    check_request(
        &[
            ("host", "a"),
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
        ],
        &["host: a"],
    );
    check_request(&[("host", "a"), ("upgrade", "websocket")], &["host: a"]);
}

#[track_caller]
fn check_host(
    version: Version,
    target: &str,
    fields: &[(&str, &str)],
    expected: Result<Option<&str>, HostError>,
) {
    let head = head(version, target, fields);
    assert_eq!(host(&head), expected, "{version:?} {target} {fields:?}");
}

#[test]
fn host_is_told_or_refused() {
    use Version as V;
    check_host(V::HTTP_11, "/", &[("host", "a:80")], Ok(Some("a:80")));
    check_host(
        V::HTTP_11,
        "/",
        &[("host", "[::1]:80")],
        Ok(Some("[::1]:80")),
    );
    check_host(V::HTTP_11, "/", &[], Err(HostError::Missing));
    check_host(
        V::HTTP_11,
        "/",
        &[("host", "a"), ("host", "a")],
        Err(HostError::Duplicate),
    );
    check_host(V::HTTP_11, "/", &[("host", "")], Err(HostError::Malformed));
    check_host(
        V::HTTP_11,
        "/",
        &[("host", "u@a")],
        Err(HostError::Malformed),
    );
    check_host(
        V::HTTP_11,
        "/",
        &[("host", "a b")],
        Err(HostError::Malformed),
    );
    check_host(
        V::HTTP_11,
        "/",
        &[("host", "a/b")],
        Err(HostError::Malformed),
    );
    check_host(V::HTTP_11, "http://b/", &[("host", "a")], Ok(Some("b")));
    check_host(V::HTTP_11, "http://b/", &[], Err(HostError::Missing));
    check_host(V::HTTP_10, "/", &[], Ok(None));
    check_host(V::HTTP_10, "/", &[("host", "a")], Ok(Some("a")));
    check_host(V::HTTP_2, "http://a/", &[], Ok(Some("a")));
    check_host(V::HTTP_2, "http://a/", &[("host", "a")], Ok(Some("a")));
    check_host(
        V::HTTP_2,
        "http://a/",
        &[("host", "b")],
        Err(HostError::Mismatch),
    );
    check_host(V::HTTP_2, "/", &[], Err(HostError::Missing));
}

#[track_caller]
fn check_forwarded(trusted: bool, given: &[(&str, &str)], expected: [&str; 3]) {
    let mut head = head(
        Version::HTTP_11,
        "/",
        &[&[("host", "shop")], given].concat(),
    );
    to_upstream(
        &mut head,
        &peer(trusted),
        &instance(),
        Protocol::Http1,
        None,
        false,
    )
    .unwrap();
    let found = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
        .map(|name| head.headers[name].to_str().unwrap());
    assert_eq!(found, expected, "trusted = {trusted}, given = {given:?}");
}

#[test]
fn forwarded_fields_are_believed_from_trusted_peers_only() {
    let claims = [
        ("x-forwarded-for", "203.0.113.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "b"),
    ];
    check_forwarded(false, &[], [PEER, "http", "shop"]);
    check_forwarded(false, &claims, [PEER, "http", "shop"]);
    check_forwarded(
        true,
        &claims,
        ["203.0.113.1, 10.0.0.1, 192.0.2.7", "https", "b"],
    );
    check_forwarded(true, &[], [PEER, "http", "shop"]);
}

#[test]
fn request_changes_protocol() {
    let mut down = head(
        Version::HTTP_2,
        "http://shop:81/a?b",
        &[("cookie", "a=1"), ("cookie", "b=2")],
    );
    to_upstream(
        &mut down,
        &peer(false),
        &instance(),
        Protocol::Http1,
        None,
        true,
    )
    .unwrap();
    assert_eq!(
        (down.version, down.uri.to_string().as_str()),
        (Version::HTTP_11, "/a?b")
    );
    assert_eq!(down.headers["host"], "shop:81");
    assert_eq!(down.headers["cookie"], "a=1; b=2");
    assert_eq!(
        down.headers["transfer-encoding"], "chunked",
        "a GET with a body keeps it"
    );

    let mut up = head(
        Version::HTTP_11,
        "/a?b",
        &[("host", "shop:81"), ("transfer-encoding", "chunked")],
    );
    to_upstream(
        &mut up,
        &peer(false),
        &instance(),
        Protocol::H2c,
        None,
        true,
    )
    .unwrap();
    assert_eq!(
        (up.version, up.uri.to_string().as_str()),
        (Version::HTTP_2, "http://shop:81/a?b")
    );
    assert!(!up.headers.contains_key("host") && !up.headers.contains_key("transfer-encoding"));
}

#[test]
fn absolute_target_overrules_the_host_field() {
    let mut head = head(Version::HTTP_11, "http://b/x", &[("host", "a")]);
    to_upstream(
        &mut head,
        &peer(false),
        &instance(),
        Protocol::Http1,
        None,
        false,
    )
    .unwrap();
    assert_eq!(
        (
            head.headers["host"].to_str().unwrap(),
            head.uri.to_string().as_str()
        ),
        ("b", "/x")
    );
}

#[test]
fn a_second_visit_is_seen() {
    let mut head = head(
        Version::HTTP_11,
        "/",
        &[("host", "a"), ("x-sidestep-hop", "b2")],
    );
    assert!(!has_passed(&head.headers, &instance()));
    to_upstream(
        &mut head,
        &peer(false),
        &instance(),
        Protocol::Http1,
        None,
        false,
    )
    .unwrap();
    assert!(has_passed(&head.headers, &instance()));
}

#[test]
fn hop_by_hop_fields_of_a_response_stay_behind() {
    let fields = [
        ("connection", "close, x-a"),
        ("x-a", "1"),
        ("keep-alive", "5"),
        ("upgrade", "h2c"),
        ("trailer", "t"),
        ("server", "s"),
    ];
    let mut headers = head(Version::HTTP_11, "/", &fields).headers;
    to_downstream(&mut headers, false);
    assert_eq!(sorted(&headers), ["server: s", "trailer: t"]);

    let mut switching = head(
        Version::HTTP_11,
        "/",
        &[("connection", "upgrade"), ("upgrade", "websocket")],
    )
    .headers;
    to_downstream(&mut switching, true);
    assert_eq!(
        sorted(&switching),
        ["connection: upgrade", "upgrade: websocket"]
    );
}

#[test]
fn only_chunked_is_a_known_coding() {
    for (coding, unknown) in [
        ("chunked", false),
        ("Chunked", false),
        ("gzip, chunked", true),
        ("identity", true),
    ] {
        let headers = head(Version::HTTP_11, "/", &[("transfer-encoding", coding)]).headers;
        assert_eq!(has_unknown_coding(&headers), unknown, "{coding}");
    }
}

/// Every field that is looked for under the guard of [`Fields`] is one that it knows by its name.
#[test]
fn one_look_sees_every_field_that_matters() {
    for (name, bit) in [
        (CONNECTION, Fields::CONNECTION),
        (TRANSFER_ENCODING, Fields::TRANSFER_ENCODING),
        (UPGRADE, Fields::UPGRADE),
        (KEEP_ALIVE, Fields::OTHER_HOP_BY_HOP),
        (PROXY_CONNECTION, Fields::OTHER_HOP_BY_HOP),
        (PROXY_AUTHENTICATE, Fields::OTHER_HOP_BY_HOP),
        (TE, Fields::TE),
        (EXPECT, Fields::OTHER_OF_REQUESTS),
        (PROXY_AUTHORIZATION, Fields::OTHER_OF_REQUESTS),
        (COOKIE, Fields::COOKIE),
        (TRAILER, Fields::TRAILER),
        (HOP, Fields::HOP),
    ] {
        let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
        assert_eq!(Fields::of(&headers).0, bit.0, "{name}");
    }
}
