//! The certificates that Ingresses ask for, out of Secrets of type `kubernetes.io/tls`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressTLS};
use kube::ResourceExt;
use sidestep_proxy::tls::Identity;

use super::notice::{Notice, Reason};

/// Which Secrets may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretScope {
    /// Those of all namespaces.
    All,
    /// Those of a namespace.
    Namespace(String),
    /// One.
    Named {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Identities that were read already: a table is built far more often than a Secret changes.
#[derive(Debug, Default)]
pub struct Shelf(BTreeMap<(String, String), Read>);

#[derive(Debug)]
struct Read {
    version: Option<String>,
    identity: Result<Identity, String>,
}

impl Shelf {
    /// Host and identity for everything that the Ingresses ask for and that is there, the oldest Ingress first; and what is to be said
    /// of the rest.
    pub fn certificates(
        &mut self,
        ingresses: &[&Ingress],
        secrets: &[Arc<Secret>],
    ) -> (Vec<(String, Identity)>, Vec<Notice>) {
        self.read(secrets);
        let (mut found, mut notices) = (Vec::new(), Vec::new());
        for ingress in ingresses {
            let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter());
            for (index, tls) in tls.flatten().enumerate() {
                match self.identity(ingress, tls) {
                    Ok(identity) => {
                        let hosts = hosts(ingress, tls).into_iter();
                        found.extend(hosts.map(|host| (host, identity.clone())));
                    }
                    Err((reason, message)) => notices.push(Notice {
                        kind: "Ingress",
                        namespace: ingress.namespace().unwrap_or_default(),
                        name: ingress.name_any(),
                        reason,
                        message: format!("spec.tls[{index}].secretName: {message}"),
                    }),
                }
            }
        }
        (found, notices)
    }

    /// Reads what has changed, and forgets what is gone.
    fn read(&mut self, secrets: &[Arc<Secret>]) {
        let mut before = std::mem::take(&mut self.0);
        for secret in secrets {
            let key = (secret.namespace().unwrap_or_default(), secret.name_any());
            let version = secret.resource_version();
            let known = before.remove(&key).filter(|read| read.version == version);
            let read = known.unwrap_or_else(|| Read {
                version,
                identity: identity(secret),
            });
            self.0.insert(key, read);
        }
    }

    fn identity(&self, ingress: &Ingress, tls: &IngressTLS) -> Result<Identity, (Reason, String)> {
        let namespace = ingress.namespace().unwrap_or_default();
        let Some(name) = tls.secret_name.clone().filter(|name| !name.is_empty()) else {
            let message = "is needed: TLS is ended at the proxy".to_owned();
            return Err((Reason::Unsupported, message));
        };
        let missing = format!(
            "no Secret {namespace}/{name} of type kubernetes.io/tls that this proxy may read (--tls-secrets)"
        );
        match self.0.get(&(namespace, name)).map(|read| &read.identity) {
            Some(Ok(identity)) => Ok(identity.clone()),
            Some(Err(problem)) => Err((Reason::Invalid, problem.clone())),
            None => Err((Reason::SecretNotFound, missing)),
        }
    }
}

/// Those it names; without any, those of its rules.
fn hosts(ingress: &Ingress, tls: &IngressTLS) -> Vec<String> {
    let named = tls.hosts.clone().unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter());
    rules
        .flatten()
        .filter_map(|rule| rule.host.clone())
        .collect()
}

fn identity(secret: &Secret) -> Result<Identity, String> {
    let data = |field: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(field));
        data.map(|bytes| bytes.0.as_slice()).unwrap_or_default()
    };
    let name = format!(
        "Secret {}/{}",
        secret.namespace().unwrap_or_default(),
        secret.name_any()
    );
    Identity::read(data("tls.crt"), data("tls.key")).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ingress(name: &str, spec: &Value) -> Ingress {
        let metadata = json!({"namespace": "shop", "name": name});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn secret(name: &str, version: &str, chain: &str, key: &str) -> Arc<Secret> {
        let metadata = json!({"namespace": "shop", "name": name, "resourceVersion": version});
        let data = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
        let data = json!({"tls.crt": data(chain), "tls.key": data(key)});
        let secret = json!({"metadata": metadata, "type": "kubernetes.io/tls", "data": data});
        Arc::new(serde_json::from_value(secret).unwrap())
    }

    fn valid(name: &str, version: &str) -> Arc<Secret> {
        let certified = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let key = certified.signing_key.serialize_pem();
        secret(name, version, &certified.cert.pem(), &key)
    }

    fn hosts(found: &[(String, Identity)]) -> Vec<&str> {
        found.iter().map(|(host, _)| host.as_str()).collect()
    }

    #[test]
    fn an_ingress_gets_the_certificates_it_names_and_hears_what_is_wrong() {
        let ingresses = [
            ingress(
                "one",
                &json!({"tls": [{"hosts": ["a.example", "*.a.example"], "secretName": "a"}]}),
            ),
            ingress(
                "rules",
                &json!({"rules": [{"host": "b.example"}, {}], "tls": [{"secretName": "b"}]}),
            ),
            ingress(
                "bad",
                &json!({"tls": [
                    {"hosts": ["c"], "secretName": "broken"}, {"hosts": ["c"], "secretName": "gone"}, {"hosts": ["c"]},
                ]}),
            ),
        ];
        let secrets = [
            valid("a", "1"),
            valid("b", "1"),
            secret("broken", "1", "", ""),
        ];
        let mut shelf = Shelf::default();
        let (found, notices) = shelf.certificates(&ingresses.each_ref(), &secrets);
        assert_eq!(hosts(&found), ["a.example", "*.a.example", "b.example"]);
        let said: Vec<String> = notices.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "Ingress shop/bad: Invalid: spec.tls[0].secretName: Secret shop/broken: there is no certificate in it",
                "Ingress shop/bad: SecretNotFound: spec.tls[1].secretName: no Secret shop/gone of type kubernetes.io/tls that this \
                 proxy may read (--tls-secrets)",
                "Ingress shop/bad: Unsupported: spec.tls[2].secretName: is needed: TLS is ended at the proxy",
            ]
        );
    }

    #[test]
    fn a_secret_is_read_again_when_it_has_changed_and_forgotten_when_it_is_gone() {
        let ingress = ingress(
            "one",
            &json!({"tls": [{"hosts": ["a"], "secretName": "a"}]}),
        );
        let mut shelf = Shelf::default();
        let mut shown = |secrets: &[Arc<Secret>]| shelf.certificates(&[&ingress], secrets).0;
        let first = shown(&[valid("a", "1")]);
        // The same version is not read again, whatever it holds.
        assert_eq!(shown(&[valid("a", "1")]), first);
        assert_ne!(shown(&[valid("a", "2")]), first);
        assert_eq!(shown(&[]), []);
    }
}
