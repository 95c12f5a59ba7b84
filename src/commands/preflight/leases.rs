//! Controllers at work: whoever renews a Lease of Argo's name writes Rollouts.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use sidestep_control::wire::Collection;

use super::{Finding, Verdict};
use crate::controller;

/// What Argo calls it; an instance id may follow.
const LOCK: &str = "argo-rollouts-controller-lock";

/// Looks at all Leases of that name.
pub(super) async fn look(client: &Client, now: Timestamp) -> Vec<Finding> {
    let object = format!("lease/{LOCK}");
    let leases = Collection::<Lease>::all(client)
        .list(&ListParams::default())
        .await;
    let mut leases = match leases {
        Ok(leases) => leases,
        Err(error) => return vec![Finding::unread(&object, error)],
    };
    leases.retain(|lease| lease.name_any().starts_with(LOCK));
    let mut findings: Vec<Finding> = leases.iter().map(|lease| judge(lease, now)).collect();
    if findings.is_empty() {
        findings.push(Finding::new(Verdict::Ok, object, "nobody holds one"));
    }
    findings
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

fn judge(lease: &Lease, now: Timestamp) -> Finding {
    let namespace = lease.namespace().unwrap_or_default();
    let object = format!("lease/{namespace}/{}", lease.name_any());
    let finding = |verdict, message: String| Finding::new(verdict, object.clone(), message);
    let Some(holder) = holder(lease) else {
        return finding(Verdict::Ok, "given back".to_owned());
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let renewed = spec.renew_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let seconds = now.duration_since(renewed).as_secs();
    let kept = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
    let is_live = now.duration_since(renewed) <= kept;
    match (is_live, controller::is_ours(holder)) {
        (true, true) => finding(Verdict::Ok, format!("held by Sidestep: {holder}")),
        (true, false) => finding(
            Verdict::Stop,
            format!(
                "held by {holder}, renewed {} s ago: a controller at work; scale it to 0 first, or move Rollouts one by one with an instance id",
                seconds.max(0)
            ),
        ),
        (false, _) => finding(
            Verdict::Ok,
            format!("last held by {holder}, not renewed for {seconds} s"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lease_that_is_renewed_by_another_stops() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let (argo, ours) = (
            "argo-1_8d1f0a52-5d3f-4c57-9d7e-0a52b1f0c3d4",
            "sidestep-1_0123456789abcdef",
        );
        let (lately, before) = ("2026-01-01T00:00:55.000000Z", "2026-01-01T00:00:30.000000Z");
        for (holder, renewed, expected, part) in [
            (argo, lately, Verdict::Stop, "renewed 5 s ago"),
            (ours, lately, Verdict::Ok, "held by Sidestep"),
            (argo, before, Verdict::Ok, "not renewed for 30 s"),
            ("", lately, Verdict::Ok, "given back"),
        ] {
            let lease = json!({
                "metadata": {"name": LOCK, "namespace": "argo-rollouts"},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
            });
            let found = judge(&serde_json::from_value(lease).unwrap(), now);
            assert_eq!(found.verdict, expected, "{found:?}");
            assert!(found.message.contains(part), "{found:?}");
        }
    }
}
