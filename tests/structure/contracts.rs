//! The crate docs of the services as contracts: what each says that it consumes and publishes is what its code does.

use std::collections::BTreeSet;

use schemas::catalog;
use shared::migrations::{self, Set};
use shared::service::{App, consumed_types};

use crate::{read, root};

/// The message types in backquotes behind `- Consumes` or `- Publishes` of a crate doc.
fn documented(service: &str, heading: &str) -> BTreeSet<String> {
    let text = read(&root().join("services").join(service).join("src/lib.rs"));
    let doc = text.lines().take_while(|line| line.starts_with("//!"));
    let doc: Vec<&str> = doc.map(|line| line.trim_start_matches("//!")).collect();
    let start = doc.iter().position(|line| line.trim_start().starts_with(&format!("- {heading}")));
    let start = start.unwrap_or_else(|| panic!("the crate doc of {service} has no `- {heading}`"));
    let item = doc[start + 1..].iter().take_while(|line| line.starts_with("   "));
    let item: Vec<&str> = std::iter::once(&doc[start]).chain(item).copied().collect();
    let item = item.join(" ");
    let quoted = item.split('`').skip(1).step_by(2);
    quoted.filter(|text| is_type(text)).map(str::to_owned).collect()
}

fn is_type(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let version = |part: &str| part.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
    matches!(parts[..], [_, _, last] if version(last))
}

fn consumes<A: App>() -> (&'static str, BTreeSet<String>) {
    let types = consumed_types::<A>().unwrap_or_else(|error| panic!("{}: {error}", A::NAME));
    (A::NAME, types.into_iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_crate_doc_says_what_the_service_consumes() {
    let all = [
        consumes::<order::Order>(),
        consumes::<payment::Payment>(),
        consumes::<inventory::Inventory>(),
        consumes::<shipping::Shipping>(),
        consumes::<notification::Notification>(),
        consumes::<orchestrator::Orchestrator>(),
    ];
    let names: Vec<&str> = all.iter().map(|(service, _)| *service).collect();
    assert_eq!(names, schemas::SERVICES, "each service is looked at");
    for (service, types) in all {
        assert_eq!(documented(service, "Consumes"), types, "what {service} consumes");
    }
}

#[test]
fn a_crate_doc_says_what_the_service_publishes() {
    for service in schemas::SERVICES {
        let owned = catalog::all().into_iter().filter(|entry| {
            let topic = entry.topic;
            let own =
                topic == format!("{service}.events") || (service == "order" && topic == "customer.events");
            own && entry.answers.is_none()
        });
        let owned: BTreeSet<String> = owned.map(|entry| entry.kind.to_owned()).collect();
        assert_eq!(documented(service, "Publishes"), owned, "what {service} publishes");
    }
}

/// A file that nobody lists would never be applied, and its tables would be missing.
#[test]
fn every_migration_in_a_folder_is_embedded() {
    fn own<A: App>() -> (String, Vec<String>) {
        let own = A::migrations().into_iter().flat_map(|migrator| migrator.iter());
        let folder = format!("services/{}/migrations", A::NAME);
        (folder, own.map(|one| file(one.version, &one.description)).collect())
    }
    fn of(folder: &str, set: &Set) -> (String, Vec<String>) {
        (folder.to_owned(), set.scripts().map(|(number, name, _)| file(number, name)).collect())
    }
    fn file(number: i64, name: &str) -> String {
        format!("{number:04}_{}.sql", name.replace(' ', "_"))
    }
    let all = [
        of("shared/migrations", &migrations::CORE),
        of("shared/migrations/saga", &migrations::SAGA),
        own::<order::Order>(),
        own::<payment::Payment>(),
        own::<inventory::Inventory>(),
        own::<shipping::Shipping>(),
        own::<notification::Notification>(),
    ];
    for (folder, embedded) in all {
        let files =
            std::fs::read_dir(root().join(&folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let names = files.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".sql")).collect();
        names.sort();
        assert_eq!(embedded, names, "{folder}");
    }
}
