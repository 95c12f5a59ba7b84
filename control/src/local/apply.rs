//! Server-side apply, and the record of who set which field that it needs (`metadata.managedFields`).
//!
//! Every write is recorded: an apply owns what it says, any other write owns what it changed. An apply that would change a value
//! somebody else owns is a conflict unless forced; what a manager said last time and no longer says goes, unless somebody else owns
//! it too. Maps are merged by key, lists as the kind's row says, some maps are one value ([`ATOMIC`]).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::kinds::{Kind, ListApply};
use super::strict::join;

/// Maps that Kubernetes treats as one value (`x-kubernetes-map-type: atomic`), by the name of the field that holds them.
const ATOMIC: &[&str] = &[
    "configMapKeyRef",
    "configMapRef",
    "fieldRef",
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "resourceFieldRef",
    "secretKeyRef",
    "secretRef",
    "selector",
];

/// Fields that nobody owns.
const UNOWNED: &[&str] = &["apiVersion", "kind"];
const UNOWNED_METADATA: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Who writes, and through what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    /// `fieldManager`, or the beginning of the `User-Agent`.
    pub(super) name: String,
    /// `status`, `scale`, or empty.
    pub(super) subresource: &'static str,
    /// RFC 3339.
    pub(super) time: String,
}

/// A value that another manager owns and an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// In words: with whom.
    pub(super) message: String,
    /// `.spec.replicas`.
    pub(super) field: String,
}

/// What `applied` makes of `live`, with its record.
///
/// # Errors
/// The conflicts, unless forced.
pub(super) fn apply(
    kind: &Kind,
    live: &Value,
    applied: &Value,
    manager: &Manager,
    forced: bool,
) -> Result<Value, Vec<Conflict>> {
    let schema = Schema { kind };
    let applied = &without_nulls(applied);
    let said = schema.owned(applied);
    let mut merged = live.clone();
    schema.merge(&mut merged, applied, "");
    let mut entries = entries(live);
    let mine = entries
        .iter()
        .position(|entry| entry.is_apply_of(kind, manager));
    let before = mine.map(|index| entries.remove(index));

    let change = Comparison {
        schema: &schema,
        live,
        merged: &merged,
    };
    let conflicts = change.take_over(&said, &mut entries);
    if !conflicts.is_empty() && !forced {
        return Err(conflicts);
    }
    if let Some(before) = &before {
        let others = entries
            .iter()
            .fold(Fields::default(), |all, entry| all.union(&entry.fields));
        schema.remove_unsaid(&mut merged, &before.fields, &said, &others, "");
    }
    let time = before
        .filter(|before| before.fields == said && same_content(live, &merged))
        .map_or_else(|| manager.time.clone(), |before| before.time);
    entries.push(Entry {
        time,
        ..Entry::new(kind, manager, "Apply", said)
    });
    let present = schema.owned(&merged);
    for entry in &mut entries {
        entry.fields.keep(&present);
    }
    entries.retain(|entry| !entry.fields.is_empty());
    write_entries(&mut merged, &entries);
    Ok(merged)
}

/// Records in `new` what a write other than an apply changed in `old` (`None`: created).
pub(super) fn record(kind: &Kind, old: Option<&Value>, new: &mut Value, manager: &Manager) {
    let schema = Schema { kind };
    let none = json!({});
    let changed = schema.changed(old.unwrap_or(&none), new);
    let mut entries = entries(new);
    if !changed.is_empty() {
        let mine = entries
            .iter()
            .position(|entry| entry.is_update_of(kind, manager));
        let before = mine
            .map(|index| entries.remove(index).fields)
            .unwrap_or_default();
        for entry in &mut entries {
            entry.fields.subtract(&changed);
        }
        let mine = before.union(&changed);
        entries.push(Entry::new(kind, manager, "Update", mine));
    }
    let present = schema.owned(new);
    for entry in &mut entries {
        entry.fields.keep(&present);
    }
    entries.retain(|entry| !entry.fields.is_empty());
    write_entries(new, &entries);
}

/// One manager's fields, as an entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    fields: Fields,
}

impl Entry {
    fn new(kind: &Kind, manager: &Manager, operation: &str, fields: Fields) -> Self {
        Self {
            manager: manager.name.clone(),
            operation: operation.to_owned(),
            api_version: kind.api_version(),
            time: manager.time.clone(),
            subresource: manager.subresource.to_owned(),
            fields,
        }
    }

    fn is_apply_of(&self, kind: &Kind, manager: &Manager) -> bool {
        self.operation == "Apply" && self.is_of(kind, manager)
    }

    fn is_update_of(&self, kind: &Kind, manager: &Manager) -> bool {
        self.operation == "Update" && self.is_of(kind, manager)
    }

    fn is_of(&self, kind: &Kind, manager: &Manager) -> bool {
        self.manager == manager.name
            && self.subresource == manager.subresource
            && self.api_version == kind.api_version()
    }

    /// That somebody else changes a field of this entry.
    fn conflict(&self, field: &[String]) -> Conflict {
        let message = format!(
            "conflict with \"{}\"{} using {}",
            self.manager,
            self.through(),
            self.api_version
        );
        Conflict {
            message,
            field: shown(field),
        }
    }

    fn through(&self) -> String {
        match self.subresource.as_str() {
            "" => String::new(),
            subresource => format!(" with subresource \"{subresource}\""),
        }
    }

    fn parse(entry: &Value) -> Self {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: text("subresource"),
            fields: Fields::parse(&entry["fieldsV1"]),
        }
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object["metadata"]["managedFields"].as_array();
    list.into_iter()
        .flatten()
        .map(Entry::parse)
        .filter(|entry| !entry.fields.is_empty())
        .collect()
}

fn write_entries(object: &mut Value, entries: &[Entry]) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if entries.is_empty() {
        metadata.shift_remove("managedFields");
        return;
    }
    let list: Vec<Value> = entries.iter().map(Entry::to_value).collect();
    metadata.insert("managedFields".to_owned(), Value::Array(list));
}

fn same_content(a: &Value, b: &Value) -> bool {
    let bare = |value: &Value| {
        let mut value = value.clone();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
        value
    };
    bare(a) == bare(b)
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A set of fields: a tree whose edges are `f:name`, `k:{"key":"value"}` and `v:value`, as in `fieldsV1`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    /// Whether the place itself is in the set.
    here: bool,
    below: BTreeMap<String, Self>,
}

impl Fields {
    fn leaf() -> Self {
        Self {
            here: true,
            below: BTreeMap::new(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    fn parse(value: &Value) -> Self {
        let Some(fields) = value.as_object() else {
            return Self::default();
        };
        let mut set = Self::default();
        for (edge, below) in fields {
            if edge == "." {
                set.here = true;
            } else {
                let mut below = Self::parse(below);
                below.here |= below.below.is_empty();
                set.below.insert(edge.clone(), below);
            }
        }
        set
    }

    fn to_value(&self) -> Value {
        let mut fields = Map::new();
        if self.here && !self.below.is_empty() {
            fields.insert(".".to_owned(), json!({}));
        }
        fields.extend(
            self.below
                .iter()
                .map(|(edge, below)| (edge.clone(), below.to_value())),
        );
        Value::Object(fields)
    }

    fn union(mut self, other: &Self) -> Self {
        self.here |= other.here;
        for (edge, below) in &other.below {
            let mine = self.below.remove(edge).unwrap_or_default();
            self.below.insert(edge.clone(), mine.union(below));
        }
        self
    }

    /// Takes out what is in `other`.
    fn subtract(&mut self, other: &Self) {
        // An item or map that others changed something in stays whose it was: only leaves change hands.
        self.here &= !(other.here && other.below.is_empty());
        for (edge, below) in &other.below {
            if let Some(mine) = self.below.get_mut(edge) {
                mine.subtract(below);
            }
        }
        self.below.retain(|_, below| !below.is_empty());
    }

    /// Takes out what is not in `present`.
    fn keep(&mut self, present: &Self) {
        if present.here && present.below.is_empty() {
            // One value: whoever owned something within it owns it, or has lost it already.
            return;
        }
        self.below.retain(|edge, below| {
            let Some(present) = present.below.get(edge) else {
                return false;
            };
            below.keep(present);
            !below.is_empty()
        });
    }

    fn remove(&mut self, path: &[String]) {
        match path {
            [] => self.here = false,
            [edge, rest @ ..] => {
                if let Some(below) = self.below.get_mut(edge) {
                    below.remove(rest);
                    if below.is_empty() {
                        self.below.remove(edge);
                    }
                }
            }
        }
    }
}

/// `.spec.containers[name="a"].image`, as a conflict is told.
fn shown(path: &[String]) -> String {
    path.iter()
        .map(|edge| match edge.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let pairs: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                format!("[{}]", pairs.join(","))
            }
            Some((_, value)) => format!("[={value}]"),
            None => edge.clone(),
        })
        .collect()
}

/// How values of a kind are taken apart.
#[derive(Clone, Copy, Debug)]
struct Schema<'a> {
    kind: &'a Kind,
}

impl Schema<'_> {
    /// The fields that a whole object says.
    fn owned(self, object: &Value) -> Fields {
        let mut fields = self.fields(object, "");
        for key in UNOWNED {
            fields.below.remove(&format!("f:{key}"));
        }
        if let Some(metadata) = fields.below.get_mut("f:metadata") {
            for key in UNOWNED_METADATA {
                metadata.below.remove(&format!("f:{key}"));
            }
            if metadata.below.is_empty() {
                fields.below.remove("f:metadata");
            }
        }
        fields
    }

    fn fields(self, value: &Value, path: &str) -> Fields {
        match value {
            Value::Object(map) if !map.is_empty() && !is_atomic(path) => Fields {
                here: false,
                below: map
                    .iter()
                    .map(|(key, value)| (format!("f:{key}"), self.fields(value, &join(path, key))))
                    .collect(),
            },
            Value::Array(items) => self.list_fields(items, path),
            Value::Object(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => Fields::leaf(),
        }
    }

    fn list_fields(self, items: &[Value], path: &str) -> Fields {
        let below = match self.list(path) {
            ListApply::Atomic => return Fields::leaf(),
            ListApply::Map(keys) => items
                .iter()
                .map(|item| {
                    let fields = self.fields(item, path);
                    (
                        item_edge(item, keys),
                        Fields {
                            here: true,
                            ..fields
                        },
                    )
                })
                .collect(),
            ListApply::Set => items
                .iter()
                .map(|item| (format!("v:{item}"), Fields::leaf()))
                .collect(),
        };
        Fields {
            here: items.is_empty(),
            below,
        }
    }

    fn list(self, path: &str) -> ListApply {
        self.kind
            .list_at(path)
            .map_or(ListApply::Atomic, |list| list.apply)
    }

    /// The fields in which `new` says something other than `old`.
    fn changed(self, old: &Value, new: &Value) -> Fields {
        let mut all = self.owned(new);
        self.drop_equal(&mut all, Some(old), Some(new), "");
        all
    }

    fn drop_equal(self, fields: &mut Fields, old: Option<&Value>, new: Option<&Value>, path: &str) {
        if old.is_some() && old == new {
            *fields = Fields::default();
            return;
        }
        fields.below.retain(|edge, below| {
            let here = below_path(path, edge);
            let of = |value: Option<&'_ Value>| {
                value
                    .and_then(|value| self.find(value, edge, path))
                    .cloned()
            };
            let (old, new) = (of(old), of(new));
            let existed = old.is_some();
            self.drop_equal(below, old.as_ref(), new.as_ref(), &here);
            if existed && !below.below.is_empty() {
                below.here = false;
            }
            !below.is_empty()
        });
    }

    /// The value at an edge.
    fn find<'v>(self, value: &'v Value, edge: &str, path: &str) -> Option<&'v Value> {
        match edge.split_once(':')? {
            ("f", key) => value.get(key),
            _ => value.as_array()?.get(self.index(value, edge, path)?),
        }
    }

    fn index(self, value: &Value, edge: &str, path: &str) -> Option<usize> {
        let items = value.as_array()?;
        match self.list(path) {
            ListApply::Map(keys) => items.iter().position(|item| item_edge(item, keys) == edge),
            ListApply::Set => items.iter().position(|item| format!("v:{item}") == edge),
            ListApply::Atomic => None,
        }
    }

    fn merge(self, live: &mut Value, applied: &Value, path: &str) {
        match (live, applied) {
            (Value::Object(live), Value::Object(applied)) if !is_atomic(path) => {
                for (key, value) in applied {
                    let skipped = (path.is_empty() && UNOWNED.contains(&key.as_str()))
                        || (path == "metadata" && UNOWNED_METADATA.contains(&key.as_str()));
                    if !skipped {
                        self.merge(
                            live.entry(key).or_insert(Value::Null),
                            value,
                            &join(path, key),
                        );
                    }
                }
            }
            (Value::Array(live), Value::Array(applied)) => self.merge_list(live, applied, path),
            (live, applied) => *live = applied.clone(),
        }
    }

    fn merge_list(self, live: &mut Vec<Value>, applied: &[Value], path: &str) {
        match self.list(path) {
            ListApply::Atomic => *live = applied.to_vec(),
            ListApply::Set => {
                for item in applied {
                    if !live.contains(item) {
                        live.push(item.clone());
                    }
                }
            }
            ListApply::Map(keys) => {
                for item in applied {
                    let edge = item_edge(item, keys);
                    match live.iter_mut().find(|live| item_edge(live, keys) == edge) {
                        Some(live) => self.merge(live, item, path),
                        None => live.push(item.clone()),
                    }
                }
            }
        }
    }

    /// Takes out of `value` what was said `before`, is not said `now`, and nobody else owns.
    fn remove_unsaid(
        self,
        value: &mut Value,
        before: &Fields,
        now: &Fields,
        others: &Fields,
        path: &str,
    ) {
        let none = Fields::default();
        for (edge, below) in &before.below {
            let here = below_path(path, edge);
            let (said, owned) = (now.below.get(edge), others.below.get(edge));
            if below.here && said.is_none() && owned.is_none() {
                self.take_out(value, edge, path);
                continue;
            }
            let Some(child) = self.find_mut(value, edge, path) else {
                continue;
            };
            let had = !is_hollow(child);
            self.remove_unsaid(
                child,
                below,
                said.unwrap_or(&none),
                owned.unwrap_or(&none),
                &here,
            );
            if had && is_hollow(child) && said.is_none() && owned.is_none() {
                self.take_out(value, edge, path);
            }
        }
    }

    fn find_mut<'v>(self, value: &'v mut Value, edge: &str, path: &str) -> Option<&'v mut Value> {
        match edge.split_once(':')? {
            ("f", key) => value.get_mut(key),
            _ => {
                let index = self.index(value, edge, path)?;
                value.as_array_mut()?.get_mut(index)
            }
        }
    }

    fn take_out(self, value: &mut Value, edge: &str, path: &str) {
        match edge.split_once(':') {
            Some(("f", key)) => {
                if let Some(fields) = value.as_object_mut() {
                    fields.shift_remove(key);
                }
            }
            _ => {
                if let (Some(index), Some(items)) =
                    (self.index(value, edge, path), value.as_array_mut())
                {
                    items.remove(index);
                }
            }
        }
    }
}

/// Two states of one object, for finding what an apply would change under another manager.
#[derive(Clone, Copy, Debug)]
struct Comparison<'a> {
    schema: &'a Schema<'a>,
    live: &'a Value,
    merged: &'a Value,
}

impl Comparison<'_> {
    /// Takes from other managers' entries the fields that `said` changes, and says from whom.
    fn take_over(self, said: &Fields, entries: &mut [Entry]) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for entry in entries {
            let mut fields = Vec::new();
            self.conflicts(said, &entry.fields, &mut Vec::new(), &mut fields);
            for field in fields {
                entry.fields.remove(&field);
                conflicts.push(entry.conflict(&field));
            }
        }
        conflicts
    }

    fn conflicts(
        self,
        said: &Fields,
        owned: &Fields,
        at: &mut Vec<String>,
        found: &mut Vec<Vec<String>>,
    ) {
        if said.here && owned.here && said.below.is_empty() && owned.below.is_empty() {
            if self.value(self.live, at) != self.value(self.merged, at) {
                found.push(at.clone());
            }
            return;
        }
        for (edge, said) in &said.below {
            if let Some(owned) = owned.below.get(edge) {
                at.push(edge.clone());
                self.conflicts(said, owned, at, found);
                at.pop();
            }
        }
    }

    fn value<'v>(self, object: &'v Value, at: &[String]) -> Option<&'v Value> {
        let mut path = String::new();
        at.iter().try_fold(object, |value, edge| {
            let found = self.schema.find(value, edge, &path);
            path = below_path(&path, edge);
            found
        })
    }
}

/// The path of field names below an edge; list items add nothing.
fn below_path(path: &str, edge: &str) -> String {
    edge.strip_prefix("f:")
        .map_or_else(|| path.to_owned(), |key| join(path, key))
}

fn item_edge(item: &Value, keys: &[&str]) -> String {
    let mut named: BTreeMap<&str, Value> = BTreeMap::new();
    for key in keys {
        // The one key that has a default where it is left out.
        let default = if *key == "protocol" {
            json!("TCP")
        } else {
            Value::Null
        };
        named.insert(key, item.get(key).cloned().unwrap_or(default));
    }
    format!("k:{}", json!(named))
}

fn is_atomic(path: &str) -> bool {
    path.rsplit('.')
        .next()
        .is_some_and(|name| ATOMIC.contains(&name))
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::kinds;

    fn manager(name: &str) -> Manager {
        Manager {
            name: name.to_owned(),
            subresource: "",
            time: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    fn deployment(spec: &Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    }

    fn by(name: &str, live: &Value, spec: &Value) -> Result<Value, Vec<Conflict>> {
        apply(
            &kinds::DEPLOYMENT,
            live,
            &deployment(spec),
            &manager(name),
            false,
        )
    }

    fn spec(object: &Value) -> &Value {
        &object["spec"]
    }

    #[test]
    fn what_a_manager_no_longer_says_goes() {
        let first = by("a", &deployment(&json!({})), &json!({"replicas": 2, "paused": true, "template": {"metadata": {"labels": {"x": "1", "y": "2"}}}})).unwrap();
        let second = by(
            "a",
            &first,
            &json!({"replicas": 2, "template": {"metadata": {"labels": {"y": "2"}}}}),
        )
        .unwrap();
        assert_eq!(
            spec(&second),
            &json!({"replicas": 2, "template": {"metadata": {"labels": {"y": "2"}}}})
        );
        let third = by("a", &second, &json!({"replicas": 2})).unwrap();
        assert_eq!(spec(&third), &json!({"replicas": 2}));
    }

    #[test]
    fn what_another_manager_also_says_stays() {
        let first = by(
            "a",
            &deployment(&json!({})),
            &json!({"replicas": 2, "paused": true}),
        )
        .unwrap();
        let both = by("b", &first, &json!({"replicas": 2})).unwrap();
        let left = by("a", &both, &json!({"paused": true})).unwrap();
        assert_eq!(spec(&left), &json!({"replicas": 2, "paused": true}));
    }

    #[test]
    fn another_managers_value_is_a_conflict_unless_forced() {
        let live = by("a", &deployment(&json!({})), &json!({"replicas": 2})).unwrap();
        let conflicts = by("b", &live, &json!({"replicas": 3})).unwrap_err();
        assert_eq!(
            conflicts,
            [Conflict {
                message: "conflict with \"a\" using apps/v1".to_owned(),
                field: ".spec.replicas".to_owned()
            }]
        );
        let wanted = deployment(&json!({"replicas": 3}));
        let forced = apply(&kinds::DEPLOYMENT, &live, &wanted, &manager("b"), true).unwrap();
        assert_eq!(spec(&forced), &json!({"replicas": 3}));
        assert_eq!(
            entries(&forced)
                .iter()
                .map(|entry| entry.manager.as_str())
                .collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn an_update_takes_what_it_changes_and_an_apply_then_conflicts() {
        let mut live = by(
            "a",
            &deployment(&json!({})),
            &json!({"replicas": 2, "paused": true}),
        )
        .unwrap();
        let old = live.clone();
        live["spec"]["replicas"] = json!(5);
        record(
            &kinds::DEPLOYMENT,
            Some(&old),
            &mut live,
            &manager("scaler"),
        );
        let conflicts = by("a", &live, &json!({"replicas": 2, "paused": true})).unwrap_err();
        assert_eq!(
            conflicts[0].message,
            "conflict with \"scaler\" using apps/v1"
        );
        let left = by("a", &live, &json!({"paused": true})).unwrap();
        assert_eq!(
            spec(&left),
            &json!({"replicas": 5, "paused": true}),
            "the scaler owns it"
        );
    }

    #[test]
    fn items_of_keyed_lists_are_owned_one_by_one() {
        let containers = |items: &Value| json!({"template": {"spec": {"containers": items}}});
        let live = by(
            "a",
            &deployment(&json!({})),
            &containers(&json!([{"name": "app", "image": "app:1"}])),
        )
        .unwrap();
        let both = by(
            "b",
            &live,
            &containers(&json!([{"name": "side", "image": "side:1"}])),
        )
        .unwrap();
        assert_eq!(
            spec(&both),
            &containers(
                &json!([{"name": "app", "image": "app:1"}, {"name": "side", "image": "side:1"}])
            )
        );
        let moved = by(
            "a",
            &both,
            &containers(&json!([{"name": "app2", "image": "app:2"}])),
        )
        .unwrap();
        assert_eq!(
            spec(&moved),
            &containers(
                &json!([{"name": "side", "image": "side:1"}, {"name": "app2", "image": "app:2"}])
            )
        );
        let ports = |port: &Value| containers(&json!([{"name": "side", "ports": [port]}]));
        let port = by("c", &both, &ports(&json!({"containerPort": 80}))).unwrap();
        let named = by(
            "c",
            &port,
            &ports(&json!({"containerPort": 80, "protocol": "TCP", "name": "web"})),
        )
        .unwrap();
        assert_eq!(
            named.pointer("/spec/template/spec/containers/1/ports"),
            Some(&json!([{"containerPort": 80, "protocol": "TCP", "name": "web"}]))
        );
    }

    #[test]
    fn applying_twice_is_applying_once() {
        let wanted = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}]}]}}});
        let once = by("a", &deployment(&json!({})), &wanted).unwrap();
        assert_eq!(by("a", &once, &wanted).unwrap(), once);
    }

    #[test]
    fn the_record_survives_its_own_format() {
        let value = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}}, "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}});
        assert_eq!(
            Fields::parse(&value).to_value(),
            json!({"f:metadata": value["f:metadata"], "f:spec": value["f:spec"]})
        );
    }
}
