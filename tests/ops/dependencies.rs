//! Checks the dependencies with `cargo metadata` against the decisions in deny.toml, so that they hold even if cargo-deny is
//! not installed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

static METADATA: LazyLock<Value> = LazyLock::new(metadata);
static DECISIONS: LazyLock<Decisions> = LazyLock::new(Decisions::read);

#[test]
fn every_licence_is_one_that_we_accept() {
    let mut wrong = Vec::new();
    for package in shipped() {
        let licence = package["license"].as_str().unwrap_or("none");
        if !accepted(licence, &DECISIONS.licences) {
            wrong.push(format!("{}: {licence}", name(package)));
        }
    }
    assert!(wrong.is_empty(), "deny.toml does not allow\n  {}", wrong.join("\n  "));
}

#[test]
fn no_accepted_licence_is_unused() {
    let used: HashSet<&str> = shipped()
        .filter_map(|package| package["license"].as_str())
        .flat_map(|licence| licence.split([' ', '/', '(', ')']))
        .collect();
    let unused: Vec<_> =
        DECISIONS.licences.iter().filter(|licence| !used.contains(licence.as_str())).collect();
    assert!(unused.is_empty(), "deny.toml allows {unused:?}, which nothing has");
}

#[test]
fn no_banned_crate_is_used() {
    let names: HashMap<&str, &str> = packages().map(|package| (id(package), name(package))).collect();
    let mut wrong = Vec::new();
    for node in nodes() {
        let by = names[id(node)];
        for dependency in list(&node["deps"]) {
            let used = names[text(&dependency["pkg"])];
            let ban = DECISIONS.bans.iter().find(|ban| ban.name == used);
            if ban.is_some_and(|ban| !ban.wrappers.contains(by)) {
                wrong.push(format!("{used}, by {by}"));
            }
        }
    }
    assert!(wrong.is_empty(), "deny.toml bans\n  {}", wrong.join("\n  "));
}

#[test]
fn every_crate_comes_from_the_registry_or_from_here() {
    let root = root().canonicalize().expect("the project's folder");
    let registries: BTreeSet<&str> = packages().filter_map(|package| package["source"].as_str()).collect();
    assert!(registries.len() == 1, "crates come from several sources: {registries:?}");
    assert!(
        registries.iter().all(|source| source.starts_with("registry+")),
        "not a registry: {registries:?}"
    );
    for package in packages() {
        if package["source"].is_null() {
            let manifest = Path::new(text(&package["manifest_path"]));
            assert!(manifest.starts_with(&root), "{} is outside the project", manifest.display());
        }
        for dependency in list(&package["dependencies"]) {
            // Cargo names a registry only if it is not the default one.
            let by = name(package);
            assert!(
                dependency["registry"].is_null(),
                "{by} takes {} from another registry",
                name(dependency)
            );
        }
    }
}

#[test]
fn every_version_is_said() {
    for package in members() {
        for dependency in list(&package["dependencies"]) {
            let (by, used) = (name(package), name(dependency));
            let by_path = dependency["path"].is_string();
            assert!(by_path || text(&dependency["req"]) != "*", "{by} takes any version of {used}");
        }
    }
}

#[test]
fn every_crate_of_ours_has_the_lints_of_the_workspace() {
    for package in members() {
        let manifest = text(&package["manifest_path"]);
        let manifest = fs::read_to_string(manifest).unwrap_or_else(|error| panic!("{manifest}: {error}"));
        let inherited = section(&manifest, "lints").any(|line| line.replace(' ', "") == "workspace=true");
        assert!(inherited, "{} lacks `[lints] workspace = true`", name(package));
    }
}

/// Otherwise a newcomer who has run the suite compiles most crates a second time to test it.
#[test]
fn the_suite_and_its_tests_share_what_is_compiled() {
    let suite = features(&["-p", "amends", "--edges", "normal,build"]);
    let tests = features(&["--workspace", "--edges", "normal,build,dev"]);
    let twice: Vec<_> = suite.difference(&tests).collect();
    assert!(suite.len() > 200 && twice.is_empty(), "the tests compile these with other features: {twice:?}");
}

#[test]
fn licences_are_read_as_expressions() {
    let allow = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for licence in
        ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(GPL-3.0 OR ISC) AND MIT", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(accepted(licence, &allow), "{licence}");
    }
    for licence in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "GPL-3.0 OR MIT AND GPL-3.0",
        "(MIT OR ISC) AND GPL-3.0",
        "Apache-2.0",
        "",
    ] {
        assert!(!accepted(licence, &allow), "{licence}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns `cargo metadata` for this platform. Crates for other platforms are not downloaded, so cargo can't read them.
fn metadata() -> Value {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", &platform]);
    serde_json::from_str(&metadata).expect("cargo metadata is JSON")
}

/// Returns the crates that cargo would compile for these packages, each with its features.
fn features(packages: &[&str]) -> BTreeSet<String> {
    let tree = ["tree", "--prefix", "none", "--no-dedupe", "--format", "{p} {f}"];
    cargo(&[&tree, packages].concat()).lines().map(str::to_owned).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes text")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name(value: &Value) -> &str {
    text(&value["name"])
}

fn id(value: &Value) -> &str {
    text(&value["id"])
}

fn packages() -> impl Iterator<Item = &'static Value> {
    list(&METADATA["packages"])
}

fn nodes() -> impl Iterator<Item = &'static Value> {
    list(&METADATA["resolve"]["nodes"])
}

fn members() -> impl Iterator<Item = &'static Value> {
    packages()
        .filter(|package| list(&METADATA["workspace_members"]).any(|member| text(member) == id(package)))
}

/// Returns the packages that are part of the programs, or build them. Packages that only tests use are left out.
fn shipped() -> impl Iterator<Item = &'static Value> {
    let nodes: HashMap<&str, &Value> = nodes().map(|node| (id(node), node)).collect();
    let mut left: Vec<&str> = list(&METADATA["workspace_members"]).map(text).collect();
    let mut reached = HashSet::new();
    while let Some(next) = left.pop() {
        if reached.insert(next) {
            let deps = list(&nodes[next]["deps"]);
            let shipped = deps.filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"] != "dev"));
            left.extend(shipped.map(|dep| text(&dep["pkg"])));
        }
    }
    packages().filter(move |package| reached.contains(id(package)))
}

/// The decisions in deny.toml.
struct Decisions {
    licences: BTreeSet<String>,
    bans: Vec<Ban>,
}

/// A crate that only its wrappers may depend on.
struct Ban {
    name: String,
    wrappers: BTreeSet<String>,
}

impl Decisions {
    /// Reads the part of TOML that the file uses: lists with one entry a line.
    fn read() -> Self {
        let file = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
        let licences = entries(&file, "licenses", "allow").filter_map(|line| quoted(&line).next()).collect();
        let ban = |line: String| {
            let mut names = quoted(&line);
            Ban { name: names.next().unwrap_or_default(), wrappers: names.collect() }
        };
        let bans: Vec<Ban> = entries(&file, "bans", "deny").map(ban).collect();
        let read = Self { licences, bans };
        assert!(!read.licences.is_empty() && !read.bans.is_empty(), "deny.toml was not understood");
        read
    }
}

/// Returns the lines of a section, without comments.
fn section<'f>(file: &'f str, name: &str) -> impl Iterator<Item = &'f str> {
    let head = format!("[{name}]");
    let lines = file.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.skip_while(move |line| *line != head).skip(1).take_while(|line| !line.starts_with('['))
}

fn entries(file: &str, of: &str, key: &str) -> impl Iterator<Item = String> {
    let head = format!("{key} = [");
    let lines =
        section(file, of).skip_while(move |line| *line != head).skip(1).take_while(|line| *line != "]");
    lines.filter(|line| !line.is_empty()).map(str::to_owned)
}

/// Returns the texts in quotation marks.
fn quoted(line: &str) -> impl Iterator<Item = String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// Whether an SPDX expression is met by accepted licences alone.
fn accepted(expression: &str, allow: &BTreeSet<String>) -> bool {
    // Before SPDX expressions, a slash meant a choice.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words, allow) && words.next().is_none()
}

type Words<'e> = std::iter::Peekable<std::str::SplitWhitespace<'e>>;

fn any_of(words: &mut Words<'_>, allow: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, allow);
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allow);
    }
    met
}

fn all_of(words: &mut Words<'_>, allow: &BTreeSet<String>) -> bool {
    let mut met = one(words, allow);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allow);
    }
    met
}

fn one(words: &mut Words<'_>, allow: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => {
            let met = any_of(words, allow);
            words.next_if_eq(&")").is_some() && met
        }
        Some(licence) => match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
            Some(exception) => allow.contains(&format!("{licence} WITH {exception}")),
            None => allow.contains(licence),
        },
        None => false,
    }
}
