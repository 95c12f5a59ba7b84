//! What changes in a head on its way through: hop-by-hop fields go, forwarded fields come, the target takes the form
//! the upstream's protocol wants.
//!
//! Works on values of the `http` crate and nothing else: no I/O, no clock. Whom a request is for (routing) and what an
//! answer of our own looks like are decided elsewhere.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, request};

use crate::table::Protocol;

/// Why the host of a request cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request has more than one Host field")]
    Duplicate,
    #[error("the Host field is not a host")]
    Malformed,
    #[error("the Host field and :authority differ")]
    Mismatch,
}

/// The client as far as forwarded fields need to know it; made once per connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    address: HeaderValue,
    trusted: bool,
    secure: bool,
}

impl Peer {
    /// A client at `address`; its own forwarded fields are believed only when it is `trusted`. `secure`: it came by TLS.
    pub(crate) fn new(address: IpAddr, trusted: bool, secure: bool) -> Self {
        let text = Bytes::from(address.to_canonical().to_string());
        let address = HeaderValue::from_maybe_shared(text).expect("an address is visible ASCII");
        Self {
            address,
            trusted,
            secure,
        }
    }
}

/// Which of the fields that a proxy treats in a way of their own a head has: one look at its names in place of a search for each.
///
/// It does not change when fields are taken out: it may speak of one that has gone, and never leaves out one that is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields(u16);

impl Fields {
    const CONNECTION: Self = Self(1);
    const TRANSFER_ENCODING: Self = Self(1 << 1);
    const UPGRADE: Self = Self(1 << 2);
    const OTHER_HOP_BY_HOP: Self = Self(1 << 3);
    const TE: Self = Self(1 << 4);
    const OTHER_OF_REQUESTS: Self = Self(1 << 5);
    const COOKIE: Self = Self(1 << 6);
    const TRAILER: Self = Self(1 << 7);
    const HOP: Self = Self(1 << 8);

    /// Those of a head.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers
            .keys()
            .map(Self::named)
            .fold(Self(0), |all, one| Self(all.0 | one.0))
    }

    fn named(name: &HeaderName) -> Self {
        match name.as_str() {
            "connection" => Self::CONNECTION,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "upgrade" => Self::UPGRADE,
            "keep-alive" | "proxy-connection" | "proxy-authenticate" => Self::OTHER_HOP_BY_HOP,
            "te" => Self::TE,
            "expect" | "proxy-authorization" => Self::OTHER_OF_REQUESTS,
            "cookie" => Self::COOKIE,
            "trailer" => Self::TRAILER,
            "x-sidestep-hop" => Self::HOP,
            _ => Self(0),
        }
    }

    fn has(self, field: Self) -> bool {
        self.0 & field.0 != 0
    }
}

/// The host a request is for, as it stands in the request (port included); `None` for an HTTP/1.0 request that names none.
///
/// The authority of an absolute-form target wins over the Host field (RFC 9112 section 3.2.2); in HTTP/2 the two must agree
/// (RFC 9113 section 8.3.1).
pub(crate) fn host(head: &request::Parts) -> Result<Option<&str>, HostError> {
    let field = host_field(&head.headers)?;
    let authority = head.uri.authority().map(Authority::as_str);
    let host = match (authority, field) {
        (Some(authority), Some(field)) if head.version == Version::HTTP_2 && authority != field => {
            return Err(HostError::Mismatch);
        }
        (Some(authority), _) if head.version != Version::HTTP_11 => Some(authority),
        (Some(authority), Some(_)) => Some(authority),
        (None, Some(field)) => Some(field),
        (_, None) if head.version < Version::HTTP_11 => None,
        (_, None) => return Err(HostError::Missing),
    };
    if host.is_some_and(|host| !is_host(host)) {
        return Err(HostError::Malformed);
    }
    Ok(host)
}

/// Whether this request has passed through the proxy named `instance` before.
pub(crate) fn has_passed(headers: &HeaderMap, fields: Fields, instance: &HeaderValue) -> bool {
    fields.has(Fields::HOP) && headers.get_all(HOP).iter().any(|hop| hop == instance)
}

/// The protocol a request asks to change to, if it is one that may pass: any but h2c, which would be a tunnel around the
/// routes. Only HTTP/1.1 knows the mechanism.
pub(crate) fn wanted_upgrade(head: &request::Parts, fields: Fields) -> Option<HeaderValue> {
    if head.version != Version::HTTP_11
        || !fields.has(Fields::UPGRADE)
        || !names_token(&head.headers, &CONNECTION, "upgrade")
    {
        return None;
    }
    let protocol = head.headers.get(UPGRADE)?;
    let tunnels_http = tokens(protocol).any(|token| starts_with_ignore_case(token, "h2c"));
    (!tunnels_http).then(|| protocol.clone())
}

/// How a request goes on: what its head says of it, and what the upstream speaks.
#[derive(Debug)]
pub(crate) struct Passage {
    /// The head's.
    pub(crate) fields: Fields,
    /// What the upstream speaks.
    pub(crate) protocol: Protocol,
    /// What [`wanted_upgrade`] said.
    pub(crate) upgrade: Option<HeaderValue>,
    /// False when the body is known to be empty.
    pub(crate) has_body: bool,
}

impl Passage {
    /// Makes the head ready for the upstream: hop-by-hop fields out, forwarded fields and the hop mark in, target and Host (or
    /// `:authority`) in the form that the protocol wants.
    ///
    /// # Errors
    /// [`HostError::Malformed`] when the target cannot be written in the form that HTTP/2 wants.
    pub(crate) fn apply(
        &self,
        head: &mut request::Parts,
        peer: &Peer,
        instance: &HeaderValue,
    ) -> Result<(), HostError> {
        strip_request(&mut head.headers, self.fields);
        move_authority_to_host(head)?;
        forwarded(&mut head.headers, peer);
        head.headers.append(HOP, instance.clone());
        match self.protocol {
            Protocol::Http1 => {
                if let Some(upgrade) = &self.upgrade {
                    put_upgrade(&mut head.headers, upgrade.clone());
                }
                if self.fields.has(Fields::COOKIE) {
                    join_cookies(&mut head.headers);
                }
                frame_body(head, self.has_body);
                to_origin_form(head);
                head.version = Version::HTTP_11;
            }
            Protocol::H2c => {
                to_absolute_form(head)?;
                head.version = Version::HTTP_2;
            }
        }
        head.extensions.clear();
        Ok(())
    }
}

/// Makes a response ready for the client: hop-by-hop fields out. With `upgrade` (a 101 that was asked for) the fields that
/// carry it stay. `fields` are the response's.
pub(crate) fn to_downstream(headers: &mut HeaderMap, fields: Fields, upgrade: bool) {
    let protocol = if upgrade {
        headers.remove(UPGRADE)
    } else {
        None
    };
    strip(headers, fields);
    if let Some(protocol) = protocol {
        put_upgrade(headers, protocol);
    }
}

/// Says which version answered; what is empty (a backend without a Split, a Split written by hand) is left out.
pub(crate) fn name_version(headers: &mut HeaderMap, name: &str, revision: &str) {
    for (header, value) in [(VERSION, name), (REVISION, revision)] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(header, value);
        }
    }
}

/// Whether the body of a message has a transfer coding besides `chunked`, which we could not hand on: the codings are
/// undone hop by hop and hyper undoes `chunked` only.
pub(crate) fn has_unknown_coding(headers: &HeaderMap, fields: Fields) -> bool {
    fields.has(Fields::TRANSFER_ENCODING)
        && headers
            .get_all(TRANSFER_ENCODING)
            .iter()
            .flat_map(tokens)
            .any(|coding| !coding.eq_ignore_ascii_case("chunked"))
}

/// Whether a head announces trailers.
pub(crate) fn announces_trailers(headers: &HeaderMap, fields: Fields) -> bool {
    fields.has(Fields::TRAILER) && headers.contains_key(TRAILER)
}

fn host_field(headers: &HeaderMap) -> Result<Option<&str>, HostError> {
    let mut fields = headers.get_all(HOST).iter();
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(HostError::Duplicate);
    }
    field.to_str().map(Some).map_err(|_| HostError::Malformed)
}

/// Host characters of RFC 3986 section 3.2.2 with a port; user information (`@`) is not among them.
fn is_host(host: &str) -> bool {
    let allowed = |byte| {
        matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']'
            | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
    };
    !host.is_empty() && !host.starts_with(':') && host.bytes().all(allowed)
}

fn strip_request(headers: &mut HeaderMap, fields: Fields) {
    let trailers = fields.has(Fields::TE) && names_token(headers, &TE, "trailers");
    strip(headers, fields);
    if fields.has(Fields::OTHER_OF_REQUESTS) {
        headers.remove(EXPECT);
        headers.remove(PROXY_AUTHORIZATION);
    }
    if fields.has(Fields::TE) {
        headers.remove(TE);
    }
    if trailers {
        headers.insert(TE, TRAILERS);
    }
}

/// Takes out what belongs to one connection only (RFC 9110 section 7.6.1), the fields that Connection names among it, except
/// those a client must not be able to take away. `Trailer` stays: both sides are asked to keep it.
fn strip(headers: &mut HeaderMap, fields: Fields) {
    if fields.has(Fields::CONNECTION) {
        remove_named(headers);
    }
    if fields.has(Fields::TRANSFER_ENCODING) {
        headers.remove(TRANSFER_ENCODING);
    }
    if fields.has(Fields::UPGRADE) {
        headers.remove(UPGRADE);
    }
    if fields.has(Fields::OTHER_HOP_BY_HOP) {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
        headers.remove(PROXY_AUTHENTICATE);
    }
}

fn remove_named(headers: &mut HeaderMap) {
    let Entry::Occupied(entry) = headers.entry(CONNECTION) else {
        return;
    };
    let connection: Vec<HeaderValue> = entry.remove_entry_mult().1.collect();
    for token in connection.iter().flat_map(tokens) {
        if !is_protected(token) {
            headers.remove(token);
        }
    }
}

/// Fields that do not go because Connection names them: who asks, for what, how long the body is, and what proxies said.
fn is_protected(name: &str) -> bool {
    let exact = [HOST, AUTHORIZATION, COOKIE, CONTENT_LENGTH, TE];
    exact
        .iter()
        .any(|kept| name.eq_ignore_ascii_case(kept.as_str()))
        || starts_with_ignore_case(name, "x-forwarded-")
        || starts_with_ignore_case(name, "x-sidestep-")
}

/// Gives every request a Host field that says what the target says.
fn move_authority_to_host(head: &mut request::Parts) -> Result<(), HostError> {
    let Some(authority) = head.uri.authority() else {
        return Ok(());
    };
    let same = head
        .headers
        .get(HOST)
        .is_some_and(|host| host == authority.as_str());
    if !same {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| HostError::Malformed)?;
        head.headers.insert(HOST, host);
    }
    Ok(())
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host`. A trusted peer's own values stay and the chain grows by its address.
fn forwarded(headers: &mut HeaderMap, peer: &Peer) {
    if peer.trusted && headers.contains_key(X_FORWARDED_FOR) {
        let chain = chain(headers, &peer.address);
        headers.insert(X_FORWARDED_FOR, chain);
    } else {
        headers.insert(X_FORWARDED_FOR, peer.address.clone());
    }
    if !(peer.trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, if peer.secure { HTTPS } else { HTTP });
    }
    if peer.trusted && headers.contains_key(X_FORWARDED_HOST) {
        return;
    }
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
}

fn chain(headers: &HeaderMap, address: &HeaderValue) -> HeaderValue {
    let mut chain = BytesMut::with_capacity(64);
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.put_slice(value.as_bytes());
        chain.put_slice(b", ");
    }
    chain.put_slice(address.as_bytes());
    HeaderValue::from_maybe_shared(chain.freeze()).unwrap_or_else(|_| address.clone())
}

fn put_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// HTTP/2 clients may split the cookie; HTTP/1 wants it in one field (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let mut joined = BytesMut::with_capacity(128);
    for cookie in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(COOKIE, joined);
    }
}

/// hyper frames a body of unknown length as `chunked` by itself, except for the methods that rarely have one.
fn frame_body(head: &mut request::Parts, has_body: bool) {
    let implied = head.method != Method::GET && head.method != Method::HEAD;
    if has_body && !implied && !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn to_origin_form(head: &mut request::Parts) {
    if head.uri.authority().is_none() {
        return;
    }
    let target = head.uri.path_and_query().cloned();
    head.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
}

fn to_absolute_form(head: &mut request::Parts) -> Result<(), HostError> {
    let host = head.headers.remove(HOST);
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    if parts.authority.is_none() {
        let host = host.ok_or(HostError::Missing)?;
        parts.authority =
            Some(Authority::try_from(host.as_bytes()).map_err(|_| HostError::Malformed)?);
    }
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(parts).map_err(|_| HostError::Malformed)?;
    Ok(())
}

fn names_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(tokens)
        .any(|given| given.eq_ignore_ascii_case(token))
}

/// The elements of a comma-separated field, trimmed; none when the field is not ASCII.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Proxies of ours that a request has passed, by instance: what RFC 8586's `CDN-Loop` is among CDNs.
const VERSION: HeaderName = HeaderName::from_static("x-sidestep-version");
const REVISION: HeaderName = HeaderName::from_static("x-sidestep-revision");
const HOP: HeaderName = HeaderName::from_static("x-sidestep-hop");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

#[cfg(test)]
mod tests;
