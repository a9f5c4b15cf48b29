//! The documents: links lead somewhere, the tests that they name exist, and the first pages stay short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{read, root, sources};

/// The project's pages.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions", "schemas", "shared"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The targets of a page's links, without code.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|prose| prose.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
}

/// A heading as an address, the way that forges make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn no_page_has_a_gap_to_be_filled_in() {
    let gaps: Vec<PathBuf> = pages().into_iter().filter(|page| read(page).contains("<<")).collect();
    assert!(gaps.is_empty(), "`<<` marks a text that is still missing: {gaps:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    let pages = pages();
    assert!(pages.len() > 30, "only {} pages were looked at", pages.len());
    for page in &pages {
        for link in links(&read(page)) {
            // Paths of Rust items are checked by rustdoc, and other hosts by nobody.
            if link.contains("://") || link.starts_with("crate::") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                _ => page.parent().unwrap_or(Path::new("")).join(path),
            };
            let found = target.exists()
                && (fragment.is_empty()
                    || read(&target).lines().any(|line| line.starts_with('#') && anchor(line) == fragment));
            if !found {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n  {}", dead.join("\n  "));
}

#[test]
fn every_test_that_architecture_names_exists() {
    let page = read(&root().join("ARCHITECTURE.md"));
    let table = page.split("| Guarantee | Mechanism | Tests |").nth(1).expect("the table of guarantees");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let named: BTreeSet<String> = rows
        .filter_map(|row| row.trim_end_matches('|').rsplit('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(named.len() > 30, "only {} tests are named", named.len());
    let mut code = String::new();
    for folder in ["shared", "services", "tests", "cli"] {
        sources(folder).iter().for_each(|path| code.push_str(&read(path)));
    }
    let missing: Vec<&String> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
}

#[test]
fn the_first_pages_stay_short() {
    for (page, longest) in [("README.md", 150), ("ARCHITECTURE.md", 200)] {
        let lines = read(&root().join(page)).lines().count();
        assert!(lines <= longest, "{page} has {lines} lines, more than {longest}");
    }
}
