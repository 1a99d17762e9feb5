//! Figures as pictures: cost against commits, files and writers.

use std::path::Path;

use plotters::prelude::*;

use crate::AnyError;
use crate::cases::Measured;

/// One picture: where a measurement stands on the horizontal axis, if it belongs there.
struct Plot {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    place: fn(&Measured) -> Option<f64>,
}

const PLOTS: [Plot; 4] = [
    Plot {
        file: "open-by-commits.svg",
        title: "Opening the latest version of 100,000 files, new process",
        x: "commits in the table",
        y: "ms",
        // T3 has other files: it would look like a table that gets cheaper with its commits.
        place: |m| (m.case == "open" && m.table != "T3").then_some(m.commits),
    },
    Plot {
        file: "plan-by-files.svg",
        title: "Finding ten files by a range of ids, new process",
        x: "files in the table",
        y: "ms",
        place: |m| (m.case == "plan-stats").then_some(m.files),
    },
    Plot {
        file: "list-by-files.svg",
        title: "Listing all files, new process",
        x: "files in the table",
        y: "ms",
        place: |m| (m.case == "list").then_some(m.files),
    },
    Plot {
        file: "commits-by-writers.svg",
        title: "Durable one-file commits to one table",
        x: "tasks of one process",
        y: "commits/s",
        place: |m| {
            // Of one table, so that each number of tasks is there once.
            m.case.strip_prefix("commit-").filter(|_| m.table == "T2")?.parse().ok()
        },
    },
];

/// Draws what was measured into a folder; a picture of which nothing was measured is left out.
pub(crate) fn draw(all: &[Measured], folder: &Path) -> Result<(), AnyError> {
    std::fs::create_dir_all(folder)?;
    for plot in &PLOTS {
        let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
        for measured in all {
            let Some(x) = (plot.place)(measured) else { continue };
            let point = (x, measured.median());
            match lines.iter_mut().find(|(side, _)| *side == measured.side) {
                Some((_, points)) => points.push(point),
                None => lines.push((&measured.side, vec![point])),
            }
        }
        if !lines.is_empty() {
            let path = folder.join(plot.file);
            picture(plot, &mut lines, &path).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("drawn: {}", path.display());
        }
    }
    Ok(())
}

/// Both axes are logarithmic.
fn picture(
    plot: &Plot,
    lines: &mut [(&str, Vec<(f64, f64)>)],
    path: &Path,
) -> Result<(), AnyError> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (least, most) = values.fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(v), m.max(v)));
        (least / 2.0)..(most * 2.0)
    };
    let (xs, ys) = (range(&mut points().map(|p| p.0)), range(&mut points().map(|p| p.1)));
    let mut measured_at: Vec<f64> = points().map(|p| p.0).collect();
    measured_at.sort_by(f64::total_cmp);
    measured_at.dedup();
    let root = SVGBackend::new(path, (720, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, names) = root.split_horizontally(600);
    let mut chart = ChartBuilder::on(&left)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(xs.log_scale().with_key_points(measured_at), ys.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(plot.x)
        .y_desc(plot.y)
        .x_label_formatter(&|x| whole(*x))
        .y_label_formatter(&|y| whole(*y))
        .draw()?;
    let mut line_y = 40;
    for (number, (side, points)) in lines.iter_mut().enumerate() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let colour = Palette99::pick(number).to_rgba();
        let style = colour.stroke_width(2);
        chart.draw_series(LineSeries::new(points.iter().copied(), style).point_size(4))?;
        names.draw(&PathElement::new([(0, line_y), (18, line_y)], style))?;
        names.draw(&Text::new((*side).to_owned(), (24, line_y - 6), ("sans-serif", 13)))?;
        line_y += 20;
    }
    root.present()?;
    Ok(())
}

/// A number without decimals, in groups of three digits.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in
            [(1.0, "1"), (999.0, "999"), (1e3, "1,000"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(whole(number), text);
        }
    }

    #[test]
    fn what_was_measured_is_drawn_and_nothing_else() {
        let one = |case, side: &str, files: f64, ms: f64| Measured {
            table: "T2",
            case,
            unit: "ms",
            side: side.to_owned(),
            values: vec![ms],
            p99_ms: None,
            peak_mb: 1.0,
            commits: 1.0,
            files,
        };
        let all = [
            one("plan-stats", "SQLite", 1e6, 4.0),
            one("plan-stats", "SQLite", 1e5, 3.0),
            one("plan-stats", "duckdb", 1e5, 187.0),
            one("commit-8", "SQLite", 1e5, 3_000.0),
        ];
        let folder = tempfile::tempdir().unwrap();
        draw(&all, folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("plan-by-files.svg")).unwrap();
        for word in ["SQLite", "duckdb", "files in the table", "<polyline"] {
            assert!(text.contains(word), "{word}");
        }
        assert!(folder.path().join("commits-by-writers.svg").exists());
        assert!(text.contains("1,000,000"), "a label where something was measured");
        assert!(!folder.path().join("open-by-commits.svg").exists());
    }
}
