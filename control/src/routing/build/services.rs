//! What answers where every Service is served by its name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::{Assembly, Key, Name, external_name, is_external_name, is_fleet, refusal};
use crate::routing::names::{self, Answers, ServiceNames};
use crate::routing::notice::Reason;
use crate::routing::ports::{self, Speaks};

impl<'a> Assembly<'a> {
    pub(super) fn attach_services(&mut self, names: &'a ServiceNames) {
        let mut answers = BTreeMap::new();
        for (key, service) in self.services.clone() {
            if !is_fleet(key, service, self.options) && !ports::is_revision_service(service) {
                let answer = self.answers(key, service);
                answers.insert(key, answer);
            }
        }
        self.answer_for_what_is_missing(&mut answers, names);
        for (owner, route) in names::routes(&answers, names) {
            self.parts.routes.push(route);
            self.owners.routes.push(Name::new("Service", owner));
        }
    }

    fn answers(&mut self, key: Key<'a>, service: &'a Service) -> Answers {
        if let Some(problem) = self.excluded.0.get(&Name::new("Service", key)) {
            self.note(key, Reason::Invalid, problem.clone());
            return Answers::refused(refusal(503, "invalid-object", problem));
        }
        if is_external_name(service) {
            let message = external_name(key);
            self.note(key, Reason::Unsupported, message.clone());
            return Answers::refused(refusal(501, "external-name", &message));
        }
        let tcp = ports::tcp_ports(service);
        if tcp.is_empty() {
            let message = format!("Service {}/{} has no TCP port", key.0, key.1);
            return Answers::refused(refusal(501, "no-tcp-port", &message));
        }
        let plain: Vec<&ServicePort> = tcp
            .iter()
            .copied()
            .filter(|port| ports::speaks(port) != Speaks::Tls)
            .collect();
        let primary = ports::primary(&plain).or_else(|| ports::primary(&tcp));
        let mut answers = Answers::default();
        for port in tcp {
            let target = self.target(key, service, port);
            if primary.is_some_and(|primary| std::ptr::eq(primary, port)) {
                answers.primary = Some(target.clone());
            }
            answers
                .ports
                .extend(u16::try_from(port.port).ok().map(|number| (number, target)));
        }
        answers
    }

    /// Services that a Split governs but that do not exist, Services that do not parse, and a default that is missing: 503.
    fn answer_for_what_is_missing(
        &mut self,
        answers: &mut BTreeMap<Key<'a>, Answers>,
        names: &'a ServiceNames,
    ) {
        for (namespace, service, split) in self.governed.iter() {
            let message = format!(
                "Split {namespace}/{} governs Service {service}, which does not exist",
                self.splits[split].name
            );
            answers
                .entry((namespace, service))
                .or_insert_with(|| Answers::refused(refusal(503, "no-service", &message)));
        }
        for malformed in &self.snapshot.malformed_services {
            let message = format!(
                "Service {}/{} does not parse: {}",
                malformed.namespace, malformed.name, malformed.error
            );
            let key = (malformed.namespace.as_str(), malformed.name.as_str());
            answers.insert(
                key,
                Answers::refused(refusal(503, "invalid-object", &message)),
            );
        }
        if let Some((namespace, name)) = &names.default_service {
            let message = format!("the default Service {namespace}/{name} does not exist");
            answers
                .entry((namespace, name))
                .or_insert_with(|| Answers::refused(refusal(503, "no-service", &message)));
        }
    }
}
