//! Who may do what over the network: principals with their roles, and the keys by which they are known.
//!
//! A principal is a person or a program. It has grants: a role on the whole catalog, on a namespace, or on one table. A
//! key belongs to a principal; the catalog keeps its digest, never the key itself. Programs that open the database
//! themselves are not asked: the rights of their login count ([`grants`](crate::grants)).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> deltalakedb::Result<()> {
//! use deltalakedb::access::{Grant, NewKey, Role};
//!
//! let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
//! db.set_grants("loader", vec![Grant::new(Role::Write, "sales.*".parse()?)]).await?;
//! let key = db.create_key(NewKey::of("loader")).await?;
//! let Some((caller, _)) = db.authenticate(&key.text).await? else { panic!("it is known") };
//! assert!(caller.may(Role::Write, &"sales.orders".parse()?));
//! assert!(!caller.may(Role::Read, &"finance.pay".parse()?));
//! db.revoke_key(&key.info.id).await?;
//! assert!(db.authenticate(&key.text).await?.is_none());
//! # Ok(()) }
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableName, TimestampMs};
use deltalakedb_catalog_core::registry::{
    Expected, Record, RecordKey, RecordWrite, RegistryOutcome,
};
use deltalakedb_catalog_engine::signature::UserName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Db;

/// Kinds of records.
const KEYS: &str = "key";
const PRINCIPALS: &str = "principal";
/// What a key begins with: so that it is found where it should not be.
const PREFIX: &str = "dlk_";
/// Records that are read at a time.
const PAGE: usize = 500;
/// Most grants of a principal.
const MOST_GRANTS: usize = 500;
/// How often a change is tried again when another one was first.
const ATTEMPTS: u32 = 20;

/// What a principal may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See tables, their files, rows and history.
    Read,
    /// Commit to tables.
    Write,
    /// Create, drop and bring back tables.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Read, Role::Write, Role::Admin];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            CatalogError::invalid(format!("{text:?} is no role: read, write or admin"))
        })
    }
}

/// What a role is on: `*` is the whole catalog, `sales.*` a namespace, `sales.orders` a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// All tables.
    Catalog,
    /// All tables of a namespace, and of no other one: `sales.*` is not `sales.eu.*`.
    Namespace(String),
    /// The table that has this name, also one that gets it later.
    Table(TableName),
}

impl Scope {
    /// Whether a table is within it.
    #[must_use]
    pub fn holds(&self, table: &TableName) -> bool {
        match self {
            Scope::Catalog => true,
            Scope::Namespace(namespace) => namespace == table.namespace(),
            Scope::Table(name) => name == table,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Catalog => f.write_str("*"),
            Scope::Namespace(namespace) => write!(f, "{namespace}.*"),
            Scope::Table(name) => name.fmt(f),
        }
    }
}

impl FromStr for Scope {
    type Err = CatalogError;

    /// A table that is called `*` cannot be named.
    fn from_str(text: &str) -> Result<Self> {
        if text == "*" {
            return Ok(Scope::Catalog);
        }
        if let Some(namespace) = text.strip_suffix(".*") {
            // Checked as a table's namespace is.
            return Ok(Scope::Namespace(TableName::new(namespace, "t")?.namespace().to_owned()));
        }
        if !text.contains('.') || text.contains('*') {
            return Err(CatalogError::invalid(format!(
                "{text:?} is no scope: * is the whole catalog, sales.* a namespace, sales.orders a table"
            )));
        }
        Ok(Scope::Table(text.parse()?))
    }
}

impl TryFrom<String> for Scope {
    type Error = CatalogError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.to_string()
    }
}

/// A role on something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// What it is on.
    pub on: Scope,
    /// The role.
    pub role: Role,
}

impl Grant {
    /// A role on something.
    #[must_use]
    pub fn new(role: Role, on: Scope) -> Grant {
        Grant { on, role }
    }
}

/// A person or a program, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// Its name, which commits and the audit have as the user.
    pub name: String,
    /// What it may do.
    pub grants: Vec<Grant>,
}

impl Principal {
    /// Whether it has a role, or one that may more, on a table of this name.
    #[must_use]
    pub fn may(&self, role: Role, table: &TableName) -> bool {
        self.grants.iter().any(|grant| grant.role >= role && grant.on.holds(table))
    }

    /// Whether it may see a table of this namespace, if there is one.
    #[must_use]
    pub fn sees(&self, namespace: &str) -> bool {
        self.grants.iter().any(|grant| match &grant.on {
            Scope::Catalog => true,
            Scope::Namespace(name) => name == namespace,
            Scope::Table(table) => table.namespace() == namespace,
        })
    }

    /// Whether it has a role on the whole catalog.
    #[must_use]
    pub fn may_everywhere(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.role >= role && grant.on == Scope::Catalog)
    }
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The principal that it belongs to.
    pub principal: String,
    /// When it ends.
    pub expires_at: Option<TimestampMs>,
    /// What it is for.
    pub note: Option<String>,
}

impl NewKey {
    /// A key of this principal that does not end by itself.
    #[must_use]
    pub fn of(principal: &str) -> NewKey {
        NewKey { principal: principal.to_owned(), expires_at: None, note: None }
    }
}

/// What the catalog knows of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// The part of the key that is no secret.
    pub id: String,
    /// The principal that it belongs to.
    pub principal: String,
    /// What it is for.
    pub note: Option<String>,
    /// When it was made.
    pub created_at_ms: TimestampMs,
    /// When it ends.
    pub expires_at_ms: Option<TimestampMs>,
    /// When it was revoked.
    pub revoked_at_ms: Option<TimestampMs>,
}

impl KeyInfo {
    /// Whether it opens anything at this time.
    #[must_use]
    pub fn is_valid(&self, now: TimestampMs) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|end| now < end)
    }
}

/// A key that was made. Its text is shown once: the catalog keeps a digest.
#[derive(Clone)]
pub struct CreatedKey {
    /// The key, as clients send it.
    pub text: String,
    /// What the catalog knows of it.
    pub info: KeyInfo,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A key as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredKey {
    principal: String,
    /// SHA-256 of the secret part, in hex. It has 244 random bits: no slow digest makes it safer.
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    created_at: TimestampMs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<TimestampMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<TimestampMs>,
}

impl StoredKey {
    fn info(&self, id: &str) -> KeyInfo {
        KeyInfo {
            id: id.to_owned(),
            principal: self.principal.clone(),
            note: self.note.clone(),
            created_at_ms: self.created_at,
            expires_at_ms: self.expires_at,
            revoked_at_ms: self.revoked_at,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct StoredPrincipal {
    grants: Vec<Grant>,
}

/// `dlk_ID_SECRET`, taken apart.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && (1..=128).contains(&secret.len())).then_some((id, secret))
}

fn digest(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

fn read<T: DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_str(&record.body).map_err(|error| {
        CatalogError::corrupt(format!(
            "the record {} '{}' of the registry cannot be read: {error}",
            record.key.kind(),
            record.key.name()
        ))
    })
}

fn key_of(kind: &str, name: &str) -> Result<RecordKey> {
    RecordKey::new(kind, name)
}

/// The name of a principal is a user's.
fn check_principal(name: &str) -> Result<()> {
    name.parse::<UserName>().map(|_| ())
}

impl Db {
    /// Gives a principal these grants, and takes those that it had. Without grants it may do nothing; its keys stay.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is none, and for more than 500 grants; `Unsupported` for a database without a
    /// registry; those of the database.
    pub async fn set_grants(&self, principal: &str, grants: Vec<Grant>) -> Result<Principal> {
        let (principal, _) = self
            .change_principal(principal, "access.grants", &json!({}), move |_| grants.clone())
            .await?;
        Ok(principal)
    }

    /// Gives a principal one more grant. Whether it did not have it.
    ///
    /// # Errors
    /// Those of [`set_grants`](Db::set_grants).
    pub async fn grant(&self, principal: &str, grant: Grant) -> Result<(Principal, bool)> {
        let detail = json!({ "on": grant.on, "role": grant.role });
        self.change_principal(principal, "access.grant", &detail, move |before| {
            let mut grants: Vec<Grant> = before.to_vec();
            if !grants.contains(&grant) {
                grants.push(grant.clone());
            }
            grants
        })
        .await
    }

    /// Takes a grant from a principal. Whether it had it.
    ///
    /// # Errors
    /// Those of [`set_grants`](Db::set_grants).
    pub async fn ungrant(&self, principal: &str, grant: &Grant) -> Result<(Principal, bool)> {
        let detail = json!({ "on": grant.on, "role": grant.role });
        self.change_principal(principal, "access.ungrant", &detail, |before| {
            before.iter().filter(|other| *other != grant).cloned().collect()
        })
        .await
    }

    async fn change_principal(
        &self,
        principal: &str,
        action: &str,
        detail: &serde_json::Value,
        change: impl Fn(&[Grant]) -> Vec<Grant>,
    ) -> Result<(Principal, bool)> {
        check_principal(principal)?;
        let key = key_of(PRINCIPALS, principal)?;
        for _ in 0..ATTEMPTS {
            let found = self.registry_get(&key).await?;
            let before: StoredPrincipal = found.as_ref().map(read).transpose()?.unwrap_or_default();
            let mut grants = change(&before.grants);
            grants.sort();
            grants.dedup();
            if grants.len() > MOST_GRANTS {
                return Err(CatalogError::invalid(format!(
                    "principal '{principal}' would have {} grants, and {MOST_GRANTS} are the most: grant on \
                     namespaces instead of tables",
                    grants.len()
                )));
            }
            let changed = found.is_none() || grants != before.grants;
            let after = Principal { name: principal.to_owned(), grants: grants.clone() };
            if !changed {
                return Ok((after, false));
            }
            let mut detail = detail.clone();
            detail["principal"] = json!(principal);
            detail["grants"] = json!(grants.len());
            let write = RecordWrite {
                key: key.clone(),
                expected: expected(found.as_ref()),
                body: Some(body(&StoredPrincipal { grants })?),
            };
            if self.wrote(write, action, &detail).await? {
                return Ok((after, true));
            }
        }
        Err(contended(principal))
    }

    /// A principal; one that nobody has named may do nothing.
    ///
    /// # Errors
    /// As of [`set_grants`](Db::set_grants).
    pub async fn principal(&self, name: &str) -> Result<Principal> {
        check_principal(name)?;
        let found = self.registry_get(&key_of(PRINCIPALS, name)?).await?;
        let stored: StoredPrincipal = found.as_ref().map(read).transpose()?.unwrap_or_default();
        Ok(Principal { name: name.to_owned(), grants: stored.grants })
    }

    /// All principals, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn principals(&self) -> Result<Vec<Principal>> {
        let record = |record: &Record| {
            let StoredPrincipal { grants } = read(record)?;
            Ok(Principal { name: record.key.name().to_owned(), grants })
        };
        self.all(PRINCIPALS, record).await
    }

    /// Makes a key. The principal need not have grants yet.
    ///
    /// # Errors
    /// `InvalidInput` for a principal that is no name, an end in the past, and a note that is longer than 200
    /// characters; those of the database.
    pub async fn create_key(&self, new: NewKey) -> Result<CreatedKey> {
        check_principal(&new.principal)?;
        let now = self.clock().now();
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(CatalogError::invalid("the key would end in the past"));
        }
        let long = |note: &String| note.chars().count() > 200 || note.contains(char::is_control);
        if new.note.as_ref().is_some_and(long) {
            return Err(CatalogError::invalid(
                "a key's note has at most 200 characters, and no control characters",
            ));
        }
        let id = self.ids().uuid().simple().to_string();
        let random: Vec<u8> =
            [self.ids().uuid(), self.ids().uuid()].iter().flat_map(|id| *id.as_bytes()).collect();
        let secret = URL_SAFE_NO_PAD.encode(random);
        let stored = StoredKey {
            principal: new.principal,
            sha256: digest(&secret),
            note: new.note,
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
        };
        let write = RecordWrite {
            key: key_of(KEYS, &id)?,
            expected: Expected::Absent,
            body: Some(body(&stored)?),
        };
        let detail =
            json!({ "key": id, "principal": stored.principal, "expires_at": stored.expires_at });
        if !self.wrote(write, "key.create", &detail).await? {
            return Err(contended(&id));
        }
        Ok(CreatedKey { text: format!("{PREFIX}{id}_{secret}"), info: stored.info(&id) })
    }

    /// All keys, by their ids, also those that were revoked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>> {
        let record = |record: &Record| {
            let stored: StoredKey = read(record)?;
            Ok(stored.info(record.key.name()))
        };
        self.all(KEYS, record).await
    }

    /// Ends a key. One that was revoked before stays so.
    ///
    /// # Errors
    /// `InvalidInput` for an id that no key has; those of the database.
    pub async fn revoke_key(&self, id: &str) -> Result<KeyInfo> {
        // Whoever gives the whole key means it.
        let id = split_key(id).map_or(id, |(id, _)| id);
        let key = key_of(KEYS, id)?;
        for _ in 0..ATTEMPTS {
            let Some(found) = self.registry_get(&key).await? else {
                return Err(CatalogError::invalid(format!(
                    "there is no key {:?}: `dl keys list` shows the ids",
                    id.chars().take(40).collect::<String>()
                )));
            };
            let mut stored: StoredKey = read(&found)?;
            if stored.revoked_at.is_some() {
                return Ok(stored.info(id));
            }
            stored.revoked_at = Some(self.clock().now());
            let write = RecordWrite {
                key: key.clone(),
                expected: expected(Some(&found)),
                body: Some(body(&stored)?),
            };
            let detail = json!({ "key": id, "principal": stored.principal });
            if self.wrote(write, "key.revoke", &detail).await? {
                return Ok(stored.info(id));
            }
        }
        Err(contended(id))
    }

    /// The principal that a key belongs to, and the key; none if it is no key, has ended or was revoked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn authenticate(&self, key: &str) -> Result<Option<(Principal, KeyInfo)>> {
        let Some((id, secret)) = split_key(key) else { return Ok(None) };
        let Some(found) = self.registry_get(&key_of(KEYS, id)?).await? else { return Ok(None) };
        let stored: StoredKey = read(&found)?;
        if digest(secret) != stored.sha256 || !stored.info(id).is_valid(self.clock().now()) {
            return Ok(None);
        }
        let principal = self.principal(&stored.principal).await?;
        Ok(Some((principal, stored.info(id))))
    }

    async fn all<T>(&self, kind: &str, of: impl Fn(&Record) -> Result<T>) -> Result<Vec<T>> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.registry_list(kind, after.as_deref(), PAGE).await?;
            for record in &page.items {
                found.push(of(record)?);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Whether a write took effect; not, if another one was first. Its row of the audit is in the same transaction.
    async fn wrote(
        &self,
        write: RecordWrite,
        action: &str,
        detail: &serde_json::Value,
    ) -> Result<bool> {
        let entry = self.entry(action, detail)?;
        let outcome = self.registry_write(&[write], Some(entry)).await?;
        Ok(matches!(outcome, RegistryOutcome::Written(_)))
    }
}

fn expected(found: Option<&Record>) -> Expected {
    found.map_or(Expected::Absent, |record| Expected::Revision(record.revision))
}

fn body(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| CatalogError::invalid(format!("it cannot be written as JSON: {error}")))
}

fn contended(name: &str) -> CatalogError {
    CatalogError::busy(
        format!("'{name}' is changed by others all the time"),
        WriteState::NotApplied,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn db() -> Db {
        Db::create(&"memory://".parse().unwrap()).await.unwrap()
    }

    fn name(text: &str) -> TableName {
        text.parse().unwrap()
    }

    fn grant(role: Role, on: &str) -> Grant {
        Grant::new(role, on.parse().unwrap())
    }

    #[test]
    fn scopes_hold_what_they_name_and_nothing_else() {
        for (scope, inside, outside) in [
            ("*", vec!["a.b", "sales.eu.x"], vec![]),
            ("sales.*", vec!["sales.orders"], vec!["sales.eu.orders", "sale.s", "salesx.t"]),
            ("sales.eu.*", vec!["sales.eu.orders"], vec!["sales.orders"]),
            (
                "sales.orders",
                vec!["sales.orders"],
                vec!["sales.order", "sales.orders2", "Sales.orders"],
            ),
        ] {
            let parsed: Scope = scope.parse().unwrap();
            assert_eq!(parsed.to_string(), scope);
            assert!(inside.iter().all(|table| parsed.holds(&name(table))), "{scope}");
            assert!(!outside.iter().any(|table| parsed.holds(&name(table))), "{scope}");
        }
        for text in ["", "orders", "sal*", "*.orders", "a.b*", ".*", "a..*", "**", " .*"] {
            assert_eq!(text.parse::<Scope>().unwrap_err().code(), "invalid_input", "{text}");
        }
        assert!("owner".parse::<Role>().is_err());
        assert!(Role::Read < Role::Write && Role::Write < Role::Admin);
    }

    #[tokio::test]
    async fn grants_come_and_go() {
        let db = db().await;
        assert!(db.principal("ann").await.unwrap().grants.is_empty());
        assert!(db.grant("ann", grant(Role::Read, "a.*")).await.unwrap().1);
        assert!(!db.grant("ann", grant(Role::Read, "a.*")).await.unwrap().1);
        let (ann, _) = db.grant("ann", grant(Role::Write, "a.t")).await.unwrap();
        assert!(ann.may(Role::Read, &name("a.u")) && !ann.may(Role::Write, &name("a.u")));
        assert!(ann.may(Role::Write, &name("a.t")) && !ann.may(Role::Admin, &name("a.t")));
        assert!(!ann.may_everywhere(Role::Read));
        let (ann, had) = db.ungrant("ann", &grant(Role::Read, "a.*")).await.unwrap();
        assert!(had && !ann.may(Role::Read, &name("a.u")) && ann.may(Role::Read, &name("a.t")));
        db.set_grants("bob", vec![grant(Role::Admin, "*")]).await.unwrap();
        let all = db.principals().await.unwrap();
        assert_eq!(all.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(all[1].may_everywhere(Role::Write));
        let many = (0..=MOST_GRANTS).map(|n| grant(Role::Read, &format!("n{n}.*"))).collect();
        assert_eq!(db.set_grants("bob", many).await.unwrap_err().code(), "invalid_input");
        assert_eq!(db.grant("", grant(Role::Read, "*")).await.unwrap_err().code(), "invalid_input");
    }

    #[tokio::test]
    async fn grants_of_many_writers_are_all_there() {
        let db = db().await;
        let give = (0..12).map(|n| {
            let db = db.clone();
            async move { db.grant("ann", grant(Role::Read, &format!("n{n}.*"))).await.unwrap() }
        });
        futures::future::join_all(give).await;
        assert_eq!(db.principal("ann").await.unwrap().grants.len(), 12);
    }

    #[tokio::test]
    async fn keys_open_until_they_end() {
        let db = db().await;
        db.set_grants("ann", vec![grant(Role::Read, "*")]).await.unwrap();
        let key = db.create_key(NewKey::of("ann")).await.unwrap();
        assert!(key.text.starts_with("dlk_") && !format!("{key:?}").contains(&key.text));
        let stored = db.registry_get(&key_of(KEYS, &key.info.id).unwrap()).await.unwrap().unwrap();
        let secret = split_key(&key.text).unwrap().1;
        assert!(secret.len() == 43 && !stored.body.contains(secret));
        let (who, info) = db.authenticate(&key.text).await.unwrap().unwrap();
        assert_eq!((who.name.as_str(), &info), ("ann", &key.info));
        let other = db.create_key(NewKey::of("ann")).await.unwrap();
        assert_ne!(key.text, other.text);
        let (id, other_secret) = (&key.info.id, split_key(&other.text).unwrap().1);
        for wrong in [
            String::new(),
            "dlk_".to_owned(),
            format!("dlk_{id}"),
            format!("dlk_{id}_"),
            format!("dlk_{id}_{}", secret.to_lowercase()),
            format!("dlk_{id}_{other_secret}"),
            format!("{}x", key.text),
            key.text[..key.text.len() - 1].to_owned(),
            key.text.to_uppercase(),
            format!("dlk_{}_{secret}", "0".repeat(32)),
            format!("dlk_{}_{secret}", "z".repeat(32)),
        ] {
            assert!(db.authenticate(&wrong).await.unwrap().is_none(), "{wrong}");
        }
        db.revoke_key(id).await.unwrap();
        assert!(db.authenticate(&key.text).await.unwrap().is_none());
        assert_eq!(db.revoke_key(&key.text).await.unwrap().id, *id);
        assert!(db.authenticate(&other.text).await.unwrap().is_some());
        let past = NewKey { expires_at: Some(TimestampMs(1)), ..NewKey::of("ann") };
        assert_eq!(db.create_key(past).await.unwrap_err().code(), "invalid_input");
        let soon = TimestampMs(db.clock().now().0 + 30);
        let brief = NewKey { expires_at: Some(soon), ..NewKey::of("ann") };
        let brief = db.create_key(brief).await.unwrap();
        while db.clock().now() <= soon {
            tokio::task::yield_now().await;
        }
        assert!(db.authenticate(&brief.text).await.unwrap().is_none());
        assert_eq!(db.keys().await.unwrap().len(), 3);
        assert_eq!(db.revoke_key("nobody").await.unwrap_err().code(), "invalid_input");
        // Who did it is told, and no secret.
        let events = db.audit(crate::audit::AuditQuery::default()).await.unwrap();
        let events: Vec<_> = futures::TryStreamExt::try_collect(events).await.unwrap();
        let actions: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
        assert_eq!(
            actions,
            ["access.grants", "key.create", "key.create", "key.revoke", "key.create"]
        );
        assert!(!format!("{events:?}").contains(secret));
    }
}
