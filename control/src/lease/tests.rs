//! Contenders for one Lease, against the embedded API server.

use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::local::{self, Local};

/// An hour: nobody outwaits it within a test.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(1);

async fn server() -> (Local, Client) {
    let local = local::start(local::Config::default()).await.unwrap();
    let client = local.client().unwrap();
    (local, client)
}

fn config(identity: &str, duration: Duration) -> Config {
    Config {
        namespace: "default".to_owned(),
        name: LOCK.to_owned(),
        identity: identity.to_owned(),
        duration,
        renew: duration * 2 / 3,
        retry: Duration::from_millis(20),
    }
}

fn contender(client: &Client, identity: &str, duration: Duration) -> Leadership {
    Leadership::new(client.clone(), config(identity, duration))
}

async fn leader(client: &Client) -> Option<String> {
    let leases = Collection::<Lease>::within(client, "default");
    let lease = leases.get_opt(LOCK).await.unwrap()?;
    holder(&lease).map(str::to_owned)
}

#[tokio::test]
async fn the_second_leads_when_the_first_gives_the_lease_back() {
    let (_local, client) = server().await;
    let mut first = contender(&client, "first", LONG);
    first.acquire().await;
    let mut second = contender(&client, "second", LONG);
    let (waiting, leading) = (second.acquire(), async {
        assert_eq!(leader(&client).await.as_deref(), Some("first"));
        first.release().await;
    });
    tokio::join!(waiting, leading);
    assert_eq!(leader(&client).await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_outwaited() {
    let (_local, client) = server().await;
    contender(&client, "first", SHORT).acquire().await;
    contender(&client, "second", SHORT).acquire().await;
    assert_eq!(leader(&client).await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_leader_that_was_replaced_hears_of_it_and_gives_nothing_back() {
    let (_local, client) = server().await;
    let mut first = contender(&client, "first", LONG);
    first.acquire().await;
    let leases = Collection::<Lease>::within(&client, "default");
    let patch = json!({"spec": {"holderIdentity": "usurper"}});
    let how = kube::api::PatchParams::default();
    let patch = kube::api::Patch::Merge(&patch);
    leases.patch(LOCK, &how, &patch).await.unwrap();
    let lost = first.keep().await;
    assert!(
        matches!(&lost, Error::Taken(by) if by == "usurper"),
        "{lost}"
    );
    first.release().await;
    assert_eq!(leader(&client).await.as_deref(), Some("usurper"));
}

#[tokio::test]
async fn a_leader_that_cannot_renew_gives_up() {
    let (local, client) = server().await;
    let mut first = contender(&client, "first", SHORT);
    first.acquire().await;
    local.stop().await;
    let lost = first.keep().await;
    assert!(matches!(lost, Error::NotRenewed { .. }), "{lost}");
}

/// A renewal that is answered late was taken early: others count from then on.
#[tokio::test(start_paused = true)]
async fn a_leader_counts_from_when_it_began_to_renew() {
    let begun = Instant::now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LOCK, "namespace": "default"},
        "spec": {"holderIdentity": "leader", "leaseDurationSeconds": 15},
    });
    let answer = move |request: http::Request<kube::client::Body>| {
        let answer = http::Response::new(kube::client::Body::from(lease.to_string().into_bytes()));
        async move {
            if request.method() == http::Method::PUT && begun.elapsed() > Duration::from_secs(1) {
                match begun.elapsed() < Duration::from_secs(4) {
                    true => sleep(Duration::from_secs(8)).await,
                    false => std::future::pending().await,
                }
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    };
    let client = Client::new(tower::service_fn(answer), "default");
    let config = Config {
        renew: Duration::from_secs(10),
        retry: Duration::from_secs(2),
        ..config("leader", Duration::from_secs(15))
    };
    let mut leader = Leadership::new(client, config);
    leader.acquire().await;
    let lost = leader.keep().await;
    assert!(matches!(lost, Error::NotRenewed { .. }), "{lost}");
    // Begun after 2 s, answered after 10.
    assert_eq!(begun.elapsed().as_secs(), 12);
}

/// It accepts connections, and says nothing: its node is frozen, or gone without a word.
#[tokio::test]
async fn a_standby_does_not_wait_for_ever_for_an_api_server_that_is_silent() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let mut standby = contender(&client, "standby", SHORT);
    let asked_again = async {
        // Held open.
        let _first = silent.accept().await.unwrap();
        silent.accept().await.unwrap();
    };
    tokio::select! {
        () = standby.acquire() => panic!("nobody has given it the Lease"),
        asked = timeout(Duration::from_secs(60), asked_again) => asked.expect("it asks again"),
    }
}

#[tokio::test]
async fn a_lock_that_is_renewed_elsewhere_is_refused_and_one_that_is_not_is_no_matter() {
    let (_local, client) = server().await;
    let mut rival = Leadership::new(
        client.clone(),
        Config {
            namespace: "kube-system".to_owned(),
            ..config("rival", LONG)
        },
    );
    rival.acquire().await;
    let ours = config("ours", LONG);
    tokio::select! {
        refused = refuse_rivals(&client, &ours) => {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("kube-system") && told.contains("rival"), "{told}");
        }
        lost = rival.keep() => panic!("{lost}"),
    }
    refuse_rivals(&client, &config("ours", SHORT))
        .await
        .unwrap();
    rival.release().await;
    refuse_rivals(&client, &ours).await.unwrap();
}
