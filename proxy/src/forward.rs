//! One request, top to bottom: the driver of the data plane.
//!
//! Decisions are made in the files it calls; here they are put in order. Retries happen here and nowhere else.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tracing::debug;

use crate::balance::{self, Load, Pick, Tried};
use crate::body::{RelayLimits, ResponseBody, Upload};
use crate::breaker::Condition;
use crate::connection::{Client, Entrance};
use crate::error::{Again, Error};
use crate::exchange::Exchange;
use crate::headers::{self, Fields, Passage};
use crate::live::{Choice, Chosen, EndpointState, LiveTable};
use crate::parcel::Parcel;
use crate::patience::{self, Patience};
use crate::sniff::Spoken;
use crate::table::{Protocol, Target};
use crate::tunnel;
use crate::upstream::{Failure, Lease, Line, Sent};
use crate::worker::{Local, Stage};

/// Answers a request: with what an endpoint says, or with a reason.
pub(crate) fn forward(
    local: Rc<Local>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<ResponseBody>> {
    let (head, body) = request.into_parts();
    let mut exchange = Exchange::begin(&local, &client, &head, Instant::now());
    // Here and not in the future, which would keep a second place for what it is made of.
    let mut parcel = Parcel::new(&local, &client, head);
    async move {
        let answered = carry(&local, &client, &mut parcel, body, &mut exchange).await;
        let mut response = match answered {
            Ok(answer) => pass_on(&local, &client, answer, exchange),
            Err(error) => refuse(&error, exchange),
        };
        announce_leaving(&local, &client, &mut response);
        response
    }
}

/// What an endpoint has answered, and what it came with.
struct Answer {
    response: Response<Incoming>,
    fields: Fields,
    /// The client's side of an upgrade that was asked for.
    upgrade: Option<OnUpgrade>,
}

async fn carry(
    local: &Rc<Local>,
    client: &Client,
    parcel: &mut Parcel,
    body: Incoming,
    exchange: &mut Exchange,
) -> Result<Answer, Error> {
    let table = local.live.current();
    let head = parcel.head()?;
    let fields = Fields::of(&head.headers);
    check(local, head, fields)?;
    let backend = route(&table, client, head)?;
    let chosen = choose(&table, backend, exchange)?;
    // From here on the request is counted in its version.
    let pending = local.pending()?;
    let upgrade = prepare(local, parcel, fields, body, chosen.protocol())?;
    let response = send(local, &chosen, parcel, exchange).await?;
    drop(pending);
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let fields = Fields::of(response.headers());
    if (switches && upgrade.is_none()) || headers::has_unknown_coding(response.headers(), fields) {
        return Err(Error::Unpassable);
    }
    Ok(Answer {
        response,
        fields,
        upgrade: upgrade.filter(|_| switches),
    })
}

/// Refuses what is refused whatever the routes are.
fn check(local: &Local, head: &request::Parts, fields: Fields) -> Result<(), Error> {
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Error::Method);
    }
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > local.config.limits.uri_bytes.get() {
        return Err(Error::TargetTooLong);
    }
    if headers::has_unknown_coding(&head.headers, fields) {
        return Err(Error::Coding);
    }
    if headers::has_passed(&head.headers, fields, &local.instance) {
        return Err(Error::Loop);
    }
    Ok(())
}

/// At an apex its port says where the request goes, elsewhere host and path do.
fn route(table: &LiveTable, client: &Client, head: &request::Parts) -> Result<usize, Error> {
    let host = headers::host(head)?.unwrap_or_default();
    let target = match client.at {
        Entrance::Apex(port) => table.apex(port).ok_or(Error::NoSplit)?,
        Entrance::Http | Entrance::Https => {
            table.route(host, head.uri.path()).ok_or(Error::NoRoute)?
        }
    };
    match target {
        Target::Refuse(refusal) => Err(Error::Route(refusal.clone())),
        Target::Backend(backend) => Ok(*backend),
    }
}

fn choose<'a>(
    table: &'a LiveTable,
    backend: usize,
    exchange: &mut Exchange,
) -> Result<Chosen<'a>, Error> {
    match table.choose(backend) {
        Choice::Serve(chosen) => {
            exchange.chosen(&chosen);
            Ok(chosen)
        }
        Choice::Refuse(meant, refused) => {
            if let Some(meant) = meant {
                exchange.chosen(&meant);
            }
            Err(Error::Version(refused))
        }
    }
}

/// Makes the request ready for an endpoint; returns the client's side of an upgrade if it asks for one that may pass.
fn prepare(
    local: &Local,
    parcel: &mut Parcel,
    fields: Fields,
    body: Incoming,
    protocol: Protocol,
) -> Result<Option<OnUpgrade>, Error> {
    let head = parcel.head()?;
    let wanted = headers::wanted_upgrade(head, fields).filter(|_| protocol == Protocol::Http1);
    let upgrade = head
        .extensions
        .remove::<OnUpgrade>()
        .filter(|_| wanted.is_some());
    let passage = Passage {
        fields,
        protocol,
        upgrade: wanted,
        has_body: !body.is_end_stream(),
    };
    parcel.make_ready(passage, upload(local, body, protocol))?;
    Ok(upgrade)
}

/// The body, if there is one. What of it may be wanted again is kept for HTTP/2 only: there an endpoint can say that it has not
/// looked at a request whose body has begun to flow.
fn upload(local: &Local, body: Incoming, protocol: Protocol) -> Option<Rc<Upload>> {
    if body.is_end_stream() {
        return None;
    }
    let keep_bytes = match protocol {
        Protocol::Http1 => 0,
        Protocol::H2c => local.config.limits.replay_bytes,
    };
    Some(Upload::new(
        body,
        local.ticker.watch(),
        local.config.deadlines.body_idle,
        keep_bytes,
    ))
}

/// Sends the request to endpoints of its version until one answers or no further attempt is allowed.
async fn send(
    local: &Rc<Local>,
    chosen: &Chosen<'_>,
    parcel: &mut Parcel,
    exchange: &mut Exchange,
) -> Result<Response<Incoming>, Error> {
    chosen
        .state()
        .budget
        .deposit(local.ticker.clock().now_ms(), &local.config.retry);
    let mut attempts = Attempts::default();
    loop {
        let Pick { index, probing } = pick(local, chosen, &mut attempts.tried)?;
        let endpoint = &chosen.endpoints()[index];
        exchange.attempts(endpoint.begin());
        let error = match attempt(local, endpoint, parcel, &attempts, exchange).await {
            Ok(answered) => return Ok(answered),
            Err(error) => error,
        };
        debug!(endpoint = %endpoint.address, ?error, "an attempt has failed");
        if error.is_refused_connection() {
            endpoint.breaker.refused(
                local.ticker.clock().now_ms(),
                probing,
                &local.config.ejection,
            );
        }
        if !attempts.allow_another(local, chosen, &error, parcel) {
            return Err(error);
        }
        if let Some(version) = exchange.version() {
            version.retried();
        }
    }
}

/// Picks an endpoint of the version. One that is leaving counts as ejected.
fn pick(local: &Local, chosen: &Chosen<'_>, tried: &mut Tried) -> Result<Pick, Error> {
    let endpoints = chosen.endpoints();
    let now_ms = local.ticker.clock().now_ms();
    let load = |index: usize| {
        let endpoint = &endpoints[index];
        let mut condition = endpoint.breaker.condition(now_ms);
        if condition == Condition::Healthy && endpoint.leaving() {
            condition = Condition::Ejected;
        }
        let in_flight = endpoint.in_flight();
        Load {
            condition,
            in_flight,
        }
    };
    let probe = |index: usize| endpoints[index].breaker.probe(now_ms);
    let picked = balance::pick(endpoints.len(), local.live.random(), tried, load, probe);
    let picked = picked.ok_or(Error::NoEndpoint)?;
    tried.add(picked.index);
    Ok(picked)
}

/// One attempt: a connection, the request, the response head.
async fn attempt(
    local: &Rc<Local>,
    endpoint: &Arc<EndpointState>,
    parcel: &mut Parcel,
    attempts: &Attempts,
    exchange: &mut Exchange,
) -> Result<Response<Incoming>, Error> {
    let line = local.pool.line(endpoint);
    let pooled = if attempts.fresh {
        None
    } else {
        line.checkout()
    };
    let mut lease = match pooled {
        Some(lease) => lease,
        // Boxed because it is rare and large: every request's future would have to hold its place.
        None => Box::pin(connect(&line, exchange)).await?,
    };
    let request = parcel.take()?;
    let answered = {
        let sent = pin!(lease.send(request));
        await_head(local, &lease, sent, parcel.upload(), exchange).await
    };
    match answered {
        Ok(response) => {
            endpoint.breaker.connected();
            exchange.comes_over(lease);
            Ok(response)
        }
        Err(Failure { error, unsent }) => {
            if let Some(unsent) = unsent {
                parcel.put_back(*unsent);
            }
            Err(error)
        }
    }
}

async fn connect(line: &Rc<Line>, exchange: &Exchange) -> Result<Lease, Error> {
    let connected = line.connect().await;
    if let Some(version) = exchange.version() {
        match &connected {
            Ok(lease) if lease.is_reused() => {} // another request has made it meanwhile
            Ok(_) => version.connected(),
            Err(_) => version.connect_failed(),
        }
    }
    connected
}

/// Waits for the response head, as long as [`Patience`] lasts.
async fn await_head(
    local: &Local,
    lease: &Lease,
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    upload: Option<&Upload>,
    exchange: &Exchange,
) -> Result<Response<Incoming>, Failure> {
    let mut patience = Patience::new(local, upload, exchange);
    poll_fn(|cx| match sent.as_mut().poll(cx) {
        Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(lease.failed(error))),
        Poll::Pending => patience.poll_over(cx).map(|error| Err(error.into())),
    })
    .await
}

/// What a request has used up.
#[derive(Debug, Default)]
struct Attempts {
    tried: Tried,
    free: u32,
    at_cost: u32,
    repeated: bool,
    /// A pooled connection has failed: the next attempt makes its own.
    fresh: bool,
}

impl Attempts {
    fn allow_another(
        &mut self,
        local: &Local,
        chosen: &Chosen<'_>,
        error: &Error,
        parcel: &Parcel,
    ) -> bool {
        if !parcel.can_be_sent() {
            return false;
        }
        self.fresh = !error.is_refused_connection();
        match error.again() {
            Again::No => false,
            Again::Unseen if self.free < local.config.retry.connects => {
                self.free += 1;
                true
            }
            Again::Unseen | Again::UnseenAtCost => self.pay(local, chosen),
            Again::MaybeSeen => {
                let first = !std::mem::replace(&mut self.repeated, true);
                first && parcel.is_harmless() && self.pay(local, chosen)
            }
        }
    }

    fn pay(&mut self, local: &Local, chosen: &Chosen<'_>) -> bool {
        let now_ms = local.ticker.clock().now_ms();
        self.at_cost += 1;
        self.at_cost <= AT_COST_MAX && chosen.state().budget.withdraw(now_ms, &local.config.retry)
    }
}

/// Turns an endpoint's answer into the client's.
fn pass_on(
    local: &Rc<Local>,
    client: &Client,
    answer: Answer,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let Answer {
        mut response,
        fields,
        upgrade,
    } = answer;
    headers::to_downstream(response.headers_mut(), fields, upgrade.is_some());
    let loses_trailers =
        client.spoken == Spoken::Http1 && !headers::announces_trailers(response.headers(), fields);
    exchange.answered(response.status(), loses_trailers);
    if local.config.names_versions
        && let Some(version) = exchange.version()
    {
        let key = &version.state().key;
        headers::name_version(response.headers_mut(), &key.name, &key.revision);
    }
    *response.version_mut() = http::Version::HTTP_11;
    if let Some(client) = upgrade {
        let endpoint = hyper::upgrade::on(&mut response);
        local.tasks.spawn(tunnel::join(client, endpoint, exchange));
        return response.map(|_| ResponseBody::Own(None));
    }
    let limits = RelayLimits {
        idle: local.config.deadlines.body_idle,
        total_due_ms: patience::total_due_ms(local, &exchange),
    };
    response.map(|body| ResponseBody::relay(body, exchange, limits))
}

/// An answer of our own.
fn refuse(error: &Error, exchange: Box<Exchange>) -> Response<ResponseBody> {
    let text = Bytes::from(format!("{error}\n"));
    let mut response = Response::new(ResponseBody::Own(Some(text)));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Ok(reason) = HeaderValue::from_str(error.reason()) {
        headers.insert(&REASON, reason);
    }
    if matches!(error, Error::Method) {
        headers.insert(
            ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    exchange.refuse(error);
    response
}

/// While the proxy drains, every HTTP/1 response asks the client to go elsewhere.
fn announce_leaving(local: &Local, client: &Client, response: &mut Response<ResponseBody>) {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if local.stage() != Stage::Serving && client.spoken == Spoken::Http1 && !switches {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Why the proxy answered by itself, in one word.
static REASON: HeaderName = HeaderName::from_static("x-sidestep-reason");

/// Attempts a request may pay for out of the budget, beside its free ones.
const AT_COST_MAX: u32 = 2;
