//! A request between attempts: what has not been handed to a connection, came back from one, or was kept to be sent again.
//!
//! hyper takes a request whole and gives it back only if nothing was written. One that may be sent twice is therefore copied first,
//! into a list that the worker uses again and again: a copied `HeaderMap` would cost two allocations and the hashes' table.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};

use crate::body::{RequestBody, Upload};
use crate::connection::Client;
use crate::error::Error;
use crate::headers::Passage;
use crate::table::Protocol;
use crate::worker::Local;

/// The request of one exchange, whatever the number of attempts.
#[derive(Debug)]
pub(crate) struct Parcel {
    local: Rc<Local>,
    client: Rc<Client>,
    /// `None` while a connection has it.
    head: Option<request::Parts>,
    /// The head as it came, if it may be wanted again, and how it is made ready.
    copy: Option<(Text, Passage)>,
    upload: Option<Rc<Upload>>,
    is_harmless: bool,
}

impl Parcel {
    /// A request as it came, without its body.
    pub(crate) fn new(local: &Rc<Local>, client: &Rc<Client>, head: request::Parts) -> Self {
        Self {
            local: Rc::clone(local),
            client: Rc::clone(client),
            head: Some(head),
            copy: None,
            upload: None,
            is_harmless: false,
        }
    }

    /// The head, before it is sent.
    pub(crate) fn head(&mut self) -> Result<&mut request::Parts, Gone> {
        self.head.as_mut().ok_or(Gone)
    }

    /// Makes it ready to be sent. It may be sent again if that does no harm, or over HTTP/2, where an endpoint can say that it has
    /// not looked at a request.
    ///
    /// # Errors
    /// Those of [`Passage::apply`].
    pub(crate) fn make_ready(
        &mut self,
        passage: Passage,
        upload: Option<Rc<Upload>>,
    ) -> Result<(), Error> {
        let head = self.head.as_mut().ok_or(Gone)?;
        self.is_harmless = upload.is_none() && head.method.is_idempotent();
        self.upload = upload;
        let copy = (self.is_harmless || passage.protocol == Protocol::H2c)
            .then(|| self.local.spare.copy(head));
        passage.apply(head, &self.client.peer, &self.local.instance)?;
        self.copy = copy.map(|copy| (copy, passage));
        Ok(())
    }

    /// Whether sending it twice does no harm: no body, an idempotent method.
    pub(crate) fn is_harmless(&self) -> bool {
        self.is_harmless
    }

    /// The request for one attempt, if [`Parcel::can_be_sent`].
    pub(crate) fn take(&mut self) -> Result<Request<RequestBody>, Gone> {
        let body = match &self.upload {
            Some(upload) => upload.attempt().ok_or(Gone)?,
            None => RequestBody::EMPTY,
        };
        let head = match self.head.take() {
            Some(head) => head,
            None => self.head_again().ok_or(Gone)?,
        };
        Ok(Request::from_parts(head, body))
    }

    fn head_again(&self) -> Option<request::Parts> {
        let (copy, passage) = self.copy.as_ref()?;
        let mut head = copy.read()?;
        let applied = passage.apply(&mut head, &self.client.peer, &self.local.instance);
        applied.ok().map(|()| head)
    }

    /// Takes back what a connection has not written any of.
    pub(crate) fn put_back(&mut self, request: Request<RequestBody>) {
        self.head = Some(request.into_parts().0);
    }

    /// Whether there is something to send, and the body can begin anew.
    pub(crate) fn can_be_sent(&self) -> bool {
        (self.head.is_some() || self.copy.is_some())
            && !self.upload.as_ref().is_some_and(|upload| upload.is_lost())
    }

    /// The body, if there is one.
    pub(crate) fn upload(&self) -> Option<&Upload> {
        self.upload.as_deref()
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some((copy, _)) = self.copy.take() {
            self.local.spare.give_back(copy);
        }
    }
}

/// The request is with a connection and nothing of it stayed: a mistake of ours, since whoever sends looks first.
#[derive(Debug)]
pub(crate) struct Gone;

impl From<Gone> for Error {
    fn from(Gone: Gone) -> Self {
        Self::ClientGone
    }
}

/// A head as bytes, one after the other: what is rarely wanted again is cheap to copy and dear to bring back. (A clone of the target
/// and of every name and value would count references up and down, two or four atomic operations each.) Extensions are not part of
/// it: none goes to an endpoint.
#[derive(Debug, Default)]
struct Text {
    method: Method,
    version: Version,
    bytes: Vec<u8>,
    target: usize,
    fields: Vec<Span>,
}

/// Lengths of a name and the value behind it.
#[derive(Debug)]
struct Span {
    name: usize,
    value: usize,
    sensitive: bool,
}

impl Text {
    fn write(&mut self, head: &request::Parts) {
        self.method = head.method.clone();
        self.version = head.version;
        self.write_target(&head.uri);
        self.target = self.bytes.len();
        for (name, value) in &head.headers {
            self.bytes.extend_from_slice(name.as_str().as_bytes());
            self.bytes.extend_from_slice(value.as_bytes());
            self.fields.push(Span {
                name: name.as_str().len(),
                value: value.len(),
                sensitive: value.is_sensitive(),
            });
        }
    }

    fn write_target(&mut self, target: &Uri) {
        if let (Some(scheme), Some(authority)) = (target.scheme(), target.authority()) {
            self.bytes.extend_from_slice(scheme.as_str().as_bytes());
            self.bytes.extend_from_slice(b"://");
            self.bytes.extend_from_slice(authority.as_str().as_bytes());
        }
        if let Some(path) = target.path_and_query() {
            self.bytes.extend_from_slice(path.as_str().as_bytes());
        }
    }

    /// The head once more; `None` cannot be: it was one before.
    fn read(&self) -> Option<request::Parts> {
        let mut rest = Bytes::copy_from_slice(&self.bytes);
        let target = Uri::from_maybe_shared(rest.split_to(self.target)).ok()?;
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        for span in &self.fields {
            let name = HeaderName::from_bytes(&rest.split_to(span.name)).ok()?;
            let mut value = HeaderValue::from_maybe_shared(rest.split_to(span.value)).ok()?;
            value.set_sensitive(span.sensitive);
            headers.append(name, value);
        }
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = target;
        head.version = self.version;
        head.headers = headers;
        Some(head)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }
}

/// Empty copies, with the room they had.
#[derive(Debug, Default)]
pub(crate) struct Spare(RefCell<Vec<Text>>);

impl Spare {
    fn copy(&self, head: &request::Parts) -> Text {
        let mut text = self.0.borrow_mut().pop().unwrap_or_default();
        text.write(head);
        text
    }

    fn give_back(&self, mut text: Text) {
        text.clear();
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(text);
        }
    }
}

/// Copies kept: as many as requests usually wait at once; more are freed.
const SPARE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        let bytes = HeaderValue::from_bytes(b"\xff\xfe").expect("obs-text");
        let fields = [
            ("host", HeaderValue::from_static("web")),
            ("accept", HeaderValue::from_static("a")),
            ("accept", HeaderValue::from_static("b")),
            ("x-empty", HeaderValue::from_static("")),
            ("x-bytes", bytes),
            ("authorization", secret),
        ];
        for target in ["/", "/a/b?c=d", "*", "http://web:8080/a?b", "http://web/"] {
            let (mut head, ()) = Request::get(target).body(()).expect("valid").into_parts();
            for (name, value) in fields.clone() {
                head.headers.append(name, value);
            }
            let mut text = Text::default();
            text.write(&head);
            let back = text.read().expect("it was a head");
            assert_eq!(
                (&back.method, &back.uri, back.version, &back.headers),
                (&head.method, &head.uri, head.version, &head.headers)
            );
            let sensitive = |name: &str| back.headers[name].is_sensitive();
            assert!(sensitive("authorization") && !sensitive("host"));
        }
    }
}
