//! No circle between modules: of the modules that stand beside each other in one parent, with all that is below them, none
//! uses another that uses it, directly or through others. A parent and its own children may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{code, read, root, sources};

/// A module's path: `["relay", "read"]`. The crate's root is empty.
type Module = Vec<String>;

/// Each crate by the folder of its sources.
const CRATES: [&str; 10] = [
    "shared/src",
    "deploy/local/src",
    "schemas/src",
    "cli/src",
    "services/order/src",
    "services/payment/src",
    "services/inventory/src",
    "services/shipping/src",
    "services/notification/src",
    "services/orchestrator/src",
];

#[test]
fn no_modules_form_a_circle() {
    let mut circles = Vec::new();
    for folder in CRATES {
        for (parent, edges) in siblings(folder) {
            if let Some(circle) = circle(&edges) {
                circles.push(format!("{folder}, in `{}`: {}", parent.join("::"), circle.join(" -> ")));
            }
        }
    }
    assert!(circles.is_empty(), "modules that use each other in a circle:\n  {}", circles.join("\n  "));
}

#[test]
fn a_circle_is_found() {
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    let line = BTreeMap::from([edge("a", "b"), edge("b", "c")]);
    assert_eq!(circle(&line), None);
    let ring = BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("c", "a")]);
    assert_eq!(circle(&ring).map(|circle| circle.len()), Some(4));
}

#[test]
fn paths_are_read_from_use_trees_and_from_code() {
    let here = vec!["relay".to_owned(), "read".to_owned()];
    let text = "use crate::{db::{self, Db}, outbox::unsent::IS_SENT};\nuse super::checkpoint::Cursor;\n\
                fn f() { crate::fault::Fault::retry(1); }";
    let found: BTreeSet<String> = paths(&here, text).into_iter().map(|path| path.join("::")).collect();
    for expected in ["db::self", "db::Db", "outbox::unsent::IS_SENT", "relay::checkpoint::Cursor"] {
        assert!(found.contains(expected), "{expected} is not in {found:?}");
    }
    assert!(found.iter().any(|path| path.starts_with("fault::Fault")), "{found:?}");
}

/// What the children of each module use of each other.
fn siblings(folder: &str) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let base = root().join(folder);
    let mut files = BTreeMap::new();
    for path in sources(folder) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Tests may use whatever they test.
        if ["tests", "properties", "model", "main"].contains(&name.as_str()) && folder != "cli/src" {
            continue;
        }
        files.insert(module(&base, &path), code(&read(&path)));
    }
    let tests = declared_for_tests(&base, folder);
    files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    let mut graphs: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, text) in &files {
        for path in paths(from, text) {
            let known = (0..=path.len()).rev().map(|end| &path[..end]).find(|path| files.contains_key(*path));
            let Some(to) = known else { continue };
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            // One of them is the other's parent.
            if common == from.len() || common == to.len() {
                continue;
            }
            let graph = graphs.entry(from[..common].to_vec()).or_default();
            graph.entry(from[common].clone()).or_default().insert(to[common].clone());
        }
    }
    graphs
}

/// The modules that are declared with `#[cfg(test)]`.
fn declared_for_tests(base: &Path, folder: &str) -> BTreeSet<Module> {
    let mut tests = BTreeSet::new();
    for path in sources(folder) {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            let name = pair[1]
                .trim()
                .trim_start_matches("pub ")
                .strip_prefix("mod ")
                .and_then(|m| m.strip_suffix(';'));
            if let ("#[cfg(test)]", Some(name)) = (pair[0].trim(), name) {
                let mut module = module(base, &path);
                module.push(name.to_owned());
                tests.insert(module);
            }
        }
    }
    tests
}

fn module(base: &Path, path: &Path) -> Module {
    let relative = path.strip_prefix(base).expect("below the crate's folder").with_extension("");
    let mut module: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("lib" | "main" | "mod")) {
        module.pop();
    }
    module
}

/// The paths into the own crate that a text has, from its root.
fn paths(here: &[String], text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for (keyword, base) in [("crate", 0), ("super", here.len().saturating_sub(1)), ("self", here.len())] {
        for (at, _) in text.match_indices(&format!("{keyword}::")) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let mut base: Module = here[..base].to_vec();
            let mut rest = &text[at + keyword.len() + 2..];
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
            let tree: String =
                rest.chars().take_while(|c| !matches!(c, ';' | '(' | ')' | '<' | '>' | '=')).collect();
            spread(&base, tree.trim(), &mut found);
        }
    }
    found
}

/// Spreads a tree of paths: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn spread(base: &[String], tree: &str, found: &mut Vec<Module>) {
    let end = tree.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(tree.len());
    let (head, rest) = tree.split_at(end);
    let mut path = base.to_vec();
    path.extend(head.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
    let Some(inner) = rest.strip_prefix('{') else { return found.push(path) };
    let (mut depth, mut start) = (0, 0);
    for (index, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return spread(&path, inner[start..index].trim(), found),
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(&path, inner[start..index].trim(), found);
                start = index + 1;
            }
            _ => {}
        }
    }
}

/// A circle in a graph, if there is one: its first module is its last.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        edges: &BTreeMap<String, BTreeSet<String>>,
        node: &str,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|known| known == node) {
            let mut circle = path[start..].to_vec();
            circle.push(node.to_owned());
            return Some(circle);
        }
        if done.contains(node) {
            return None;
        }
        path.push(node.to_owned());
        for next in edges.get(node).into_iter().flatten() {
            if let Some(circle) = visit(edges, next, path, done) {
                return Some(circle);
            }
        }
        path.pop();
        done.insert(node.to_owned());
        None
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|node| visit(edges, node, &mut Vec::new(), &mut done))
}
