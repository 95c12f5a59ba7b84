//! Analysis from end to end: runs by hand and runs of a Rollout, asked of a server and of the proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::routing::get;
use http::{Request, Response};
use kube::Client;
use kube::core::Status;
use serde_json::{Value, json};

use super::stage::{NS, Stage, rollout};
use crate::local::kinds;
use crate::local::store::Store;

/// A server whose answer says whether all is well, and whether the caller knew the password.
async fn server(healthy: Arc<AtomicBool>) -> String {
    // The first test to come chooses; the others find the choice made.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
    let app = Router::new().route(
        "/",
        get(move |heads: HeaderMap| async move {
            let echo = heads.get("x-token").and_then(|token| token.to_str().ok());
            let healthy = healthy.load(Ordering::Relaxed);
            axum::Json(json!({"healthy": healthy, "echo": echo}))
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/")
}

fn runs(store: &Store) -> Vec<Arc<Value>> {
    store.list(&kinds::ANALYSIS_RUN, Some(NS)).objects
}

/// The run of that name, once it is over.
async fn over(stage: &mut Stage, name: &str) -> Value {
    let store = stage.local.store.clone();
    let run = move || store.get(&kinds::ANALYSIS_RUN, NS, name);
    let phase = |run: &Value| {
        run["status"]["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let is_over =
        || run().is_some_and(|run| !matches!(phase(&run).as_str(), "" | "Running" | "Pending"));
    stage.until(name, |_| is_over()).await;
    Value::clone(&run().unwrap())
}

#[tokio::test]
async fn a_run_by_hand_asks_with_its_secret_and_writes_none_of_it() {
    let url = server(Arc::new(AtomicBool::new(true))).await;
    let mut stage = Stage::new().await;
    stage.create(
        &kinds::SECRET,
        json!({"metadata": {"name": "web"}, "stringData": {"token": "hunter2"}}),
    );
    let metric = json!({
        "name": "m", "interval": "1s", "count": 2,
        "successCondition": "result.healthy && result.echo == \"{{args.token}}\"",
        "provider": {"web": {"url": url, "headers": [{"key": "X-Token", "value": "{{args.token}}"}]}},
    });
    let token =
        json!({"name": "token", "valueFrom": {"secretKeyRef": {"name": "web", "key": "token"}}});
    let spec = json!({"metrics": [metric], "args": [token]});
    stage.create(
        &kinds::ANALYSIS_RUN,
        json!({"metadata": {"name": "by-hand"}, "spec": spec}),
    );
    let status = over(&mut stage, "by-hand").await["status"].clone();
    assert_eq!(status["phase"], "Successful", "{status:#}");
    assert_eq!(status["metricResults"][0]["count"], 2);
    let value = &status["metricResults"][0]["measurements"][0]["value"];
    assert_eq!(value, "{\"echo\":\"********\",\"healthy\":true}");
    assert!(!status.to_string().contains("hunter2"));
    stage.close().await;
}

/// A way to the API server on which nobody may read Secrets.
async fn without_secrets(
    direct: Client,
    request: Request<kube::client::Body>,
) -> kube::Result<Response<Body>> {
    if request.uri().path().contains("/secrets/") {
        let status = Status::failure("secrets \"web\" is forbidden", "Forbidden");
        let body = json!(status.with_code(403)).to_string();
        let response = Response::builder().status(403);
        return Ok(response.body(Body::from(body)).unwrap());
    }
    Ok(direct.send(request).await?.map(Body::new))
}

#[tokio::test]
async fn a_run_whose_secret_may_not_be_read_says_so_and_ends() {
    let mut stage = Stage::new().await;
    stage.stop_controller().await;
    stage.start_controller_through(without_secrets);
    let token =
        json!({"name": "token", "valueFrom": {"secretKeyRef": {"name": "web", "key": "token"}}});
    let metric = json!({"name": "m", "provider": {"web": {"url": "http://127.0.0.1:1/"}}});
    stage.create(
        &kinds::ANALYSIS_RUN,
        json!({"metadata": {"name": "shut"}, "spec": {"metrics": [metric], "args": [token]}}),
    );
    let status = over(&mut stage, "shut").await["status"].clone();
    let said = json!("Unable to resolve metric arguments: secrets \"web\" is forbidden");
    assert_eq!(
        (&status["phase"], &status["message"]),
        (&json!("Error"), &said)
    );
    stage.close().await;
}

#[tokio::test]
async fn a_run_without_its_secret_is_an_error_and_one_past_its_time_is_deleted() {
    let mut stage = Stage::new().await;
    let token =
        json!({"name": "token", "valueFrom": {"secretKeyRef": {"name": "none", "key": "token"}}});
    let metric =
        json!({"name": "m", "provider": {"web": {"url": "http://127.0.0.1:1/{{args.token}}"}}});
    let spec = json!({"metrics": [metric], "args": [token]});
    stage.create(
        &kinds::ANALYSIS_RUN,
        json!({"metadata": {"name": "open"}, "spec": spec}),
    );
    let status = over(&mut stage, "open").await["status"].clone();
    assert_eq!(
        (&status["phase"], &status["message"]),
        (
            &json!("Error"),
            &json!("Unable to resolve metric arguments: secrets \"none\" not found")
        )
    );
    let old = json!({
        "metadata": {"name": "old"},
        "spec": {"metrics": [], "ttlStrategy": {"secondsAfterCompletion": 1}},
        "status": {"phase": "Failed", "completedAt": "2026-01-01T00:00:00Z"},
    });
    stage.create(&kinds::ANALYSIS_RUN, old);
    let store = stage.local.store.clone();
    stage
        .until("old", |_| {
            store.get(&kinds::ANALYSIS_RUN, NS, "old").is_none()
        })
        .await;
    stage.close().await;
}

fn image(rollout: &Value) -> &Value {
    &rollout["spec"]["template"]["spec"]["containers"][0]["image"]
}

#[tokio::test]
async fn a_step_passes_on_what_the_proxies_saw_and_fails_on_what_a_server_says() {
    let healthy = Arc::new(AtomicBool::new(true));
    let url = server(Arc::clone(&healthy)).await;
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    let proxies = json!({
        "name": "proxies",
        // The stage's proxy has no data plane: a window without requests is what it sees.
        "successCondition": "result.requests == 0 && result.errorRate == nil && result.stable.requests == 0",
        "provider": {"plugin": {"sidestep/proxy": {"version": "canary", "window": "1s"}}},
    });
    let server = json!({
        "name": "server", "successCondition": "result.healthy",
        "provider": {"web": {"url": url, "jsonPath": "{$}"}},
    });
    let template = json!({"metadata": {"name": "judge"}, "spec": {"metrics": [proxies, server]}});
    stage.create(&kinds::ANALYSIS_TEMPLATE, template);
    let steps =
        json!([{"setWeight": 50}, {"analysis": {"templates": [{"templateName": "judge"}]}}]);
    stage.create(&kinds::ROLLOUT, rollout("web", "shop:1", &steps));
    stage.until("web", |seen| seen.phase() == "Healthy").await;

    stage.set_image("web", "shop:2");
    let promoted =
        |seen: &super::stage::Seen| seen.phase() == "Healthy" && seen.stable() == seen.current();
    let seen = stage.until("web", promoted).await;
    assert_eq!(image(&seen.rollout), "shop:2");
    let first = runs(&stage.local.store);
    assert_eq!(first.len(), 1);
    let run = &first[0];
    assert_eq!(run["status"]["phase"], "Successful", "{:#}", run["status"]);
    assert_eq!(run["metadata"]["labels"]["step-index"], "1");
    let results = run["status"]["metricResults"].as_array().unwrap();
    let proxies = results
        .iter()
        .find(|result| result["name"] == "proxies")
        .unwrap();
    assert_eq!(proxies["measurements"][0]["metadata"]["version"], "canary");

    healthy.store(false, Ordering::Relaxed);
    stage.set_image("web", "shop:3");
    let seen = stage.until("web", |seen| seen.phase() == "Degraded").await;
    assert!(
        seen.message()
            .contains("Metric \"server\" assessed Failed due to failed (1) > failureLimit (0)"),
        "{}",
        seen.message()
    );
    stage
        .until("web", |seen| seen.served("web") == "stable=100")
        .await;
    stage.close().await;
}
