//! Comparing what a block printed with what the page shows.

/// What is wrong with the output, if anything is. `…` stands for any text in a line, and on a line of its own
/// for any lines. Runs of blanks count as one blank: the columns of a table may be wider elsewhere.
pub(crate) fn difference(shown: &str, printed: &str) -> Option<String> {
    let shown = lines(shown);
    let printed_lines = lines(printed);
    (!lines_match(&shown, &printed_lines))
        .then(|| format!("the page shows\n{}\nand it printed\n{printed}", shown.join("\n")))
}

fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn lines_match(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed
            .split_first()
            .is_some_and(|(first, others)| line_matches(line, first) && lines_match(rest, others)),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == printed };
    let Some(tail) = printed.strip_prefix(start) else { return false };
    let ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
    ends.into_iter().any(|at| line_matches(rest, &tail[at..]))
}

#[test]
fn output_is_compared() {
    for (shown, printed, same) in [
        ("a  b\n", "a b\n\n", true),
        ("a b", "a c", false),
        ("at … by ann", "at 12:00 by ann", true),
        ("at … by ann", "at 12:00 by bob", false),
        ("…", "", true),
        ("a\n…\nz", "a\nb\nc\nz", true),
        ("a\n…\nz", "a\nb\nc", false),
        ("a", "a\nb", false),
        ("", "a", false),
    ] {
        assert_eq!(difference(shown, printed).is_none(), same, "{shown:?}: {printed:?}");
    }
}
