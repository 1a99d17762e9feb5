//! The names of metrics in a query of Prometheus. promtool says whether a query is right; it does not say what
//! the query asks for.

/// Words that are no metric and no function.
const WORDS: [&str; 12] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "atan2",
    "start",
    "end",
    "inf",
    "nan",
    "group_left",
    "group_right",
];

/// Words before a list of labels.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Names of metrics, in order, repeated as often as the query does. The query must be right.
pub(super) fn metrics(query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = query;
    let mut last = String::new();
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            let lower = word.to_ascii_lowercase();
            // `sum (…)`, `sum by (…) (…)`.
            let next = after.trim_start();
            let called =
                ["(", "by ", "by(", "without ", "without("].iter().any(|w| next.starts_with(w));
            if !called && !WORDS.contains(&lower.as_str()) && !LISTS.contains(&lower.as_str()) {
                found.push(word.to_owned());
            }
            last = lower;
            continue;
        }
        rest = match first {
            // Matchers: names of labels and strings.
            '{' => after_closing(rest, '}'),
            // A range or a subquery: durations.
            '[' => after_closing(rest, ']'),
            '"' | '\'' | '`' => after_string(rest, first),
            '(' if LISTS.contains(&last.as_str()) => after_closing(rest, ')'),
            // A number, or a duration behind `offset`.
            '0'..='9' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
                &rest[end.unwrap_or(rest.len())..]
            }
            other => &rest[other.len_utf8()..],
        };
        if !first.is_whitespace() {
            last.clear();
        }
    }
    found
}

/// What follows the closing bracket; strings may contain one.
fn after_closing(text: &str, closing: char) -> &str {
    let mut rest = &text[1..];
    while let Some(next) = rest.chars().next() {
        rest = match next {
            '"' | '\'' | '`' => after_string(rest, next),
            other => &rest[other.len_utf8()..],
        };
        if next == closing {
            break;
        }
    }
    rest
}

/// What follows a string, which begins here.
fn after_string(text: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            c if c == quote => return &text[at + quote.len_utf8()..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::metrics;

    #[test]
    fn names_are_found() {
        for (query, want) in [
            ("up", "up"),
            ("max by (job, table_id) (dl_lag) > 5", "dl_lag"),
            ("max(dl_lag) by (job)", "dl_lag"),
            ("rate(a_total{x=\"b{}) c\", y=~'d'}[5m] offset 1h) / b", "a_total b"),
            ("a and on (job, instance) group_left (version) b unless c", "a b c"),
            ("a / ignoring(code) group_right b", "a b"),
            ("time() - a{b=\"\\\"c\"} or vector(0)", "a"),
            ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m])))", "a_bucket"),
            ("0 * sum(rate(a[5m:1m])) + 1e3 > bool 2", "a"),
            ("absent(up{job=~\"x.*\"})", "up"),
            ("job:a:rate5m", "job:a:rate5m"),
            ("sum by (äa) (b)", "b"),
        ] {
            assert_eq!(metrics(query).join(" "), want, "{query}");
        }
    }
}
