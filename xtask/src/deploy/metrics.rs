//! The names of metrics: those of alerts and dashboard are in the table of the docs, and each one there is used.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{dashboard, outcome, page, promql, text};
use crate::steps::Outcome;

/// The page with the table.
const PAGE: &str = "operate/metrics.md";

/// Metrics of Prometheus itself.
const OF_PROMETHEUS: [&str; 1] = ["up"];

/// What a histogram has behind its name.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

pub(super) fn check() -> Result<Outcome> {
    let table =
        std::fs::read_to_string(page(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let known = names(&table);
    ensure!(!known.is_empty(), "{PAGE} has no table of metrics");
    let dashboard: Value = serde_json::from_str(&text("grafana/dashboard.json")?)?;
    let mut used: Vec<(String, String)> = Vec::new();
    for query in dashboard::queries(&dashboard)? {
        used.extend(promql::metrics(&query.text).into_iter().map(|m| (query.panel.clone(), m)));
    }
    for expr in expressions(&text("prometheus/rules.yaml")?) {
        used.extend(promql::metrics(&expr).into_iter().map(|m| ("an alert".to_owned(), m)));
    }
    Ok(outcome(&trouble(&known, &used)))
}

/// Names in the first cells of tables whose first heading is `name`.
fn names(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in page.lines() {
        let Some(row) = line.trim().strip_prefix('|') else {
            inside = false;
            continue;
        };
        let first = row.split('|').next().unwrap_or_default().trim();
        match first {
            "name" | "metric" | "Name" | "Metric" => inside = true,
            _ if inside => {
                let quoted = first.split('`').skip(1).step_by(2);
                names.extend(quoted.map(|n| n.split('{').next().unwrap_or_default().to_owned()));
            }
            _ => {}
        }
    }
    names
}

/// The expressions of a rule file: on the line of `expr:`, or indented below `expr: |`.
fn expressions(rules: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut block: Option<usize> = None;
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(outer) = block
            && let Some(last) = found.last_mut()
            && indent > outer
        {
            last.push_str(line.trim());
            last.push('\n');
            continue;
        }
        block = None;
        if let Some(expr) = line.trim().strip_prefix("expr: ") {
            if expr == "|" {
                block = Some(indent);
                found.push(String::new());
            } else {
                found.push(expr.to_owned());
            }
        }
    }
    found
}

/// Names that the table does not have, and names of the table that nothing uses.
fn trouble(known: &BTreeSet<String>, used: &[(String, String)]) -> Vec<String> {
    let base = |name: &str| {
        let part = PARTS.iter().find_map(|part| name.strip_suffix(part));
        part.filter(|name| known.contains(*name)).unwrap_or(name).to_owned()
    };
    let mut wrong: Vec<String> = used
        .iter()
        .filter(|(_, name)| !known.contains(&base(name)) && !OF_PROMETHEUS.contains(&name.as_str()))
        .map(|(place, name)| format!("{place}: {PAGE} has no metric {name}"))
        .collect();
    let used: BTreeSet<String> = used.iter().map(|(_, name)| base(name)).collect();
    for name in known.iter().filter(|name| !used.contains(*name)) {
        wrong.push(format!("{name} is on no panel and in no alert"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| name | kind |\n| --- | --- |\n| `dl_a_seconds` | histogram |\n\
                        | `dl_b_total`, `dl_c{table_id}` | counter |\n\nText `no`.\n\n\
                        | flag | default |\n| --- | --- |\n| `--listen` | none |\n";

    #[test]
    fn names_are_those_of_the_table() {
        let names: Vec<String> = names(PAGE).into_iter().collect();
        assert_eq!(names, ["dl_a_seconds", "dl_b_total", "dl_c"]);
    }

    #[test]
    fn unknown_and_unused_names_are_noticed() {
        let used = |list: &[&str]| -> Vec<(String, String)> {
            list.iter().map(|name| ("P".to_owned(), (*name).to_owned())).collect()
        };
        let known = names(PAGE);
        assert!(
            trouble(&known, &used(&["dl_a_seconds_bucket", "dl_b_total", "dl_c", "up"])).is_empty()
        );
        let wrong = trouble(&known, &used(&["dl_a_seconds_count", "dl_b", "dl_c"]));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn expressions_are_found() {
        let rules = "- alert: A\n  expr: up == 0\n  for: 1m\n- alert: B\n  expr: |\n    a\n      > 1\n  for: 2m\n";
        assert_eq!(expressions(rules), ["up == 0", "a\n> 1\n"]);
    }
}
