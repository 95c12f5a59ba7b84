//! `spec.strategy.blueGreen`: Services, promotion, analyses, delays, and routing by an annotation.
//!
//! Argo's CRD has no routing block for blue-green and would prune one, so ours stands in the annotation `sidestep.dev/proxy`.

use super::invalid::Complaints;
use super::strategy::{self, Place};
use super::{AbortDelay, BlueGreen, Delays, Promotion, Routing};
use crate::api::labels;
use crate::api::rollout::{BlueGreenStrategy, ProxyRouting, Rollout};

pub(super) fn parse(
    rollout: &Rollout,
    written: &BlueGreenStrategy,
    complaints: &mut Complaints,
) -> BlueGreen {
    check_services(written, complaints);
    check_limit(rollout, written, complaints);
    check_numbers(written, complaints);
    BlueGreen {
        active_service: written.active_service.clone(),
        preview_service: strategy::named(written.preview_service.as_ref()),
        preview_replicas: written.preview_replica_count,
        promotion: promotion(written),
        before: written.pre_promotion_analysis.clone(),
        after: written.post_promotion_analysis.clone(),
        max_unavailable: strategy::amount(
            "maxUnavailable",
            written.max_unavailable.as_ref(),
            complaints,
        ),
        delays: delays(written),
        routing: routing(rollout, written, complaints),
    }
}

fn promotion(written: &BlueGreenStrategy) -> Promotion {
    match (
        written.auto_promotion_enabled,
        written.auto_promotion_seconds,
    ) {
        (Some(false), _) => Promotion::ByPerson,
        (_, Some(seconds @ 1..)) => Promotion::After(i64::from(seconds)),
        (_, _) => Promotion::AtOnce,
    }
}

fn delays(written: &BlueGreenStrategy) -> Delays {
    let limit = written.scale_down_delay_revision_limit;
    Delays {
        scale_down: written.scale_down_delay_seconds.map_or(30, i64::from),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(0)),
        abort: match written.abort_scale_down_delay_seconds {
            None => AbortDelay::After(30),
            Some(..=0) => AbortDelay::Never,
            Some(seconds) => AbortDelay::After(i64::from(seconds)),
        },
    }
}

fn check_services(written: &BlueGreenStrategy, complaints: &mut Complaints) {
    let active = written.active_service.as_str();
    if active.is_empty() {
        complaints.required("spec.strategy.blueGreen.activeService", "");
    } else if written.preview_service.as_deref() == Some(active) {
        let detail = "This rollout uses the same service for the active and preview services, but two different services are required.";
        complaints.text("spec.strategy.activeService", active, detail);
    }
}

fn check_limit(rollout: &Rollout, written: &BlueGreenStrategy, complaints: &mut Complaints) {
    let kept = rollout.spec.revision_history_limit.unwrap_or(10);
    let limit = written.scale_down_delay_revision_limit;
    if let Some(limit) = limit.filter(|limit| *limit > kept) {
        let detail = "This rollout's revision history limit can not be smaller than the rollout's scale down limit";
        complaints.value("spec.strategy.scaleDownDelayRevisionLimit", limit, detail);
    }
}

fn check_numbers(written: &BlueGreenStrategy, complaints: &mut Complaints) {
    let numbers = [
        ("previewReplicaCount", written.preview_replica_count),
        ("autoPromotionSeconds", written.auto_promotion_seconds),
        ("scaleDownDelaySeconds", written.scale_down_delay_seconds),
        (
            "scaleDownDelayRevisionLimit",
            written.scale_down_delay_revision_limit,
        ),
        (
            "abortScaleDownDelaySeconds",
            written.abort_scale_down_delay_seconds,
        ),
    ];
    for (key, number) in numbers {
        if let Some(number) = number.filter(|number| *number < 0) {
            complaints.value(
                format!("spec.strategy.blueGreen.{key}"),
                number,
                "must be greater than or equal to 0",
            );
        }
    }
}

/// The block of the annotation, if it is there. The active Service is split, and those that the block names beside it.
fn routing(
    rollout: &Rollout,
    written: &BlueGreenStrategy,
    complaints: &mut Complaints,
) -> Option<Routing> {
    let text = strategy::annotated(rollout)?;
    let place = Place {
        field: strategy::annotation_field(),
        whole: 100,
        min_pods: 1,
        dynamic: false,
    };
    let block: Option<ProxyRouting> = serde_json::from_str(text).ok();
    let mut block = block.unwrap_or_else(|| {
        complaints.text(place.field.as_str(), text, strategy::BLOCK_FORM);
        ProxyRouting::default()
    });
    if !block.services.contains(&written.active_service) {
        block.services.insert(0, written.active_service.clone());
    }
    Some(strategy::route(block, &place, complaints))
}

/// A canary says it in its own block; an annotation beside it would say it twice.
pub(super) fn refuse_annotation(rollout: &Rollout, complaints: &mut Complaints) {
    if let Some(text) = strategy::annotated(rollout) {
        let detail = format!(
            "annotation {} is for blueGreen; a canary has spec.strategy.canary.trafficRouting.plugins[{}]",
            labels::PROXY,
            crate::api::rollout::PLUGIN
        );
        complaints.text(strategy::annotation_field(), text, detail);
    }
}
