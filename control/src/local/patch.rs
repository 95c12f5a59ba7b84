//! The three patches that say what to change: JSON merge patch (RFC 7396), JSON patch (RFC 6902), and Kubernetes' strategic merge.
//! Server-side apply, which says what is wanted, is in [`super::apply`].

use serde_json::{Map, Value};

use super::kinds::{Kind, ListPatch};
use super::strict::join;

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It is no such patch.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unfit(String),
}

/// JSON merge patch: what is `null` goes, what is an object is merged, all else replaces.
pub(super) fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.shift_remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// JSON patch: a list of operations, all or none of which happen.
///
/// # Errors
/// [`Error`].
pub(super) fn operations(object: &mut Value, patch: &Value) -> Result<(), Error> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Error::Malformed(format!("json patch: {error}")))?;
    json_patch::patch(object, &patch).map_err(|error| Error::Unfit(error.to_string()))
}

/// Strategic merge patch: a merge patch that also merges lists whose items have a key, as the kind's row says.
///
/// # Errors
/// [`Error`].
pub(super) fn strategic(kind: &Kind, object: &mut Value, patch: &Value) -> Result<(), Error> {
    let Value::Object(patch) = patch else {
        return Err(Error::Malformed(
            "a strategic merge patch is an object".to_owned(),
        ));
    };
    merge_map(kind, object, patch, "")
}

fn merge_map(
    kind: &Kind,
    object: &mut Value,
    patch: &Map<String, Value>,
    path: &str,
) -> Result<(), Error> {
    if !object.is_object() || directive(patch)? == Directive::Replace {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return Ok(());
    };
    if directive(patch)? == Directive::Delete {
        fields.clear();
        return Ok(());
    }
    let before = fields.clone();
    for (key, value) in patch {
        if let Some(target) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_values(fields.get_mut(target), value);
        } else if key == "$retainKeys" {
            let kept = list(key, value)?;
            fields.retain(|name, _| kept.iter().any(|kept| kept == name));
        } else if !key.starts_with('$') {
            merge_field(kind, fields, key, value, &join(path, key))?;
        } else if key != "$patch" && !key.starts_with("$setElementOrder/") {
            return Err(Error::Malformed(format!("{path}: unknown directive {key}")));
        }
    }
    for (key, order) in patch {
        if let Some(target) = key.strip_prefix("$setElementOrder/") {
            let before = before
                .get(target)
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice);
            reorder(
                kind,
                fields,
                target,
                list(key, order)?,
                before,
                &join(path, target),
            );
        }
    }
    Ok(())
}

fn merge_field(
    kind: &Kind,
    fields: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    path: &str,
) -> Result<(), Error> {
    match value {
        Value::Null => {
            fields.shift_remove(key);
            Ok(())
        }
        Value::Object(patch) if directive(patch)? == Directive::Delete => {
            fields.shift_remove(key);
            Ok(())
        }
        Value::Object(patch) => {
            merge_map(kind, fields.entry(key).or_insert(Value::Null), patch, path)
        }
        Value::Array(items) => {
            merge_list(kind, fields.entry(key).or_insert(Value::Null), items, path)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            fields.insert(key.to_owned(), value.clone());
            Ok(())
        }
    }
}

fn merge_list(kind: &Kind, target: &mut Value, items: &[Value], path: &str) -> Result<(), Error> {
    let rule = kind
        .list_at(path)
        .map_or(ListPatch::Replace, |list| list.patch);
    if rule == ListPatch::Replace || !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(present) = target.as_array_mut() else {
        return Ok(());
    };
    match rule {
        ListPatch::Replace => {
            present.extend(items.iter().cloned());
            Ok(())
        }
        ListPatch::Values => {
            for item in items {
                if !present.contains(item) {
                    present.push(item.clone());
                }
            }
            Ok(())
        }
        ListPatch::Key(key) => merge_items(kind, present, items, key, path),
    }
}

fn merge_items(
    kind: &Kind,
    present: &mut Vec<Value>,
    items: &[Value],
    key: &str,
    path: &str,
) -> Result<(), Error> {
    // An item that is nothing but `$patch: replace` speaks of the whole list.
    let is_bare = |item: &Value| {
        item.get("$patch") == Some(&Value::from("replace")) && item.get(key).is_none()
    };
    if items.iter().any(is_bare) {
        present.clear();
    }
    for item in items.iter().filter(|item| !is_bare(item)) {
        let (Some(patch), Some(id)) = (item.as_object(), item.get(key)) else {
            return Err(Error::Unfit(format!(
                "{path}: {item} does not contain declared merge key: {key}"
            )));
        };
        let found = present
            .iter()
            .position(|present| present.get(key) == Some(id));
        match (directive(patch)?, found) {
            (Directive::Delete, Some(_)) => present.retain(|present| present.get(key) != Some(id)),
            (Directive::Delete, None) => {}
            (Directive::Merge | Directive::Replace, Some(index)) => {
                merge_map(kind, &mut present[index], patch, path)?
            }
            (Directive::Merge | Directive::Replace, None) => {
                let mut fresh = Value::Object(Map::new());
                merge_map(kind, &mut fresh, patch, path)?;
                present.push(fresh);
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Directive, Error> {
    match patch.get("$patch").map(Value::as_str) {
        None | Some(Some("merge")) => Ok(Directive::Merge),
        Some(Some("replace")) => Ok(Directive::Replace),
        Some(Some("delete")) => Ok(Directive::Delete),
        Some(other) => Err(Error::Malformed(format!(
            "unknown patch type: {}",
            other.unwrap_or("not a string")
        ))),
    }
}

fn list<'a>(key: &str, value: &'a Value) -> Result<&'a [Value], Error> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Error::Malformed(format!("{key} is a list")))
}

fn delete_values(target: Option<&mut Value>, values: &Value) {
    if let (Some(Value::Array(present)), Value::Array(values)) = (target, values) {
        present.retain(|item| !values.contains(item));
    }
}

/// Puts the items that the patch names in its order; those it does not name stay before what they stood before.
fn reorder(
    kind: &Kind,
    fields: &mut Map<String, Value>,
    target: &str,
    order: &[Value],
    before: &[Value],
    path: &str,
) {
    let Some(present) = fields.get_mut(target).and_then(Value::as_array_mut) else {
        return;
    };
    let key = match kind.list_at(path).map(|list| list.patch) {
        Some(ListPatch::Key(key)) => Some(key),
        Some(ListPatch::Values | ListPatch::Replace) | None => None,
    };
    let id = |item: &Value| {
        key.map_or_else(
            || item.clone(),
            |key| item.get(key).cloned().unwrap_or_default(),
        )
    };
    let wanted = |item: &Value| order.iter().position(|wanted| id(wanted) == id(item));
    // New items were appended, so those that were there before are the first.
    let was = present
        .iter()
        .filter(|item| before.iter().any(|before| id(before) == id(item)))
        .count();
    let all = std::mem::take(present).into_iter().enumerate();
    let (mut named, others): (Vec<_>, Vec<_>) = all.partition(|(_, item)| wanted(item).is_some());
    named.sort_by_key(|(_, item)| wanted(item));
    let mut others = others.into_iter().peekable();
    for (index, item) in named {
        while let Some((_, other)) = others.next_if(|(other, _)| index < was && *other < index) {
            present.push(other);
        }
        present.push(item);
    }
    present.extend(others.map(|(_, item)| item));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::kinds;

    fn check(before: &Value, patch: &Value, after: &Value) {
        let mut object = before.clone();
        strategic(&kinds::POD, &mut object, patch).unwrap();
        assert_eq!(&object, after, "{patch}");
    }

    fn containers(items: &Value) -> Value {
        json!({"spec": {"containers": items}})
    }

    #[test]
    fn keyed_lists_are_merged_and_others_replaced() {
        let before = containers(
            &json!([{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:1"}]),
        );
        let cases = [
            (
                json!([{"name": "a", "image": "a:2"}]),
                json!([{"name": "a", "image": "a:2", "args": ["x"]}, {"name": "b", "image": "b:1"}]),
            ),
            (
                json!([{"name": "a", "args": ["y"]}]),
                json!([{"name": "a", "image": "a:1", "args": ["y"]}, {"name": "b", "image": "b:1"}]),
            ),
            (
                json!([{"name": "c", "image": "c:1"}]),
                json!([{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:1"}, {"name": "c", "image": "c:1"}]),
            ),
            (
                json!([{"name": "a", "$patch": "delete"}]),
                json!([{"name": "b", "image": "b:1"}]),
            ),
            (
                json!([{"name": "a", "$patch": "replace", "image": "a:3"}]),
                json!([{"name": "a", "image": "a:3"}, {"name": "b", "image": "b:1"}]),
            ),
            (
                json!([{"$patch": "replace"}, {"name": "z"}]),
                json!([{"name": "z"}]),
            ),
        ];
        for (patch, after) in cases {
            check(&before, &containers(&patch), &containers(&after));
        }
    }

    #[test]
    fn directives_do_what_they_say() {
        let list = |items: &Value| json!({"metadata": {"finalizers": items}});
        check(
            &list(&json!(["a"])),
            &list(&json!(["b"])),
            &list(&json!(["a", "b"])),
        );
        let delete = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
        check(&list(&json!(["a", "b"])), &delete, &list(&json!(["b"])));

        let order = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}});
        let before = containers(&json!([{"name": "x"}, {"name": "a"}, {"name": "y"}]));
        check(
            &before,
            &order,
            &containers(&json!([{"name": "c"}, {"name": "x"}, {"name": "a"}, {"name": "y"}])),
        );

        let retain = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}});
        let before = json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}});
        check(
            &before,
            &retain,
            &json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        );

        let replace = json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}});
        check(
            &json!({"metadata": {"labels": {"a": "1"}}}),
            &replace,
            &json!({"metadata": {"labels": {"b": "2"}}}),
        );
        let null = json!({"metadata": {"labels": {"a": null}}});
        check(
            &json!({"metadata": {"labels": {"a": "1"}}}),
            &null,
            &json!({"metadata": {"labels": {}}}),
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for patch in [
            json!([]),
            json!({"$whatever": 1}),
            json!({"spec": {"$patch": "twist"}}),
            json!({"spec": {"containers": [{"image": "x"}]}}),
        ] {
            assert!(
                strategic(&kinds::POD, &mut json!({}), &patch).is_err(),
                "{patch}"
            );
        }
        let mut object = json!({});
        for patch in [
            json!([{"op": "fly"}]),
            json!([{"op": "replace", "path": "/a/b", "value": 1}]),
            json!([{"op": "test", "path": "/a", "value": 1}]),
        ] {
            assert!(operations(&mut object, &patch).is_err(), "{patch}");
        }
        assert_eq!(object, json!({}), "a refused JSON patch changes nothing");
    }

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        for (before, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut object = before.clone();
            merge(&mut object, &patch);
            assert_eq!(object, after, "{before} + {patch}");
        }
    }
}
