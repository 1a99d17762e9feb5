//! The alerts: right, tested, and explained.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{outcome, page, place, text, tools};
use crate::steps::{Outcome, passed};

/// The page with a section for each alert.
pub(super) const RUNBOOK: &str = "operate/alerts.md";

/// promtool's own checks and the unit tests; then what promtool does not ask for.
pub(super) fn check() -> Result<Outcome> {
    let folder = place("prometheus");
    for arguments in [
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ] {
        let mut promtool = tools::system("promtool")?;
        if let Outcome::Failed = passed(promtool.args(arguments).current_dir(&folder))? {
            return Ok(Outcome::Failed);
        }
    }
    let rules = text("prometheus/rules.yaml")?;
    let mut wrong = untested(&names(&rules), &text("prometheus/rules_test.yaml")?);
    let runbook = std::fs::read_to_string(page(RUNBOOK)).context("cannot read the runbook")?;
    wrong.extend(unexplained(&rules, &runbook));
    Ok(outcome(&wrong))
}

/// Names of the alerts, in order. promtool has read the file: its shape is known.
fn names(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// Alerts without a case that fires, or without one that does not.
fn untested(alerts: &[&str], tests: &str) -> Vec<String> {
    let mut cases: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let mut alert = "";
    for line in tests.lines().map(|line| line.trim().trim_start_matches("- ")) {
        if let Some(name) = line.strip_prefix("alertname: ") {
            alert = name;
        } else if let Some(expected) = line.strip_prefix("exp_alerts:") {
            let (fires, quiet) = cases.entry(alert).or_default();
            *if expected.is_empty() { fires } else { quiet } = true;
        }
    }
    let mut wrong = Vec::new();
    for alert in alerts {
        let (fires, quiet) = cases.get(alert).copied().unwrap_or_default();
        for (there, what) in [(fires, "fires"), (quiet, "does not fire")] {
            if !there {
                wrong.push(format!("rules_test.yaml has no case in which {alert} {what}"));
            }
        }
    }
    wrong
}

/// Alerts whose section is not there, and sections without an alert.
fn unexplained(rules: &str, runbook: &str) -> Vec<String> {
    let sections: Vec<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("## Dl").map(|_| &line[3..])).collect();
    let mut wrong = Vec::new();
    let alerts = names(rules);
    for alert in &alerts {
        let url = format!("runbook_url: docs/src/{RUNBOOK}#{}", alert.to_lowercase());
        if !rules.lines().any(|line| line.trim() == url) {
            wrong.push(format!("rules.yaml: {alert} has no line `{url}`"));
        }
        if !sections.contains(alert) {
            wrong.push(format!("{RUNBOOK} has no section `## {alert}`"));
        }
    }
    for section in sections.iter().filter(|section| !alerts.contains(section)) {
        wrong.push(format!("{RUNBOOK}: there is no alert {section}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "      - alert: DlOne\n        annotations:\n          \
                         runbook_url: docs/src/operate/alerts.md#dlone\n";

    #[test]
    fn each_alert_needs_both_cases() {
        let fires = "- eval_time: 2m\n  alertname: DlOne\n  exp_alerts:\n    - exp_labels: {}\n";
        let quiet = "- alertname: DlOne\n  exp_alerts: []\n";
        let other = "- alertname: DlTwo\n  exp_alerts: []\n";
        let count = |tests: &str| untested(&names(RULES), tests).len();
        assert_eq!(count(&format!("{fires}{quiet}")), 0);
        assert_eq!(count(fires), 1);
        assert_eq!(count(&format!("{fires}{other}")), 1);
        assert_eq!(count(""), 2);
    }

    #[test]
    fn each_alert_has_a_section_and_each_section_an_alert() {
        assert!(unexplained(RULES, "# Alerts\n\n## DlOne\n\n## Severities\n").is_empty());
        assert_eq!(unexplained(RULES, "## DlOnes\n").len(), 2);
        assert_eq!(unexplained(&RULES.replace("#dlone", "#dltwo"), "## DlOne\n").len(), 1);
    }
}
