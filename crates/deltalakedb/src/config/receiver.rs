//! How the address of a receiver of traces is written, and what is sent to it with each request.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use url::Url;

/// Most pairs of a list.
const MOST_PAIRS: usize = 64;
/// Longest list, bytes.
const LONGEST_LIST: usize = 16 * 1_024;

/// Reads `name=value,name=value`, the form of W3C Baggage, with values percent-encoded. The error never repeats the
/// text.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    const FORM: &str = "must be a list as name=value,other=value; a comma, a space or a percent sign within a \
                        value is written as %2C, %20, %25";
    if text.len() > LONGEST_LIST {
        return Err(format!("is longer than {LONGEST_LIST} bytes"));
    }
    let mut pairs = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or(FORM)?;
        let decoded =
            |text: &str| percent_decode_str(text.trim()).decode_utf8().map(Cow::into_owned);
        let (Ok(name), Ok(value)) = (decoded(name), decoded(value)) else {
            return Err(FORM.to_owned());
        };
        if name.is_empty() {
            return Err(FORM.to_owned());
        }
        pairs.push((name, value));
    }
    if pairs.is_empty() {
        return Err(FORM.to_owned());
    }
    if pairs.len() > MOST_PAIRS {
        return Err(format!("has more than {MOST_PAIRS} pairs"));
    }
    Ok(pairs)
}

/// Headers of requests, checked as HTTP wants them.
pub(super) fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut headers = pairs(text)?;
    for (name, value) in &mut headers {
        name.make_ascii_lowercase();
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !name.bytes().all(fine) {
            return Err("has a name that is none of an HTTP header".to_owned());
        }
        if ["host", "content-type", "content-length", "transfer-encoding"].contains(&name.as_str())
        {
            return Err(format!("the header {name} is set by this program"));
        }
        if !value.bytes().all(|b| (b' '..=b'~').contains(&b) || b >= 0x80) {
            return Err("has a value with control characters".to_owned());
        }
    }
    Ok(headers)
}

/// The URL of a receiver. The error never repeats the text.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
        .ok_or("must be the URL of a receiver of OTLP over HTTP, as http://127.0.0.1:4318")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "has a login in it: put it into logging.otlp.headers, as authorization=Basic%20…"
                .to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query in it: a key belongs into logging.otlp.headers".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_other_programs_write_them() {
        let read = |text: &str| headers(text).unwrap();
        let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        // A token in base 64 ends with signs of equality; a space and a comma are encoded; a list may end with a comma.
        assert_eq!(read("Authorization=Basic%20YTpi=="), of(&[("authorization", "Basic YTpi==")]));
        assert_eq!(read("api-key=a%2Cb , x=1,"), of(&[("api-key", "a,b"), ("x", "1")]));
        assert_eq!(read("Authorization=Bearer abc"), of(&[("authorization", "Bearer abc")]));
        for wrong in [
            "geheim",
            "=geheim",
            "a b=geheim",
            "x=geheim%0d%0aset-cookie: 1",
            "x=%ff",
            "content-type=geheim",
            "",
            ",",
        ] {
            let error = headers(wrong).unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
        assert!(pairs(&"a=b,".repeat(65)).is_err());
        assert!(pairs(&"x".repeat(20_000)).is_err());
    }

    #[test]
    fn an_address_has_no_secret_in_it() {
        for right in ["http://127.0.0.1:4318", "https://otel.example/otlp/", "http://[::1]:4318"] {
            assert_eq!(endpoint(right).unwrap().host_str().map(str::is_empty), Some(false));
        }
        for wrong in [
            "localhost:4317",
            "grpc://otel.example:4317",
            "http://",
            "https://ann:geheim@otel.example",
            "https://otel.example/?key=geheim",
            "geheim",
        ] {
            let error = endpoint(wrong).unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
