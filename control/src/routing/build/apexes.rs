//! What answers at ports that stand for ports of Services.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sidestep_proxy::table::{Apex, Target};

use super::{Assembly, Name, refusal};
use crate::api::split::Apex as Written;
use crate::routing::notice::{self, Reason};
use crate::routing::ports;
use crate::routing::split::ReadSplit;

impl<'a> Assembly<'a> {
    /// The apexes of all Splits; of two that ask for one port the older has it.
    pub(super) fn attach_apexes(&mut self, listening: &RangeInclusive<u16>) {
        let splits = self.splits;
        let mut oldest_first: Vec<&ReadSplit> = splits.iter().collect();
        oldest_first.sort_by_key(|split| &split.age);
        let mut taken: BTreeMap<u16, &ReadSplit> = BTreeMap::new();
        for split in oldest_first {
            for apex in split.spec.iter().flat_map(|spec| &spec.apexes) {
                let port = apex.listen;
                let refused = if !listening.contains(&port) {
                    let (first, last) = (listening.start(), listening.end());
                    let message =
                        format!("port {port} is none of this proxy's for apexes, {first}-{last}");
                    Some((Reason::Unsupported, message))
                } else {
                    let other = taken.get(&port);
                    other.map(|other| {
                        let (namespace, name) = (&other.namespace, &other.name);
                        let message = format!("port {port} is that of Split {namespace}/{name}");
                        (Reason::Conflict, message)
                    })
                };
                match refused {
                    Some((reason, message)) => {
                        let message = format!("spec.apexes: {message}");
                        self.notices.push(notice::on_split(split, reason, message));
                    }
                    None => {
                        taken.insert(port, split);
                        self.attach_apex(split, apex);
                    }
                }
            }
        }
    }

    fn attach_apex(&mut self, split: &'a ReadSplit, apex: &'a Written) {
        let target = self.apex_target(split, apex);
        self.parts.apexes.push(Apex {
            port: apex.listen,
            target,
        });
        let name = Name::new("Split", (&split.namespace, &split.name));
        self.owners.apexes.push(name);
    }

    fn apex_target(&mut self, split: &'a ReadSplit, apex: &'a Written) -> Target {
        let key = (split.namespace.as_str(), apex.service.as_str());
        let Some(&service) = self.services.get(&key) else {
            // Said by `notice::on_splits`.
            let message = format!("Service {}/{} does not exist", key.0, key.1);
            return Target::Refuse(refusal(503, "no-service", &message));
        };
        let ports = ports::tcp_ports(service);
        let port = ports
            .into_iter()
            .find(|port| ports::is_meant(port, &apex.port));
        match port {
            Some(port) => self.target(key, service, port),
            None => {
                let message = format!("Service {} has no TCP port {}", apex.service, apex.port);
                let said = format!("spec.apexes: {message}");
                self.notices
                    .push(notice::on_split(split, Reason::PortNotFound, said));
                Target::Refuse(refusal(503, "no-port", &message))
            }
        }
    }
}
