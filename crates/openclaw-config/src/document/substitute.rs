//! `${NAME}` in strings: replaced from the environment, left in place when the variable is unset.

use super::node::{Kind, Node, Text};

/// Replaces `${NAME}` everywhere below `node`. `lookup` gives a variable's non-empty value.
pub(crate) fn substitute(node: &mut Node, lookup: &dyn Fn(&str) -> Option<String>) {
    match &mut node.kind {
        Kind::Text(text) => *text = expand(std::mem::take(&mut text.value), lookup),
        Kind::Array(items) => items.iter_mut().for_each(|item| substitute(item, lookup)),
        Kind::Object(entries) => entries.iter_mut().for_each(|(_, entry)| substitute(entry, lookup)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
    }
}

/// One string. `NAME` is `[A-Z_][A-Z0-9_]*` (config.md section 6); `$${NAME}` stands for the text `${NAME}`.
pub(crate) fn expand(written: String, lookup: &dyn Fn(&str) -> Option<String>) -> Text {
    if !written.contains("${") {
        return Text::plain(written);
    }
    let mut value = String::with_capacity(written.len());
    let (mut substituted, mut unresolved) = (Vec::new(), Vec::new());
    let mut rest = written.as_str();
    while let Some(at) = rest.find("${") {
        let Some((name, reference_len)) = reference(&rest[at..]) else {
            value.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        };
        let escaped = rest[..at].ends_with('$');
        value.push_str(&rest[..if escaped { at - 1 } else { at }]);
        let whole = &rest[at..at + reference_len];
        match (escaped, lookup(name)) {
            (true, _) => value.push_str(whole),
            (false, Some(found)) => {
                value.push_str(&found);
                substituted.push(name.to_owned());
            }
            (false, None) => {
                value.push_str(whole);
                unresolved.push(name.to_owned());
            }
        }
        rest = &rest[at + reference_len..];
    }
    value.push_str(rest);
    let written = (value != written).then_some(written);
    Text { value, written, substituted, unresolved }
}

/// The name in a leading `${NAME}`, and the length of the whole.
fn reference(text: &str) -> Option<(&str, usize)> {
    let name = &text[2..text.find('}')?];
    let head_ok = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    let rest_ok = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    (head_ok && rest_ok).then_some((name, name.len() + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitution() {
        let lookup = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "_B2" => Some("${A}".to_owned()),
            _ => None,
        };
        let check = |written: &str, value: &str, substituted: &[&str], unresolved: &[&str]| {
            let text = expand(written.to_owned(), &lookup);
            assert_eq!(text.value, value, "{written}");
            assert_eq!(text.substituted, substituted, "{written}");
            assert_eq!(text.unresolved, unresolved, "{written}");
            assert_eq!(text.as_written(), written);
        };
        check("plain $A {A}", "plain $A {A}", &[], &[]);
        check("${A}", "one", &["A"], &[]);
        check("x${A}y${A}", "xoneyone", &["A", "A"], &[]);
        // A value is not expanded again.
        check("${_B2}", "${A}", &["_B2"], &[]);
        check("$${A}", "${A}", &[], &[]);
        check("$${A}${A}", "${A}one", &["A"], &[]);
        check("${UNSET}", "${UNSET}", &[], &["UNSET"]);
        check("${a} ${} ${1A} ${A", "${a} ${} ${1A} ${A", &[], &[]);
    }
}
