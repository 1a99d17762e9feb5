//! `${VAR}`, `${VAR:-default}` and `$$` in values of config files.

/// The text with its variables replaced. What a variable holds is not looked at again.
///
/// # Errors
/// Which variable is not there, or what is wrong with the notation. No value is repeated.
pub(crate) fn interpolate(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        done.push_str(before);
        let after = dollar.get(1..).unwrap_or_default();
        if let Some(after) = after.strip_prefix('$') {
            done.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('{') {
            let Some((inner, after)) = inner.split_once('}') else {
                return Err("'${' without its '}'. Write '$$' for a dollar sign".to_owned());
            };
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            if !is_name(name) {
                return Err(
                    "between '${' and '}' stands the name of a variable, or NAME:-default. Write '$$' for a \
                     dollar sign"
                        .to_owned(),
                );
            }
            match (variable(name), default) {
                (Some(value), _) => done.push_str(&value),
                (None, Some(default)) => done.push_str(default),
                (None, None) => {
                    return Err(format!(
                        "the environment variable {name} is not set. Set it, or write ${{{name}:-default}}"
                    ));
                }
            }
            rest = after;
        } else {
            // A dollar sign of a password, say. Nothing else begins with one.
            done.push('$');
            rest = after;
        }
    }
    done.push_str(rest);
    Ok(done)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_dollar_signs() {
        let world = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "B" => Some("${A}$$".to_owned()),
            _ => None,
        };
        for (text, becomes) in [
            ("", ""),
            ("plain", "plain"),
            ("${A}", "1"),
            ("x${A}y${A}z", "x1y1z"),
            ("${B}", "${A}$$"),
            ("${C:-}", ""),
            ("${C:-a:-b}", "a:-b"),
            ("${A:-2}", "1"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("pa$word", "pa$word"),
            ("$", "$"),
            ("größe ${A} €", "größe 1 €"),
            // Passwords that other programs broke: remco #120, symfony #28435, and others.
            ("uhQhu4watyTgn$Q$", "uhQhu4watyTgn$Q$"),
            ("pa$USERword", "pa$USERword"),
            ("$2y$10$YXpo2rBBol8mRB4JGMn99u", "$2y$10$YXpo2rBBol8mRB4JGMn99u"),
            ("m$ypass$wor@d", "m$ypass$wor@d"),
        ] {
            assert_eq!(interpolate(text, &world).unwrap(), becomes, "{text}");
        }
        for (text, word) in [
            ("${C}", "C is not set"),
            ("${A", "'}'"),
            ("${}", "name"),
            ("${a b}", "name"),
            ("${A-x}", "name"),
        ] {
            let error = interpolate(text, &world).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
