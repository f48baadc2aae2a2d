//! The documentation finds itself: every page is listed where people and programs look, and every link leads somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a page that are prose: not those inside code fences.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !fence && !code
    })
}

/// Targets of the inline links of a page, with the anchor apart.
fn links(text: &str) -> Vec<(String, Option<String>)> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split_once(')')));
    let apart = |(target, _): (&str, &str)| match target.split_once('#') {
        Some((file, anchor)) => (file.to_owned(), Some(anchor.to_owned())),
        None => (target.to_owned(), None),
    };
    targets.map(apart).collect()
}

/// The anchors that the headings of a page make, as the usual renderers spell them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|heading| heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("entry").path());
    let mut pages: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort();
    pages
}

#[test]
fn s_258_every_page_is_listed() {
    let pages = pages();
    assert!(pages.len() > 10, "{pages:?}");
    for (list, folder) in [("docs/index.md", ""), ("llms.txt", "docs/")] {
        let listed: BTreeSet<String> = links(&read(&root().join(list))).into_iter().map(|(file, _)| file).collect();
        for page in pages.iter().filter(|page| !page.ends_with(list)) {
            let name = format!("{folder}{}", page.file_name().expect("name").to_string_lossy());
            assert!(listed.contains(&name), "{list} does not list {name}");
        }
    }
}

#[test]
fn every_relative_link_resolves() {
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "llms.txt"].map(|name| root().join(name));
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages().into_iter().chain(top) {
        let text = read(&page);
        for (file, anchor) in links(&text).into_iter().filter(|(file, _)| !file.contains("://")) {
            seen += 1;
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("parent").join(&file) };
            let found = match &anchor {
                _ if !target.exists() => false,
                Some(anchor) => anchors(&read(&target)).contains(anchor),
                None => true,
            };
            if !found {
                let anchor = anchor.map_or(String::new(), |anchor| format!("#{anchor}"));
                broken.push(format!("{}: {file}{anchor}", page.file_name().expect("name").to_string_lossy()));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn links_and_anchors_are_read_as_written() {
    let page = "# 1. A `b` c.d\n[x](a.md#y), [z](#w) and [q](https://e.org)\n```\n[no](no.md)\n# no\n```\n";
    let expected = [("a.md", Some("y")), ("", Some("w")), ("https://e.org", None)];
    let found = links(page);
    let found: Vec<_> = found.iter().map(|(file, anchor)| (file.as_str(), anchor.as_deref())).collect();
    assert_eq!(found, expected);
    assert_eq!(anchors(page).into_iter().collect::<Vec<_>>(), ["1-a-b-cd"]);
}
