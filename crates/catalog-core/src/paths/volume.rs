//! What keys are in: a file system, a bucket, a container.

use super::encode;

/// Two volumes are the same if they are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Volume {
    /// This machine's file system.
    Local,
    /// A bucket of S3 (`s3`) or Google (`gs`), or a first-generation Data Lake account (`adl`).
    Bucket { family: &'static str, name: String },
    /// A container of Azure; its account may be an option of the table's.
    Azure { account: Option<String>, container: String },
    /// What else can be told apart.
    Other { scheme: String, authority: String },
}

/// Hosts of Azure containers; the account stands before.
const AZURE_HOSTS: [&str; 4] = [
    ".dfs.core.windows.net",
    ".blob.core.windows.net",
    ".dfs.fabric.microsoft.com",
    ".blob.fabric.microsoft.com",
];

/// File systems that are none of the others, and no mount point of one.
const SEPARATE: [&str; 4] = ["hdfs", "webhdfs", "swebhdfs", "memory"];

impl Volume {
    /// The volume of an absolute URI; takes its bucket off the key where that stands there. `root` is that
    /// of the table.
    pub(super) fn of(
        scheme: &str,
        authority: &str,
        key: &mut Vec<String>,
        root: &Volume,
    ) -> Result<Volume, String> {
        let decoded = percent_encoding::percent_decode_str(authority).decode_utf8_lossy();
        let authority = decoded.to_ascii_lowercase();
        // Old addresses of S3 have credentials before the bucket.
        let host = authority.rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
        match scheme {
            "file" if matches!(host, "" | "localhost") => Ok(Volume::Local),
            "file" => Err(format!("it is a file of the machine '{host}'")),
            "s3" | "s3a" | "s3n" | "gs" | "gcs" if host.is_empty() => match root {
                // `s3:/key`: Hadoop takes the table's own bucket.
                Volume::Bucket { family, .. } if scheme.starts_with(&family[..1]) => {
                    Ok(root.clone())
                }
                _ => Err("it names no bucket".to_owned()),
            },
            "s3" | "s3a" | "s3n" => Ok(Volume::Bucket { family: "s3", name: host.to_owned() }),
            "gs" | "gcs" => Ok(Volume::Bucket { family: "gs", name: host.to_owned() }),
            "adl" if host.contains('.') => {
                let name = host.split('.').next().unwrap_or(host).to_owned();
                Ok(Volume::Bucket { family: "adl", name })
            }
            "abfs" | "abfss" | "wasb" | "wasbs" | "az" | "azure" | "adl" => azure(&authority, root),
            "http" | "https" => web(scheme, host, key),
            scheme => {
                let authority = match host.strip_suffix(":8020") {
                    Some(host) if scheme == "hdfs" => host.to_owned(),
                    _ => host.to_owned(),
                };
                let other = Volume::Other { scheme: scheme.to_owned(), authority };
                if other == *root || SEPARATE.contains(&scheme) {
                    return Ok(other);
                }
                Err(format!(
                    "'{scheme}://' may be another way to the files of this table, which nobody can \
                     tell from here"
                ))
            }
        }
    }

    /// The volume of a reference that gives the authority and takes the scheme from this one.
    pub(super) fn at(&self, authority: &str) -> Result<Volume, String> {
        let scheme = match self {
            Volume::Local => "file",
            Volume::Bucket { family, .. } => family,
            Volume::Azure { .. } => "abfss",
            Volume::Other { scheme, .. } => scheme,
        };
        Volume::of(scheme, authority, &mut Vec::new(), self)
    }

    /// Whether the two are, or may be, the same.
    pub(super) fn may_be(&self, other: &Volume) -> bool {
        match (self, other) {
            (
                Volume::Azure { account: a, container: c },
                Volume::Azure { account: b, container: d },
            ) => c == d && (a.is_none() || b.is_none() || a == b),
            _ => self == other,
        }
    }

    /// The canonical URL of a key.
    pub(super) fn url(&self, key: &str) -> String {
        let key = encode(key);
        match self {
            Volume::Local => format!("file:///{key}"),
            Volume::Bucket { family, name } => format!("{family}://{name}/{key}"),
            Volume::Azure { account: Some(account), container } => {
                format!("abfss://{container}@{account}.dfs.core.windows.net/{key}")
            }
            Volume::Azure { account: None, container } => format!("az://{container}/{key}"),
            Volume::Other { scheme, authority } => format!("{scheme}://{authority}/{key}"),
        }
    }
}

/// `container@account.dfs.core.windows.net`, or just the container.
fn azure(authority: &str, root: &Volume) -> Result<Volume, String> {
    let Some((container, host)) = authority.split_once('@') else {
        if authority.is_empty() {
            return match root {
                Volume::Azure { .. } => Ok(root.clone()),
                _ => Err("it names no container".to_owned()),
            };
        }
        if authority.contains('.') {
            return Err(format!("'{authority}' names no container"));
        }
        // The account is that of the table's own container of this name, if it is that.
        return Ok(match root {
            Volume::Azure { container, .. } if container == authority => root.clone(),
            _ => Volume::Azure { account: None, container: authority.to_owned() },
        });
    };
    let account = azure_account(host).unwrap_or(host);
    Ok(Volume::Azure { account: Some(account.to_owned()), container: container.to_owned() })
}

fn azure_account(host: &str) -> Option<&str> {
    let host = host.strip_suffix(":443").unwrap_or(host);
    AZURE_HOSTS.iter().find_map(|known| host.strip_suffix(known))
}

/// An address of a web server: of one that serves a store that is known, or of none that can be told.
fn web(scheme: &str, host: &str, key: &mut Vec<String>) -> Result<Volume, String> {
    let host = host.strip_suffix(if scheme == "http" { ":80" } else { ":443" }).unwrap_or(host);
    let mut first = || -> Result<String, String> {
        if key.is_empty() {
            return Err(format!("no bucket stands behind '{host}'"));
        }
        Ok(key.remove(0))
    };
    if let Some(account) = azure_account(host) {
        let container = first()?.to_ascii_lowercase();
        return Ok(Volume::Azure { account: Some(account.to_owned()), container });
    }
    if host.ends_with(".amazonaws.com") {
        // `bucket.s3.region.amazonaws.com` or `s3.region.amazonaws.com/bucket`.
        let name = match host.find(".s3.").or_else(|| host.find(".s3-")) {
            Some(at) => host.get(..at).unwrap_or(host).to_owned(),
            None if host.starts_with("s3") => first()?,
            None => return Err(format!("'{host}' is no address of a bucket")),
        };
        return Ok(Volume::Bucket { family: "s3", name });
    }
    if host.ends_with(".r2.cloudflarestorage.com") {
        return Ok(Volume::Bucket { family: "s3", name: first()? });
    }
    if host == "storage.googleapis.com" {
        return Ok(Volume::Bucket { family: "gs", name: first()? });
    }
    if let Some(bucket) = host.strip_suffix(".storage.googleapis.com") {
        return Ok(Volume::Bucket { family: "gs", name: bucket.to_owned() });
    }
    Err(format!("the web server '{host}' may serve the files of this table under another name"))
}
