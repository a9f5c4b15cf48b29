//! `docs/metrics.md`: the tables of metrics.

use std::fmt::Write as _;

use shared::metric::{Kind, Metric};

/// Every table of metrics, under its heading.
const TABLES: &[(&str, &[&Metric])] =
    &[("Every service", shared::metric::ALL), ("The order service", order::metrics::ALL)];

const HEAD: &str = "# Metrics

Generated from the code by `cargo run -- generate`.

Every service serves its metrics at `GET /metrics` in the text format of Prometheus. Each metric also has the label
`service` with the service's name. A histogram is served as buckets, `_sum` and `_count`.
";

pub fn document() -> String {
    let mut text = String::from(HEAD);
    for (heading, metrics) in TABLES {
        let _ = write!(text, "\n## {heading}\n\n{}", table(metrics));
    }
    text
}

fn table(metrics: &[&Metric]) -> String {
    let mut text =
        String::from("| Name | Type | Labels | What it means | What to do |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // A String can't refuse to be written to.
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {} | {} | {} |",
            metric.full_name(),
            labels.join(", "),
            cell(metric.meaning),
            cell(metric.action)
        );
    }
    text
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_over_all_tables_and_cells_are_escaped() {
        let mut names: Vec<&str> =
            TABLES.iter().flat_map(|(_, all)| *all).map(|metric| metric.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
