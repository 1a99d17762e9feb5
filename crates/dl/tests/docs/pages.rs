//! A test for each page with blocks.

use std::process::Command;

use deltalakedb_test_servers::skip;

use crate::markdown::{page, pages, root};
use crate::session;

/// Runs a page; says which of its blocks could not run here.
fn check(name: &str) {
    let outcome = session::run(&page(name));
    assert!(outcome.wrong.is_empty(), "{}", outcome.wrong.join("\n\n"));
    for (needs, why) in &outcome.missing {
        skip(needs, why);
    }
    println!("{name}: blocks that ran: {}", outcome.ran);
}

/// Declares a test for each page, and one that none is missing.
macro_rules! pages {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test] fn $test() { check($name); })+

        #[test]
        fn every_page_with_blocks_has_a_test() {
            let found: Vec<String> = pages()
                .into_iter()
                .filter(|page| page.blocks().iter().any(|block| block.language != "text"))
                .map(|page| page.name)
                .collect();
            assert_eq!(found, [$($name),+]);
        }
    };
}

pages! {
    contributing: "CONTRIBUTING.md",
    readme: "README.md",
    dev_readme: "dev/README.md",
    databases_mysql: "docs/src/databases/mysql.md",
    databases_postgresql: "docs/src/databases/postgresql.md",
    databases_replicas_and_cache: "docs/src/databases/replicas-and-cache.md",
    databases_sql_server: "docs/src/databases/sql-server.md",
    databases_sqlite: "docs/src/databases/sqlite.md",
    databases_views: "docs/src/databases/views.md",
    embedding_deltalake: "docs/src/embedding/deltalake.md",
    embedding_rust: "docs/src/embedding/rust.md",
    moving: "docs/src/moving.md",
    operate_audit: "docs/src/operate/audit.md",
    operate_backup: "docs/src/operate/backup.md",
    operate_configuration: "docs/src/operate/configuration.md",
    operate_deploy: "docs/src/operate/deploy.md",
    operate_freeze: "docs/src/operate/freeze.md",
    operate_maintain: "docs/src/operate/maintain.md",
    operate_metrics: "docs/src/operate/metrics.md",
    operate_security: "docs/src/operate/security.md",
    operate_upkeep: "docs/src/operate/upkeep.md",
    publishing_one_writer: "docs/src/publishing/one-writer.md",
    publishing_publishing: "docs/src/publishing/publishing.md",
    publishing_repair: "docs/src/publishing/repair.md",
    publishing_vacuum: "docs/src/publishing/vacuum.md",
    python: "docs/src/python.md",
    reading: "docs/src/reading.md",
    serve: "docs/src/serve.md",
    sql: "docs/src/sql.md",
    start_command_line: "docs/src/start/command-line.md",
    start_first_table: "docs/src/start/first-table.md",
    start_install: "docs/src/start/install.md",
    storage: "docs/src/storage.md",
}

/// `cargo test --doc -p deltalakedb` compiles and runs them.
#[test]
fn pages_with_rust_are_doctests() {
    let facade = root().join("crates/deltalakedb/src/lib.rs");
    let facade = std::fs::read_to_string(facade).unwrap();
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.language == "rust") {
            let included = facade.contains(&format!("include_str!(\"../../../{}\")", page.name));
            assert!(included, "{}: deltalakedb/src/lib.rs does not include the page", block.place);
        }
    }
}

/// `dl mirror run`, wherever it stands in a sentence, is a command.
#[test]
fn commands_in_sentences_exist() {
    let mut seen = std::collections::BTreeSet::new();
    for page in pages() {
        for (line, span) in page.code() {
            let Some(rest) = span.strip_prefix("dl ") else { continue };
            let words: Vec<&str> = rest
                .split_whitespace()
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .take_while(|word| !word.starts_with('-'))
                .collect();
            if words.is_empty() || !seen.insert(words.join(" ")) {
                continue;
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_dl"));
            let output = command.args(&words).arg("--help").output().unwrap();
            // A build without the query engine knows these commands, and says that it lacks them.
            let lacks = !cfg!(feature = "sql")
                && String::from_utf8_lossy(&output.stderr).contains("without its query engine");
            let exists = output.status.success() || lacks;
            assert!(exists, "{}:{line}: there is no `{span}`", page.name);
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

/// Each code of an error has a row with cause and remedy, and no row has a code that is none.
#[test]
fn every_error_code_is_explained() {
    let source = root().join("crates/catalog-core/src/error.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let (_, after) = source.split_once("pub fn code(&self) -> &'static str {").unwrap();
    let (body, _) = after.split_once("\n    }\n").unwrap();
    let mut codes: Vec<&str> =
        body.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect();
    let page = page("docs/src/operate/troubleshooting.md");
    let (_, table) = page.text.split_once("## Error codes\n").unwrap();
    let mut rows = Vec::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        rows.push(cells[0].trim_end_matches('`'));
    }
    codes.sort_unstable();
    rows.sort_unstable();
    assert!(codes.len() > 8, "{codes:?}");
    assert_eq!(codes, rows, "codes of CatalogError, and rows of {}", page.name);
}

/// Says which blocks no test runs, and why.
#[test]
fn blocks_that_need_more_than_a_test_has() {
    let mut why = Vec::new();
    for page in pages() {
        for block in page.blocks() {
            if let Some(needs) = block.value("needs") {
                why.push(format!("{} needs {}", block.place, needs.replace('-', " ")));
            }
        }
    }
    if !why.is_empty() {
        skip(&[], format!("blocks that are read, not run: {}", why.join("; ")));
    }
}
