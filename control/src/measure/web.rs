//! The provider `web`: a JSON answer over HTTP.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method};
use serde::Deserialize;

use super::{Answer, Answered, Provider, Question};
use crate::analysis::expr::{Type, Value};
use crate::analysis::jsonpath;

/// Longest wait for an answer unless the metric says otherwise: 10 s, as in Argo.
const TIMEOUT_SECONDS: u64 = 10;

/// Largest answer that is read: an answer to a metric is small, and all of it is held in memory.
const BODY_BYTES_MAX: usize = 4 << 20;

/// The provider. Connections are kept and shared between metrics.
#[derive(Debug, Default)]
pub struct Web {
    /// Made when the first metric asks: most processes never do.
    clients: OnceLock<Result<Clients, String>>,
}

#[derive(Debug)]
struct Clients {
    checking: Client,
    /// Takes any certificate: for metrics that say `insecure`.
    insecure: Client,
}

/// The block `provider.web`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Block {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    json_body: Option<serde_json::Value>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    #[serde(default)]
    json_path: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    authentication: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    key: String,
    value: String,
}

impl Clients {
    /// Trusts the authorities of this machine (`SSL_CERT_FILE` or where systems have them); without any, as in an image that holds
    /// nothing but this program, those of Mozilla.
    fn new() -> Result<Self, String> {
        // reqwest would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err("provider web: this process has not chosen its TLS provider".to_owned());
        }
        let checking = Client::builder().build().or_else(|error| {
            tracing::info!(
                error = chain(&error),
                "web metrics trust Mozilla's authorities"
            );
            Client::builder().tls_certs_only(mozilla()).build()
        });
        let insecure = Client::builder()
            .tls_certs_only([])
            .tls_danger_accept_invalid_certs(true)
            .build();
        Ok(Self {
            checking: checking.map_err(|error| chain(&error))?,
            insecure: insecure.map_err(|error| chain(&error))?,
        })
    }
}

/// The certificates of authorities that Mozilla trusted when this program was built.
fn mozilla() -> impl Iterator<Item = Certificate> {
    let all = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    all.filter_map(|certificate| Certificate::from_der(certificate).ok())
}

impl Web {
    fn clients(&self) -> Result<&Clients, String> {
        self.clients
            .get_or_init(Clients::new)
            .as_ref()
            .map_err(Clone::clone)
    }

    async fn measured(&self, question: Question<'_>) -> Result<Answer, String> {
        let block: Block =
            Block::deserialize(question.block).map_err(|error| format!("provider web: {error}"))?;
        let request = self.request(&block)?;
        let body = read(request).await?;
        let value = match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(json) => {
                let path = block.json_path.as_deref().filter(|path| !path.is_empty());
                let found = jsonpath::first(path.unwrap_or("{$}"), &json);
                Value::from(found.map_err(|error| error.to_string())?)
            }
            // As Argo since 1.10: what is no JSON is text.
            Err(_) => Value::text(String::from_utf8_lossy(&body)),
        };
        Ok(Answer::Result(Box::new(Answered {
            kind: Type::of(&value),
            value,
            metadata: std::collections::BTreeMap::new(),
            doubt: None,
        })))
    }

    fn request(&self, block: &Block) -> Result<reqwest::RequestBuilder, String> {
        if block.authentication.is_some() {
            return Err("provider web: authentication is not supported; use headers".to_owned());
        }
        let method = method(block.method.as_deref())?;
        let has_body = block.body.is_some() || block.json_body.is_some();
        if has_body && method == Method::GET {
            return Err(
                "Body/JSONBody can only be used with POST or PUT WebMetric Method types".to_owned(),
            );
        }
        let Clients { checking, insecure } = self.clients()?;
        let client = if block.insecure { insecure } else { checking };
        let timeout = Duration::from_secs(
            block
                .timeout_seconds
                .filter(|s| *s > 0)
                .unwrap_or(TIMEOUT_SECONDS),
        );
        let mut headers = headers(&block.headers)?;
        if block.json_body.is_some() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = client
            .request(method, &block.url)
            .timeout(timeout)
            .headers(headers);
        match (&block.body, &block.json_body) {
            (None, None) => Ok(request),
            (Some(body), None) => Ok(request.body(body.clone())),
            (None, Some(json)) => Ok(request.body(json.to_string())),
            (Some(_), Some(_)) => Err(
                "use either Body or JSONBody; both cannot exists for WebMetric payload".to_owned(),
            ),
        }
    }
}

impl Provider for Web {
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Answer, String>> {
        self.measured(question).boxed()
    }
}

fn method(text: Option<&str>) -> Result<Method, String> {
    match text.unwrap_or_default() {
        "" | "GET" => Ok(Method::GET),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        other => Err(format!(
            "provider web: method {other:?} is none of GET, POST, PUT"
        )),
    }
}

fn headers(headers: &[Header]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for Header { key, value } in headers {
        let name = HeaderName::try_from(key)
            .map_err(|_| format!("provider web: {key:?} is no header name"))?;
        // The value may be a Secret's: it is not shown.
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("provider web: the value of header {key:?} is none"))?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    Ok(map)
}

async fn read(request: reqwest::RequestBuilder) -> Result<Vec<u8>, String> {
    let mut response = request
        .send()
        .await
        .map_err(|error| chain(&error.without_url()))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!(
            "received non 2xx response code: {}",
            status.as_u16()
        ));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| chain(&error.without_url()))?
    {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("the answer is larger than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes: the outermost alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    struct Chain<'a>(&'a dyn std::error::Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut source = self.0.source();
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
            Ok(())
        }
    }
    Chain(error).to_string()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Bytes;
    use axum::http::{HeaderMap as Heads, Method as Verb, StatusCode};
    use axum::routing::any;
    use serde_json::json;

    use super::*;
    use crate::api::analysis::{AnalysisRun, Metric};

    #[test]
    fn mozillas_authorities_can_all_be_trusted() {
        let (Ok(()) | Err(_)) = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let all = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
        assert!(all > 100, "{all}");
        assert_eq!(mozilla().count(), all);
        let client = Client::builder().tls_certs_only(mozilla());
        assert!(client.build().is_ok());
    }

    /// A server that answers every path in its own way; returns its address.
    async fn origin() -> String {
        let echo = |verb: Verb, heads: Heads, body: Bytes| async move {
            let head = |name: &str| {
                heads
                    .get(name)
                    .and_then(|v| v.to_str().ok())
                    .map(str::to_owned)
            };
            axum::Json(json!({
                "method": verb.as_str(), "type": head("content-type"), "token": head("x-token"),
                "body": String::from_utf8_lossy(&body),
            }))
        };
        let app = Router::new()
            .route(
                "/json",
                any(|| async { axum::Json(json!({"data": {"rate": 0.97, "n": [1, 2]}})) }),
            )
            .route("/text", any(|| async { "all healthy" }))
            .route("/number", any(|| async { "0.5" }))
            .route(
                "/broken",
                any(|| async { (StatusCode::SERVICE_UNAVAILABLE, "{}") }),
            )
            .route("/big", any(|| async { vec![b'1'; BODY_BYTES_MAX + 1] }))
            .route("/never", any(std::future::pending::<()>))
            .route("/echo", any(echo));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    fn web() -> Web {
        // The first test to come chooses; the others find the choice made.
        if rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .is_err()
        {
            assert!(rustls::crypto::CryptoProvider::get_default().is_some());
        }
        Web::default()
    }

    async fn ask(block: serde_json::Value) -> Result<serde_json::Value, String> {
        let question = Question {
            run: &AnalysisRun::default(),
            metric: &Metric::default(),
            block: &block,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let web = web();
        match web.ask(question).await? {
            Answer::Result(answered) => Ok(answered.value.to_json()),
            Answer::Later(_) | Answer::Waiting(_) => panic!("the web provider answers at once"),
        }
    }

    #[tokio::test]
    async fn answers_are_json_or_text() {
        let origin = origin().await;
        let cases = [
            (
                "/json",
                None,
                Ok(json!({"data": {"rate": 0.97, "n": [1, 2]}})),
            ),
            ("/json", Some("{$.data.rate}"), Ok(json!(0.97))),
            ("/json", Some("{$.data.n[*]}"), Ok(json!(1))),
            (
                "/json",
                Some("{$.data.none}"),
                Err("jsonPath \"{$.data.none}\": none is not found"),
            ),
            ("/text", None, Ok(json!("all healthy"))),
            ("/number", None, Ok(json!(0.5))),
            ("/broken", None, Err("received non 2xx response code: 503")),
            ("/big", None, Err("the answer is larger than 4194304 bytes")),
        ];
        for (path, json_path, expected) in cases {
            let block = json!({"url": format!("{origin}{path}"), "jsonPath": json_path});
            assert_eq!(
                ask(block).await,
                expected.map_err(str::to_owned),
                "{path} {json_path:?}"
            );
        }
    }

    #[tokio::test]
    async fn requests_are_made_as_the_metric_says() {
        let url = format!("{}/echo", origin().await);
        let plain = ask(json!({"url": url, "headers": [{"key": "X-Token", "value": "t"}]})).await;
        assert_eq!(
            plain,
            Ok(json!({"method": "GET", "type": null, "token": "t", "body": ""}))
        );
        let posted = ask(json!({"url": url, "method": "POST", "jsonBody": {"q": 1}})).await;
        let expected = json!({"method": "POST", "type": "application/json", "token": null, "body": "{\"q\":1}"});
        assert_eq!(posted, Ok(expected));
        let put = ask(json!({"url": url, "method": "PUT", "body": "text"})).await;
        assert_eq!(put.unwrap()["body"], "text");
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_refused() {
        let cases = [
            (json!({}), "provider web: missing field `url`"),
            (
                json!({"url": "u", "method": "DELETE"}),
                "provider web: method \"DELETE\" is none of GET, POST, PUT",
            ),
            (
                json!({"url": "u", "body": "b"}),
                "Body/JSONBody can only be used with POST or PUT WebMetric Method types",
            ),
            (
                json!({"url": "u", "method": "POST", "body": "b", "jsonBody": {}}),
                "use either Body or JSONBody; both cannot exists for WebMetric payload",
            ),
            (
                json!({"url": "u", "authentication": {}}),
                "provider web: authentication is not supported; use headers",
            ),
            (
                json!({"url": "u", "headers": [{"key": "a b", "value": ""}]}),
                "provider web: \"a b\" is no header name",
            ),
        ];
        for (block, expected) in cases {
            assert_eq!(
                ask(block.clone()).await,
                Err(expected.to_owned()),
                "{block}"
            );
        }
        let unknown = ask(json!({"url": "u", "jsonpath": "{$}"}))
            .await
            .unwrap_err();
        assert!(
            unknown.starts_with("provider web: unknown field `jsonpath`"),
            "{unknown}"
        );
    }

    #[tokio::test]
    async fn silence_and_absence_are_errors_that_show_no_url() {
        let late =
            ask(json!({"url": format!("{}/never", origin().await), "timeoutSeconds": 1})).await;
        assert!(late.unwrap_err().contains("timed out"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let refused = ask(json!({"url": format!("http://{closed}/?token=secret")}))
            .await
            .unwrap_err();
        assert!(
            refused.contains("refused") && !refused.contains("secret"),
            "{refused}"
        );
    }
}
