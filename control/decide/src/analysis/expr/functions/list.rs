//! Lists and maps.

use std::sync::Arc;

use super::{Function, Kind, bad, length};
use crate::analysis::expr::budget::Budget;
use crate::analysis::expr::operators;
use crate::analysis::expr::types::Type;
use crate::analysis::expr::value::{Map, Value};

const OF_LIST: Function = Function {
    name: "",
    parameters: &[Kind::List],
    required: 1,
    repeats: false,
    result: |arguments| arguments[0].clone(),
    run: |_, _| Ok(Value::Nil),
};

pub(super) static FUNCTIONS: &[Function] = &[
    Function {
        name: "len",
        parameters: &[Kind::Sized],
        result: |_| Type::Int,
        run: |arguments, _| len(&arguments[0]),
        ..OF_LIST
    },
    Function {
        name: "first",
        result: |_| Type::Unknown,
        run: |arguments, _| {
            Ok(items("first", arguments)?
                .first()
                .cloned()
                .unwrap_or_default())
        },
        ..OF_LIST
    },
    Function {
        name: "last",
        result: |_| Type::Unknown,
        run: |arguments, _| {
            Ok(items("last", arguments)?
                .last()
                .cloned()
                .unwrap_or_default())
        },
        ..OF_LIST
    },
    Function {
        name: "get",
        parameters: &[Kind::Collection, Kind::Any],
        required: 2,
        result: |_| Type::Unknown,
        run: |arguments, _| Ok(get(&arguments[0], &arguments[1])),
        ..OF_LIST
    },
    Function {
        name: "take",
        parameters: &[Kind::List, Kind::Int],
        required: 2,
        run: |arguments, _| take(arguments),
        ..OF_LIST
    },
    Function {
        name: "keys",
        parameters: &[Kind::Map],
        result: |_| Type::String.list(),
        run: |arguments, _| {
            let keys = entries("keys", arguments)?.keys();
            Ok(Value::List(keys.cloned().map(Value::String).collect()))
        },
        ..OF_LIST
    },
    Function {
        name: "values",
        parameters: &[Kind::Map],
        result: |_| Type::Unknown.list(),
        run: |arguments, _| {
            Ok(Value::List(
                entries("values", arguments)?.values().cloned().collect(),
            ))
        },
        ..OF_LIST
    },
    Function {
        name: "toPairs",
        parameters: &[Kind::Map],
        result: |_| Type::Unknown.list().list(),
        run: |arguments, budget| to_pairs(entries("toPairs", arguments)?, budget),
        ..OF_LIST
    },
    Function {
        name: "fromPairs",
        result: |_| Type::Map,
        run: |arguments, _| from_pairs(items("fromPairs", arguments)?),
        ..OF_LIST
    },
    Function {
        name: "reverse",
        run: |arguments, _| {
            Ok(Value::List(
                items("reverse", arguments)?.iter().rev().cloned().collect(),
            ))
        },
        ..OF_LIST
    },
    Function {
        name: "uniq",
        run: |arguments, budget| uniq(items("uniq", arguments)?, budget),
        ..OF_LIST
    },
    Function {
        name: "concat",
        repeats: true,
        result: |_| Type::Unknown.list(),
        run: |arguments, budget| concat(arguments, budget),
        ..OF_LIST
    },
    Function {
        name: "flatten",
        result: |_| Type::Unknown.list(),
        run: |arguments, budget| {
            let mut flat = Vec::new();
            flatten(items("flatten", arguments)?, &mut flat, budget)?;
            Ok(Value::list(flat))
        },
        ..OF_LIST
    },
    Function {
        name: "sort",
        parameters: &[Kind::List, Kind::String],
        run: |arguments, _| sort(items("sort", arguments)?, arguments.get(1)),
        ..OF_LIST
    },
];

fn items<'a>(name: &str, arguments: &'a [Value]) -> Result<&'a Arc<[Value]>, String> {
    if let Value::List(items) = &arguments[0] {
        return Ok(items);
    }
    Err(bad(name, &arguments[0]))
}

fn entries<'a>(name: &str, arguments: &'a [Value]) -> Result<&'a Map, String> {
    if let Value::Map(map) = &arguments[0] {
        return Ok(map);
    }
    Err(bad(name, &arguments[0]))
}

/// Of text, the number of characters.
fn len(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(length(text.chars().count())),
        Value::List(items) => Ok(length(items.len())),
        Value::Map(map) => Ok(length(map.len())),
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Float(_) => Err(bad("len", value)),
    }
}

/// What is missing is nil.
fn get(collection: &Value, key: &Value) -> Value {
    let found = match (collection, key) {
        (Value::Map(map), Value::String(key)) => map.get(key).cloned(),
        (Value::List(items), _) => operators::index(key, items.len())
            .ok()
            .map(|index| items[index].clone()),
        _ => None,
    };
    found.unwrap_or_default()
}

fn take(arguments: &[Value]) -> Result<Value, String> {
    let items = items("take", arguments)?;
    let Value::Int(count) = &arguments[1] else {
        return Err(bad("take", &arguments[1]));
    };
    let count = usize::try_from(*count).map_err(|_| format!("cannot take {count} elements"))?;
    Ok(operators::slice(items, 0, count.min(items.len())))
}

fn to_pairs(map: &Map, budget: &mut Budget) -> Result<Value, String> {
    budget.hold(2 * map.len())?;
    Ok(Value::List(
        map.iter()
            .map(|(key, value)| Value::list(vec![Value::String(Arc::clone(key)), value.clone()]))
            .collect(),
    ))
}

fn from_pairs(pairs: &[Value]) -> Result<Value, String> {
    let mut map = Map::new();
    for pair in pairs {
        let Value::List(pair) = pair else {
            return Err(format!("invalid pair {}", pair.type_name()));
        };
        let [Value::String(key), value] = &pair[..] else {
            return Err("invalid pair: a string and a value are wanted".to_owned());
        };
        map.insert(Arc::clone(key), value.clone());
    }
    Ok(Value::Map(Arc::new(map)))
}

fn uniq(items: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let mut unique: Vec<Value> = Vec::new();
    for item in items {
        let mut known = false;
        for other in &unique {
            known |= operators::equal(item, other, budget)?;
        }
        if !known {
            unique.push(item.clone());
        }
    }
    Ok(Value::list(unique))
}

fn concat(lists: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let mut all = Vec::new();
    for list in lists {
        let Value::List(items) = list else {
            return Err(bad("concat", list));
        };
        budget.hold(items.len())?;
        all.extend(items.iter().cloned());
    }
    Ok(Value::list(all))
}

fn flatten(items: &[Value], into: &mut Vec<Value>, budget: &mut Budget) -> Result<(), String> {
    for item in items {
        budget.hold(1)?;
        match item {
            Value::List(items) => flatten(items, into, budget)?,
            Value::Nil
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::Map(_) => into.push(item.clone()),
        }
    }
    Ok(())
}

fn sort(items: &[Value], order: Option<&Value>) -> Result<Value, String> {
    let descending = operators::is_descending(order)?;
    let order = operators::sorted_order(items, descending)?;
    Ok(Value::List(
        order
            .into_iter()
            .map(|index| items[index].clone())
            .collect(),
    ))
}
