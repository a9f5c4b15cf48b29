//! What the types of a plan forbid, and what the compiler says then. Each file in `plan/` is a plan with one mistake, and
//! the snapshot beside it is what its author is told.
//!
//! The compiler is run on the libraries that this test was built with, so nothing is compiled twice; a project of its own
//! for the plans would build librdkafka anew.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The only one that compiles.
const COMPLETE: &str = "complete";
/// What the plans are made of.
const TOY: &str = "toy";

#[test]
fn a_plan_with_a_mistake_does_not_compile_and_its_author_learns_why() {
    let compiler = Compiler::new();
    let mut mistakes = 0;
    for name in plans() {
        let output = compiler.compile(&name);
        let told = told(&output);
        if name == COMPLETE {
            assert!(output.status.success(), "{told}");
            continue;
        }
        assert!(!output.status.success(), "{name} compiles");
        mistakes += 1;
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("plan");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name.as_str(), told));
    }
    let left = names("snap").len() - mistakes;
    assert_eq!(left, 0, "a snapshot is left of a plan that is gone");
}

/// Compiles plans against the crates of this test.
struct Compiler {
    libraries: PathBuf,
    shared: PathBuf,
    /// The one that `shared` was built with.
    serde: PathBuf,
    out: PathBuf,
}

impl Compiler {
    fn new() -> Self {
        let test = std::env::current_exe().expect("a path");
        let libraries = test.parent().expect("a folder").to_owned();
        // Several of each may be there, for other sets of features. Of a wrong pair no plan can be made.
        for shared in built("shared", &libraries) {
            for serde in built("serde", &libraries) {
                let (libraries, shared) = (libraries.clone(), shared.clone());
                let compiler = Self { libraries, shared, serde, out: env!("CARGO_TARGET_TMPDIR").into() };
                if compiler.compile(TOY).status.success() {
                    return compiler;
                }
            }
        }
        panic!("{TOY}.rs does not compile");
    }

    fn compile(&self, name: &str) -> Output {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc
            .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=json"])
            .args([library("shared", &self.shared), library("serde", &self.serde)])
            .args([search("dependency", &self.libraries), search("crate", &self.out)])
            .arg("--out-dir")
            .arg(&self.out)
            .arg(folder().join(name).with_extension("rs"));
        if name != TOY {
            rustc.arg(library(TOY, &self.out.join("libtoy.rmeta")));
        }
        rustc.output().expect("the compiler runs")
    }
}

fn library(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("--extern={name}="));
    argument.push(path);
    argument
}

fn search(kind: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("-L{kind}="));
    argument.push(path);
    argument
}

/// The libraries of this name, the last one that was built first. Cargo has seen to it that it is of the present source.
fn built(name: &str, libraries: &Path) -> impl Iterator<Item = PathBuf> {
    let mut built = files(libraries);
    built.retain(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
    });
    built.sort_by_key(|path| Reverse(fs::metadata(path).and_then(|file| file.modified()).expect("an age")));
    built.into_iter()
}

/// What the compiler says of a plan: what is wrong, what it marks, and what to do. Without line numbers, and without what
/// it says about the inside of the words, both of which change for other reasons.
fn told(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let messages = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut told = String::new();
    for message in messages.filter(|message| message["level"] == "error" && !message["code"].is_null()) {
        told.push_str(&format!("error[{}]: {}\n", text(&message["code"]["code"]), text(&message["message"])));
        for span in array(&message["spans"]).filter(|span| in_plan(span)) {
            let label = span["label"].as_str().map(|label| format!(": {label}")).unwrap_or_default();
            told.push_str(&format!("  at `{}`{label}\n", marked(span)));
        }
        // Long types are written to a file, which is named; what has its place elsewhere is about the words' inside; and
        // the commands that there are instead change with every new one.
        let ours = |child: &&Value| {
            !text(&child["message"]).contains("full name for the type")
                && !text(&child["message"]).contains("print the full type name")
                && !text(&child["message"]).starts_with("the following other types implement")
                && array(&child["spans"]).all(in_plan)
        };
        for child in array(&message["children"]).filter(ours) {
            told.push_str(&format!("  {}: {}\n", text(&child["level"]), text(&child["message"])));
        }
    }
    if told.is_empty() { stderr.into_owned() } else { told }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn in_plan(span: &Value) -> bool {
    Path::new(text(&span["file_name"])).starts_with(folder())
}

/// The piece of the plan that the compiler marks, as far as it is on one line.
fn marked(span: &Value) -> &str {
    let line = &span["text"][0];
    let column = |name: &str| line[name].as_u64().and_then(|column| usize::try_from(column).ok());
    let (start, end) = (column("highlight_start").unwrap_or(1), column("highlight_end").unwrap_or(1));
    text(&line["text"]).get(start - 1..end - 1).unwrap_or_default()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

/// The plans by their names, in order.
fn plans() -> Vec<String> {
    let mut plans = names("rs");
    plans.retain(|name| name != TOY);
    plans.sort();
    plans
}

fn names(extension: &str) -> Vec<String> {
    let mut found = files(&folder());
    found.retain(|file| file.extension().is_some_and(|end| end == extension));
    found.iter().filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned())).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}
