//! `cargo xtask loops`: files of a crate that import each other in a loop.
//!
//! A module and its own submodules may know each other; no other files may. The imports are those of the
//! code itself, read by `syn`; tests, doc comments and the insides of macros do not count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

use crate::workspace;

/// A module's place in its crate: `["copy", "source"]`; the crate's root is empty.
type Module = Vec<String>;

/// Loops of all crates, printed. Whether there is none.
pub(crate) fn check() -> Result<bool> {
    let mut found = false;
    for folder in ["crates", "examples"] {
        let folder = workspace::root().join(folder);
        let Ok(crates) = std::fs::read_dir(&folder) else { continue };
        for package in crates {
            let source = package.context("cannot list the crates")?.path().join("src");
            for files in loops(&source)? {
                found = true;
                println!("error: these files import each other in a loop:");
                for file in files {
                    println!(
                        "  {}",
                        file.strip_prefix(workspace::root()).unwrap_or(&file).display()
                    );
                }
            }
        }
    }
    Ok(!found)
}

/// Groups of files that import each other, but for a module and its submodules.
fn loops(source: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let mut files = BTreeMap::new();
    collect(source, source, &mut files)?;
    let modules: Vec<&Module> = files.keys().collect();
    let mut graph = DiGraphMap::<usize, ()>::new();
    for (from, module) in modules.iter().enumerate() {
        let Some(file) = files.get(*module) else { continue };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let parsed =
            syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        let mut imports = Imports { module, paths: Vec::new() };
        imports.visit_file(&parsed);
        for path in imports.paths {
            // The longest part of the path that is a file.
            let used = (0..=path.len()).rev().find_map(|end| {
                modules.iter().position(|known| Some(&known[..]) == path.get(..end))
            });
            if let Some(to) = used
                && !related(module, modules[to])
            {
                graph.add_edge(from, to, ());
            }
        }
    }
    let circles = tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1);
    Ok(circles
        .map(|circle| circle.iter().filter_map(|at| files.get(modules[*at]).cloned()).collect())
        .collect())
}

/// Whether one is a submodule of the other.
fn related(one: &Module, other: &Module) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn collect(source: &Path, folder: &Path, files: &mut BTreeMap<Module, PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.context("cannot list a folder")?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| !name.contains("test")) else { continue };
        if path.is_dir() {
            collect(source, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = folder.strip_prefix(source).unwrap_or(folder);
            let mut module: Module =
                inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if !["lib", "main", "mod"].contains(&name.as_str()) {
                module.push(name);
            }
            files.insert(module, path);
        }
    }
    Ok(())
}

/// Paths into the same crate that a file mentions.
struct Imports<'m> {
    module: &'m Module,
    paths: Vec<Module>,
}

impl Imports<'_> {
    /// A path of the code, from the root of the crate on; none if it leads elsewhere.
    fn resolve(&mut self, segments: &[String]) {
        let mut base = match segments.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        for segment in segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => {
                    base.pop();
                }
                name => base.push(name.to_owned()),
            }
        }
        self.paths.push(base);
    }

    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) => self.resolve(&with(name.ident.to_string())),
            UseTree::Rename(name) => self.resolve(&with(name.ident.to_string())),
            UseTree::Glob(_) => self.resolve(before),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, before)),
        }
    }
}

/// `#[cfg(test)]`, or of a feature for tests.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.resolve(&segments);
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let folder =
            std::env::temp_dir().join(format!("loops-{}-{}", std::process::id(), files.len()));
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut found: Vec<Vec<String>> = loops(&folder)
            .unwrap()
            .into_iter()
            .map(|circle| {
                let name = |p: &PathBuf| p.strip_prefix(&folder).unwrap().display().to_string();
                let mut names: Vec<String> = circle.iter().map(name).collect();
                names.sort();
                names
            })
            .collect();
        found.sort();
        std::fs::remove_dir_all(&folder).unwrap();
        found
    }

    #[test]
    fn a_loop_of_files_is_found_and_that_of_a_parent_is_none() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::{self, B}; pub struct A;"),
            ("b.rs", "fn f() { let _ = super::c::C; }"),
            ("c.rs", "mod d; use d::D; type X = crate::a::A;"),
            ("c/d.rs", "use super::C; pub struct D;"),
        ]);
        assert_eq!(found, [["a.rs", "b.rs", "c.rs"]]);
    }

    #[test]
    fn tests_and_comments_import_nothing() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "//! [`crate::b`]\nuse crate::b::B;"),
            ("b.rs", "/// [`crate::a`]\npub struct B;\n#[cfg(test)]\nmod tests { use crate::a; }"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
