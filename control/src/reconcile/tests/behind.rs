//! A watch that is late: a Rollout comes into view before what its spec names.

use std::sync::Arc;

use axum::body::Body;
use futures::StreamExt;
use http::{Request, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::stage::{Stage, rollout};
use crate::local::kinds;

/// A way to the API server on which the watch of one kind tells nothing until it is let go.
#[derive(Clone, Debug)]
struct Way {
    /// The plural of the kind.
    held: &'static str,
    /// How often one object of the kind has been asked for: as often was a decision due, and put off.
    asked: Arc<watch::Sender<usize>>,
    /// The watch tells again.
    open: Arc<watch::Sender<bool>>,
}

impl Way {
    async fn send(
        self,
        inner: Client,
        request: Request<kube::client::Body>,
    ) -> Result<Response<Body>, kube::Error> {
        let (path, query) = (request.uri().path(), request.uri().query());
        let (is_held, query) = (path.ends_with(self.held), query.unwrap_or_default());
        let watches = query.contains("watch=true");
        if is_held && query.contains("fieldSelector") && !watches {
            self.asked.send_modify(|asked| *asked += 1);
        }
        let response = inner.send(request).await?.map(Body::new);
        Ok(match is_held && watches {
            true => response.map(|body| self.held(body)),
            false => response,
        })
    }

    fn held(self, body: Body) -> Body {
        Body::from_stream(body.into_data_stream().then(move |events| {
            let mut open = self.open.subscribe();
            async move {
                open.wait_for(|open| *open).await.unwrap();
                events
            }
        }))
    }
}

#[tokio::test]
async fn what_is_there_is_never_called_missing() {
    for held in ["services", "analysistemplates", "clusteranalysistemplates"] {
        let mut stage = Stage::new().await;
        stage.stop_controller().await;
        let way = Way {
            held,
            asked: Arc::default(),
            open: Arc::default(),
        };
        let through = way.clone();
        stage
            .start_controller_through(move |direct, request| through.clone().send(direct, request));
        let mut first = rollout("first", "blue", &json!([]));
        first["spec"]["strategy"] = json!({"canary": {}});
        stage.create(&kinds::ROLLOUT, first);
        stage.until("first", |seen| seen.phase() == "Healthy").await;
        let mut changes = stage.local.store.subscribe(stage.local.store.version());

        stage.create_services(&["web", "web-canary"]);
        let template = |metric: &str| {
            json!({"metadata": {"name": "judge"}, "spec": {"metrics": [
                {"name": metric, "provider": {"web": {"url": "http://127.0.0.1:1"}}},
            ]}})
        };
        stage.create(&kinds::ANALYSIS_TEMPLATE, template("calm"));
        stage.create(&kinds::CLUSTER_ANALYSIS_TEMPLATE, template("quick"));
        let mut object = rollout("web", "blue", &json!([]));
        object["spec"]["strategy"]["canary"]["analysis"] = json!({"templates": [
            {"templateName": "judge"}, {"templateName": "judge", "clusterScope": true},
        ]});
        stage.create(&kinds::ROLLOUT, object);
        let mut asked = way.asked.subscribe();
        tokio::select! {
            _ = stage.until("web", |seen| seen.phase() == "Degraded") => {}
            asked = asked.wait_for(|asked| *asked > 1) => assert!(asked.is_ok()),
        }
        way.open.send_replace(true);
        stage.until("web", |seen| seen.phase() == "Healthy").await;
        let phases: Vec<Value> = changes
            .ready()
            .unwrap()
            .iter()
            .map(|change| change.object["status"]["phase"].clone())
            .collect();
        assert!(!phases.contains(&json!("Degraded")), "{held}: {phases:?}");
        stage.close().await;
    }
}
