//! What answers where Ingresses say what is served.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};
use sidestep_proxy::table::{Refusal, Route, Target};

use super::{Assembly, Key, Name, external_name, is_external_name, metadata_key, refusal};
use crate::routing::ingress;
use crate::routing::notice::Reason;
use crate::routing::ports;

impl<'a> Assembly<'a> {
    pub(super) fn attach_ingresses(&mut self, class: &str, ends_tls: bool) {
        let ingresses = ingress::of_class(&self.snapshot.ingresses, class);
        let mut taken = ingress::Taken::default();
        let rules = ingresses.iter().map(|i| (*i, ingress::rules(i)));
        let rest = ingresses
            .iter()
            .map(|i| (*i, ingress::rest(i).into_iter().collect()));
        if !ends_tls {
            ingresses
                .iter()
                .for_each(|ingress| self.say_of_tls(ingress));
        }
        for (ingress, rules) in rules.chain(rest).collect::<Vec<(&'a Ingress, Vec<_>)>>() {
            let name = Name::new("Ingress", metadata_key(&ingress.metadata));
            if let Some(problem) = self.excluded.0.get(&name) {
                self.say(&name, Reason::Invalid, problem.clone());
                continue;
            }
            for rule in rules {
                if let Err(by_whom) = taken.take(&rule, ingress) {
                    self.say(&name, Reason::Conflict, by_whom);
                    continue;
                }
                let target = self.ingress_target((ingress, &name), rule.backend);
                self.parts.routes.push(Route {
                    host: rule.host,
                    path: rule.path,
                    target,
                });
                self.owners.routes.push(name.clone());
            }
        }
    }

    fn say_of_tls(&mut self, ingress: &Ingress) {
        let tls = ingress.spec.as_ref().and_then(|spec| spec.tls.as_ref());
        if tls.is_some_and(|tls| !tls.is_empty()) {
            let name = Name::new("Ingress", metadata_key(&ingress.metadata));
            let message =
                "spec.tls: this proxy has no --listen-tls; the rules are served over plain HTTP";
            self.say(&name, Reason::Unsupported, message.to_owned());
        }
    }

    fn ingress_target(
        &mut self,
        (ingress, name): (&'a Ingress, &Name),
        backend: Option<&'a IngressBackend>,
    ) -> Target {
        match self.ingress_port(ingress, backend) {
            Ok((key, service, port)) => self.target(key, service, port),
            Err((reason, refusal)) => {
                self.say(name, reason, refusal.message.clone());
                Target::Refuse(refusal)
            }
        }
    }

    /// The Service port that an Ingress names.
    fn ingress_port(
        &self,
        ingress: &'a Ingress,
        backend: Option<&'a IngressBackend>,
    ) -> Result<(Key<'a>, &'a Service, &'a ServicePort), (Reason, Refusal)> {
        let Some(named) = backend.and_then(|backend| backend.service.as_ref()) else {
            let message = "a backend is no Service; only Services are routed to";
            return Err((Reason::Unsupported, refusal(501, "no-backend", message)));
        };
        let key = (metadata_key(&ingress.metadata).0, named.name.as_str());
        let Some((&key, &service)) = self.services.get_key_value(&key) else {
            let message = format!("Service {}/{} does not exist", key.0, key.1);
            return Err((
                Reason::ServiceNotFound,
                refusal(503, "no-service", &message),
            ));
        };
        if let Some(problem) = self.excluded.0.get(&Name::new("Service", key)) {
            return Err((Reason::Invalid, refusal(503, "invalid-object", problem)));
        }
        if is_external_name(service) {
            let message = external_name(key);
            return Err((Reason::Unsupported, refusal(501, "external-name", &message)));
        }
        let wanted = named.port.as_ref();
        let is_wanted = |port: &&ServicePort| match wanted {
            Some(wanted) if wanted.name.is_some() => wanted.name == port.name,
            Some(wanted) => wanted.number == Some(port.port),
            None => false,
        };
        let Some(port) = ports::tcp_ports(service).into_iter().find(is_wanted) else {
            let message = format!("Service {}/{} has no such TCP port", key.0, key.1);
            return Err((Reason::PortNotFound, refusal(503, "no-port", &message)));
        };
        Ok((key, service, port))
    }
}
