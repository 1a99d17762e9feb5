//! The dashboard: Grafana's JSON, with queries that Prometheus can read.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{outcome, text, tools};
use crate::steps::{Outcome, passed};
use crate::workspace;

/// What Grafana puts in the place of its variables, for a check.
const VARIABLES: [(&str, &str); 5] = [
    ("$__rate_interval", "5m"),
    ("$__range", "3h"),
    ("$job", "deltalakedb.*"),
    ("$instance", ".*"),
    ("${datasource}", ""),
];

/// A query of a panel.
#[derive(Debug)]
pub(super) struct Query {
    /// Title of the panel.
    pub(super) panel: String,
    /// The query, with values in the place of variables.
    pub(super) text: String,
}

/// promtool reads each query; each panel has a title of its own, queries, and the data source that a reader chose.
pub(super) fn check() -> Result<Outcome> {
    let dashboard = text("grafana/dashboard.json")?;
    let dashboard: Value = serde_json::from_str(&dashboard).context("dashboard.json")?;
    let wrong = trouble(&dashboard);
    if !wrong.is_empty() {
        return Ok(outcome(&wrong));
    }
    let queries = queries(&dashboard)?;
    ensure!(!queries.is_empty(), "dashboard.json has no query");
    let folder = workspace::target().join("xtask");
    std::fs::create_dir_all(&folder).context("cannot make the folder for a rule file")?;
    let file = folder.join("dashboard-rules.yaml");
    std::fs::write(&file, rules(&queries)).context("cannot write the rule file")?;
    println!("{} queries", queries.len());
    passed(tools::system("promtool")?.args(["check", "rules"]).arg(&file))
}

/// The queries as a rule file: a string of JSON is one of YAML.
fn rules(queries: &[Query]) -> String {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let _ = writeln!(rules, "      # {}", query.panel);
        let _ = writeln!(rules, "      - record: dashboard:query{number}");
        let _ = writeln!(rules, "        expr: {}", Value::from(query.text.as_str()));
    }
    rules
}

/// All queries of panels.
pub(super) fn queries(dashboard: &Value) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().with_context(|| format!("{title}: no expr"))?;
            queries.push(Query { panel: title.to_owned(), text: filled_in(expr) });
        }
    }
    Ok(queries)
}

/// A query with values in the place of Grafana's variables.
fn filled_in(expr: &str) -> String {
    VARIABLES.iter().fold(expr.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Panels, also those in rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let outer = dashboard["panels"].as_array().into_iter().flatten();
    outer
        .flat_map(|p| std::iter::once(p).chain(p["panels"].as_array().into_iter().flatten()))
        .collect()
}

/// What is wrong apart from the language of queries.
fn trouble(dashboard: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    if !variables.contains(&"datasource") {
        wrong.push("there is no variable for the data source".to_owned());
    }
    let mut ids = Vec::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        let id = panel["id"].as_i64();
        if id.is_none() || ids.contains(&id) {
            wrong.push(format!("{title}: its id is missing or another panel's"));
        }
        ids.push(id);
        if title.is_empty() {
            wrong.push(format!("panel {id:?} has no title"));
        }
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        if targets.is_empty() {
            wrong.push(format!("{title}: no query"));
        }
        for target in targets {
            if target["datasource"]["uid"] != "${datasource}" {
                wrong.push(format!("{title}: a query that does not go to ${{datasource}}"));
            }
            let left = filled_in(target["expr"].as_str().unwrap_or_default());
            if left.contains('$') {
                wrong.push(format!("{title}: a variable that nobody knows: {left}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dashboard(expr: &str, uid: &str) -> Value {
        json!({
            "templating": {"list": [{"name": "datasource"}]},
            "panels": [
                {"id": 1, "type": "row", "title": "R", "panels": []},
                {"id": 2, "type": "stat", "title": "P", "targets": [{"expr": expr, "datasource": {"uid": uid}}]},
            ],
        })
    }

    #[test]
    fn variables_are_filled_in() {
        let right = dashboard("rate(a{job=~\"$job\"}[$__rate_interval])", "${datasource}");
        assert!(trouble(&right).is_empty());
        let queries = queries(&right).unwrap();
        assert_eq!(queries[0].text, "rate(a{job=~\"deltalakedb.*\"}[5m])");
        assert!(rules(&queries).contains("expr: \"rate(a{job=~\\\"deltalakedb.*\\\"}[5m])\""));
    }

    #[test]
    fn wrong_panels_are_noticed() {
        for (wrong, word) in [
            (dashboard("a{x=\"$other\"}", "${datasource}"), "$other"),
            (dashboard("a", "my-prometheus"), "does not go to"),
            (json!({"panels": []}), "no variable for the data source"),
        ] {
            let found = trouble(&wrong);
            assert!(found.iter().any(|line| line.contains(word)), "{word}: {found:?}");
        }
    }
}
