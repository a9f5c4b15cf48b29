//! Files that list the services and can't import the list: the images, the stack of Compose and its scripts. Each must have
//! all services of [`SERVICES`], with their ports, and no others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use schemas::SERVICES;

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns each service with its port, as [`SERVICES`] says.
fn ports() -> BTreeMap<String, u16> {
    SERVICES.map(str::to_owned).into_iter().zip(8081..).collect()
}

/// Returns the texts between `before` and `after` in the lines of a file.
fn between<'f>(text: &'f str, before: &'f str, after: &'f str) -> impl Iterator<Item = &'f str> {
    text.lines().filter_map(move |line| Some(line.split_once(before)?.1.split_once(after)?.0))
}

/// Returns each part with the number that it has behind `mark`. A part begins at its name and ends at the next name.
fn numbered(parts: Vec<(String, String)>, mark: &str) -> BTreeMap<String, u16> {
    let number = |part: &str| {
        let (_, rest) = part.split_once(mark)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    parts.into_iter().filter_map(|(name, part)| Some((name, number(&part)?))).collect()
}

#[test]
fn the_scripts_list_every_service_in_the_order_of_the_start() {
    let list = |path, before, after| {
        let text = file(path);
        let lists: Vec<String> = between(&text, before, after).map(str::to_owned).collect();
        assert_eq!(lists.len(), 1, "{path} has one list");
        lists[0].split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list("deploy/docker/roles.sh", "for service in ", ";"), SERVICES);
    assert_eq!(list("deploy/docker/build.sh", "services=\"", "\""), SERVICES);
}

#[test]
fn every_service_has_an_image_with_its_port() {
    let text = file("deploy/docker/Dockerfile");
    let stages = text.split("FROM runtime AS ").skip(1);
    let stages = stages.filter_map(|stage| stage.split_once('\n'));
    let stages: Vec<_> = stages.map(|(name, stage)| (name.to_owned(), stage.to_owned())).collect();
    assert_eq!(numbered(stages.clone(), "EXPOSE "), ports());
    assert_eq!(numbered(stages, "HTTP_ADDR=0.0.0.0:"), ports());
}

#[test]
fn every_service_is_in_the_stack_with_its_port_database_and_password() {
    let text = file("docker-compose.yml");
    let mut services: Vec<(String, String)> = Vec::new();
    for line in text.lines().skip_while(|line| *line != "services:").skip(1) {
        match line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) {
            Some(name) if !name.starts_with([' ', '#']) => services.push((name.to_owned(), String::new())),
            _ => {
                if let Some((_, part)) = services.last_mut() {
                    part.push_str(line);
                    part.push('\n');
                }
            }
        }
    }
    services.retain(|(_, part)| part.contains("<<: *service"));
    assert_eq!(numbered(services.clone(), "_PORT:-"), ports());
    let roles = &text[text.find("\n  roles:").expect("the roles' service")..];
    let example = file(".env.example");
    for (name, part) in services {
        let upper = name.to_uppercase();
        for wanted in [
            format!("image: amends/{name}:"),
            format!("target: {name} }}"),
            format!("postgres://{name}@postgres/{name}\n"),
            format!("PGPASSWORD: ${{{upper}_PASSWORD:-amends}}\n"),
        ] {
            assert!(part.contains(&wanted), "docker-compose.yml, {name}: {wanted}");
        }
        assert!(roles.contains(&format!(" {upper}_PASSWORD: ${{{upper}_PASSWORD:-amends}}\n")), "{name}");
        let port = ports()[&name];
        for wanted in [format!("\n{upper}_PASSWORD=amends\n"), format!("\n#{upper}_PORT={port}\n")] {
            assert!(example.contains(&wanted), ".env.example lacks {wanted}");
        }
    }
}

#[test]
fn prometheus_asks_every_service() {
    let text = file("deploy/observability/prometheus.yaml");
    let targets: Vec<String> =
        between(&text, "targets: [", "]").flat_map(|list| list.split(", ")).map(str::to_owned).collect();
    let wanted: Vec<String> =
        SERVICES.into_iter().zip(8081..).map(|(service, port)| format!("{service}:{port}")).collect();
    assert_eq!(targets, wanted);
}
