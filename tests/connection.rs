//! The flags that say which API server is asked, and as whom, as kubectl has them: each against a real one, without a kubeconfig.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;

use crate::support::cluster::{World, enclave};
use crate::support::session::{finish, sidestep};

/// A token of the namespace's service account, which may do nothing.
async fn token(world: &World) -> String {
    let accounts = world.api::<ServiceAccount>();
    let (how, request) = (PostParams::default(), TokenRequest::default());
    let made = accounts.create_token_request("default", &how, &request);
    made.await.unwrap().status.unwrap().token
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flags_of_kubectl_say_who_asks_whom() {
    let world = World::start().await;
    let (server, token) = (world.server(), token(&world).await);
    let namespace = &world.namespace;
    let pki = enclave::folder().join("cluster/pki");
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.join(name).display());
    let ours = file("certificate-authority", "ca.crt");
    let another = file("certificate-authority", "front-proxy-ca.crt");
    let admin = [
        file("client-certificate", "admin.crt"),
        file("client-key", "admin.key"),
    ]
    .join(" ");
    let served = (0, "No resources found.".to_owned());
    let refused = |why: &str| (1, why.to_owned());
    let forbidden = |user: &str| {
        refused(&format!(
            "User \"{user}\" cannot list resource \"rollouts\""
        ))
    };
    let account = format!("system:serviceaccount:{namespace}:default");
    let named = |name: &str| format!("{ours} {admin} --tls-server-name={name}");
    let shop = "not valid for name \"shop.example\"";
    let eve = format!("{ours} {admin} --as=eve");
    for (flags, (code, said)) in [
        (format!("{ours} {admin}"), served.clone()),
        (admin.clone(), refused("UnknownIssuer")),
        (format!("{another} {admin}"), refused("UnknownIssuer")),
        (
            format!("--insecure-skip-tls-verify {admin}"),
            served.clone(),
        ),
        (named("kubernetes.default"), served.clone()),
        (named("shop.example"), refused(shop)),
        (ours.clone(), forbidden("system:anonymous")),
        (format!("{ours} --token={token}"), forbidden(&account)),
        (format!("{ours} --token=guessed"), refused("Unauthorized")),
        (eve.clone(), forbidden("eve")),
        (
            format!("{eve} --as-group=shop --as-group=system:masters"),
            served,
        ),
    ] {
        let mut command = sidestep();
        command.args([
            "list",
            "rollouts",
            "--namespace",
            namespace,
            "--server",
            &server,
        ]);
        command.args(flags.split(' '));
        command.env("HOME", "/nonexistent").env_remove("KUBECONFIG");
        let answer = finish(command, "").await.unwrap();
        let is_so = answer.code == Some(code) && answer.stderr.contains(&said);
        assert!(is_so, "{flags}: {said}: {answer:?}");
    }
}
