//! What to say about a key that there is not.

use super::model::{ALIASES, REFUSED, SECTIONS, keys};

/// Names that are more alike than this are taken for slips of each other.
const ALIKE: f64 = 0.8;

/// What is wrong with this path: what to write instead, or which keys there are.
pub(crate) fn unknown(path: &[String]) -> String {
    let whole = path.join(".");
    let section = path.first().map(String::as_str).unwrap_or_default();
    for name in [whole.as_str(), section] {
        if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return format!("is not there: {instead}");
        }
    }
    if let Some(nearest) = nearest(&whole) {
        return format!("there is no such key; did you mean {nearest}?");
    }
    let within = whole.rsplit_once('.').map_or("", |(within, _)| within);
    for section in [within, section] {
        let Some(known) = SECTIONS.iter().find(|known| known.name == section) else { continue };
        if section.is_empty() {
            continue;
        }
        let parts = SECTIONS.iter().filter_map(|part| {
            part.name.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        });
        let names: Vec<&str> = known.keys.iter().map(|key| key.split().1).chain(parts).collect();
        return format!("there is no such key; the section {section} has {}", names.join(", "));
    }
    let names: Vec<&str> = SECTIONS
        .iter()
        .map(|section| section.name)
        .filter(|name| !name.is_empty() && !name.contains('.'))
        .collect();
    format!(
        "there is no such key; there are catalog, format, profile, profiles and the sections {}",
        names.join(", ")
    )
}

/// The known path that is most like this one: by its whole, or the same name in another section.
fn nearest(path: &str) -> Option<&'static str> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let known = keys().map(|key| (key.path, key.path)).chain(ALIASES.iter().copied());
    known
        .filter_map(|(name, canonical)| {
            let (within, known_within) = (section_of(path), section_of(name));
            let whole = name;
            let name = name.rsplit('.').next().unwrap_or(name);
            // What all keys of a section begin with makes none of them likely.
            let by_path = if within == known_within {
                strsim::jaro_winkler(last, name)
            } else {
                strsim::jaro_winkler(path, whole)
            };
            let by_name = match strsim::damerau_levenshtein(last, name) {
                0 => 1.0,
                1 if name.len() > 3 => 0.95,
                2 if name.len() > 6 => 0.9,
                _ => 0.0,
            };
            let likeness: f64 =
                if by_name > 0.0 { by_name + by_path / 100.0 } else { by_path - 0.1 };
            (likeness >= ALIKE).then_some((likeness, canonical))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, canonical)| canonical)
}

fn section_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(section, _)| section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_the_right_key() {
        let say = |path: &str| unknown(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        for (path, right) in [
            ("connection.poolsize", "connection.pool_size"),
            ("connection.pool_sise", "connection.pool_size"),
            ("pool_size", "connection.pool_size"),
            ("cache.cache_size", "cache.size"),
            ("loging.level", "logging.level"),
            ("catalogue", "catalog"),
            ("maintenance.backup.kep", "maintenance.backup.keep"),
            ("maintenance.shedule", "maintenance.schedule"),
            ("mirror.lese", "mirror.lease"),
            ("database.passwort", "database.password"),
            ("monitoring.slow_call_treshold", "monitoring.slow_call_threshold"),
        ] {
            let text = say(path);
            assert!(text.contains(&format!("did you mean {right}?")), "{path}: {text}");
        }
        for (path, word) in [
            ("server.port", "on the command line"),
            ("security", "dl grants"),
            ("maintenance.zzzz", "has enabled, schedule, skipping_index"),
            ("maintenance.backup.zzzz", "has enabled, timeout, to, keep"),
            ("cache.ttl", "max_staleness"),
            ("mirror.zzzz", "concurrency"),
            ("zzzz", "sections database"),
        ] {
            let text = say(path);
            assert!(text.contains(word), "{path}: {text}");
        }
    }
}
