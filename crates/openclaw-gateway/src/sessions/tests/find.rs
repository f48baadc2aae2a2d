use super::{super::*, Place, assistant, key, user};
use crate::sessions::search::Scope;

async fn found(place: &Place, typed: &str) -> Vec<String> {
    let found = place.sessions.search(typed, Scope::default(), 25).await.unwrap_or_else(|e| panic!("{typed:?}: {e}"));
    let mut texts: Vec<_> = found.results.into_iter().map(|hit| hit.message_id).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn words_are_found_in_every_script() {
    let place = Place::new();
    let texts = [
        ("plain", "The quick brown fox jumps over the lazy dog"),
        ("accents", "Où est le café près de l'hôtel ?"),
        ("chinese", "今天我们讨论数据库的全文搜索"),
        ("japanese", "データベースの検索は速いです"),
        ("korean", "데이터베이스 검색"),
        ("thai", "สวัสดีครับ"),
        ("emoji", "we ship it 🚀🚀 today 👩🏽‍💻"),
        ("code", "let x = foo::bar(\"baz\"); // C++ AND Rust"),
        ("arrow", "left → right"),
        ("young", "𞤀𞤣𞤤𞤢𞤥 script"),
    ];
    place.say(&key("main"), texts.map(|(id, text)| user(text).id(id))).await;
    for (typed, expected) in [
        ("quick fox", &["plain"][..]),
        ("FOX", &["plain"]),
        ("fo", &["code", "plain"]),
        ("fo ", &[]),
        ("\"brown fox\"", &["plain"]),
        ("\"fox brown\"", &[]),
        ("cafe hotel", &["accents"]),
        ("全文搜索", &["chinese"]),
        ("搜索", &["chinese"]),
        ("索搜", &[]),
        ("検索", &["japanese"]),
        ("검색", &["korean"]),
        ("สวัส", &["thai"]),
        ("🚀", &["emoji"]),
        ("🚀 today", &["emoji"]),
        ("🦊", &[]),
        ("foo::bar", &["code"]),
        ("AND", &["code"]),
        ("\"C++ AND Rust\"", &["code"]),
        ("→", &["arrow"]),
        ("left → right", &["arrow"]),
        ("𞤀𞤣𞤤𞤢𞤥", &["young"]),
    ] {
        assert_eq!(found(&place, typed).await, expected, "{typed:?}");
    }
}

#[tokio::test]
async fn nothing_a_person_types_is_an_error() {
    let place = Place::new();
    place.say(&key("main"), [user("a b c NEAR NOT OR AND words: col")]).await;
    let odd = [
        "\"",
        "\"\"",
        "\"\"\"",
        "'",
        "a\"b",
        "a\"b\"",
        "*",
        "**",
        "a*",
        "*a",
        "\"a\"*",
        "^a",
        "a^",
        "(",
        ")",
        "()",
        "(a",
        "a)",
        "a AND",
        "AND a",
        "OR",
        "NOT",
        "NOT a",
        "NEAR",
        "NEAR(",
        "NEAR(a b, 2)",
        "a NEAR/2 b",
        "words:a",
        "words : a",
        "{words}: a",
        "-a",
        "- a",
        "+",
        "a + b",
        "a,b",
        ";",
        "--",
        "/* a */",
        "a' OR '1'='1",
        "\\",
        "\0",
        "a\0b",
        "\u{feff}",
        "\u{200d}",
        "\u{0301}",
        "e\u{0301}",
        "\u{1f1e9}\u{1f1ea}",
        "½",
        "Ⅻ",
        "٣",
        "ª",
        "\u{10ffff}",
        "\u{e000}",
        "$",
        "%",
        "_",
        "?1",
        ":a",
        "@a",
        "   ",
        "\t\n",
        "、。「」",
        "…",
        "🏽",
        "\u{fe0f}",
    ];
    for typed in odd {
        found(&place, typed).await;
    }
    // Whatever else a keyboard has, in threes.
    let keys: Vec<char> = "a\"*^():{}+-,.;'\\ANDOR \u{301}搜🚀\0".chars().collect();
    for (n, a) in keys.iter().enumerate() {
        for (m, b) in keys.iter().enumerate() {
            let c = keys[(n * 7 + m * 3) % keys.len()];
            found(&place, &String::from_iter([*a, *b, c])).await;
        }
    }
    found(&place, &"word ".repeat(800)).await;
    found(&place, &"\"".repeat(4096)).await;
}

#[tokio::test]
async fn a_search_keeps_to_its_conversations_and_says_where_and_how_well() {
    let place = Place::new();
    let (one, two, work) = (key("one"), key("two"), key("agent:work:main"));
    place.say(&one, [user("apples and pears").id("a"), assistant("apples apples apples").id("b")]).await;
    place.say(&two, [user("apples").id("c"), NewMessage::system("apples").id("d")]).await;
    place.say(&work, [user("apples at work").id("e")]).await;
    let ids = async |scope: Scope, limit: usize| {
        let found = place.sessions.search("apples", scope, limit).await.expect("searches");
        (found.results.iter().map(|hit| hit.message_id.clone()).collect::<Vec<_>>(), found.truncated)
    };
    let (all, truncated) = ids(Scope::default(), 10).await;
    assert_eq!((all.len(), truncated), (4, None), "notes for people are not searched");
    let (first, truncated) = ids(Scope::default(), 2).await;
    assert_eq!((first.len(), truncated), (2, Some(true)));
    let keys =
        |keys: &[&SessionKey]| Scope { keys: Some(keys.iter().map(|key| (*key).clone()).collect()), agent: None };
    assert_eq!(ids(keys(&[&two]), 10).await.0, ["c"]);
    assert_eq!(ids(keys(&[]), 10).await.0, <[&str; 0]>::default());
    assert_eq!(ids(Scope { keys: None, agent: Some("work".into()) }, 10).await.0, ["e"]);
    let hit = place.sessions.search("pears", Scope::default(), 1).await.expect("searches").results.remove(0);
    assert_eq!((hit.session_key.as_str(), hit.role.as_str()), ("agent:main:one", "user"));
    assert_eq!(hit.snippet, "apples and pears");
    assert!(hit.score > 0.0);
    // Of a conversation that was forgotten, nothing is found.
    let mut draft = place.sessions.draft(&two).await;
    draft.delete(false);
    draft.commit(Vec::new()).await.expect("saves");
    assert_eq!(ids(keys(&[&two]), 10).await.0, <[&str; 0]>::default());
}

#[test]
fn an_excerpt_shows_the_place_and_stays_short() {
    let long = format!("{} needle {}", "hay ".repeat(500), "straw ".repeat(500));
    let excerpt = text::snippet(&long, "NEEDLE", 300);
    assert!(excerpt.contains("needle") && excerpt.starts_with('…') && excerpt.ends_with('…'), "{excerpt}");
    assert!(excerpt.chars().count() <= 302, "{}", excerpt.chars().count());
    assert_eq!(text::snippet("a\n b\u{1b}[31m", "a", 300), "a b [31m");
    assert!(text::snippet(&long, "", 300).starts_with("hay"));
    assert!(text::snippet(&"ß".repeat(1000), "ẞ", 100).chars().count() <= 102);
}

#[test]
fn a_line_is_one_line_without_control_characters() {
    let check = |text: &str, max: usize, expected: &str| assert_eq!(text::line(text, max), expected, "{text:?}");
    check("a  b\r\n\tc", 10, "a b c");
    check("  a ", 10, "a");
    check("\u{1b}]0;evil\u{7}x", 20, "]0;evil x");
    check("abcdef", 3, "abc…");
    check("ab cd", 2, "ab…");
    check("", 5, "");
    check("🚀🚀🚀", 2, "🚀🚀…");
}
