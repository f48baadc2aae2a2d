//! What config says about single models beyond what they are: limits, sampling, and where a server departs from the API it
//! speaks (`compat`, in the reference's keys).

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json};

use super::Thinking;
use crate::tool::ToolSpec;

/// For one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tuning {
    /// `maxTokens` as somebody wrote it; what is merely known of a family is not sent.
    pub max_tokens: Option<u32>,
    pub temperature: Option<f64>,
    /// Merged into the body, over everything else.
    pub extra_body: Map<String, Value>,
    pub chat_template_kwargs: Map<String, Value>,
    pub compat: Compat,
}

/// `models.providers.<id>.models[].compat`. `None` is the habit of the API's inventor or of its imitators, as the address says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Compat {
    pub tools: Option<bool>,
    pub reasoning_effort: Option<bool>,
    pub usage_in_streaming: Option<bool>,
    pub instructions: Option<bool>,
    pub store: Option<bool>,
    pub temperature: Option<bool>,
    pub string_content: bool,
    pub tool_result_name: bool,
    /// Thoughts go back as `reasoning_content`.
    pub reasoning_content: bool,
    /// `max_tokens` or `max_completion_tokens`.
    pub max_tokens_field: Option<String>,
    pub thinking_format: Option<String>,
    pub efforts: Option<Vec<String>>,
    pub effort_map: BTreeMap<String, String>,
    pub drop_keywords: Vec<String>,
    /// `toolSchemaProfile: "llamacpp"`.
    pub llamacpp_schemas: bool,
}

impl Compat {
    /// The endpoint's word for a level above off. Without a list: low, medium and high, which all have; `more` says that it
    /// has xhigh and max too.
    pub fn effort(&self, level: Thinking, more: bool) -> String {
        if let Some(word) = self.effort_map.get(level.as_str()) {
            return word.clone();
        }
        let common: &[&str] =
            if more { &["low", "medium", "high", "xhigh", "max"] } else { &["low", "medium", "high"] };
        let has = |word: &str| match &self.efforts {
            Some(list) => list.iter().any(|have| have == word),
            None => common.contains(&word),
        };
        let below = Thinking::ALL.iter().rev().filter(|have| **have <= level && **have != Thinking::Off);
        let above = Thinking::ALL.iter().filter(|have| **have > level);
        let nearest = below.chain(above).map(|have| have.as_str()).find(|word| has(word));
        nearest.unwrap_or("medium").to_owned()
    }

    /// A tool's parameters as the endpoint takes them: always an object schema, without keywords it cannot read.
    pub fn parameters<'a>(&self, tool: &'a ToolSpec) -> Cow<'a, Value> {
        let parameters = &tool.parameters;
        let whole = parameters.get("type").is_some() && parameters.get("properties").is_some();
        if whole && self.drop_keywords.is_empty() && !self.llamacpp_schemas {
            return Cow::Borrowed(parameters);
        }
        let mut schema = if parameters.is_object() { parameters.clone() } else { json!({}) };
        if let Some(object) = schema.as_object_mut() {
            object.entry("type").or_insert_with(|| json!("object"));
            object.entry("properties").or_insert_with(|| json!({}));
        }
        self.clean(&mut schema);
        Cow::Owned(schema)
    }

    fn clean(&self, schema: &mut Value) {
        match schema {
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean(item)),
            Value::Object(object) => {
                object.retain(|key, value| {
                    // llama.cpp unrolls these into its grammar: `pattern` is often beyond it, and long limits take minutes.
                    let heavy = key == "pattern" && value.is_string()
                        || key == "maxLength" && value.as_u64().is_some_and(|length| length >= 2000);
                    !(self.llamacpp_schemas && heavy) && !self.drop_keywords.contains(key)
                });
                for (key, value) in object.iter_mut() {
                    // Below `properties` the keys are names of arguments, which may well be called "pattern".
                    match (key.as_str(), value) {
                        ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                            named.iter_mut().for_each(|(_, schema)| self.clean(schema));
                        }
                        ("enum" | "const" | "default" | "examples" | "required", _) => {}
                        (_, value) => self.clean(value),
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efforts_are_the_nearest_there_is() {
        use Thinking::{High, Low, Max, Medium, Minimal, XHigh};
        let check = |efforts: Option<&[&str]>, more: bool, level: Thinking, expected: &str| {
            let efforts = efforts.map(|list| list.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(Compat { efforts, ..Compat::default() }.effort(level, more), expected, "{level}");
        };
        check(None, false, Minimal, "low");
        check(None, false, Low, "low");
        check(None, false, Medium, "medium");
        check(None, false, Max, "high");
        check(None, true, XHigh, "xhigh");
        check(None, true, Max, "max");
        check(Some(&["low", "high", "xhigh"]), false, Max, "xhigh");
        check(Some(&["low", "high", "xhigh"]), false, Medium, "low");
        check(Some(&["minimal", "high"]), false, Minimal, "minimal");
        check(Some(&["high"]), false, Low, "high");
        let mapped = Compat { effort_map: [("high".to_owned(), "on".to_owned())].into(), ..Compat::default() };
        assert_eq!(mapped.effort(High, false), "on");
    }

    #[test]
    fn schemas_are_cleaned_where_asked() {
        let tool = |parameters: Value| ToolSpec { name: "t".to_owned(), description: String::new(), parameters };
        let schema = json!({"type": "object", "properties": {
            "pattern": {"type": "string", "pattern": "^a", "maxLength": 65536},
            "short": {"type": "string", "maxLength": 10, "enum": ["pattern"]},
        }});
        let plain = Compat::default();
        assert!(
            matches!(plain.parameters(&tool(schema.clone())), Cow::Borrowed(_))
                || plain.parameters(&tool(schema.clone())).as_ref() == &schema
        );
        let llama = Compat { llamacpp_schemas: true, ..Compat::default() };
        let cleaned = json!({"type": "object", "properties": {
            "pattern": {"type": "string"},
            "short": {"type": "string", "maxLength": 10, "enum": ["pattern"]},
        }});
        assert_eq!(llama.parameters(&tool(schema.clone())).as_ref(), &cleaned);
        let drop = Compat { drop_keywords: vec!["maxLength".to_owned()], ..Compat::default() };
        assert_eq!(drop.parameters(&tool(schema)).pointer("/properties/short/maxLength"), None);
        assert_eq!(plain.parameters(&tool(json!({}))).as_ref(), &json!({"type": "object", "properties": {}}));
        assert_eq!(plain.parameters(&tool(Value::Null)).as_ref(), &json!({"type": "object", "properties": {}}));
    }
}
