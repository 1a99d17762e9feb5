//! A config file with all keys, and their JSON Schema.

use std::fmt::Write;

use serde_json::Value;

use super::model::{ALIASES, SECTIONS, Settings};

/// How a config file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

/// A config file with all keys. Those that are no `#` comment hold: the catalog alone.
#[must_use]
pub fn example(syntax: Syntax) -> String {
    let mut text = String::from(
        "# Configuration of dl and of programs that embed deltalakedb.\n\
         # `dl config check` looks whether it is right, `dl config show` where each value is from.\n\
         # Lines that begin with '#' and a key say what may stand there.\n\
         # ${NAME}, ${NAME:-default}: a variable of the environment; $$: a dollar sign.\n",
    );
    // Text is only written to memory: that does not fail.
    let mut line = |line: &str| {
        let _ = writeln!(text, "{}", line.trim_end());
    };
    for section in SECTIONS {
        line("");
        for about in section.about {
            line(&format!("#{about}"));
        }
        let indent = match (syntax, section.name) {
            (_, "") => "",
            (Syntax::Toml, name) => {
                line(&format!("[{name}]"));
                ""
            }
            (Syntax::Yaml, name) => {
                let (outer, name) =
                    name.rsplit_once('.').map_or((None, name), |(o, n)| (Some(o), n));
                // A section within another one follows it.
                let (indent, within) = if outer.is_some() { ("  ", "    ") } else { ("", "  ") };
                line(&format!("{indent}{name}:"));
                within
            }
        };
        for key in section.keys {
            for about in key.about {
                line(&format!("{indent}#{about}"));
            }
            let mut variables = vec![key.own_variable()];
            variables.extend(key.variables.iter().map(|name| (*name).to_owned()));
            variables.dedup();
            line(&format!(
                "{indent}# {}. Default: {}. Environment: {}",
                key.kind,
                key.default,
                variables.join(", ")
            ));
            let comment = if key.path == "catalog" { "" } else { "#" };
            let (_, name) = key.split();
            line(&match syntax {
                Syntax::Toml => format!("{indent}{comment}{name} = {}", key.example),
                Syntax::Yaml => format!("{indent}{comment}{name}: {}", key.example),
            });
        }
    }
    line("");
    line("# Profiles hold when DELTA_PROFILE, ENVIRONMENT or the key profile names them.");
    match syntax {
        Syntax::Toml => {
            line("#[profiles.production.cache]");
            line("#size = \"1GiB\"");
        }
        Syntax::Yaml => {
            line("#profiles:");
            line("#  production:");
            line("#    cache:");
            line("#      size: \"1GiB\"");
        }
    }
    text
}

/// The JSON Schema of config files (draft 2020-12), for editors.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Settings).to_value();
    for (alias, key) in ALIASES {
        add_alias(&mut schema, alias, key);
    }
    let profile = {
        let mut profile = schema.clone();
        if let Some(object) = profile.as_object_mut() {
            for name in ["$schema", "$defs", "title"] {
                object.remove(name);
            }
            if let Some(keys) = object.get_mut("properties").and_then(Value::as_object_mut) {
                keys.remove("profile");
            }
        }
        profile
    };
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Configuration of deltalakedb".into());
        if let Some(keys) = object.get_mut("properties").and_then(Value::as_object_mut) {
            keys.insert(
                "profiles".to_owned(),
                serde_json::json!({
                    "description": "What holds besides when a profile is chosen, by its name.",
                    "type": "object",
                    "additionalProperties": profile,
                }),
            );
        }
    }
    schema
}

/// Another name of a key is described as the key is.
fn add_alias(schema: &mut Value, alias: &str, key: &str) {
    let pointer = |path: &str| match path.split_once('.') {
        Some((section, name)) => {
            (format!("/$defs/{}/properties", capital(section)), name.to_owned())
        }
        None => ("/properties".to_owned(), path.to_owned()),
    };
    let (place, name) = pointer(key);
    let Some(described) = schema.pointer(&place).and_then(|keys| keys.get(&name)).cloned() else {
        return;
    };
    let (place, name) = pointer(alias);
    if let Some(keys) = schema.pointer_mut(&place).and_then(Value::as_object_mut) {
        keys.insert(name, described);
    }
}

/// A section's name as that of its struct.
fn capital(section: &str) -> String {
    let mut letters = section.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}
