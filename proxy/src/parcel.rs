//! A request between attempts: what has not been handed to a connection, came back from one, or was kept to be sent again.
//!
//! hyper takes a request whole and gives it back only if nothing was written. One that may be sent twice is therefore copied first,
//! into a list that the worker uses again and again: a copied `HeaderMap` would cost two allocations and the hashes' table.

use std::cell::RefCell;
use std::mem::take;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};

use crate::body::{RequestBody, Upload};
use crate::upstream::Lease;
use crate::worker::Local;

/// The request of one exchange, whatever the number of attempts.
#[derive(Debug)]
pub(crate) struct Parcel<'a> {
    local: &'a Rc<Local>,
    head: &'a mut request::Parts,
    /// Whether `head` is the request's: not while a connection has it.
    is_here: bool,
    is_harmless: bool,
    copy: Option<HeadCopy>,
    upload: Option<Rc<Upload>>,
}

impl<'a> Parcel<'a> {
    /// A request that is ready for its first attempt.
    pub(crate) fn new(
        local: &'a Rc<Local>,
        head: &'a mut request::Parts,
        upload: Option<Rc<Upload>>,
    ) -> Self {
        Self {
            local,
            is_harmless: upload.is_none() && head.method.is_idempotent(),
            head,
            is_here: true,
            copy: None,
            upload,
        }
    }

    /// Whether sending it twice does no harm: no body, an idempotent method.
    pub(crate) fn is_harmless(&self) -> bool {
        self.is_harmless
    }

    /// The request for one attempt; `None` when it is gone. A copy of the head stays if it may be wanted again.
    pub(crate) fn take(&mut self, lease: &Lease) -> Option<Request<RequestBody>> {
        if !self.can_be_sent() {
            return None;
        }
        let body = match &self.upload {
            Some(upload) => upload.attempt()?,
            None => RequestBody::EMPTY,
        };
        if !std::mem::replace(&mut self.is_here, false)
            && let Some(copy) = &self.copy
        {
            copy.write_to(self.head);
        } else if lease.tells_unprocessed() || self.is_harmless {
            self.copy = Some(HeadCopy::of(self.head, self.local));
        }
        let mut request = Request::new(body);
        *request.method_mut() = take(&mut self.head.method);
        *request.uri_mut() = take(&mut self.head.uri);
        *request.version_mut() = self.head.version;
        *request.headers_mut() = take(&mut self.head.headers);
        Some(request)
    }

    /// Takes back what a connection has not written any of.
    pub(crate) fn put_back(&mut self, request: Request<RequestBody>) {
        *self.head = request.into_parts().0;
        self.is_here = true;
    }

    /// Whether there is something to send, and the body can begin anew.
    pub(crate) fn can_be_sent(&self) -> bool {
        (self.is_here || self.copy.is_some())
            && !self.upload.as_ref().is_some_and(|upload| upload.is_lost())
    }

    /// The body, if there is one.
    pub(crate) fn upload(&self) -> Option<&Upload> {
        self.upload.as_deref()
    }
}

/// A copy of a head. Extensions are not part of it: none goes to an endpoint.
#[derive(Debug)]
struct HeadCopy {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Fields,
    local: Rc<Local>,
}

impl HeadCopy {
    fn of(head: &request::Parts, local: &Rc<Local>) -> Self {
        let mut fields = local.spare.take();
        fields.copy(&head.headers);
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            fields,
            local: Rc::clone(local),
        }
    }

    fn write_to(&self, head: &mut request::Parts) {
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        head.headers = self.fields.headers();
    }
}

impl Drop for HeadCopy {
    fn drop(&mut self) {
        self.local.spare.give_back(take(&mut self.fields));
    }
}

/// The fields of a head as bytes, one after the other: what is rarely wanted again is cheap to copy and dear to bring back. (A clone
/// of every name and value would count references up and down, two or four atomic operations a field.)
#[derive(Debug, Default)]
struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Lengths of a name and the value behind it.
#[derive(Debug)]
struct Span {
    name: usize,
    value: usize,
    sensitive: bool,
}

impl Fields {
    fn copy(&mut self, headers: &HeaderMap) {
        self.spans.reserve(headers.len());
        for (name, value) in headers {
            self.bytes.extend_from_slice(name.as_str().as_bytes());
            self.bytes.extend_from_slice(value.as_bytes());
            self.spans.push(Span {
                name: name.as_str().len(),
                value: value.len(),
                sensitive: value.is_sensitive(),
            });
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.spans.len());
        let mut rest = Bytes::copy_from_slice(&self.bytes);
        for span in &self.spans {
            let name = HeaderName::from_bytes(&rest.split_to(span.name));
            let value = HeaderValue::from_maybe_shared(rest.split_to(span.value));
            let (Ok(name), Ok(mut value)) = (name, value) else {
                continue; // cannot be: they were a name and a value before
            };
            value.set_sensitive(span.sensitive);
            headers.append(name, value);
        }
        headers
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }
}

/// Empty lists for copies, with the room they had.
#[derive(Debug, Default)]
pub(crate) struct Spare(RefCell<Vec<Fields>>);

impl Spare {
    fn take(&self) -> Fields {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    fn give_back(&self, mut fields: Fields) {
        fields.clear();
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(fields);
        }
    }
}

/// Lists kept: as many as requests usually wait at once; more are freed.
const SPARE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were() {
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        for (name, value) in [
            ("host", HeaderValue::from_static("web")),
            ("accept", HeaderValue::from_static("a")),
            ("accept", HeaderValue::from_static("b")),
            ("x-empty", HeaderValue::from_static("")),
            (
                "x-bytes",
                HeaderValue::from_bytes(b"\xff\xfe").expect("obs-text"),
            ),
            ("authorization", secret),
        ] {
            headers.append(name, value);
        }
        let mut fields = Fields::default();
        fields.copy(&headers);
        let back = fields.headers();
        assert_eq!(back, headers);
        assert!(back["authorization"].is_sensitive() && !back["host"].is_sensitive());
    }
}
