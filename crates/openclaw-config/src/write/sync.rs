//! Brings the file's text to a new value by the smallest edits, so that comments and layout stay.

use std::collections::{HashMap, HashSet};

use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstObjectProp, CstRootNode};
use serde_json::Value;

use crate::document::{parse, strip_bom};

/// The text for `after`, made from `text`, and whether its comments had to go. The result is parsed and compared, so
/// it holds exactly `after` whatever the editing did.
pub(super) fn rewrite(text: &str, after: &Value) -> (String, bool) {
    let text = strip_bom(text);
    match edited(text, after) {
        Some(edited) if holds(&edited, after) => (edited, false),
        _ => (format!("{after:#}\n"), text.contains("//") || text.contains("/*")),
    }
}

fn holds(text: &str, value: &Value) -> bool {
    let parsed = parse::parse(text, &Default::default(), &parse::options());
    parsed.is_ok_and(|parsed| parsed.root.is_some_and(|root| root.to_value() == *value))
}

fn edited(text: &str, after: &Value) -> Option<String> {
    if text.trim().is_empty() {
        return None;
    }
    let root = CstRootNode::parse(text, &parse::options()).ok()?;
    let object = root.object_value()?;
    sync_object(&object, after.as_object()?);
    Some(root.to_string())
}

fn sync_object(object: &CstObject, after: &serde_json::Map<String, Value>) {
    for (key, mut properties) in by_key(object) {
        // Of a repeated key only the last one counts.
        let Some(property) = properties.pop() else { continue };
        properties.into_iter().for_each(CstObjectProp::remove);
        match after.get(&key) {
            Some(value) => sync_property(&property, value),
            None => property.remove(),
        }
    }
    let present: HashSet<_> = object.properties().iter().filter_map(CstObjectProp::decoded_name).collect();
    for (key, value) in after.iter().filter(|(key, _)| !present.contains(*key)) {
        object.append(key, input(value));
    }
}

/// The properties of each key, in the order of their first appearance.
fn by_key(object: &CstObject) -> Vec<(String, Vec<CstObjectProp>)> {
    let mut groups: Vec<(String, Vec<CstObjectProp>)> = Vec::new();
    let mut places = HashMap::new();
    for property in object.properties() {
        let Some(key) = property.decoded_name() else { continue };
        match places.get(&key) {
            Some(&at) => {
                let group: &mut (String, Vec<CstObjectProp>) = &mut groups[at];
                group.1.push(property);
            }
            None => {
                places.insert(key.clone(), groups.len());
                groups.push((key, vec![property]));
            }
        }
    }
    groups
}

fn sync_property(property: &CstObjectProp, after: &Value) {
    match (property.value(), after) {
        (Some(node), after) if value_of(&node).as_ref() == Some(after) => {}
        (Some(node), Value::Object(entries)) if node.as_object().is_some() => {
            if let Some(object) = node.as_object() {
                sync_object(&object, entries);
            }
        }
        (Some(node), Value::Array(items)) if node.as_array().is_some() => {
            if let Some(array) = node.as_array() {
                sync_array(&array, items);
            }
        }
        (_, after) => property.set_value(input(after)),
    }
}

/// Keeps the items that did not change at the start and the end; edits, adds and removes between them.
fn sync_array(array: &CstArray, after: &[Value]) {
    let elements = array.elements();
    let old: Vec<_> = elements.iter().map(value_of).collect();
    let same = |(old, new): &(&Option<Value>, &Value)| old.as_ref() == Some(*new);
    let start = old.iter().zip(after).take_while(same).count();
    let rest = old.len().min(after.len()) - start;
    let end = old.iter().rev().zip(after.iter().rev()).take_while(same).count().min(rest);
    let (old_middle, new_middle) = (start..old.len() - end, &after[start..after.len() - end]);
    let shared = old_middle.len().min(new_middle.len());
    for (offset, value) in new_middle[..shared].iter().enumerate() {
        let element = elements[start + offset].clone();
        match (element.as_object(), value) {
            (Some(object), Value::Object(entries)) => sync_object(&object, entries),
            _ => replace(element, value),
        }
    }
    for element in elements[old_middle].iter().skip(shared) {
        element.clone().remove();
    }
    for (offset, value) in new_middle[shared..].iter().enumerate() {
        array.insert(start + shared + offset, input(value));
    }
}

fn replace(element: CstNode, value: &Value) {
    let value = input(value);
    if let Some(node) = element.as_string_lit() {
        node.replace_with(value);
    } else if let Some(node) = element.as_number_lit() {
        node.replace_with(value);
    } else if let Some(node) = element.as_boolean_lit() {
        node.replace_with(value);
    } else if let Some(node) = element.as_null_keyword() {
        node.replace_with(value);
    } else if let Some(node) = element.as_object() {
        node.replace_with(value);
    } else if let Some(node) = element.as_array() {
        node.replace_with(value);
    } else if let Some(node) = element.as_word_lit() {
        node.replace_with(value);
    }
}

fn value_of(node: &CstNode) -> Option<Value> {
    let text = node.to_string();
    let parsed = parse::parse(&text, &Default::default(), &parse::options()).ok()?;
    parsed.root.map(|root| root.to_value())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(entries) => {
            CstInputValue::Object(entries.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}
